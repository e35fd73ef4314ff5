/**
 * The small things a log remembers beside its blocks: a head per process, and the caller's states. All of it is read
 * and checked against a digest when the log is opened; LevelDB alone would hand out stale values silently.
 */
import { decodeHead, encodeHead, foldHash, type ProcessHead, stateEntryHash } from "../format/log-commit.ts";
import { headKey, parseStateKey, stateKey } from "../format/log-key.ts";
import { packStrict, unpackStrict } from "../format/strict-msgpack.ts";
import { MAX_STATE_KEY_BYTES } from "../model/limits.ts";
import { corrupt } from "./log-paths.ts";
import type { ReadableSegment, Write } from "./segment.ts";

const DIGEST_BYTES = 32;

export class LogState {
  /** Includes what is not committed yet. */
  readonly heads: Map<string, ProcessHead>;
  /** Packed values, committed ones only. */
  readonly #states: Map<string, Uint8Array>;
  #digest: Uint8Array;
  readonly #changedHeads = new Set<string>();
  #changedStates = new Map<string, Uint8Array | undefined>();
  readonly #committedHeads = new Map<string, Uint8Array>();

  constructor() {
    this.heads = new Map();
    this.#states = new Map();
    this.#digest = new Uint8Array(DIGEST_BYTES);
  }

  /** Reads everything of a segment. The caller compares `digest`. Throws RL_CORRUPT_LOG. */
  static async load(dir: string, segment: ReadableSegment): Promise<LogState> {
    const state = new LogState();
    for await (const [key, value] of segment.stateEntries()) {
      const { kind, name } = parseStateKey(key);
      foldHash(state.#digest, stateEntryHash(key, value));
      if (kind === "state") {
        state.#states.set(name, value);
        continue;
      }
      const head = decodeHead(value);
      if (head === undefined) throw corrupt(dir, `the head of process "${name}"`);
      state.heads.set(name, head);
      state.#committedHeads.set(name, value);
    }
    return state;
  }

  /** Heads as of the last commit. */
  committedHeads(): Map<string, ProcessHead> {
    return new Map([...this.#committedHeads].map(([name, value]) => [name, decodeHead(value)!]));
  }

  /** As of the last commit; undefined: the process had written nothing. */
  committedHead(process: string): ProcessHead | undefined {
    const bytes = this.#committedHeads.get(process);
    return bytes && decodeHead(bytes);
  }

  /** Of what is committed. */
  get digest(): Uint8Array {
    return this.#digest;
  }

  get changed(): boolean {
    return this.#changedHeads.size > 0 || this.#changedStates.size > 0;
  }

  setHead(process: string, head: ProcessHead): void {
    this.heads.set(process, head);
    this.#changedHeads.add(process);
  }

  /** Durable with the next commit; undefined removes it. Throws `TypeError` for what is no plain data or no key. */
  put(key: string, value: unknown): void {
    const length = Buffer.byteLength(key);
    if (length < 1 || length > MAX_STATE_KEY_BYTES) throw new TypeError(`a state key of ${length} bytes`);
    this.#changedStates.set(key, value === undefined ? undefined : packStrict(value, true));
  }

  /** What is committed, or undefined. */
  get(key: string): unknown {
    const packed = this.#states.get(key);
    return packed === undefined ? undefined : unpackStrict(packed, true);
  }

  /** The pending changes as writes, with the digest they lead to. They are pending no longer. */
  take(): { readonly writes: Write[]; readonly digest: Uint8Array; readonly settle: () => void } {
    const digest = Uint8Array.from(this.#digest);
    const writes: Write[] = [];
    const change = (key: Uint8Array, old: Uint8Array | undefined, value: Uint8Array | undefined): void => {
      if (old !== undefined) foldHash(digest, stateEntryHash(key, old));
      if (value !== undefined) foldHash(digest, stateEntryHash(key, value));
      writes.push([key, value]);
    };
    const heads = [...this.#changedHeads].map((name) => [name, encodeHead(this.heads.get(name)!)] as const);
    const states = this.#changedStates;
    for (const [name, value] of heads) change(headKey(name), this.#committedHeads.get(name), value);
    for (const [key, value] of states) change(stateKey(key), this.#states.get(key), value);
    this.#changedHeads.clear();
    this.#changedStates = new Map();
    const settle = (): void => {
      this.#digest = digest;
      for (const [name, value] of heads) this.#committedHeads.set(name, value);
      for (const [key, value] of states)
        if (value === undefined) this.#states.delete(key);
        else this.#states.set(key, value);
    };
    return { writes, digest, settle };
  }

  /** Everything that is committed, for a new segment. */
  all(): Write[] {
    return [
      ...[...this.#committedHeads].map(([name, value]) => [headKey(name), value] as const),
      ...[...this.#states].map(([key, value]) => [stateKey(key), value] as const),
    ];
  }
}
