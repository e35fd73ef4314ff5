/**
 * Judges damage without a disk: the product's own functions in the product's own order, over bytes in memory.
 *
 * What a reader learns from a log is a function of its anchor and of what each segment yields (`ReadSegment`), and of no other byte:
 * the folder's other files are opened by nobody. So a damaged anchor must be refused by `decodeAnchor`, or be the same. A damaged
 * segment file must keep `ReadSegment` from opening; or the segment yields the same entries, then all that follows is the same;
 * or `checkNewest` (newest segment: commit record, state, newest block) or `BlockStore.blocks` (every block and its link)
 * must refuse what differs. Blocks before the first that differs are not read again: they are the same bytes. That this
 * agrees with the public way over a real folder is tested with a sample.
 */
import { dirname } from "node:path";
import { type Anchor, decodeAnchor } from "../../src/format/log-anchor.ts";
import { BlockStore, type Extent } from "../../src/log/block-store.ts";
import type { LevelFiles } from "../../src/log/level/level-files.ts";
import { ReadSegment } from "../../src/log/read-segment.ts";
import { checkNewest } from "../../src/log/recover.ts";
import { hasCode } from "../../src/model/errors.ts";

export type Verdict = "detected" | "harmless" | `SILENT: ${string}` | `WRONG ERROR: ${string}`;

class MemoryFiles implements LevelFiles {
  readonly #files: ReadonlyMap<string, Buffer>;

  constructor(files: ReadonlyMap<string, Buffer>) {
    this.#files = files;
  }

  names(): readonly string[] {
    return [...this.#files.keys()];
  }

  size(name: string): number | undefined {
    return this.#files.get(name)?.length;
  }

  read(name: string, offset: number, length: number): Uint8Array {
    return this.#files.get(name)!.subarray(offset, offset + length);
  }

  close(): void {}
}

/** What a segment yields. */
interface Yield {
  readonly blocks: ReadonlyMap<number, Buffer>;
  /** Commit record, heads and states, one behind the other with their lengths. */
  readonly others: Buffer;
}

async function othersOf(segment: ReadSegment): Promise<Buffer> {
  const parts: Uint8Array[] = [(await segment.commitRecord()) ?? Buffer.from("none")];
  for await (const [key, value] of segment.stateEntries()) parts.push(key, value);
  return Buffer.concat([Buffer.from(parts.map(({ length }) => length).join()), ...parts]);
}

async function yieldOf(segment: ReadSegment): Promise<Yield> {
  const blocks = new Map<number, Buffer>();
  for (const [chain, bytes] of segment.views(0, Number.MAX_SAFE_INTEGER))
    blocks.set(chain, Buffer.from(bytes));
  return { blocks, others: await othersOf(segment) };
}

const never = (): never => {
  throw new Error("not used");
};

class SegmentJudge {
  readonly #dir: string;
  readonly #anchor: Anchor;
  readonly #row: number;
  readonly #files: Map<string, Buffer>;
  readonly #extent: Extent;
  #truth: Yield | undefined;

  /** Reads what is whole. Once, first. */
  async begin(): Promise<void> {
    this.#truth = await yieldOf(this.#open());
  }

  constructor(dir: string, anchor: Anchor, row: number, files: Map<string, Buffer>) {
    this.#dir = dir;
    this.#anchor = anchor;
    this.#row = row;
    this.#files = files;
    const facts = anchor.segments[row]!;
    const newest = row === anchor.segments.length - 1;
    this.#extent = {
      application: anchor.application,
      firstChain: facts.firstChain,
      lastChain: newest ? anchor.lastChain : facts.lastChain,
      baseHash: anchor.segments[row - 1]?.lastHash ?? anchor.baseHash,
      lastHash: newest ? anchor.lastHash : facts.lastHash,
      segments: [facts],
    };
  }

  #open(): ReadSegment {
    return ReadSegment.over(this.#dir, "segment", new MemoryFiles(this.#files));
  }

  get #newest(): boolean {
    return this.#row === this.#anchor.segments.length - 1;
  }

  async judge(name: string, bytes: Buffer): Promise<Verdict> {
    const whole = this.#files.get(name)!;
    this.#files.set(name, bytes);
    try {
      return await this.#compare(this.#open(), this.#truth!);
    } catch (error) {
      return hasCode(error, "RL_CORRUPT_LOG") ? "detected" : `WRONG ERROR: ${String(error)}`;
    } finally {
      this.#files.set(name, whole);
    }
  }

  /** Throws what detects the damage. */
  async #compare(segment: ReadSegment, truth: Yield): Promise<Verdict> {
    const others = this.#newest && !(await othersOf(segment)).equals(truth.others);
    const first = firstOther(segment, truth.blocks);
    if (!others && first === undefined) return "harmless";
    if (this.#newest) await checkNewest(this.#dir, this.#anchor, segment);
    if (others) return "SILENT: another commit record or state";
    const { firstChain, lastChain } = this.#extent;
    if (first! < firstChain || first! > lastChain) return "harmless"; // not asked for by anybody
    const shelf = { take: async () => segment, giveBack: async () => undefined, use: never };
    const use: typeof shelf.use = ((_: number, work: (one: ReadSegment) => unknown) =>
      work(segment)) as never;
    const store = new BlockStore(this.#dir, { ...shelf, use }, () => this.#extent);
    for await (const { header, bytes } of store.blocks(first! - 1))
      if (!truth.blocks.get(header.chain)!.equals(bytes)) return `SILENT: block ${header.chain}`;
    return "SILENT: a block that reading passes over";
  }
}

/** The first block that is not the same in both, or stands in one of them only. */
function firstOther(segment: ReadSegment, blocks: ReadonlyMap<number, Buffer>): number | undefined {
  const expected = blocks.entries();
  for (const [chain, bytes] of segment.views(0, Number.MAX_SAFE_INTEGER)) {
    const next = expected.next().value;
    if (next === undefined || next[0] !== chain) return Math.min(chain, next?.[0] ?? chain);
    if (!next[1].equals(bytes)) return chain;
  }
  return expected.next().value?.[0];
}

export class HomeJudge {
  readonly #segments = new Map<string, SegmentJudge>();
  readonly #anchors = new Map<string, Buffer>();

  /** Of a home that is whole, by the paths of its files. */
  static async of(files: ReadonlyMap<string, Buffer>): Promise<HomeJudge> {
    const judge = new HomeJudge(files);
    for (const segment of judge.#segments.values()) await segment.begin();
    return judge;
  }

  private constructor(files: ReadonlyMap<string, Buffer>) {
    for (const [path, bytes] of files) {
      if (!path.endsWith("/anchor")) continue;
      this.#anchors.set(path, bytes);
      const anchor = decodeAnchor(bytes);
      if (typeof anchor === "string") throw new Error(`${path}: ${anchor}`);
      for (const [row, { number }] of anchor.segments.entries()) {
        const folder = `${dirname(path)}/segments/${String(number).padStart(6, "0")}`;
        const inside = [...files].filter(([one]) => dirname(one) === folder);
        const own = new Map(inside.map(([one, content]) => [one.slice(folder.length + 1), content]));
        this.#segments.set(folder, new SegmentJudge(dirname(path), anchor, row, own));
      }
    }
  }

  /** Of the home in which one file holds other bytes. */
  async judge(path: string, bytes: Buffer): Promise<Verdict> {
    const anchor = this.#anchors.get(path);
    if (anchor !== undefined) {
      if (typeof decodeAnchor(bytes) === "string") return "detected";
      return anchor.equals(bytes) ? "harmless" : "SILENT: another anchor";
    }
    const segment = this.#segments.get(dirname(path));
    if (segment === undefined) throw new Error(`${path} is of no segment`);
    return await segment.judge(path.slice(dirname(path).length + 1), bytes);
  }
}
