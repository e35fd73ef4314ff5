/** Who is at the other end of what a line undoes of the outside world, where a collector of this host knows it. */
import { channelOfUnit } from "../log/complete-cut.ts";
import { resolveHome } from "../logs/home.ts";
import type { KnownPeer } from "../model/collector-answers.ts";
import { hasCode } from "../model/errors.ts";
import type { LineEntry, OutsideRange } from "../model/recovery-line.ts";
import type { OutsideLists } from "../terminal/outside-report.ts";

/** By channel. */
export type KnownPeers = ReadonlyMap<string, KnownPeer>;

/** Of the collectors of all these homes (`--log`). */
export async function peersIn(log: readonly string[] | undefined, app: string): Promise<KnownPeers> {
  const { connectCollector } = await import("../client/client.ts");
  const peers = new Map<string, KnownPeer>();
  for (const home of log ?? [undefined]) {
    const collector = await connectCollector(resolveHome(home));
    if (collector === undefined) continue;
    try {
      for (const [channel, peer] of await collector.peerNames(app)) peers.set(channel, peer);
    } catch (error) {
      if (!hasCode(error, "RL_UNKNOWN_APP")) throw error;
    } finally {
      collector.close();
    }
  }
  return peers;
}

/** The same lists, with names. `line`: where processes go on; those that are not in it keep all. */
export function withPeers<T extends OutsideLists>(
  lists: T,
  line: readonly LineEntry[],
  peers: KnownPeers,
): T {
  const anew = new Set(line.filter(({ action }) => action === "initial").map(({ process }) => process));
  const peerOf = ({ channel }: OutsideRange): KnownPeer | undefined => peers.get(channelOfUnit(channel));
  const named = (range: OutsideRange): OutsideRange => {
    const peer = peerOf(range)?.name;
    return peer === undefined ? range : { ...range, peer };
  };
  const passedOn = (range: OutsideRange): OutsideRange => {
    const keep = peerOf(range)?.gave.filter((name) => name !== range.process && !anew.has(name));
    return keep === undefined || keep.length === 0 ? range : { ...range, passedOnTo: keep };
  };
  return {
    ...lists,
    lostInputs: lists.lostInputs.map(named),
    unsayable: lists.unsayable.map(named).map(passedOn),
  };
}

/** Nothing is asked for where nothing is undone, or no log is behind it. */
export async function named<T extends OutsideLists>(
  lists: T,
  line: readonly LineEntry[],
  app: string | undefined,
  { from, log }: { readonly from?: string; readonly log?: readonly string[] },
): Promise<T> {
  if (app === undefined || from !== undefined) return lists;
  if (lists.lostInputs.length + lists.unsayable.length === 0) return lists;
  return withPeers(lists, line, await peersIn(log, app));
}
