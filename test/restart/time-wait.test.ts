import { spawnSync } from "node:child_process";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { type AddressInfo, connect, createServer, type Socket } from "node:net";
import { expect, test } from "vitest";
import { deadConnections, stillThere } from "../../src/host/open-connections.ts";
import { connectionsGone, endTimeWait } from "../../src/host/time-wait.ts";
import { until } from "../daemon/rig.ts";

const TIME_WAIT = "06";
const hasSs = spawnSync("sh", ["-c", "command -v ss"]).status === 0;

/** Ports of a connection that has ended, one of whose ends waits out its time now. */
async function ended(): Promise<{ client: number; server: number }> {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const port = (server.address() as AddressInfo).port;
  const accepted = once(server, "connection") as Promise<[Socket]>;
  const client = connect(port, "127.0.0.1");
  const [other] = await accepted;
  const ports = { client: client.localPort!, server: port };
  other.resume().end();
  client.resume(); // it closes when it has heard of the end: two at the same moment would both wait
  await Promise.all([once(other, "close"), once(client, "close")]);
  server.close();
  await until("one end waits", () => waits(ports));
  return ports;
}

function waits({ client, server }: { client: number; server: number }): boolean {
  const hex = (port: number): string => port.toString(16).toUpperCase().padStart(4, "0");
  return readFileSync("/proc/net/tcp", "utf8")
    .split("\n")
    .map((line) => line.trim().split(/\s+/))
    .some(([, local, remote, state]) => {
      const pair = [local?.split(":")[1], remote?.split(":")[1]];
      return state === TIME_WAIT && pair.includes(hex(client)) && pair.includes(hex(server));
    });
}

test.skipIf(!hasSs || process.geteuid?.() !== 0)(
  "TIME_WAIT of a connection that comes back is ended, that of another stays (RL_NOT_SUPPORTED without ss or root)",
  async () => {
    const [mine, other] = [await ended(), await ended()];
    const local = { v6: false, address: "127.0.0.1", port: mine.client };
    await endTimeWait([{ local, remote: { ...local, port: mine.server } }]);
    expect(waits(mine)).toBe(false);
    expect(waits(other)).toBe(true);
  },
);

test.skipIf(!hasSs || process.geteuid?.() !== 0)(
  "TIME_WAIT at a port that is listened on again is ended, whoever was at the other end (RL_NOT_SUPPORTED without ss or root)",
  async () => {
    const [mine, other] = [await ended(), await ended()];
    await connectionsGone([], [mine.server]);
    expect(waits(mine)).toBe(false);
    expect(waits(other)).toBe(true);
  },
);

test("an end that waits to be accepted, or has closed, is not dead while its client lives, also where it listens for IPv6 and is asked by IPv4", async () => {
  const server = createServer({ pauseOnConnect: true }).listen(0, "::");
  await once(server, "listening");
  const { port } = server.address() as AddressInfo;
  const accepted = once(server, "connection") as Promise<[Socket]>;
  const client = connect({ port, host: "127.0.0.1", allowHalfOpen: true });
  const [end] = await accepted;
  server.close();
  try {
    end.destroy(); // FIN-WAIT: held by nobody, its client has not closed
    await until(
      "it is closing",
      () => stillThere([{ local: at(port), remote: at(client.localPort!) }]) !== undefined,
    );
    expect(deadConnections([port])).toEqual([]);
  } finally {
    client.destroy();
  }
});

/** As the table of IPv6 has an address of IPv4. */
function at(port: number) {
  return { v6: true, address: "0:0:0:0:0:ffff:7f00:1", port };
}
