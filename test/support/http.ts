/** Requests to the status server. */
import { type IncomingHttpHeaders, type IncomingMessage, request } from "node:http";
import { connectTo, type TestAddress } from "./programs.ts";
import { readAll } from "./servers.ts";

/** An HTTP response. */
export interface Answer {
  readonly status: number | undefined;
  readonly body: string;
  readonly headers: IncomingHttpHeaders;
}

/** Sends a request to an HTTP server on a new connection; rejects after 10 s. */
export async function ask(
  address: TestAddress,
  path: string,
  options: { readonly method?: string; readonly headers?: Readonly<Record<string, string>> } = {},
): Promise<Answer> {
  const where = "path" in address.connect ? { socketPath: address.connect.path } : address.connect;
  const signal = AbortSignal.timeout(10_000);
  const asked = request({ ...where, path, ...options, agent: false, signal }).end();
  const response = await new Promise<IncomingMessage>((resolve, reject) => {
    asked.once("response", resolve);
    asked.once("error", reject);
  });
  return { status: response.statusCode, body: String(await readAll(response)), headers: response.headers };
}

/** Sends text unchanged; returns everything received until the server closes the connection. */
export async function askRaw(address: TestAddress, text: string): Promise<string> {
  const socket = await connectTo(address);
  socket.write(text);
  return String(await readAll(socket));
}
