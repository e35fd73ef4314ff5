/**
 * The sending end of a channel: dials its receiver again and again, learns what it wants next, and sends that from the log.
 *
 * There is no queue in memory and nothing is sent again by guess: the receiver's `next` after each connection decides. Only durable
 * messages go out; with them everything before them in the log is durable, so nobody can ever know of a state that could be lost.
 */
import { connect, type Socket } from "node:net";
import { RecoveryLineError } from "../model/errors.ts";
import { SDK_RETRY_MAX_MS, SDK_RETRY_MIN_MS } from "../model/limits.ts";
import { type Address, netAddress } from "./address.ts";
import type { ProcessLog } from "./process-log.ts";
import {
  Frame,
  FrameReader,
  helloFrame,
  messageFrame,
  PROTOCOL,
  Refusal,
  readRefused,
  readSequence,
  readWelcome,
  type Welcome,
  type WireFrame,
} from "./wire.ts";

/** Messages of a channel in the log: file offset behind each, its payload's length and checksum, by sequence number. */
export class SentMessages {
  readonly #ends: number[] = [];
  readonly #lengths: number[] = [];
  readonly #sums: number[] = [];

  get count(): number {
    return this.#ends.length;
  }

  push(end: number, lengthBytes: number, sum: number): void {
    this.#ends.push(end);
    this.#lengths.push(lengthBytes);
    this.#sums.push(sum);
  }

  isDurable(sequence: number, durableBytes: number): boolean {
    return sequence < this.#ends.length && this.#ends[sequence]! <= durableBytes;
  }

  /** Throws RL_CORRUPT_LOG. */
  frame(sequence: number, log: ProcessLog): Buffer {
    const sum = this.#sums[sequence]!;
    return messageFrame(sequence, sum, log.payload(this.#ends[sequence]!, this.#lengths[sequence]!, sum));
  }
}

interface Parts {
  readonly app: string;
  readonly from: string;
  readonly to: string;
  readonly incarnation: number;
  readonly address: Address;
  readonly log: ProcessLog;
  readonly messages: SentMessages;
  /** The channel can't go on, ever. */
  readonly onFatal: (error: unknown) => void;
  /** The receiver's checkpoints cover more than before. */
  readonly onReleased: () => void;
}

export class OutChannel {
  /** Messages sent by the program so far (in replay: again), count. */
  sent = 0;
  /** The receiver needs nothing below again. */
  released = 0;
  readonly messages: SentMessages;
  readonly #parts: Parts;
  #socket: Socket | undefined;
  #ready = false;
  #next = 0;
  #retryMs = SDK_RETRY_MIN_MS;
  #timer: NodeJS.Timeout | undefined;
  #closed = false;

  constructor(parts: Parts) {
    this.#parts = parts;
    this.messages = parts.messages;
    this.#dial();
  }

  #dial(): void {
    if (this.#closed) return;
    const { app, from, to, incarnation, address } = this.#parts;
    const reader = new FrameReader();
    let socket: Socket;
    try {
      const { options, close } = netAddress(address);
      socket = connect(options);
      close();
    } catch {
      this.#again();
      return;
    }
    this.#socket = socket;
    socket.setNoDelay(true);
    socket.setKeepAlive(true, 10_000);
    socket.on("connect", () => socket.write(helloFrame({ protocol: PROTOCOL, incarnation, app, from, to })));
    socket.on("data", (chunk) => this.#take(socket, reader.push(chunk)));
    socket.on("drain", () => this.pump());
    socket.on("error", () => undefined); // `close` follows
    socket.on("close", () => {
      if (this.#socket !== socket) return;
      this.#socket = undefined;
      this.#ready = false;
      this.#again();
    });
  }

  #again(): void {
    if (this.#closed) return;
    this.#timer = setTimeout(() => this.#dial(), this.#retryMs * (0.5 + Math.random()));
    this.#retryMs = Math.min(this.#retryMs * 2, SDK_RETRY_MAX_MS);
  }

  #take(socket: Socket, frames: readonly WireFrame[] | undefined): void {
    if (frames === undefined) return void socket.destroy();
    for (const { type, body } of frames) {
      if (type === Frame.WELCOME) this.#welcome(readWelcome(body));
      else if (type === Frame.CHECKPOINTED) this.#release(readSequence(body));
      else if (type === Frame.REFUSED) this.#refused(readRefused(body));
      else socket.destroy();
    }
  }

  #welcome(welcome: Welcome | undefined): void {
    if (welcome === undefined) return void this.#socket?.destroy();
    const { next, checkpointed } = welcome;
    if (next > this.messages.count) {
      this.#fatal(
        `has received ${next} messages, but the log here holds ${this.messages.count}: it has lost its end`,
      );
      return;
    }
    this.#next = next;
    this.#ready = true;
    this.#retryMs = SDK_RETRY_MIN_MS;
    this.#release(checkpointed);
    this.pump();
  }

  #release(sequence: number): void {
    if (!(sequence > this.released)) return;
    this.released = sequence;
    this.#parts.onReleased();
  }

  #refused({ reason, text }: ReturnType<typeof readRefused>): void {
    if (reason !== Refusal.PROTOCOL) {
      this.#fatal(`refused the channel: ${text}`);
      return;
    }
    const { from, to } = this.#parts;
    this.#parts.onFatal(
      new RecoveryLineError(
        "RL_VERSION",
        `${from} → ${to}: ${from} speaks protocol ${PROTOCOL} and ${to} does not (${text})`,
        "Start both processes with the same version of recovery-line. Their logs stay as they are.",
      ),
    );
  }

  #fatal(why: string): void {
    const { from, to } = this.#parts;
    this.#parts.onFatal(
      new RecoveryLineError(
        "RL_CONTRADICTION",
        `${from} → ${to}: ${to} ${why}`,
        "Bring the log back from a copy, or start all processes of the application anew.",
      ),
    );
  }

  /** Sends what is durable and wanted, as far as the connection takes it. */
  pump(): void {
    const { log } = this.#parts;
    try {
      while (this.#ready && this.messages.isDurable(this.#next, log.durableBytes)) {
        const more = this.#socket!.write(this.messages.frame(this.#next, log));
        this.#next += 1;
        if (!more) return; // "drain" calls again
      }
    } catch (error) {
      this.#parts.onFatal(error);
    }
  }

  close(): void {
    this.#closed = true;
    clearTimeout(this.#timer);
    this.#socket?.destroy();
  }
}
