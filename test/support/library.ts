/** Connections and servers of the library that end with the test. */
import { type ConnectOptions, connect, type SpipedServer, type SpipedSocket } from "../../src/index.ts";
import { cleanUp } from "./programs.ts";

/** Connects; the socket is destroyed at the end of the test. */
export async function open(options: ConnectOptions): Promise<SpipedSocket> {
  const socket = await connect(options);
  cleanUp(() => void socket.destroy());
  return socket;
}

/** Starts a library server on a free port, and returns that. */
export async function listen(server: SpipedServer): Promise<number> {
  const sockets: SpipedSocket[] = [];
  server.on("connection", (socket) => {
    sockets.push(socket);
    socket.on("error", () => {});
  });
  await server.listen({ port: 0, host: "127.0.0.1" });
  cleanUp(async () => {
    for (const socket of sockets) socket.destroy();
    await server.close();
  });
  return (server.address() as { port: number }).port;
}
