/**
 * The demo's programs: Debian's nats-server twice, and a publisher and a subscriber made of bash and cat.
 * Nobody here wrote them. (nc would do, but it ends when CRIU interrupts its poll.)
 */
import { randomInt } from "node:crypto";
import { createServer, type Server } from "node:net";

export interface DemoProgram {
  readonly process: string;
  /** Command and arguments, as given to `recovery-line run`. */
  readonly command: readonly string[];
  /** A file that holds `text` once the program is ready; absent: it needs no waiting for. */
  readonly ready?: { readonly log: string; readonly text: string };
}

/** Below the range that the kernel gives to outgoing connections: of those, one could take a port between the look and its use. */
const PORTS = { from: 12_000, to: 32_000 } as const;

/** Free loopback ports, distinct. */
export async function freePorts(count: number): Promise<number[]> {
  const servers: Server[] = [];
  while (servers.length < count) {
    const server = await listen(randomInt(PORTS.from, PORTS.to));
    if (server !== undefined) servers.push(server);
  }
  const ports = servers.map((server) => (server.address() as { port: number }).port);
  await Promise.all(servers.map((server) => new Promise((resolve) => server.close(resolve))));
  return ports;
}

/** Undefined where somebody has the port. */
function listen(port: number): Promise<Server | undefined> {
  return new Promise((resolve, reject) => {
    const server = createServer();
    server.once("error", (error: NodeJS.ErrnoException) => {
      if (error.code === "EADDRINUSE" || error.code === "EACCES") resolve(undefined);
      else reject(error);
    });
    server.listen(port, "127.0.0.1", () => resolve(server));
  });
}

export interface DemoPrograms {
  readonly recorded: readonly DemoProgram[];
  /** The command of a client that nobody records, and the process it talks with. */
  readonly client: readonly string[];
  readonly server: string;
}

/** What a server writes into its log once it takes connections. */
export const SERVER_READY = "Server is ready";

/** What the second one writes once it and the first have met. */
const SERVERS_MET = "Route connection created";

/** Messages the publisher sends, at most 500 a second. */
const MESSAGES = 20_000;
/** How long publisher and subscriber stay when they have nothing more to do, or their server is gone: until the demo ends them. */
const STAY_S = 600;

/** A cluster of two servers; publisher and client talk to the first, the subscriber to the second. Files go to `folder`. */
export async function natsPrograms(folder: string): Promise<DemoPrograms> {
  const [client1, client2, route1, route2] = (await freePorts(4)) as [number, number, number, number];
  const recorded = [
    server("nats-1", client1, route1, route2, folder, SERVER_READY),
    server("nats-2", client2, route2, route1, folder, SERVERS_MET),
    { process: "subscriber", command: ["bash", "-c", subscriber(client2, `${folder}/received.txt`)] },
    { process: "publisher", command: ["bash", "-c", publisher(client1)] },
  ];
  return { recorded, client: ["bash", "-c", client(client1)], server: "nats-1" };
}

function server(
  name: string,
  port: number,
  route: number,
  other: number,
  folder: string,
  text: string,
): DemoProgram {
  const log = `${folder}/${name}.log`;
  const address = ["-a", "127.0.0.1", "-p", `${port}`, "-n", name, "-l", log];
  const cluster = ["--cluster_name", "demo", "--cluster", `nats://127.0.0.1:${route}`];
  const routes = ["--routes", `nats://127.0.0.1:${other}`];
  const command = ["nats-server", ...address, ...cluster, ...routes];
  return { process: name, command, ready: { log, text } };
}

function subscriber(port: number, file: string): string {
  return [
    `exec 3<>/dev/tcp/127.0.0.1/${port}; printf 'CONNECT {"verbose":false}\\r\\nSUB orders 1\\r\\n' >&3`,
    `cat <&3 >>'${file}'; exec sleep ${STAY_S}`,
  ].join("\n");
}

/** Asks the server ten times a second whether it is there, as a health check does, and reads what that says. */
function client(port: number): string {
  return [
    `trap '' PIPE; exec 3<>/dev/tcp/127.0.0.1/${port}; printf 'CONNECT {"verbose":false}\\r\\n' >&3`,
    `while printf 'PING\\r\\n' >&3 && read -r -t ${STAY_S} answer <&3; do sleep 0.1; done`,
  ].join("\n");
}

/** Ten messages, a pause, and again; a server that is gone ends it, and not by SIGPIPE. */
function publisher(port: number): string {
  return [
    `trap '' PIPE; exec 3<>/dev/tcp/127.0.0.1/${port}; printf 'CONNECT {"verbose":false}\\r\\n' >&3`,
    `for ((i = 1; i <= ${MESSAGES}; i++)); do`,
    `  printf 'PUB orders 12\\r\\norder %06d\\r\\n' $i >&3 || break`,
    `  ((i % 10)) || sleep 0.02`,
    `done; exec sleep ${STAY_S}`,
  ].join("\n");
}
