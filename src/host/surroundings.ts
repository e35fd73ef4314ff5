/**
 * Which addresses are of this host, in whatever network namespace, and whether it translates any: then an address that no interface here has
 * may lead to a process here all the same. Read from /proc and from nft, as everything may change at any moment.
 */
import { execFile } from "node:child_process";
import { existsSync, readdirSync, readFileSync, readlinkSync, statSync } from "node:fs";
import { BlockList, isIP } from "node:net";
import { promisify } from "node:util";
import { mountsOf } from "./mounts.ts";

export interface Surroundings {
  /** An interface, or a local route, of this host has this address. */
  owns(address: string): boolean;
  /** Why nobody knows where an address leads that is not of this host; absent: it leads away from it. */
  readonly doubt?: string;
}

interface Namespace {
  /** The folder in /proc of one of its processes; absent: no process is in it. */
  readonly process?: string;
  /** To enter it by; absent: nobody may. */
  readonly entry?: string;
}

const ATTEMPTS = 3;
const LIMIT_MS = 5000;
const MAX_OUTPUT_BYTES = 2 ** 26;
const run = promisify(execFile);

/** A process that ends meanwhile takes the way to its namespace along: then all is read again. */
export async function readSurroundings(): Promise<Surroundings> {
  let doubt: string | undefined;
  for (let attempt = 0; attempt < ATTEMPTS; attempt += 1) {
    const { addresses, doubts, again } = await readOnce();
    doubt = doubts[0];
    if (!again)
      return {
        owns: (address) => addresses.check(address, isIP(address) === 6 ? "ipv6" : "ipv4"),
        ...(doubt === undefined ? {} : { doubt }),
      };
  }
  return { owns: () => false, doubt: doubt! };
}

async function readOnce() {
  const addresses = new BlockList();
  const looks = await Promise.all(networkNamespaces().map((one) => look(one, addresses)));
  const doubts = looks.flatMap(({ doubt }) => (doubt === undefined ? [] : [doubt]));
  return { addresses, doubts, again: looks.some(({ gone }) => gone) };
}

/** Those of processes, and those that are kept by a name alone. */
function networkNamespaces(): Namespace[] {
  const found = new Map<bigint, Namespace>();
  const named = new Map(namedNamespaces());
  for (const pid of readdirSync("/proc").filter((name) => /^\d+$/.test(name))) {
    const process = `/proc/${pid}`;
    try {
      // Each namespace has a table of its own, which anybody may look at; who is in which not everybody may ask.
      const { ino } = statSync(`${process}/net/dev`, { bigint: true });
      if (found.get(ino)?.entry !== undefined) continue;
      const name = nameOf(`${process}/ns/net`);
      found.set(ino, name === undefined ? { process } : { process, entry: `${process}/ns/net` });
      if (name !== undefined) named.delete(name);
    } catch {} // it has ended
  }
  return [...found.values(), ...[...named.values()].map((entry) => ({ entry }))];
}

/** undefined: it may not be looked at. */
function nameOf(entry: string): string | undefined {
  try {
    return readlinkSync(entry);
  } catch (error) {
    if (hasErrno(error, "EACCES") || hasErrno(error, "EPERM")) return undefined;
    throw error;
  }
}

function hasErrno(error: unknown, code: string): boolean {
  return (error as NodeJS.ErrnoException).code === code;
}

/** Its name and a file that is mounted from it. */
function namedNamespaces(): [string, string][] {
  const mounts = mountsOf("self").filter(({ root }) => /^net:\[\d+\]$/.test(root));
  return mounts.map(({ root, point }) => [root, point]);
}

interface Looked {
  /** Why its addresses may not be all that lead here. */
  readonly doubt?: string;
  /** The process that it was reached by has ended. */
  readonly gone: boolean;
}

/** Adds its addresses. */
async function look({ process, entry }: Namespace, addresses: BlockList): Promise<Looked> {
  const where = process ?? entry!;
  try {
    if (entry === undefined) throw new Error("it may not be entered");
    const tables = await tablesOf(process, entry);
    addLocal(tables.get("fib_trie") ?? "", tables.get("ipv6_route") ?? "", addresses);
    const doubt = translation(tables, await within(entry, "nft", "list", "ruleset"), where);
    return { gone: false, ...(doubt === undefined ? {} : { doubt }) };
  } catch (error) {
    const why = (error as Error).message.split("\n")[0];
    return {
      doubt: `the network namespace of ${where} can't be looked at (${why})`,
      gone: process !== undefined && !existsSync(`${process}/net/dev`), // a zombie has none any more
    };
  }
}

const OWN_TABLES = "/proc/self/net";
const TABLES = ["fib_trie", "ipv6_route", "ip_vs", "ip_tables_names", "ip6_tables_names"] as const;

async function tablesOf(process: string | undefined, entry: string): Promise<Map<string, string>> {
  const folder = process === undefined ? undefined : `${process}/net`;
  const names =
    folder === undefined ? (await within(entry, "ls", OWN_TABLES)).split("\n") : readdirSync(folder);
  const texts = TABLES.filter((name) => names.includes(name)).map(
    async (name): Promise<[string, string]> => [
      name,
      folder === undefined
        ? await within(entry, "cat", `${OWN_TABLES}/${name}`)
        : readFileSync(`${folder}/${name}`, "latin1"),
    ],
  );
  return new Map(await Promise.all(texts));
}

async function within(entry: string, ...command: string[]): Promise<string> {
  const args = [`--net=${entry}`, ...command];
  return (await run("nsenter", args, { timeout: LIMIT_MS, maxBuffer: MAX_OUTPUT_BYTES })).stdout;
}

// ---- texts of the kernel

const RTF_LOCAL = 0x80000000;

/** What leads to this network namespace itself: by the kernel's local routes, which a bridge has, too, while nothing is plugged into it. */
export function localAddresses(): BlockList {
  const addresses = new BlockList();
  const [fib, routes6] = ["fib_trie", "ipv6_route"].map((name) => `${OWN_TABLES}/${name}`) as [
    string,
    string,
  ];
  addLocal(readIfThere(fib), readIfThere(routes6), addresses);
  return addresses;
}

/** A kernel without IPv6 has no such table. */
function readIfThere(path: string): string {
  return existsSync(path) ? readFileSync(path, "latin1") : "";
}

/** Local routes of /proc/net/fib_trie and /proc/net/ipv6_route: addresses of interfaces, and whole ranges that lead here. */
export function addLocal(fibTrie: string, routes6: string, addresses: BlockList): void {
  let leaf = "";
  for (const line of fibTrie.split("\n")) {
    leaf = /\|-- (\S+)/.exec(line)?.[1] ?? leaf;
    const width = /^\s+\/(\d+) host LOCAL/.exec(line)?.[1];
    if (width !== undefined) addresses.addSubnet(leaf, Number(width), "ipv4");
  }
  for (const line of routes6.split("\n")) {
    const [words = "", width = "", , , , , , , flags = ""] = line.trim().split(/\s+/);
    if ((Number.parseInt(flags, 16) & RTF_LOCAL) === 0 || words.length !== 32) continue;
    const address = words.replaceAll(/(.{4})(?!$)/g, "$1:");
    addresses.addSubnet(address, Number.parseInt(width, 16), "ipv6");
  }
}

/** Masquerading is none: what it puts in the place of an address is one of this host. */
const TRANSLATES = /(?:\b|_)(?:dnat|snat|netmap|redirect|tproxy)\b|\bip6? [sd]addr set\b/i;
/** Lines of /proc/net/ip_vs before its services. */
const IPVS_HEADER_LINES = 3;

/** What in a network namespace may lead an address elsewhere; undefined: nothing. `rules`: of `nft list ruleset`. */
export function translation(
  tables: ReadonlyMap<string, string>,
  rules: string,
  where: string,
): string | undefined {
  const services = (tables.get("ip_vs") ?? "").trimEnd().split("\n").length > IPVS_HEADER_LINES;
  const of = `the network namespace of ${where}`;
  if (services) return `${of} has virtual services (IPVS)`;
  const names = `${tables.get("ip_tables_names") ?? ""}\n${tables.get("ip6_tables_names") ?? ""}`;
  if (/^nat$/m.test(names)) return `${of} has a table of iptables that translates addresses`;
  const rule = rules.split("\n").find((line) => TRANSLATES.test(line));
  return rule === undefined ? undefined : `${of} translates addresses ("${rule.trim()}")`;
}
