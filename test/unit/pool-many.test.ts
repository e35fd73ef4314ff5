/** Bounds: a million processes (a tenth of it by `npm test`), and lines beyond what 32 bits count. */
import { execFileSync } from "node:child_process";
import { join } from "node:path";
import { expect, test } from "vitest";
import { EvidenceBuilder } from "../../src/graph/evidence/evidence-builder.ts";
import { hasCode } from "../../src/model/errors.ts";
import { MAX_OFFSET, MAX_PROCESS_LINES } from "../../src/model/limits.ts";
import { packageRoot } from "../../src/native/binding.ts";
import { build, dist } from "../built.ts";
import { sized } from "../size.ts";

const PROCESSES = sized(1_000_000, 100_000);
/** Four lines a process, both answers with a range and a witness each. */
const MOST_MIB = 200 + (4800 * PROCESSES) / 1_000_000;

test(`${PROCESSES} processes: line, in-transit ranges and witnesses, verified, in bounded memory`, () => {
  build();
  const script = join(packageRoot(), "test/unit/pool-many-child.mjs");
  const found = JSON.parse(
    execFileSync(process.execPath, ["--max-old-space-size=4096", script, dist, String(PROCESSES)], {
      encoding: "utf8",
    }),
  );
  expect(found.one).toEqual([{ process: "p0", checkpoint: 1, position: 2, action: "restore" }]);
  // One a channel: the second message, and before p0 the first one again; p0's own second message is undone.
  expect(found.oneInTransit).toBe(PROCESSES - 1);
  expect(found.all).toBe(PROCESSES);
  expect(found.allInTransit).toBe(PROCESSES);
  expect(found.peakMiB).toBeLessThan(MOST_MIB);
}, 280_000);

test("more lines than 32 bits count are refused by name, not wrapped", () => {
  const builder = new EvidenceBuilder();
  const process = builder.addProcess("p");
  builder.skipTo(process, MAX_PROCESS_LINES);
  let thrown: unknown;
  try {
    builder.skipTo(process, MAX_PROCESS_LINES + 1);
  } catch (error) {
    thrown = error;
  }
  expect(hasCode(thrown, "RL_LIMIT")).toBe(true);
  expect((thrown as Error).message).toContain('"p"');
});

test("offsets up to 2^53 - 1 stay exact", () => {
  const builder = new EvidenceBuilder();
  builder.addEvent({ type: "send", process: "p", channel: "c", begin: MAX_OFFSET - 1, end: MAX_OFFSET });
  const { rows } = builder.build();
  expect([rows.begin[0], rows.end[0]]).toEqual([MAX_OFFSET - 1, MAX_OFFSET]);
});
