/**
 * The demo's programs: Debian's nats-server twice, and a publisher and a subscriber made of bash and cat.
 * Nobody here wrote them. (nc would do, but it ends when CRIU interrupts its poll.)
 */
import { createServer } from "node:net";

export interface DemoProgram {
  readonly process: string;
  /** Command and arguments, as given to `recovery-line run`. */
  readonly command: readonly string[];
  /** A file that says so once the program is ready; absent: it needs no waiting for. */
  readonly log?: string;
}

/** Free loopback ports, distinct. */
export async function freePorts(count: number): Promise<number[]> {
  const servers = await Promise.all(Array.from({ length: count }, listen));
  const ports = servers.map((server) => (server.address() as { port: number }).port);
  await Promise.all(servers.map((server) => new Promise((resolve) => server.close(resolve))));
  return ports;
}

function listen(): Promise<ReturnType<typeof createServer>> {
  return new Promise((resolve, reject) => {
    const server = createServer();
    server.once("error", reject);
    server.listen(0, "127.0.0.1", () => resolve(server));
  });
}

/** What a server writes into its log once it takes connections. */
export const SERVER_READY = "Server is ready";

/** Messages the publisher sends, at most 500 a second: it ends by itself. */
const MESSAGES = 20_000;

/** A cluster of two servers; the publisher talks to the first, the subscriber to the second. Files go to `folder`. */
export async function natsPrograms(folder: string): Promise<DemoProgram[]> {
  const [client1, client2, route1, route2] = (await freePorts(4)) as [number, number, number, number];
  return [
    server("nats-1", client1, route1, route2, folder),
    server("nats-2", client2, route2, route1, folder),
    { process: "subscriber", command: ["bash", "-c", subscriber(client2, `${folder}/received.txt`)] },
    { process: "publisher", command: ["bash", "-c", publisher(client1)] },
  ];
}

function server(name: string, port: number, route: number, other: number, folder: string): DemoProgram {
  const log = `${folder}/${name}.log`;
  const address = ["-a", "127.0.0.1", "-p", `${port}`, "-n", name, "-l", log];
  const cluster = ["--cluster_name", "demo", "--cluster", `nats://127.0.0.1:${route}`];
  const routes = ["--routes", `nats://127.0.0.1:${other}`];
  return { process: name, command: ["nats-server", ...address, ...cluster, ...routes], log };
}

function subscriber(port: number, file: string): string {
  return `exec 3<>/dev/tcp/127.0.0.1/${port}; printf 'CONNECT {"verbose":false}\\r\\nSUB orders 1\\r\\n' >&3; exec cat <&3 >'${file}'`;
}

/** Ten messages, a pause, and again. */
function publisher(port: number): string {
  return [
    `exec 3<>/dev/tcp/127.0.0.1/${port}; printf 'CONNECT {"verbose":false}\\r\\n' >&3`,
    `for ((i = 1; i <= ${MESSAGES}; i++)); do`,
    `  printf 'PUB orders 12\\r\\norder %06d\\r\\n' $i >&3`,
    `  ((i % 10)) || sleep 0.02`,
    `done; sleep 100`,
  ].join("\n");
}
