/** The TCP connections that processes have open, by /proc: addresses only. */
import { spawnSync } from "node:child_process";
import { readdirSync, readFileSync, readlinkSync } from "node:fs";
import { namespaceOf } from "./mounts.ts";
import type { ConnectionAddresses } from "./port-block.ts";

/** Processes that end meanwhile have none. All are in this network namespace, or in one of their own each. */
export function openConnections(pids: readonly number[]): ConnectionAddresses[] {
  const found = new Map<string, ConnectionAddresses>();
  for (const pid of pids) {
    const inodes = socketInodes(pid);
    if (inodes.size === 0) continue;
    for (const [inode, connection] of tcpTable(pid)) if (inodes.has(inode)) found.set(inode, connection);
  }
  return [...found.values()];
}

/** One process of each network namespace that they are in. */
export function networksOf(pids: readonly number[]): number[] {
  const found = new Map<string, number>();
  for (const pid of pids) {
    const network = networkOf(pid);
    if (network !== "" && !found.has(network)) found.set(network, pid);
  }
  return [...found.values()];
}

/** Name of a process's network namespace; "" where it has ended. */
export function networkOf(pid: number | "self"): string {
  return namespaceOf(pid, "net") ?? "";
}

/** One of the connections that the kernel still has, in this network namespace, otherwise than waiting out its time. */
export function stillThere(connections: readonly ConnectionAddresses[]): ConnectionAddresses | undefined {
  const there = new Set<string>();
  for (const [, connection] of tcpTable("self")) there.add(keyOf(connection));
  return connections.find((connection) => there.has(keyOf(connection)));
}

/** Those of the connections, in this network namespace, whose local end no process holds: it is closing, or was never accepted. */
export function orphansAmong(connections: readonly ConnectionAddresses[]): ConnectionAddresses[] {
  const orphans = new Set<string>();
  for (const [inode, connection] of tcpTable("self")) if (inode === NO_INODE) orphans.add(keyOf(connection));
  return connections.filter((connection) => orphans.has(keyOf(connection)));
}

/**
 * Connections of this network namespace, of these local ports, that no process holds at either end: both of their ends were here. None of ports where
 * somebody listens who may have yet to accept them.
 */
export function deadConnections(ports: readonly number[]): ConnectionAddresses[] {
  const wanted = new Set(ports);
  for (const [, { local }] of tcpTable("self", [LISTEN])) wanted.delete(local.port);
  if (wanted.size === 0) return [];
  const held = new Set<string>();
  const orphans: ConnectionAddresses[] = [];
  for (const [inode, connection] of tcpTable("self"))
    if (inode !== NO_INODE) held.add(keyOf(unmapped(connection)));
    else if (wanted.has(connection.local.port)) orphans.push(connection);
  return orphans.filter((connection) => {
    const { local, remote } = unmapped(connection);
    return remote.address === local.address && !held.has(keyOf({ local: remote, remote: local }));
  });
}

/** True if this network namespace has a connection between two such ports, otherwise than waiting out its time. */
export function portsInUse(pairs: readonly (readonly [number, number])[]): boolean {
  const here = [...tcpTable("self")].map(([, connection]) => connection);
  const isUsed = betweenPorts(here);
  return pairs.some(isUsed);
}

/** Whether one of these connections is between two such ports, from either end. */
export function betweenPorts(
  connections: readonly ConnectionAddresses[],
): (pair: readonly [number, number]) => boolean {
  const pairs = connections.map(({ local, remote }) => [local.port, remote.port] as const);
  const there = new Set(pairs.flatMap(([one, other]) => [`${one}-${other}`, `${other}-${one}`]));
  return ([one, other]) => there.has(`${one}-${other}`);
}

/** Sockets of the processes that listen: their ports, and how many connections wait to be accepted. */
export function listenersOf(pids: readonly number[]): { readonly port: number; readonly waiting: number }[] {
  const found = new Map<string, { readonly port: number; readonly waiting: number }>();
  for (const pid of pids) {
    const inodes = socketInodes(pid);
    for (const [inode, { local }, queued] of tcpTable(pid, [LISTEN]))
      if (inodes.has(inode)) found.set(inode, { port: local.port, waiting: queued });
  }
  return [...found.values()];
}

const ANY = new Set(["0.0.0.0", "0:0:0:0:0:0:0:0"]);

/** Whoever listens there does so at every address of its family. */
export function isAnyAddress(address: string): boolean {
  return ANY.has(address);
}

/** Who listens in this network namespace; `pid`: one of those that hold the socket. */
export function listenersHere(): (EndAddress & { readonly pid: number | undefined })[] {
  const listeners = [...tcpTable("self", [LISTEN])];
  if (listeners.length === 0) return [];
  const wanted = new Set(listeners.map(([inode]) => inode));
  const holders = new Map<string, number>();
  for (const name of readdirSync("/proc"))
    if (/^\d+$/.test(name))
      for (const inode of socketInodes(Number(name))) if (wanted.has(inode)) holders.set(inode, Number(name));
  return listeners.map(([inode, { local }]) => ({ ...local, pid: holders.get(inode) }));
}

/**
 * Ports of this network namespace on which a listener at every IPv6 address takes IPv4, too (no IPV6_V6ONLY), as `ss` shows them. Undefined
 * where it can't be started.
 */
export function portsOfBothFamilies(): ReadonlySet<number> | undefined {
  const { status, stdout } = spawnSync("ss", ["-H", "-l", "-t", "-n", "-6"], { encoding: "utf8" });
  if (status !== 0) return undefined;
  return new Set([...stdout.matchAll(/ \*:(\d+) /g)].map(([, port]) => Number(port)));
}

/** Who has a connection of exactly these addresses open in this network namespace. */
export function holderOfConnection(
  connection: ConnectionAddresses,
): { readonly pid: number | undefined } | undefined {
  const wanted = keyOf(connection);
  for (const [inode, one] of tcpTable("self"))
    if (keyOf(one) === wanted) return { pid: holderOfSocket(inode) };
  return undefined;
}

function holderOfSocket(inode: string): number | undefined {
  const pids = readdirSync("/proc").filter((name) => /^\d+$/.test(name));
  const pid = pids.find((one) => socketInodes(Number(one)).has(inode));
  return pid === undefined ? undefined : Number(pid);
}

function keyOf({ local, remote }: ConnectionAddresses): string {
  return `${local.address}:${local.port}-${remote.address}:${remote.port}`;
}

function socketInodes(pid: number): Set<string> {
  const inodes = new Set<string>();
  try {
    for (const fd of readdirSync(`/proc/${pid}/fd`)) {
      const inode = /^socket:\[(\d+)\]$/.exec(linkOf(`/proc/${pid}/fd/${fd}`))?.[1];
      if (inode !== undefined) inodes.add(inode);
    }
  } catch {} // it has ended
  return inodes;
}

/** What a link of /proc leads to; "": it is closed, gone, or not for us to look at. */
export function linkOf(path: string): string {
  try {
    return readlinkSync(path);
  } catch {
    return "";
  }
}

const MAPPED = /^0:0:0:0:0:ffff:([0-9a-f]{1,4}):([0-9a-f]{1,4})$/;

/** A v6 socket that talks to a v4 address sends v4 packets. */
export function unmapped({ local, remote }: ConnectionAddresses): ConnectionAddresses {
  return { local: asV4(local), remote: asV4(remote) };
}

/** What is in IPv6's form of IPv4 as that address. */
export function asV4(address: EndAddress): EndAddress {
  const [, high, low] = MAPPED.exec(address.address) ?? [];
  if (high === undefined || low === undefined) return address;
  const words = [Number.parseInt(high, 16), Number.parseInt(low, 16)];
  return { ...address, v6: false, address: words.map((word) => `${word >> 8}.${word & 255}`).join(".") };
}

const LISTEN = "0A";
const NO_INODE = "0";
const TIME_WAIT = "06";

/** `states`: only sockets in these; absent: connections, but those that are only a memory (TIME_WAIT) and no obstacle. */
function* tcpTable(pid: number | "self", states?: readonly string[]): Generator<TcpRow> {
  for (const v6 of [false, true]) yield* tcpTableOf(pid, v6, states);
}

type TcpRow = [inode: string, addresses: ConnectionAddresses, queued: number];

function* tcpTableOf(
  pid: number | "self",
  v6: boolean,
  states: readonly string[] | undefined,
): Generator<TcpRow> {
  let text = "";
  try {
    text = readFileSync(`/proc/${pid}/net/${v6 ? "tcp6" : "tcp"}`, "utf8");
  } catch {} // it has ended, or there is no IPv6 here
  for (const line of text.split("\n").slice(1)) {
    const fields = line.trim().split(/\s+/);
    const [, local, remote, state, queues] = fields;
    const inode = fields[9];
    if (local === undefined || remote === undefined || inode === undefined) continue;
    if (states === undefined ? state === LISTEN || state === TIME_WAIT : !states.includes(state!)) continue;
    const queued = Number.parseInt(queues?.split(":")[1] ?? "0", 16);
    yield [inode, { local: parseAddress(local, v6), remote: parseAddress(remote, v6) }, queued];
  }
}

/** Each 32-bit word is printed as a number of this machine; x64 is little-endian. */
function parseAddress(text: string, v6: boolean): EndAddress {
  const [words = "", port = "0"] = text.split(":");
  const bytes = (words.match(/.{8}/g) ?? []).flatMap((word) =>
    (word.match(/../g) ?? []).reverse().map((byte) => Number.parseInt(byte, 16)),
  );
  const groups = Array.from({ length: 8 }, (_, at) =>
    (((bytes[2 * at] ?? 0) << 8) | (bytes[2 * at + 1] ?? 0)).toString(16),
  );
  return { address: v6 ? groups.join(":") : bytes.join("."), port: Number.parseInt(port, 16), v6 };
}
export interface EndAddress {
  /** Dotted or colon form. */
  readonly address: string;
  readonly port: number;
  readonly v6: boolean;
}
