/** What recorded processes of one application use together, while no record says what they exchange through it. */
import { gapReason } from "./gap-reasons.ts";

/** Words of `gap.reason` for what a look at the processes finds; the capture has words of its own (format/ring-layout.ts). */
export const UNSEEN_REASONS = ["shared-memory", "pipe", "message-queue", "eventfd", "shared-file"] as const;

export type UnseenReason = (typeof UNSEEN_REASONS)[number];

/** The one among them that a user may vouch for: an image holds no copy of a file, so that both go on with the same one. */
export const VOUCHABLE_UNSEEN: readonly UnseenReason[] = ["shared-file"];

/** One thing that `process` uses together with `other`; each of the two has one that names the other. */
export interface UnseenChannel {
  readonly process: string;
  /** A task of it that has the thing. */
  readonly pid: number;
  readonly reason: UnseenReason;
  /** The thing, as the kernel names it. */
  readonly what: string;
  readonly other: string;
  readonly otherPid: number;
  /** A pipe that nobody else holds: the two go back together, to checkpoints taken at one moment. Absent: no line keeps what passed. */
  readonly tied?: true;
}

/** Both sides of it, in words: "a (process 12) and b (process 13) share memory: /dev/shm/x". */
export function unseenText({ process, pid, reason, what, other, otherPid }: UnseenChannel): string {
  return `${process} (process ${pid}) and ${other} (process ${otherPid}) ${gapReason(reason).together}: ${what}`;
}
/** A channel, and the life of its process that was looked at. */

export type FoundChannel = UnseenChannel & { readonly incarnation: number };
