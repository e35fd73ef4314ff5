/**
 * Keeps TCP connections of processes that stand still, or are not there yet, from hearing anything: their packets are dropped where they
 * come in. A connection that comes back before its other end would be reset; queues that are read one after the other would move.
 *
 * Rules go into an nftables table of their own. A lasting one stays when its maker dies (a restart that is taken up again needs it
 * closed); the other belongs to a running `nft` and goes with it.
 */

import type { ChildProcess } from "node:child_process";
import { once } from "node:events";
import { setTimeout as sleep } from "node:timers/promises";
import { RecoveryLineError } from "../model/errors.ts";
import { type EndAddress, networkOf, unmapped } from "./open-connections.ts";
import { spawn } from "./spawn.ts";
import { hasEnded } from "./watchdog.ts";

export interface ConnectionAddresses {
  readonly local: EndAddress;
  readonly remote: EndAddress;
}

const LIMIT_MS = 10_000;
/** Before everything else that looks at packets. */
const PRIORITY = -350;

/** Names may hold characters that nftables has other uses for. */
function tableName(app: string, purpose: "restart" | "checkpoint" | "newcomers"): string {
  return `recovery_line_${purpose}_${Buffer.from(app).toString("hex")}`;
}

let made = 0;

/** Others' checkpoints of the application block theirs at the same time, and a table has one owner. */
function ownTableName(app: string, purpose: "checkpoint" | "newcomers"): string {
  made += 1;
  return `${tableName(app, purpose)}_${process.pid}_${made}`;
}

/**
 * Drops what comes in for the connections, from either end, and new ones to `ports`, until `unblockRestart`: a listener that is back takes
 * them before anybody records its process. A table that a dead restart left is replaced.
 */
export async function blockForRestart(
  app: string,
  connections: readonly ConnectionAddresses[],
  ports: readonly number[],
): Promise<void> {
  const table = tableName(app, "restart");
  const fresh = `add table inet ${table}\ndelete table inet ${table}\n`;
  await nft(`${fresh}add table inet ${table}\n${rules(table, connections)}${newcomers(table, ports)}`);
}

/**
 * For a network that comes back with a process, where nobody else is: what `nft` is told so that nothing is heard or said there, until
 * `unblockRestart`.
 */
export function silence(app: string): string {
  const table = tableName(app, "restart");
  const chains = ["input", "output"].map(
    (hook) =>
      `add chain inet ${table} ${hook} { type filter hook ${hook} priority ${PRIORITY}; policy drop; }\n`,
  );
  return `add table inet ${table}\n${chains.join("")}`;
}

/** Also where nothing is blocked. `networks`: also in those of these processes; that of one that has ended is gone, or not its any more. */
export async function unblockRestart(app: string, networks: readonly number[] = []): Promise<void> {
  const table = tableName(app, "restart");
  for (const network of [undefined, ...networks])
    try {
      await deleteTable(table, network);
    } catch (error) {
      if (network === undefined || networkOf(network) !== "") throw error;
    }
}

/** Names of the tables of family inet in this network namespace, or in that of a process. Throws RL_NOT_SUPPORTED. */
export async function tables(network?: number): Promise<string[]> {
  const printed = await nft("list tables inet\n", network);
  return [...printed.matchAll(/^table inet (\S+)$/gm)].map(([, name]) => name!);
}

/** Pairs of ports, source before destination, of the connections that a table names in its sets. */
export async function tablePorts(name: string, network?: number): Promise<[number, number][]> {
  const printed = await nft(`list table inet ${name}\n`, network);
  const connections = printed.matchAll(/[0-9a-f.:]+ \. (\d+) \. [0-9a-f.:]+ \. (\d+)/g);
  return [...connections].map(([, source, destination]) => [Number(source), Number(destination)]);
}

/** Also where it is gone. */
export async function deleteTable(name: string, network?: number): Promise<void> {
  await nft(`add table inet ${name}\ndelete table inet ${name}\n`, network);
}

/** The application for whose restart a table blocks connections; undefined for all other tables. */
export function restartTableApp(name: string): string | undefined {
  const hex = /^recovery_line_restart_((?:[0-9a-f]{2})+)$/.exec(name)?.[1];
  return hex === undefined ? undefined : Buffer.from(hex, "hex").toString();
}

/** The same while `work` runs, and no longer than this process lives, in the network namespaces of these processes and in ours. */
export function whileBlocked<T>(
  app: string,
  connections: readonly ConnectionAddresses[],
  networks: readonly number[],
  work: () => Promise<T>,
): Promise<T> {
  if (connections.length === 0) return work();
  const table = ownTableName(app, "checkpoint");
  return whileTables(
    table,
    [undefined, ...othersOf(networks)].map((network) => ({ network, script: rules(table, connections) })),
    work,
  );
}

/** All but ours. */
function othersOf(networks: readonly number[]): number[] {
  const ours = networkOf("self");
  return networks.filter((pid) => networkOf(pid) !== ours);
}

/** In each of its networks; one process of another names that. */
function whileTables<T>(
  table: string,
  [first, ...rest]: readonly { readonly network: number | undefined; readonly script: string }[],
  work: () => Promise<T>,
): Promise<T> {
  if (first === undefined) return work();
  return whileTable(table, first.script, first.network, () => whileTables(table, rest, work));
}

/**
 * While `work` runs nobody gets a new connection to these ports: who asks for one asks again a second later (TCP's first timeout). Those
 * that have one are not touched.
 */
export function whileNewcomersWait<T>(
  app: string,
  listening: readonly { readonly network: number; readonly ports: readonly number[] }[],
  work: () => Promise<T>,
): Promise<T> {
  const table = ownTableName(app, "newcomers");
  const ours = networkOf("self");
  const tables = listening
    .filter(({ ports }) => ports.length > 0)
    .map(({ network, ports }) => ({
      network: networkOf(network) === ours ? undefined : network,
      script: `${inputChain(table)}${newcomers(table, ports)}`,
    }));
  return whileTables(table, tables, work);
}

function newcomers(table: string, ports: readonly number[]): string {
  if (ports.length === 0) return "";
  const asks = `tcp flags & (syn | ack) == syn tcp dport { ${[...new Set(ports)].join(", ")} }`;
  return `add rule inet ${table} input ${asks} drop\n`;
}

/** A table that goes with its maker, an `nft` that ends when `work` does or this process dies. */
async function whileTable<T>(
  table: string,
  script: string,
  network: number | undefined,
  work: () => Promise<T>,
): Promise<T> {
  const child = await startNft(["-i"], network);
  const ended = new Promise((resolve) => child.once("exit", resolve));
  let said = "";
  try {
    child.stderr!.on("data", (bytes: Buffer) => {
      said = (said + bytes.toString()).slice(-1000);
    });
    child.stdout!.resume();
    child.stdin!.write(`add table inet ${table} { flags owner; }\n${script}`);
    await drops(table, network, () => (hasEnded(child) ? said || "it ended" : said));
    const done = await work();
    if (hasEnded(child))
      throw failed("it ended before its time, and what it blocked was not blocked any more");
    return done;
  } finally {
    child.stdin!.end();
    await ended; // its table is gone now
  }
}

/** Waits until the rules are there: what `nft` prints into a pipe comes late. Throws RL_NOT_SUPPORTED with what it said. */
async function drops(table: string, network: number | undefined, said: () => string): Promise<void> {
  const deadlineMs = performance.now() + LIMIT_MS;
  for (;;) {
    const isThere = (await nft(`list chain inet ${table} input\n`, network).catch(() => "")).includes(
      " drop",
    );
    if (said() !== "" || (!isThere && performance.now() > deadlineMs)) throw failed(said());
    if (isThere) return;
    await sleep(5);
  }
}

function rules(table: string, connections: readonly ConnectionAddresses[]): string {
  return inputChain(table) + rule(table, "ip", connections, false) + rule(table, "ip6", connections, true);
}

function inputChain(table: string): string {
  return `add chain inet ${table} input { type filter hook input priority ${PRIORITY}; policy accept; }\n`;
}

function rule(
  table: string,
  family: string,
  connections: readonly ConnectionAddresses[],
  v6: boolean,
): string {
  const elements = new Set<string>();
  for (const { local, remote } of connections.map(unmapped)) {
    if (local.v6 !== v6) continue;
    elements.add(`${local.address} . ${local.port} . ${remote.address} . ${remote.port}`);
    elements.add(`${remote.address} . ${remote.port} . ${local.address} . ${local.port}`);
  }
  if (elements.size === 0) return "";
  const key = `${family} saddr . tcp sport . ${family} daddr . tcp dport`;
  return `add rule inet ${table} input ${key} { ${[...elements].join(", ")} } drop\n`;
}

/** What it prints. `network`: in the network namespace of this process. */
async function nft(script: string, network?: number): Promise<string> {
  const child = await startNft(["-f", "-"], network);
  let said = "";
  child.stderr!.on("data", (bytes: Buffer) => {
    said = (said + bytes.toString()).slice(-1000);
  });
  let printed = "";
  child.stdout!.on("data", (bytes: Buffer) => {
    printed += bytes.toString();
  });
  const ended = once(child, "close") as Promise<[number | null]>;
  child.stdin!.end(script);
  const [code] = await limited(ended, child);
  if (code !== 0) throw failed(said);
  return printed;
}

async function startNft(args: readonly string[], network?: number): Promise<ChildProcess> {
  const words = [...inNetwork(network), "nft", ...args];
  const child = spawn(words[0]!, words.slice(1), { stdio: ["pipe", "pipe", "pipe"], detached: true });
  child.stdin!.on("error", () => undefined); // its end tells
  try {
    await once(child, "spawn");
  } catch (cause) {
    throw new RecoveryLineError(
      "RL_NOT_SUPPORTED",
      `nft does not start: ${(cause as Error).message}`,
      "Connections are blocked with nftables meanwhile: install it (Debian: nftables).",
      cause,
    );
  }
  return child;
}

/** What goes before a command that works in the network namespace of a process. */
export function inNetwork(pid: number | undefined): string[] {
  return pid === undefined ? [] : ["nsenter", `--net=/proc/${pid}/ns/net`, "--"];
}

async function limited<T>(promise: Promise<T>, child: ChildProcess): Promise<T> {
  const timer = setTimeout(() => child.kill("SIGKILL"), LIMIT_MS);
  try {
    return await promise;
  } finally {
    clearTimeout(timer);
  }
}

function failed(said: string): RecoveryLineError {
  return new RecoveryLineError(
    "RL_NOT_SUPPORTED",
    `nft could not block connections: ${said.trim().replaceAll("\n", "; ") || "it was killed"}`,
    "It takes root, nftables 1.0 and Linux 5.12 or newer.",
  );
}
