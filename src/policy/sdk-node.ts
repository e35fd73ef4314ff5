/**
 * `recovery-line/sdk/policy`: a process of the SDK that takes its checkpoints by an HA policy, also where that needs one before a message is delivered.
 * Checkpoints are taken while the program waits in `receive()`, of the state that it says it has then.
 */
import { type JoinOptions, RecoverableNode } from "../sdk/node.ts";
import { MessagePolicy, type StoredPolicy } from "./message-policy.ts";
import { parseSettings } from "./settings.ts";
import { loadPolicy } from "./shipped.ts";

type SavedState = Parameters<RecoverableNode["checkpoint"]>[0];

export interface PolicyJoinOptions extends Omit<JoinOptions, "hook"> {
  /** Name of a shipped policy, or a file. */
  readonly policy: string;
  /** Parameters, as in `interval=30s`. */
  readonly set?: readonly string[];
  /** All processes of the application, in the same order in each of them. */
  readonly processes: readonly string[];
  /** What `checkpoint` would be given now; asked while the program waits for a message. */
  readonly state: () => SavedState;
  /** Time between two beats, ms; default 1000. */
  readonly beatMs?: number;
}

const BEAT_MS = 1000;

export interface PolicedNode {
  readonly node: RecoverableNode;
  /**
   * Does what can't be taken back, once nothing that it shows can be undone, if the policy wants it so. A replay does it again: look at
   * `node.replaying`. Resolves to what `work` gives.
   */
  output<T>(work: () => T): Promise<T>;
  close(): Promise<void>;
}

/** As `join`. Throws also RL_NOT_SUPPORTED for a policy that can't run in the SDK, RL_BAD_INPUT for one that is wrong. */
export async function joinWithPolicy(options: PolicyJoinOptions): Promise<PolicedNode> {
  const { policy: name, set = [], processes, state, beatMs = BEAT_MS, ...rest } = options;
  const { component } = loadPolicy(name);
  const policy = new MessagePolicy({
    component,
    set: parseSettings(component, set),
    processes,
    process: options.process,
    now: () => performance.now() / 1000,
  });
  const node = new RecoverableNode({
    ...rest,
    hook: {
      outgoing: (peer) => policy.outgoing(peer),
      receiving: (_, bytes) => policy.receiving(bytes),
      delivered: (_, bytes) => policy.delivered(bytes),
      beat: () => policy.beat(),
      state,
      checkpointed: (why) => policy.checkpointed(why),
      durable: (ms) => policy.cost(ms / 1000),
      stored: () => ({ ...policy.stored() }) as never,
      restore: (stored) => policy.restore(stored as unknown as StoredPolicy),
    },
  });
  await node.start();
  const timer = setInterval(() => node.beat(), beatMs);
  timer.unref();
  return {
    node,
    output: async (work) => {
      if (!node.replaying && policy.output(node.isStable)) await node.stable();
      return work();
    },
    close: () => {
      clearInterval(timer);
      return node.close();
    },
  };
}
