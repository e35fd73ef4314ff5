/** Where senders dial in: who says HELLO for this process becomes the connection of its channel. */
import { once } from "node:events";
import { rmSync } from "node:fs";
import { createServer, type Server, type Socket } from "node:net";
import { RecoveryLineError } from "../model/errors.ts";
import { SDK_HELLO_LIMIT_MS } from "../model/limits.ts";
import { type Address, netAddress } from "./address.ts";
import type { InChannel } from "./in-channel.ts";
import {
  Frame,
  FrameReader,
  isOldProtocol,
  oldRefusedFrame,
  PROTOCOL,
  Refusal,
  readHello,
  refusedFrame,
  type WireFrame,
} from "./wire.ts";

interface Parts {
  readonly app: string;
  readonly process: string;
  /** The channel from a peer, made where it is new; a string says why there can be none. */
  channel(peer: string): InChannel | string;
  /** Something new may be waiting. */
  onArrival(): void;
}

export class Listener {
  readonly #server: Server;
  readonly #parts: Parts;
  readonly #sockets = new Set<Socket>();
  #arrivals = 0;

  private constructor(parts: Parts) {
    this.#parts = parts;
    this.#server = createServer((socket) => this.#accept(socket));
  }

  /** Throws RL_USAGE where the address can't be had. A dead process's socket file is replaced: the caller holds the log's lock. */
  static async listen(parts: Parts, address: Address): Promise<Listener> {
    const listener = new Listener(parts);
    const { options, close } = netAddress(address);
    try {
      if (typeof address === "string") rmSync(address, { force: true });
      listener.#server.listen(options);
      await once(listener.#server, "listening");
      return listener;
    } catch (cause) {
      throw new RecoveryLineError(
        "RL_USAGE",
        `can't listen on ${JSON.stringify(address)}: ${(cause as Error).message}`,
        "Choose a free port, or a folder that this user may write.",
        cause,
      );
    } finally {
      close();
    }
  }

  #accept(socket: Socket): void {
    this.#sockets.add(socket);
    socket.setNoDelay(true);
    socket.setKeepAlive(true, 10_000);
    const reader = new FrameReader();
    const timer = setTimeout(() => socket.destroy(), SDK_HELLO_LIMIT_MS);
    let channel: InChannel | undefined;
    socket.on("data", (chunk) => {
      const frames = reader.push(chunk);
      if (frames === undefined) return void socket.destroy();
      for (const frame of frames) {
        if (channel === undefined) {
          channel = this.#hello(frame, socket);
          if (channel === undefined) return;
          clearTimeout(timer);
        } else if (!channel.arrive(frame, socket, this.#arrivals++)) return void socket.destroy();
      }
      this.#parts.onArrival();
    });
    socket.on("error", () => undefined);
    socket.on("close", () => {
      clearTimeout(timer);
      this.#sockets.delete(socket);
      channel?.detach(socket);
    });
  }

  #hello({ type, body }: WireFrame, socket: Socket): InChannel | undefined {
    const channel = type === Frame.HELLO ? this.#channel(body) : malformed("what comes first is HELLO");
    if (Buffer.isBuffer(channel)) {
      socket.end(channel);
      return undefined;
    }
    channel.attach(socket);
    return channel;
  }

  /** The channel that a HELLO asks for, or what to answer. */
  #channel(body: Buffer): InChannel | Buffer {
    const { app, process } = this.#parts;
    const speaks = `${process} speaks protocol ${PROTOCOL}`;
    if (isOldProtocol(body)) return oldRefusedFrame(`${speaks}: start this process with its version, too`);
    const hello = readHello(body);
    if (hello === undefined) return malformed("this is no HELLO");
    if (hello.protocol !== PROTOCOL) return refusedFrame(Refusal.PROTOCOL, speaks);
    if (hello.app !== app || hello.to !== process)
      return refusedFrame(Refusal.OTHER_PROCESS, `this is ${process} of ${app}`);
    const channel = this.#parts.channel(hello.from);
    return typeof channel === "string" ? malformed(channel) : channel;
  }

  async close(): Promise<void> {
    const closed = new Promise<void>((resolve) => this.#server.close(() => resolve()));
    for (const socket of this.#sockets) socket.destroy();
    await closed;
  }
}

function malformed(why: string): Buffer {
  return refusedFrame(Refusal.MALFORMED, why);
}
