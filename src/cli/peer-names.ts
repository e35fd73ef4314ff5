/** Who is at the other end of what a line undoes of the outside world, where a collector of this host knows it. */
import { resolveHome } from "../logs/home.ts";
import { hasCode } from "../model/errors.ts";
import type { OutsideRange } from "../model/recovery-line.ts";
import type { OutsideLists } from "../terminal/outside-report.ts";

export type PeerNamesByChannel = ReadonlyMap<string, string>;

/** Of the collectors of all these homes (`--log`). */
export async function peerNamesIn(
  log: readonly string[] | undefined,
  app: string,
): Promise<PeerNamesByChannel> {
  const { connectCollector } = await import("../client/client.ts");
  const names = new Map<string, string>();
  for (const home of log ?? [undefined]) {
    const collector = await connectCollector(resolveHome(home));
    if (collector === undefined) continue;
    try {
      for (const [channel, name] of await collector.peerNames(app)) names.set(channel, name);
    } catch (error) {
      if (!hasCode(error, "RL_UNKNOWN_APP")) throw error;
    } finally {
      collector.close();
    }
  }
  return names;
}

/** The same lists, with names. */
export function withPeers<T extends OutsideLists>(lists: T, names: PeerNamesByChannel): T {
  const named = (ranges: readonly OutsideRange[]): OutsideRange[] =>
    ranges.map((range) => {
      const peer = names.get(range.channel);
      return peer === undefined ? range : { ...range, peer };
    });
  return { ...lists, lostInputs: named(lists.lostInputs), unsayable: named(lists.unsayable) };
}

/** Nothing is asked for where nothing is undone, or no log is behind it. */
export async function named<T extends OutsideLists>(
  lists: T,
  app: string | undefined,
  { from, log }: { readonly from?: string; readonly log?: readonly string[] },
): Promise<T> {
  if (app === undefined || from !== undefined) return lists;
  if (lists.lostInputs.length + lists.unsayable.length === 0) return lists;
  return withPeers(lists, await peerNamesIn(log, app));
}
