/**
 * Ends connections by `ss -K`, and the TIME_WAIT of those whose both ends are dead: for a minute the kernel lets no socket bind to the address if the one
 * that closed had not set SO_REUSEADDR (Open MPI's listeners), and a restored one must have it. `ss -K` asks the kernel (inet_diag
 * destroy, CONFIG_INET_DIAG_DESTROY); without it, or on a kernel that does not, the minute has to pass.
 */
import { once } from "node:events";
import { setTimeout as sleep } from "node:timers/promises";
import { RecoveryLineError } from "../model/errors.ts";
import { deadConnections, type EndAddress, orphansAmong, stillThere, unmapped } from "./open-connections.ts";
import { type ConnectionAddresses, inNetwork } from "./port-block.ts";
import { spawn } from "./spawn.ts";

const LIMIT_MS = 10_000;
/** Of one filter, count: it becomes one netlink attribute of at most 64 KiB. */
const CONNECTIONS_A_CALL = 100;

/** How long ends that nobody holds any more may take to close each other, and for how long a connection that comes back may stay, in ms. */
const CLOSING_MS = 500;
const GONE_LIMIT_MS = 10_000;
/** Longest wait for those that are no image's: most listeners can be restored beside them, in ms. */
const DEAD_LIMIT_MS = 2_000;

/**
 * Until dead processes' connections are no more, and their TIME_WAIT neither: their successors take the same addresses, and listen on `listening`, where
 * also a connection that no image holds would be in the way. Ends that nobody holds and
 * that don't hear each other (what they said was dropped while a checkpoint stood still, and they wait before they say it again; their numbers don't
 * fit) would stay for a minute or two: they are ended after CLOSING_MS. Throws RL_TIMEOUT.
 */
export async function connectionsGone(
  connections: readonly ConnectionAddresses[],
  listening: readonly number[],
): Promise<void> {
  const fromMs = performance.now();
  const dead = deadConnections(listening);
  for (;;) {
    const passedMs = performance.now() - fromMs;
    const left = stillThere(connections);
    if (left === undefined && (passedMs > DEAD_LIMIT_MS || stillThere(dead) === undefined)) break;
    if (left !== undefined && passedMs > GONE_LIMIT_MS) throw stays(left);
    if (passedMs > CLOSING_MS) await resetConnections(orphansAmong([...connections, ...dead]));
    await sleep(passedMs > CLOSING_MS ? 100 : 5);
  }
  await endTimeWait(connections);
  await destroyEach(
    "time-wait",
    listening.map((port) => `sport = :${port}`),
  );
}

function stays({ local, remote }: ConnectionAddresses): RecoveryLineError {
  return new RecoveryLineError(
    "RL_TIMEOUT",
    `the old connection from ${local.address}:${local.port} to ${remote.address}:${remote.port} does not end`,
    "Something outside of the application holds it. Try again.",
  );
}

/** Only sockets in TIME_WAIT, only these connections, from either end. Failure is no error here: a restore that needs it says so. */
export function endTimeWait(connections: readonly ConnectionAddresses[]): Promise<void> {
  return destroy("time-wait", connections);
}

/**
 * Ends these connections, from either end, in whatever state: whoever still holds one gets ECONNABORTED at its next call, so that nothing it writes
 * afterwards is taken and lost. Failure is no error here: `endsConnections` tells before whether `ss` is there.
 */
export function endConnections(connections: readonly ConnectionAddresses[]): Promise<void> {
  return destroy("connected", connections);
}

/** Resets them from the local end: whoever has the other one hears it, as far as the numbers of both still fit. `networks`: also in those of these processes. */
export async function resetConnections(
  connections: readonly ConnectionAddresses[],
  networks: readonly number[] = [],
): Promise<void> {
  const ends = connections.map(unmapped).map(({ local, remote }) => end(local, remote));
  for (const network of [undefined, ...networks]) await destroyEach("connected", ends, network);
}

/** True if `ss` can be started. */
export async function endsConnections(): Promise<boolean> {
  return (await ss(["-V"])) === 0;
}

function destroy(state: string, connections: readonly ConnectionAddresses[]): Promise<void> {
  const ends = connections
    .map(unmapped)
    .flatMap(({ local, remote }) => [end(local, remote), end(remote, local)]);
  return destroyEach(state, ends);
}

async function destroyEach(state: string, ends: readonly string[], network?: number): Promise<void> {
  const all = [...new Set(ends)];
  for (let at = 0; at < all.length; at += CONNECTIONS_A_CALL) {
    const filter = all.slice(at, at + CONNECTIONS_A_CALL).join(" or ");
    await ss(["-K", "-t", "-n", "state", state, filter], network);
  }
}

/** In a session of its own: a Ctrl-C of the terminal would end it, and the restore would fail for want of it. */
async function ss(args: readonly string[], network?: number): Promise<number | null | undefined> {
  const words = [...inNetwork(network), "ss", ...args];
  const child = spawn(words[0]!, words.slice(1), { stdio: "ignore", detached: true });
  const timer = setTimeout(() => child.kill("SIGKILL"), LIMIT_MS);
  const ended = once(child, "exit") as Promise<[number | null]>;
  const [code] = await ended.catch(() => [undefined]); // it does not start
  clearTimeout(timer);
  return code;
}

function end(source: EndAddress, destination: EndAddress): string {
  return `( src ${place(source)} and dst ${place(destination)} )`;
}

function place({ v6, address, port }: EndAddress): string {
  return v6 ? `[${address}]:${port}` : `${address}:${port}`;
}
