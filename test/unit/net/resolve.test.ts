/** Names of hosts and services. */
import { beforeEach, describe, expect, it, vi } from "vitest";
import { parseAddress } from "../../../src/net/address.ts";
import { ResolveError, resolveAddress } from "../../../src/net/resolve.ts";

const { lookup, readFile } = vi.hoisted(() => ({ lookup: vi.fn(), readFile: vi.fn() }));
vi.mock("node:dns/promises", () => ({ lookup }));
vi.mock("../../../src/net/async-fs.ts", () => ({ readFile }));

const SERVICES = `
# comment smtp 1/tcp
syslog          514/udp
domain          53/udp
domain          53/tcp
smtp            25/tcp          mail
http            80/tcp          www     # WorldWideWeb
kerberos        88/tcp          kerberos5 krb5
`;

beforeEach(() => {
  readFile.mockReset().mockResolvedValue(SERVICES);
  lookup.mockReset().mockResolvedValue([{ address: "192.0.2.1", family: 4 }]);
});

const resolve = (text: string) => resolveAddress(parseAddress(text));
const portOf = async (service: string) =>
  (await resolve(`example.org:${service}`)).map((one) => "port" in one && one.port);

describe("an address", () => {
  it("that is a path or an IP address needs no lookup", async () => {
    expect(await resolve("/run/socket")).toEqual([{ kind: "unix", path: "/run/socket" }]);
    expect(await resolve("[2001:db8::1]:25")).toEqual([
      { kind: "tcp", host: "2001:db8::1", port: 25, family: 6 },
    ]);
    expect(lookup).not.toHaveBeenCalled();
  });

  it("with a host name has all addresses, in the order of the system", async () => {
    lookup.mockResolvedValue([
      { address: "2001:db8::1", family: 6 },
      { address: "192.0.2.1", family: 4 },
    ]);
    expect(await resolve("example.org:25")).toEqual([
      { kind: "tcp", host: "2001:db8::1", port: 25, family: 6 },
      { kind: "tcp", host: "192.0.2.1", port: 25, family: 4 },
    ]);
    expect(lookup).toHaveBeenCalledWith("example.org", { all: true, verbatim: true });
  });

  it.each([
    ["ENOTFOUND", "Name or service not known"],
    ["EAI_AGAIN", "Temporary failure in name resolution"],
    ["EAI_FAIL", "Non-recoverable failure in name resolution"],
    ["EOTHER", "getaddrinfo EOTHER"],
  ])("whose lookup fails with %s is reported as the C library does", async (code, text) => {
    lookup.mockRejectedValue(Object.assign(new Error(`getaddrinfo ${code}`), { code }));
    const error = await resolve("example.org:25").catch((error) => error);
    expect(error).toBeInstanceOf(ResolveError);
    expect(error).toMatchObject({
      code: "ERR_SPIPED_RESOLVE",
      message: `Error looking up example.org: ${text}`,
    });
  });
});

describe("a service", () => {
  it.each([
    ["25", 25],
    ["+25", 25],
    [" 25", 25],
    ["65537", 1],
    ["smtp", 25],
    ["mail", 25],
    ["www", 80],
    ["krb5", 88],
    ["domain", 53],
  ])("%j is port %i", async (service, port) => {
    expect(await portOf(service)).toEqual([port]);
  });

  it.each(["nosuchservice", "syslog", "WorldWideWeb", "25/tcp", "smtp "])(
    "%j is unknown",
    async (service) => {
      await expect(portOf(service)).rejects.toThrow(
        "Error looking up example.org: Servname not supported for ai_socktype",
      );
      expect(lookup).not.toHaveBeenCalled();
    },
  );

  it("is unknown on a machine without a list of services, unless it is a number", async () => {
    readFile.mockRejectedValue(new Error("ENOENT"));
    await expect(portOf("smtp")).rejects.toThrow("Servname not supported");
    expect(await portOf("25")).toEqual([25]);
  });
});
