/** Which files a LevelDB folder consists of, from CURRENT and the MANIFEST it names. Only what LevelDB 1.20 writes is read. */
import { type LevelFiles, wholeFile } from "./level-files.ts";
import { readRecords, VarintReader } from "./level-records.ts";

const COMPARATOR = "leveldb.BytewiseComparator";
/** "MANIFEST-", a number of 64 bits, line feed. */
const MAX_CURRENT_BYTES = 64;

export interface LevelVersion {
  /** Numbers of the tables in use. */
  readonly tables: ReadonlySet<number>;
  /** The oldest WAL whose records are in no table. */
  readonly log: number;
}

/** Fields of a version edit. */
const EDIT = {
  comparator: 1,
  log: 2,
  nextFile: 3,
  lastSequence: 4,
  compactPointer: 5,
  deleted: 6,
  added: 7,
  previousLog: 9,
} as const;
const NUMBERS: readonly number[] = [EDIT.nextFile, EDIT.lastSequence, EDIT.previousLog];

class Version {
  readonly tables = new Set<number>();
  log: number | undefined;

  /** Applies one version edit; false if it is none. */
  apply(data: Buffer, from: number, to: number): boolean {
    const reader = new VarintReader(data, from, to);
    while (reader.more) {
      const tag = reader.number();
      if (tag === EDIT.comparator) {
        const name = reader.string();
        if (data.toString("latin1", name.from, name.from + name.length) !== COMPARATOR) return false;
      } else if (tag === EDIT.log) this.log = reader.number();
      else if (tag === EDIT.compactPointer) {
        reader.number();
        reader.string();
      } else if (tag === EDIT.deleted) {
        reader.number();
        this.tables.delete(reader.number());
      } else if (tag === EDIT.added) {
        reader.number();
        this.tables.add(reader.number());
        reader.number();
        reader.string();
        reader.string();
      } else if (NUMBERS.includes(tag)) reader.number();
      else return false;
    }
    return !reader.bad;
  }
}

/** The folder's version, or why it has none. */
export function readVersion(files: LevelFiles): LevelVersion | string {
  const size = files.size("CURRENT");
  if (size === undefined) return "CURRENT: missing";
  const current = Buffer.from(files.read("CURRENT", 0, MAX_CURRENT_BYTES)).toString("latin1");
  if (size > MAX_CURRENT_BYTES || !/^MANIFEST-\d{6,20}\n$/.test(current)) return "CURRENT: names no MANIFEST";
  const name = current.slice(0, -1);
  const bytes = wholeFile(files, name);
  if (bytes === undefined) return `${name}: missing`;
  const { data, ends, damaged } = readRecords(bytes);
  const version = new Version();
  let from = 0;
  for (const to of ends) {
    if (!version.apply(data, from, to)) return `${name}: a broken version edit`;
    from = to;
  }
  const { tables, log } = version;
  if (damaged || log === undefined) return `${name}: ${damaged ? "damaged" : "cut off"}`;
  return { tables, log };
}
