/**
 * A process of a message-passing program that comes back alone after a crash (docs/sdk.md).
 *
 * Pessimistic message logging: the payload of a message is logged by its sender, the order of deliveries (the determinants) by their
 * receiver, and both are on stable storage before anybody else can see a state that rests on them: before any later message goes out.
 * So a crash of one process never undoes anything at another: its newest checkpoint and its log give the state back.
 */

import { setTimeout as sleep } from "node:timers/promises";
import { crc32 } from "node:zlib";
import { makeFolders } from "../host/make-folders.ts";
import { lockLog } from "../log/log-lock.ts";
import { assert } from "../model/assert.ts";
import { hasCode, RecoveryLineError } from "../model/errors.ts";
import { MAX_SDK_MESSAGE_BYTES, MAX_SDK_STATE_BYTES, SDK_FLUSH_INTERVAL_MS } from "../model/limits.ts";
import { isHomeFile, PATH_NAME } from "../model/names.ts";
import { type Address, socketPath } from "./address.ts";
import {
  encodeState,
  type JsonValue,
  readState,
  removeStates,
  type SavedState,
  writeState,
} from "./checkpoint-files.ts";
import { type ChannelEnd, History } from "./history.ts";
import { InChannel } from "./in-channel.ts";
import { Listener } from "./listener.ts";
import type { CheckpointRecord } from "./log-format.ts";
import { type MessageHook, unhooked, withHook } from "./message-hook.ts";
import { OutChannel } from "./out-channel.ts";
import { ProcessLog, sdkFolder } from "./process-log.ts";
import { Replay } from "./replay.ts";

/** Key of a logged value: a hook's checkpoint follows. */
const HOOKED = "recovery-line checkpoint";

/** A dead process's lock is gone at once; that of a reader that looks is gone soon. */
const LOCK_TRIES = 20;
const LOCK_RETRY_MS = 50;

export interface JoinOptions {
  /** Application and name of this process in it: letters, digits, `.`, `_`, `-`, at most 64. */
  readonly app: string;
  readonly process: string;
  /** Folder of all logs (as `--log` of the commands). The process's own is `<home>/<app>/sdk/<process>`. */
  readonly home: string;
  /** Where to listen. Default: a unix socket in the process's own folder. */
  readonly listen?: Address;
  /** Checkpoints whose state is kept, count, ≥ 1. Default 2: the older one serves if the newest is damaged. */
  readonly keepCheckpoints?: number;
  /** Looks at each message before the program does; for `recovery-line/sdk/policy`. The program takes no values while it waits for a message. */
  readonly hook?: MessageHook;
}

export interface Message {
  readonly from: string;
  /** Sequence number on the channel from that peer, from 0. */
  readonly sequence: number;
  readonly payload: Buffer;
}

interface Waiter {
  readonly from: string | undefined;
  resolve(message: Message): void;
  reject(error: unknown): void;
}

/** Throws RL_LOCKED where the process runs already, RL_CORRUPT_LOG, RL_CONTRADICTION, RL_LOG_WRITE, RL_USAGE. */
export async function join(options: JoinOptions): Promise<RecoverableNode> {
  if (isHomeFile(options.app)) throw new TypeError(`${JSON.stringify(options.app)} is reserved`);
  for (const name of [options.app, options.process])
    if (!PATH_NAME.test(name))
      throw new TypeError(`${JSON.stringify(name)} is no name of ${PATH_NAME.source}`);
  const node = new RecoverableNode(options);
  await node.start();
  return node;
}

export class RecoverableNode {
  readonly app: string;
  readonly process: string;
  readonly folder: string;
  readonly #home: string;
  readonly #listen: Address;
  readonly #keep: number;
  readonly #hook: MessageHook | undefined;
  readonly #history = new History();
  readonly #in = new Map<string, InChannel>();
  readonly #out = new Map<string, OutChannel>();
  /** Deliveries and sends by channel number at the base checkpoint. */
  readonly #base = new Map<number, number>();
  #log!: ProcessLog;
  #replay!: Replay;
  #listener: Listener | undefined;
  #unlock: () => void = () => undefined;
  #restored: SavedState | undefined;
  #delivered = 0;
  #checkpoint = 0;
  #waiter: Waiter | undefined;
  #failure: unknown;
  #flushTimer: NodeJS.Timeout | undefined;
  #releaseWaiters: (() => void)[] = [];
  #closed = false;

  /** Use `join`. */
  constructor({ app, process, home, listen, keepCheckpoints = 2, hook }: JoinOptions) {
    this.#hook = hook;
    if (!Number.isSafeInteger(keepCheckpoints) || keepCheckpoints < 1)
      throw new TypeError("keepCheckpoints is an integer ≥ 1");
    this.app = app;
    this.process = process;
    this.#home = home;
    this.folder = sdkFolder(home, app, process);
    this.#listen = listen ?? socketPath(this.folder);
    this.#keep = keepCheckpoints;
  }

  // ---- start

  /** Use `join`. */
  async start(): Promise<void> {
    this.#unlock = await lockFolder(this.folder);
    try {
      const names = { application: this.app, process: this.process };
      const take = this.#history.take.bind(this.#history);
      this.#log = ProcessLog.open(this.folder, names, take, () => this.#pump());
      this.#restore();
      this.#append({ kind: "join", incarnation: this.incarnation });
      this.#listener = await Listener.listen(
        {
          app: this.app,
          process: this.process,
          channel: (peer) => this.#incoming(peer),
          onArrival: () => this.#serve(),
        },
        this.#listen,
      );
    } catch (error) {
      await this.#log?.close().catch(() => undefined);
      this.#unlock();
      throw error;
    }
  }

  /** The newest checkpoint whose state is whole becomes the base; what the log has after it is replayed. */
  #restore(): void {
    this.#history.incarnation += 1;
    const { checkpoints } = this.#history;
    let at = checkpoints.length - 1;
    for (; at >= 0; at -= 1) {
      const { checkpoint, sha256 } = checkpoints[at]!;
      this.#restored = readState(this.folder, checkpoint, sha256);
      if (this.#restored !== undefined) break;
    }
    if (at >= 0) this.#startFrom(checkpoints[at]!);
    if (this.#hook !== undefined && this.#restored !== undefined)
      this.#restored = unhooked(this.#restored, this.#hook);
    this.#checkpoint = checkpoints.at(-1)?.checkpoint ?? 0;
    this.#replay = new Replay(
      this.#history.stepsAfter(at),
      () => this.#waiter !== undefined,
      (error) => this.#fail(error),
    );
  }

  #startFrom({ offsets, delivered }: CheckpointRecord): void {
    this.#delivered = delivered;
    for (const [number, offset] of offsets) this.#base.set(number, offset);
  }

  /** 1 at the first start, one more at each. */
  get incarnation(): number {
    return this.#history.incarnation;
  }

  /** The state of the checkpoint that the process goes on from; undefined: it starts from its initial state. */
  get restored(): SavedState | undefined {
    return this.#restored;
  }

  /** True while the program does again what the log says it did. What it prints meanwhile, it has printed before. */
  get replaying(): boolean {
    return this.#replay.active;
  }

  // ---- channels

  /**
   * Opens the channel to a peer; it need not be there yet. From a restart on everything that the peer lacks is sent again by itself.
   * Default address: the unix socket that the peer of that name has in the same home.
   */
  connect(peer: string, address?: Address): void {
    this.#check();
    if (!PATH_NAME.test(peer))
      throw new TypeError(`${JSON.stringify(peer)} is no name of ${PATH_NAME.source}`);
    if (this.#out.has(peer)) throw new TypeError(`${peer} is connected already`);
    const known = this.#history.channel("send", peer);
    const messages = this.#history.sentTo(peer);
    const channel = new OutChannel({
      app: this.app,
      from: this.process,
      to: peer,
      incarnation: this.incarnation,
      address: address ?? socketPath(sdkFolder(this.#home, this.app, peer)),
      log: this.#log,
      messages,
      onFatal: (error) => this.#fail(error),
      onReleased: () => this.#tellReleased(),
    });
    channel.sent = known === undefined ? 0 : (this.#base.get(known.number) ?? 0);
    this.#out.set(peer, channel);
  }

  #incoming(peer: string): InChannel | string {
    const found = this.#in.get(peer);
    if (found !== undefined) return found;
    if (!PATH_NAME.test(peer)) return `${JSON.stringify(peer)} is no name`;
    const known = this.#history.channel("receive", peer);
    const channel = new InChannel(peer, known === undefined ? 0 : (this.#base.get(known.number) ?? 0));
    this.#in.set(peer, channel);
    return channel;
  }

  /** The channel's number in the log; it gets one at its first message. */
  #number(role: ChannelEnd["role"], peer: string): number {
    const known = this.#history.channel(role, peer);
    if (known !== undefined) return known.number;
    const end: ChannelEnd = { number: this.#history.channels.length, role, peer };
    this.#append({ kind: "channel", ...end });
    this.#history.addChannel(end);
    return end.number;
  }

  // ---- sending

  /**
   * Sends one whole message. Resolves once it, and everything that the process did before it, is on stable storage; from then on it
   * arrives exactly once, whoever crashes. Throws TypeError for an unknown peer, RL_LIMIT, RL_CONTRADICTION where a replay differs.
   */
  send(peer: string, payload: Uint8Array | string): Promise<void> {
    this.#check();
    const channel = this.#out.get(peer);
    if (channel === undefined) throw new TypeError(`connect("${peer}") comes before send`);
    const bytes = limited(this.#hook === undefined ? payload : joined(this.#hook.outgoing(peer), payload));
    const sum = crc32(bytes);
    const sequence = channel.sent;
    if (this.#replay.active) {
      this.#repeatSend(peer, sequence, sum);
      channel.sent += 1;
      this.#stepped();
      return Promise.resolve();
    }
    const number = this.#number("send", peer);
    const end = this.#append({ kind: "send", channel: number, sequence, sum, payload: bytes });
    channel.messages.push(end, bytes.length, sum);
    channel.sent += 1;
    assert(channel.sent === channel.messages.count, "a live send is the newest in the log");
    return this.#flush();
  }

  #repeatSend(peer: string, sequence: number, sum: number): void {
    const known = this.#history.channel("send", peer)?.number;
    const step = this.#guarded(() => this.#replay.take("send"));
    if (step.channel === known && step.sequence === sequence && step.sum === sum) return;
    const to = this.#history.channels[step.channel]?.peer;
    throw this.#fail(
      this.#replay.diverged(
        `sends message ${sequence} to ${peer} where the log has message ${step.sequence} to ${to}${step.channel === known ? " with another content" : ""}`,
      ),
    );
  }

  // ---- receiving

  /**
   * The next message, from anybody or from one peer; in a replay the one that the log names. One call at a time: what the program does
   * must follow from its state and the order of its messages. Rejects with what made the process unable to go on.
   */
  receive(from?: string): Promise<Message> {
    this.#check();
    if (this.#waiter !== undefined) throw new TypeError("receive() is waiting already");
    return new Promise((resolve, reject) => {
      this.#waiter = { from, resolve, reject };
      this.#serve();
    });
  }

  #serve(): void {
    const waiter = this.#waiter;
    if (waiter === undefined || this.#failure !== undefined) return;
    try {
      if (this.#hook !== undefined) this.#repeatHooked(this.#hook);
      const channel = this.#replay.active ? this.#replayed(waiter.from) : this.#arrived(waiter.from);
      if (channel === undefined) return;
      if (this.#replay.active) this.#repeatDelivery(channel);
      else {
        const why = this.#hook?.receiving(channel.peer, channel.head!.payload);
        if (why !== undefined) this.#hooked(this.#hook!, why);
        this.#logDelivery(channel);
      }
      const { sequence, payload } = channel.take();
      this.#delivered += 1;
      this.#waiter = undefined;
      const own = this.#hook === undefined ? payload : this.#hook.delivered(channel.peer, payload);
      waiter.resolve({ from: channel.peer, sequence, payload: own });
    } catch (error) {
      this.#fail(error);
    }
  }

  /** The channel of the next logged delivery, once its message is here. */
  #replayed(from: string | undefined): InChannel | undefined {
    const step = this.#replay.next!;
    if (step.kind !== "deliver") return undefined; // another task of the program does that first, or nobody: then it stalls
    const { peer } = this.#history.channels[step.channel]!;
    if (from !== undefined && from !== peer)
      throw this.#replay.diverged(`receives from ${from} where the log has a message from ${peer}`);
    const channel = this.#in.get(peer);
    return channel?.head === undefined ? undefined : channel;
  }

  #repeatDelivery(channel: InChannel): void {
    const step = this.#replay.take("deliver");
    const { sequence, sum } = channel.head!;
    if (step.sequence === sequence && step.sum === sum) return;
    throw new RecoveryLineError(
      "RL_CONTRADICTION",
      `${channel.peer} sends another message ${sequence} than the one that ${this.process} had received`,
      "Its log was damaged or replaced. Bring it back from a copy, or start all processes anew.",
    );
  }

  /** The channel whose head arrived first. */
  #arrived(from: string | undefined): InChannel | undefined {
    if (from !== undefined) {
      const channel = this.#in.get(from);
      return channel?.head === undefined ? undefined : channel;
    }
    let first: InChannel | undefined;
    for (const channel of this.#in.values())
      if (
        channel.head !== undefined &&
        !(channel.head.arrival > (first?.head?.arrival ?? Number.POSITIVE_INFINITY))
      )
        first = channel;
    return first;
  }

  /** Time for a checkpoint between messages, if the program waits for one. */
  beat(): void {
    const hook = this.#hook;
    if (hook === undefined || this.#waiter === undefined || this.#closed || this.#failure !== undefined)
      return;
    const why = this.#replay.active ? undefined : hook.beat();
    if (why !== undefined) this.#hooked(hook, why);
  }

  /** What it decided stands in the log before its checkpoint: a replay does not ask again. */
  #hooked(hook: MessageHook, why: number): void {
    this.#append({ kind: "value", payload: Buffer.from(JSON.stringify({ [HOOKED]: why })) });
    hook.checkpointed(why);
    this.#storeHooked(hook);
  }

  #storeHooked(hook: MessageHook): void {
    const fromMs = performance.now();
    this.#store(withHook(hook.state(), hook)).then(
      () => hook.durable(performance.now() - fromMs),
      (error: unknown) => this.#fail(error),
    );
  }

  /** Checkpoints that the log has of it next. */
  #repeatHooked(hook: MessageHook): void {
    for (let step = this.#replay.next; step?.kind === "value"; step = this.#replay.next) {
      const { [HOOKED]: why } = JSON.parse(step.payload.toString()) as { [HOOKED]?: number };
      if (why === undefined) return;
      this.#replay.take("value");
      hook.checkpointed(why);
      if (this.#replay.next?.kind === "checkpoint") this.#replay.take("checkpoint");
      else if (!this.#replay.active) this.#storeHooked(hook); // it died in between, with a checkpoint that its hook counts
    }
  }

  #logDelivery(channel: InChannel): void {
    const number = this.#number("receive", channel.peer);
    const { sequence, sum } = channel.head!;
    this.#append({ kind: "deliver", channel: number, sequence, order: this.#delivered, sum });
    this.#flushSoon();
  }

  // ---- what is not a message

  /** A nondeterministic value (time, chance, a file): computed and logged now, in a replay taken from the log. */
  record<T extends JsonValue>(compute: () => T): T {
    this.#check();
    if (this.#replay.active) {
      const { payload } = this.#guarded(() => this.#replay.take("value"));
      this.#stepped();
      return JSON.parse(payload.toString()) as T;
    }
    const value = compute();
    const text = JSON.stringify(value);
    if (text === undefined) throw new TypeError("record() takes what JSON holds");
    this.#append({ kind: "value", payload: limited(text) });
    this.#flushSoon();
    return JSON.parse(text) as T;
  }

  /** Nothing that the process has done waits to get onto stable storage. */
  get isStable(): boolean {
    return !this.#log.dirty;
  }

  /** Everything that the process has done is on stable storage on return: wait for it before output that can't be taken back. */
  async stable(): Promise<void> {
    this.#check();
    await this.#flush();
  }

  /**
   * Stores the state, as it is at the call; a restart goes on from it. Resolves to the checkpoint's index once it is durable. In a
   * replay that began at an older state the logged index comes back. Throws TypeError for a state that is neither bytes nor JSON.
   */
  async checkpoint(state: SavedState): Promise<number> {
    this.#check();
    this.#hook?.checkpointed(0);
    if (this.#replay.active) {
      const { checkpoint } = this.#guarded(() => this.#replay.take("checkpoint"));
      this.#stepped();
      return checkpoint;
    }
    return this.#store(this.#hook === undefined ? state : withHook(state, this.#hook));
  }

  /** Everything but the waiting is done before it returns. */
  async #store(state: SavedState): Promise<number> {
    const { bytes, sha256 } = encodeState(state);
    if (bytes.length > MAX_SDK_STATE_BYTES)
      throw new RecoveryLineError("RL_LIMIT", `a state is at most ${MAX_SDK_STATE_BYTES} bytes long`);
    const checkpoint = this.#checkpoint + 1;
    this.#checkpoint = checkpoint;
    const delivered = [...this.#in.values()].map((one) => [one, one.delivered] as const);
    this.#log.barrier(writeState(this.folder, checkpoint, bytes));
    this.#append({
      kind: "checkpoint",
      checkpoint,
      sizeBytes: bytes.length,
      sha256,
      delivered: this.#delivered,
      offsets: this.#offsets(),
    });
    await this.#flush();
    for (const [channel, count] of delivered) channel.tellCheckpointed(count);
    await removeStates(this.folder, checkpoint - this.#keep);
    return checkpoint;
  }

  /** The cut: every channel of the log where it stands now. A channel that this incarnation has not opened stands where it was. */
  #offsets(): [number, number][] {
    return this.#history.channels.map(({ number, role, peer }) => [
      number,
      (role === "send" ? this.#out.get(peer)?.sent : this.#in.get(peer)?.delivered) ??
        this.#base.get(number) ??
        0,
    ]);
  }

  /** Resolves once the checkpoints of all peers cover everything sent to them: nobody needs this process for a replay any more. */
  async released(): Promise<void> {
    while (![...this.#out.values()].every(({ sent, released }) => released >= sent)) {
      this.#check();
      await new Promise<void>((resolve) => this.#releaseWaiters.push(resolve));
    }
  }

  #tellReleased(): void {
    const waiters = this.#releaseWaiters;
    this.#releaseWaiters = [];
    for (const resolve of waiters) resolve();
  }

  /** Everything done is stable on return, connections and log are closed. Peers keep trying to reach the next incarnation. */
  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    clearTimeout(this.#flushTimer);
    this.#replay.close();
    for (const channel of this.#out.values()) channel.close();
    await this.#listener?.close();
    try {
      await this.#log.close();
    } finally {
      this.#unlock();
      this.#waiter?.reject(new TypeError("the node was closed"));
      this.#waiter = undefined;
      this.#tellReleased();
    }
  }

  // ---- inside

  #append(record: Parameters<ProcessLog["append"]>[0]): number {
    return this.#log.append(record);
  }

  #flush(): Promise<void> {
    const flushed = this.#log.flush();
    flushed.catch((error: unknown) => this.#fail(error));
    return flushed;
  }

  #flushSoon(): void {
    this.#flushTimer ??= setTimeout(() => {
      this.#flushTimer = undefined;
      void this.#flush();
    }, SDK_FLUSH_INTERVAL_MS);
  }

  #pump(): void {
    for (const channel of this.#out.values()) channel.pump();
  }

  /** A step of the replay is done: the next may be a delivery that somebody waits for, or the first live one. */
  #stepped(): void {
    queueMicrotask(() => this.#serve());
  }

  #guarded<T>(work: () => T): T {
    try {
      return work();
    } catch (error) {
      throw this.#fail(error);
    }
  }

  #check(): void {
    if (this.#closed) throw new TypeError("the node is closed");
    if (this.#failure !== undefined) throw this.#failure;
  }

  /** The process can't go on; whoever waits is told so. Returns the error. */
  #fail(error: unknown): unknown {
    this.#failure ??= error;
    this.#waiter?.reject(this.#failure);
    this.#waiter = undefined;
    this.#tellReleased();
    return error;
  }
}

function joined(before: Uint8Array, payload: Uint8Array | string): Uint8Array {
  return Buffer.concat([before, typeof payload === "string" ? Buffer.from(payload) : payload]);
}

function limited(payload: Uint8Array | string): Uint8Array {
  const bytes = typeof payload === "string" ? Buffer.from(payload) : payload;
  if (bytes.length <= MAX_SDK_MESSAGE_BYTES) return bytes;
  throw new RecoveryLineError("RL_LIMIT", `a message is at most ${MAX_SDK_MESSAGE_BYTES} bytes long`);
}

async function lockFolder(folder: string): Promise<() => void> {
  makeFolders(folder);
  for (let left = LOCK_TRIES; ; left -= 1) {
    try {
      return await lockLog(folder);
    } catch (error) {
      if (left === 0 || !hasCode(error, "RL_LOCKED")) throw error;
      await sleep(LOCK_RETRY_MS);
    }
  }
}
