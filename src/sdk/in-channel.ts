/** The receiving end of a channel: messages that have arrived and are not delivered yet, each exactly once and in sequence. */
import type { Socket } from "node:net";
import { crc32 } from "node:zlib";
import { SDK_QUEUE_BYTES, SDK_QUEUE_MESSAGES } from "../model/limits.ts";
import { checkpointedFrame, Frame, readMessage, type WireFrame, welcomeFrame } from "./wire.ts";

export interface Arrived {
  readonly sequence: number;
  readonly sum: number;
  readonly payload: Buffer;
  /** Rises over all channels of the process in the order of arrival. */
  readonly arrival: number;
}

export class InChannel {
  readonly peer: string;
  /** Messages delivered to the program so far, count: the sequence number of the next one. */
  delivered: number;
  /** Below this the newest checkpoint covers everything. */
  checkpointed: number;
  #queue: Arrived[] = [];
  #first = 0;
  #queuedBytes = 0;
  #socket: Socket | undefined;
  #paused = false;

  constructor(peer: string, delivered: number) {
    this.peer = peer;
    this.delivered = delivered;
    this.checkpointed = delivered;
  }

  get head(): Arrived | undefined {
    return this.#queue[this.#first];
  }

  get #waiting(): number {
    return this.#queue.length - this.#first;
  }

  /** Takes the head off. */
  take(): Arrived {
    const message = this.head!;
    this.#first += 1;
    if (this.#first > 1024 && this.#first * 2 > this.#queue.length) {
      this.#queue = this.#queue.slice(this.#first);
      this.#first = 0;
    }
    this.delivered += 1;
    this.#queuedBytes -= message.payload.length;
    if (this.#paused && !this.#full) this.#pause(false);
    return message;
  }

  get #full(): boolean {
    return this.#waiting >= SDK_QUEUE_MESSAGES || this.#queuedBytes >= SDK_QUEUE_BYTES;
  }

  #pause(on: boolean): void {
    this.#paused = on;
    if (on) this.#socket?.pause();
    else this.#socket?.resume();
  }

  /** A new connection of the sender takes the place of the old one. */
  attach(socket: Socket): void {
    const old = this.#socket;
    this.#socket = socket;
    old?.destroy();
    this.#paused = false;
    socket.write(welcomeFrame({ next: this.delivered + this.#waiting, checkpointed: this.checkpointed }));
    if (this.#full) this.#pause(true);
  }

  /** False: the frame is nothing that may come here; the connection must end. */
  arrive({ type, body }: WireFrame, socket: Socket, arrival: number): boolean {
    if (socket !== this.#socket) return true; // an old connection's last words: they come again
    const message = type === Frame.MESSAGE ? readMessage(body) : undefined;
    if (message === undefined || crc32(message.payload) !== message.sum) return false;
    if (message.sequence !== this.delivered + this.#waiting) return false;
    this.#queue.push({ ...message, arrival });
    this.#queuedBytes += message.payload.length;
    if (this.#full) this.#pause(true);
    return true;
  }

  /** A checkpoint with this many deliveries is durable. */
  tellCheckpointed(delivered: number): void {
    this.checkpointed = delivered;
    if (this.#socket !== undefined && !this.#socket.destroyed)
      this.#socket.write(checkpointedFrame(delivered));
  }

  detach(socket: Socket): void {
    if (this.#socket === socket) this.#socket = undefined;
  }

  close(): void {
    this.#socket?.destroy();
  }
}
