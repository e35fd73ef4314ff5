/**
 * The open segments of one log, shared by its readers and its writer. LevelDB opens the one that is written; the others are read
 * without it, unless its own lock is what keeps other processes away (`readWithLevel`).
 *
 * A segment in use stays open; idle sealed ones are kept open up to MAX_OPEN_SEGMENTS, oldest use first to go. Whoever
 * wants a segment gone (`retire`: to remove or to seal it) is told when its last user has let go.
 */
import { assert } from "../model/assert.ts";
import { MAX_OPEN_SEGMENTS } from "../model/limits.ts";
import { hasFlock } from "./log-lock.ts";
import { segmentPath } from "./log-paths.ts";
import { ReadSegment } from "./read-segment.ts";
import { type ReadableSegment, Segment } from "./segment.ts";

interface Slot {
  readonly segment: Promise<ReadableSegment>;
  users: number;
  /** Called once it is closed. */
  retired: ((value: undefined) => void) | undefined;
}

export class SegmentShelf {
  readonly #dir: string;
  readonly #readWithLevel: boolean;
  /** By number; in order of last use. */
  readonly #slots = new Map<number, Slot>();
  /** LevelDB opens a folder again only when it has closed it. */
  readonly #closing = new Map<number, Promise<void>>();

  constructor(dir: string, readWithLevel = !hasFlock()) {
    this.#dir = dir;
    this.#readWithLevel = readWithLevel;
  }

  /** Runs `work` with the segment open. */
  async use<T>(number: number, work: (segment: ReadableSegment) => Promise<T>): Promise<T> {
    const segment = await this.take(number);
    try {
      return await work(segment);
    } finally {
      await this.giveBack(number);
    }
  }

  /** The segment to read from, open until `giveBack`. Throws what opening throws. */
  take(number: number): Promise<ReadableSegment> {
    const path = segmentPath(this.#dir, number);
    return this.#take(number, () =>
      this.#readWithLevel ? Segment.open(this.#dir, path, false) : ReadSegment.open(this.#dir, path),
    );
  }

  /** The segment to write to, which nobody has taken; with `create` it is made where it is missing. Throws what `Segment.open` throws. */
  async takeToWrite(number: number, create: boolean): Promise<Segment> {
    await this.retire(number);
    const segment = await this.#take(number, () =>
      Segment.open(this.#dir, segmentPath(this.#dir, number), create),
    );
    assert(segment instanceof Segment, `segment ${number} is being read`);
    return segment;
  }

  async #take(number: number, open: () => Promise<ReadableSegment>): Promise<ReadableSegment> {
    while (this.#closing.has(number)) await this.#closing.get(number);
    const slot = this.#slots.get(number) ?? { segment: open(), users: 0, retired: undefined };
    this.#slots.delete(number); // to the end: used last
    this.#slots.set(number, slot);
    slot.users += 1;
    try {
      return await slot.segment;
    } catch (error) {
      slot.users -= 1;
      this.#slots.delete(number);
      throw error;
    }
  }

  async giveBack(number: number): Promise<void> {
    const slot = this.#slots.get(number);
    if (slot === undefined) return; // all were closed
    slot.users -= 1;
    if (slot.users > 0) return;
    if (slot.retired !== undefined) await this.#close(number, slot);
    else await this.#closeIdle();
  }

  async #closeIdle(): Promise<void> {
    const idle = [...this.#slots].filter(([, slot]) => slot.users === 0);
    for (const [number, slot] of idle.slice(0, Math.max(0, idle.length - MAX_OPEN_SEGMENTS)))
      await this.#close(number, slot);
  }

  async #close(number: number, slot: Slot): Promise<void> {
    this.#slots.delete(number);
    const closed = slot.segment.then((segment) => segment.close());
    const forgotten = closed.catch(() => undefined).then(() => void this.#closing.delete(number));
    this.#closing.set(number, forgotten);
    await closed;
    slot.retired?.(undefined);
  }

  /** Resolves when the segment is closed, at the latest when its last user has let go. */
  async retire(number: number): Promise<void> {
    const slot = this.#slots.get(number);
    if (slot === undefined) return;
    if (slot.users === 0) return this.#close(number, slot);
    await new Promise((resolve) => {
      slot.retired = resolve;
    });
  }

  /** Closes all, also those in use: their users' next step fails. */
  async closeAll(): Promise<void> {
    const slots = [...this.#slots.values()];
    this.#slots.clear();
    const closed = await Promise.allSettled(slots.map(async ({ segment }) => (await segment).close()));
    for (const { retired } of slots) retired?.(undefined);
    const failed = closed.find((one) => one.status === "rejected");
    if (failed !== undefined) throw failed.reason;
  }
}
