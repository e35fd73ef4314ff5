/** No member and no export that nothing reads (members.ts); what may be there all the same stands here, with its reason. */
import { execFileSync } from "node:child_process";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { beforeAll, expect, test } from "vitest";
import { unreadMembers } from "./members.ts";

const ROOT = join(import.meta.dirname, "../..");

/** What is found and may stay. */
const REASONS: readonly (readonly [found: RegExp, reason: string])[] = [
  [
    /^format\/ring-layout\.ts: (RECORD_|Ring(Kind|Verdict)\.|Told\.)/,
    "the header's layout, compared with it",
  ],
  [/^format\/log-anchor\.ts: \w+\.reserved$/, "a place in the file"],
  [
    /^native\/binding\.ts: \w+\.(__\w+|free)$/,
    "what tells one handle of the addon from another; its numbers",
  ],
  [
    /^images\/criu\/driver-criu\.ts: CriuNotes\.mapped$/,
    "stored; the restart reads it by name from the manifest",
  ],
  [/^policy\/expression\.ts: env\.node$/, "jsep takes it"],
  [/^client\/start-process\.ts: /, "the collector's answer"],
  [/^client\/client\.ts: CollectorClient\.(metrics|rotate)$/, "routes of the collector's socket"],
  [/^daemon\/daemon\.ts: Daemon\.policies$/, "tests play their clock"],
  [/^capture\/memory-rings\.ts: MemoryRings\.connected$/, "tests see when a runtime is gone"],
  [/^capture\/kernel-source\.ts: KernelSource\.(created|parts)$/, "tests see what was loaded"],
  [/^model\/event-source\.ts: CapturePart\.inUse$/, "tests see what was loaded"],
  [/^compute\/compute-from-cuts\.ts: FromCuts\.blocksRead$/, "tests see that little is read"],
  [/^policy\/replay\.ts: ReplayResult\.(evidence|lines)$/, "tests judge the line by it"],
  [/^log\/segment-reader\.ts: LogReader\.application$/, "tests see whose log was opened"],
  [/^logs\/read-evidence\.ts: readEvidence$/, "tests build evidence of a log by the way that events take"],
  [
    /^payload\/payload-log(ger)?\.ts: (Payload(Figures|Log|Logger|Flush)|SegmentedLog)\.\w+$/,
    "tests judge what was kept",
  ],
];

test("nothing is declared that nothing reads", () => {
  const names = execFileSync("git", ["ls-files", "-co", "--exclude-standard", "src", "bench"], {
    cwd: ROOT,
    encoding: "utf8",
  });
  const files = names.split("\n").filter((name) => name.endsWith(".ts"));
  const knip = JSON.parse(readFileSync(join(ROOT, "knip.json"), "utf8")) as { entry: string[] };
  const entries = knip.entry.flatMap((name) => /^src\/([^*]+)$/.exec(name)?.[1] ?? []);
  const source = join(ROOT, "src");
  const found = unreadMembers({ files: files.map((name) => join(ROOT, name)), source, entries });
  expect(found.filter((one) => !REASONS.some(([reason]) => reason.test(one)))).toEqual([]);
  for (const [reason] of REASONS)
    expect(
      found.some((one) => reason.test(one)),
      `${reason} is found no more`,
    ).toBe(true);
});

/** A small house in two rooms: what nothing reads, and what is read in ways that are easily missed. */
const PLANTED = {
  "unread/a.ts": `
      export class Counter {
        count = 0;
        written = 0;
        tick(): number { this.written += 1; return (this.count += 1); }
        never(): void {}
      }
      export enum Colour { red, green }
      export const TABLE = { one: 1, two: 2 };
      export interface Shape { width: number; height: number }
      export const area = ({ width }: Shape): number => width;
      export function unused(): void {}`,
  "unread/index.ts": `
      import { area, Colour, Counter, TABLE } from "./a.ts";
      export const result = [new Counter().tick(), Colour.red, TABLE.one, area({ width: 1, height: 2 })];`,
  "read/a.ts": `
      export interface Animal { speak(): string }
      export class Dog implements Animal { speak(): string { return "woof"; } }
      export interface Printed { deep: { field: number } }
      export const print = (printed: Printed): string => JSON.stringify(printed);
      export const BY_KEY = { x: 1, y: 2 };
      export const read = (key: keyof typeof BY_KEY): number => BY_KEY[key];
      export interface Given { forUsers: string }
      export class Listed { *[Symbol.iterator](): Iterator<number> { yield 1; } }
      export interface Held { a: number }
      export interface Narrow { a: number }
      export const narrow = ({ a }: Narrow): number => a;`,
  "read/index.ts": `
      import { type Animal, Dog, type Given, type Held, Listed, narrow, print, read } from "./a.ts";
      const animal: Animal = new Dog();
      const held: Held = { a: 1 };
      export const said = [animal.speak(), print({ deep: { field: 1 } }), read("x"), [...new Listed()], narrow(held)];
      export const give = (): Given => ({ forUsers: "" });`,
};

/** Members of it that nothing reads. */
function unreadOfPlanted(): string[] {
  const folder = mkdtempSync(join(tmpdir(), "recovery-line-members-"));
  try {
    for (const [name, text] of Object.entries(PLANTED)) {
      mkdirSync(dirname(join(folder, name)), { recursive: true });
      writeFileSync(join(folder, name), text);
    }
    const files = Object.keys(PLANTED).map((name) => join(folder, name));
    return unreadMembers({ files, source: folder, entries: ["unread/index.ts", "read/index.ts"] });
  } finally {
    rmSync(folder, { recursive: true });
  }
}

let planted: readonly string[];
beforeAll(() => {
  planted = unreadOfPlanted();
});

test("what nothing reads is found: a method, a field that is only written, a word of an enumeration, a table's row, an export", () => {
  expect(planted.filter((one) => one.startsWith("unread/"))).toEqual([
    "unread/a.ts: Colour.green",
    "unread/a.ts: Counter.never",
    "unread/a.ts: Counter.written",
    "unread/a.ts: Shape.height",
    "unread/a.ts: TABLE.two",
    "unread/a.ts: unused",
  ]);
});

test("what is read another way is not found: through an interface, as JSON, by key, by an entry's users, by a library", () => {
  expect(planted.filter((one) => one.startsWith("read/"))).toEqual([]);
});
