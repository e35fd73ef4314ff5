/** What a look at processes found them to use together (daemon/unseen-watch.ts), as verdicts in their application's log. */
import { MAX_UNSEEN_CHANNELS } from "../model/limits.ts";
import type { FoundChannel, UnseenChannel } from "../model/unseen-channel.ts";
import type { AppLog } from "./app-log.ts";
import type { ProcessBuffer } from "./process-buffer.ts";

/** Those that no log knows yet: of lives that go on, and not vouched for or tied. */
export function unknownChannels(app: AppLog, found: readonly FoundChannel[]): FoundChannel[] {
  return found.filter((one) => {
    const state = app.processes.get(one.process)?.state;
    if (state === undefined || !state.live || state.incarnation !== one.incarnation) return false;
    if (state.trust.has(one.reason)) return false;
    if (one.tied === true) return isNews(state.unseen, one);
    return !state.uncaptured.has(one.reason) || isNews(state.unseen, one);
  });
}

/** Each that is not tied makes its process one that can't be followed, once a life and reason with a gap. */
export function takeUnseen(app: AppLog, channels: readonly FoundChannel[]): void {
  for (const { incarnation: _, ...channel } of unknownChannels(app, channels)) {
    const process = app.processes.get(channel.process) as ProcessBuffer;
    const gaps = channel.tied === true ? 0 : process.verdict(channel.reason);
    app.pending.addGaps(gaps);
    remember(process, channel);
  }
}

function remember({ state }: ProcessBuffer, channel: UnseenChannel): void {
  if (!isNews(state.unseen, channel)) return;
  state.unseen = [...state.unseen, channel];
  state.changed = true;
}

/** With too many, one of each reason is enough to say why. */
function isNews(known: readonly UnseenChannel[], { reason, what, other }: UnseenChannel): boolean {
  if (known.length >= MAX_UNSEEN_CHANNELS) return !known.some((one) => one.reason === reason);
  return !known.some((one) => one.reason === reason && one.what === what && one.other === other);
}
