/** Who looks at every message before the program does, and has checkpoints taken between them: HA policies (policy/sdk-node.ts). */
import type { JsonValue, SavedState } from "./checkpoint-files.ts";

/**
 * All of it but `receiving` and `beat` must follow from the messages, the checkpoints and the sends in their order, and from nothing else: a replay
 * calls it again. What those two decide stands in the log.
 */
export interface MessageHook {
  /** What stands before the payload of the message that goes to `peer` now. */
  outgoing(peer: string): Uint8Array;
  /** A message of `peer` waits to be delivered, live. A number: a checkpoint comes before it, and that is what `checkpointed` is to know of why. */
  receiving(peer: string, bytes: Buffer): number | undefined;
  /** It is delivered. Returns the program's part. */
  delivered(peer: string, bytes: Buffer): Buffer;
  /** Time has passed, live. A number: a checkpoint is taken. */
  beat(): number | undefined;
  /** The program's state, as it stands while it waits for a message. */
  state(): SavedState;
  /** A checkpoint is taken now. `why`: what `receiving` or `beat` said, now or, in a replay, then; 0: the program wanted it. */
  checkpointed(why: number): void;
  /** It is durable; how long that took, in ms. */
  durable(ms: number): void;
  /** What goes into the checkpoint beside the program's state, and comes back from it. */
  stored(): JsonValue;
  restore(stored: JsonValue): void;
}

/** A state as it stands in a checkpoint that a hook has its part in. */
export function withHook(program: SavedState, hook: MessageHook): JsonValue {
  const own =
    program instanceof Uint8Array ? { bytes: Buffer.from(program).toString("base64") } : { json: program };
  return { program: own, hook: hook.stored() };
}

/** The program's part; the hook takes its own. Throws TypeError for the state of a checkpoint without one. */
export function unhooked(saved: SavedState, hook: MessageHook): SavedState {
  const { program, hook: stored } = saved as {
    program?: { bytes?: string; json?: JsonValue };
    hook?: JsonValue;
  };
  if (program === undefined || stored === undefined)
    throw new TypeError(
      "the newest checkpoint was taken without a policy: start the process without one, or anew",
    );
  hook.restore(stored);
  return program.bytes === undefined ? (program.json ?? null) : Buffer.from(program.bytes, "base64");
}
