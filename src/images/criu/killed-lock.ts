/**
 * CRIU keeps the connections of what it dumps from hearing anything, by an nftables table of its own, and lets go at its end. One that was
 * killed half way leaves it: whoever has these addresses next, or goes on, would hear nothing on them.
 */
import { betweenPorts, networkOf, networksOf, openConnections } from "../../host/open-connections.ts";
import { deleteTable, tablePorts, tables } from "../../host/port-block.ts";
import { hasCode } from "../../model/errors.ts";

/** Removes what blocks connections of these processes alone. Call it once their CRIU has ended. */
export async function unblockKilled(pids: readonly number[]): Promise<void> {
  const ours = networkOf("self");
  for (const pid of networksOf(pids)) {
    const there = pids.filter((one) => networkOf(one) === networkOf(pid));
    await unblockIn(there, networkOf(pid) === ours ? undefined : pid).catch((error: unknown) => {
      if (!hasCode(error, "RL_NOT_SUPPORTED")) throw error; // without nft CRIU has made none either
    });
  }
}

async function unblockIn(pids: readonly number[], network: number | undefined): Promise<void> {
  const isOwn = betweenPorts(openConnections(pids));
  for (const table of await tables(network)) {
    if (!table.startsWith("CRIU-")) continue;
    const ports = await tablePorts(table, network);
    if (ports.length > 0 && ports.every(isOwn)) await deleteTable(table, network);
  }
}
