/** Where memory rings come in: a unix socket, the peers' credentials, and what each connected runtime did. */
import { closeSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { hasCode, RecoveryLineError } from "../model/errors.ts";
import type { DsmEvent } from "../model/event.ts";
import { ACCEPT_POLL_MS, RING_LOOK_MS } from "../model/limits.ts";
import { HOME_FILES } from "../model/names.ts";
import { call, type NativeAddon, native, type WatchHandle } from "../native/binding.ts";
import { MemoryConnection, parseHello } from "./memory-connection.ts";
import { nextLookMs } from "./ring-pace.ts";

/** Connected runtimes at one time, count. */
const MAX_CONNECTIONS = 64;
/** Events taken from one runtime before the next gets its turn, count. */
const TURN_EVENTS = 4096;

/** What happened since the last `poll`, in the order of each process. */
export interface MemoryBatch {
  readonly application: string;
  /** Process and home that the runtime speaks for. */
  readonly entities: readonly string[];
  readonly events: readonly DsmEvent[];
  /** Nothing comes from this runtime any more. */
  readonly ended: boolean;
}

/** A runtime or a stranger that was turned away, and why. */
export interface MemoryRefusal {
  readonly pid: number;
  readonly error: RecoveryLineError;
}

interface Peer {
  readonly fd: number;
  readonly pid: number;
  /** After its first message. */
  connection: MemoryConnection | undefined;
  closed: boolean;
}

/** Becomes the one that takes the memory rings of a home, at `<home>/rings.sock`. Throws RL_LOCKED where somebody does already. */
export function openMemoryRings(home: string): MemoryRings {
  const lock = join(home, HOME_FILES.ringsLock);
  const path = join(home, HOME_FILES.ringsSocket);
  writeFileSync(lock, "", { flag: "a", mode: 0o600 });
  let fd: number;
  try {
    fd = call(lock, () => native().lock(lock));
  } catch (error) {
    if (!hasCode(error, "RL_LOCKED")) throw error;
    throw new RecoveryLineError(
      "RL_LOCKED",
      `memory rings are being taken at ${path} already`,
      "The collector of the directory takes them, or another collect-rings: name another directory with --log.",
      error,
    );
  }
  rmSync(path, { force: true }); // left behind by one that was killed
  return new MemoryRings(path, () => native().unlock(fd));
}

export class MemoryRings {
  readonly path: string;
  readonly #native: NativeAddon;
  readonly #closed: () => void;
  readonly #listener: number;
  readonly #watch: WatchHandle;
  #onCall: () => void = () => undefined;
  #polledMs = performance.now();
  #nextMs = RING_LOOK_MS;
  readonly #peers = new Set<Peer>();
  readonly #refusals: MemoryRefusal[] = [];

  /** Listens at `path`, which must not exist; `closed` is called at the end. Throws RL_NOT_SUPPORTED, RL_NO_RIGHTS. */
  constructor(path: string, closed: () => void = () => undefined) {
    this.#native = native();
    this.#closed = closed;
    this.path = path;
    this.#listener = call(`memory rings at ${path}`, () => this.#native.memoryListen(path));
    this.#watch = call("memory rings", () => this.#native.memoryWatch(() => this.#onCall()));
    this.#watchSocket(this.#listener);
  }

  /** `called` runs when somebody connects, sends a message, ends, or has a ring that is half full: then `poll` should not wait. */
  onCall(called: () => void): void {
    this.#onCall = called;
  }

  /** How long the next `poll` may wait unless `onCall` tells, ms. */
  get nextPollMs(): number {
    return this.#peers.size === 0 ? ACCEPT_POLL_MS : this.#nextMs;
  }

  /** Runtimes connected now, count. */
  get connected(): number {
    return this.#peers.size;
  }

  /** Who was turned away since the last call. */
  takeRefusals(): MemoryRefusal[] {
    return this.#refusals.splice(0);
  }

  /** Takes new connections and what all runtimes have written. A runtime that breaks the protocol ends with a gap. */
  poll(): MemoryBatch[] {
    this.#accept();
    const batches: MemoryBatch[] = [];
    let fill = 0;
    let more = false;
    for (const peer of [...this.#peers]) {
      fill = Math.max(fill, peer.connection?.fill ?? 0);
      const batch = this.#turn(peer);
      if (batch === undefined || !(batch.ended || batch.events.length > 0)) continue;
      more ||= batch.events.length >= TURN_EVENTS && !batch.ended;
      batches.push(batch);
    }
    const now = performance.now();
    this.#nextMs = more ? 0 : nextLookMs(fill, now - this.#polledMs);
    this.#polledMs = now;
    return batches;
  }

  #watchSocket(fd: number): void {
    call("memory rings", () => this.#native.memoryWatchSocket(this.#watch, fd));
  }

  close(): void {
    this.#native.memoryUnwatch(this.#watch);
    for (const peer of this.#peers) this.#forget(peer);
    closeSync(this.#listener);
    rmSync(this.path, { force: true });
    this.#closed();
  }

  /** Ends the connections of an application whose events nobody can take. */
  turnAway(application: string, error: RecoveryLineError): void {
    for (const peer of [...this.#peers])
      if (peer.connection?.hello.application === application) {
        this.#refuse(peer, error);
        this.#forget(peer);
      }
  }

  #accept(): void {
    while (this.#peers.size < MAX_CONNECTIONS) {
      const fd = call("memory rings", () => this.#native.memoryAccept(this.#listener));
      if (fd === undefined) return;
      const { pid, uid } = call("credentials", () => this.#native.peer(fd));
      const peer: Peer = { fd, pid, connection: undefined, closed: false };
      this.#peers.add(peer);
      this.#watchSocket(fd);
      if (uid !== 0 && uid !== process.getuid?.())
        this.#refuse(
          peer,
          new RecoveryLineError("RL_NO_RIGHTS", `user ${uid} may not hand memory rings over`),
        );
    }
  }

  #turn(peer: Peer): MemoryBatch | undefined {
    const events: DsmEvent[] = [];
    try {
      this.#messages(peer);
      const { connection } = peer;
      if (connection !== undefined) {
        if (!peer.closed) connection.take(events, TURN_EVENTS);
        if (peer.closed) connection.takeRest(events); // also where it has ended meanwhile
      }
    } catch (error) {
      if (!(error instanceof RecoveryLineError)) throw error;
      this.#refuse(peer, error);
      for (const name of peer.connection?.entities ?? []) events.push({ type: "gap", process: name });
    }
    if (peer.closed) this.#forget(peer);
    if (peer.connection === undefined) return undefined;
    const { hello, entities } = peer.connection;
    return { application: hello.application, entities, events, ended: peer.closed };
  }

  #messages(peer: Peer): void {
    while (!peer.closed) {
      const message = call("memory rings", () => this.#native.memoryReceive(peer.fd));
      if (message === undefined) return;
      if (message === null) peer.closed = true;
      else if (peer.connection === undefined) this.#introduce(peer, message);
      else if (message.rings.length > 0) throw protocol("rings come with the first message only");
      else peer.connection.control(message.text);
    }
  }

  #introduce(peer: Peer, { text, rings }: NonNullable<ReturnType<NativeAddon["memoryReceive"]>>): void {
    const hello = parseHello(text);
    if (rings.length === 0) throw protocol("its first message brings no ring");
    for (const { connection } of this.#peers)
      if (connection?.hello.application === hello.application && connection.hello.rank === hello.rank)
        throw protocol(`rank ${hello.rank} of ${hello.application} is connected already`);
    peer.connection = new MemoryConnection(this.#native, hello, rings, () => this.#messages(peer));
  }

  #refuse(peer: Peer, error: RecoveryLineError): void {
    peer.closed = true;
    this.#refusals.push({ pid: peer.pid, error });
  }

  #forget(peer: Peer): void {
    peer.connection?.close();
    closeSync(peer.fd);
    this.#peers.delete(peer);
  }
}

function protocol(what: string): RecoveryLineError {
  return new RecoveryLineError("RL_BAD_RECORD", `a runtime with memory rings breaks the protocol: ${what}`);
}
