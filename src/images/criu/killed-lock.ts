/**
 * CRIU keeps the connections of what it dumps from hearing anything, by an nftables table of its own, and lets go at its end. One that was
 * killed half way leaves it, and so does one whose process is killed meanwhile: whoever has these addresses next, or goes on, would hear
 * nothing on them, and ends that close would wait a minute or two for each other.
 */
import { setTimeout as sleep } from "node:timers/promises";
import { criuProcesses, criuRuns } from "../../host/criu-processes.ts";
import { betweenPorts, networkOf, networksOf, openConnections } from "../../host/open-connections.ts";
import { type ConnectionAddresses, deleteTable, tablePorts, tables } from "../../host/port-block.ts";
import { hasCode } from "../../model/errors.ts";

/** A table of nftables that a CRIU has made. */
export function isCriuTable(name: string): boolean {
  return name.startsWith("CRIU-");
}

/** What a CRIU may leave blocked. */
export interface MayBeBlocked {
  readonly connections: readonly ConnectionAddresses[];
  /** Where: a process of each network namespace; undefined: in ours. */
  readonly networks: readonly (number | undefined)[];
}

/** By one that dumps these processes: to be asked while they are there. */
export function mayStayBlocked(pids: readonly number[]): MayBeBlocked {
  const ours = networkOf("self");
  const networks = networksOf(pids).map((pid) => (networkOf(pid) === ours ? undefined : pid));
  return { connections: openConnections(pids), networks };
}

/** Longest wait for other CRIUs to end: one of them may be dumping the other end of a connection, in ms. */
const OTHERS_LIMIT_MS = 2_000;

/**
 * Removes what a failed dump of theirs has left: what blocks these connections alone, or nothing at all any more; once others' CRIUs have ended, or have
 * worked for too long to be waited for. Call it once their CRIU has ended.
 */
export async function unblockFailed(blocked: MayBeBlocked): Promise<void> {
  const untilMs = performance.now() + OTHERS_LIMIT_MS;
  const others = criuProcesses(); // those that begin later make tables of later connections
  while (performance.now() < untilMs && others.some((one) => criuProcesses().includes(one))) await sleep(50);
  await unblock(blocked);
}

/** The same of connections whose processes are all dead, or stand still in our hands: nobody dumps them. */
export async function unblock({ connections, networks }: MayBeBlocked): Promise<void> {
  for (const network of networks) await unblockIn(betweenPorts(connections), network);
}

async function unblockIn(isOwn: ReturnType<typeof betweenPorts>, network: number | undefined): Promise<void> {
  const all = ((await tables(network).catch(unlessUnsupported)) ?? []).filter(isCriuTable);
  const others = all.length > 0 && criuRuns(); // looked for behind the list: nobody who is at work now has made one of it
  for (const table of all)
    try {
      const ports = await tablePorts(table, network);
      if (ports.length > 0 ? ports.every(isOwn) : !others) await deleteTable(table, network);
    } catch (error) {
      unlessUnsupported(error); // its CRIU has just ended, and it is gone
    }
}

/** What nft can't do, as the table has just gone with its CRIU, or without nft: then CRIU has made none either. */
export function unlessUnsupported(error: unknown): undefined {
  if (!hasCode(error, "RL_NOT_SUPPORTED")) throw error;
}
