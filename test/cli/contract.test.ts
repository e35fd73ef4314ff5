/** What a reader of interchange.md alone expects and the tool once did otherwise, through the compiled command. */

import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { build, does, lines, run, runJson, scratch } from "./cli.ts";

const { dir, clean } = scratch();
beforeAll(build);
afterAll(clean);

const p = does("p");
const q = does("q");

const compute = (events: readonly object[]) => runJson(["compute", "--from", "-"], lines(...events));

describe("a checkpoint's own line may be among those that a gap lost", () => {
  const before = [p.send("a", 0, 4), p.checkpoint(2), p.stable(), p.send("a", 4, 6)];
  /** Lost: checkpoint 5 and, after the second gap, sends that it undoes. */
  const hidden = [...before, p.gap(1), p.send("a", 6, 9), p.gap(7), p.rollback(5)];

  test("a rollback to it keeps what stands before the first gap that can hide it; nothing after is certain", async () => {
    const { value, code } = await compute([
      ...hidden,
      p.send("a", 6, 7),
      q.receive("a", 0, 7),
      q.checkpoint(1),
    ]);
    expect(code).toBe(3);
    // Undone with the lost checkpoint's successors: the send of [6, 9) and the second gap.
    expect(value.evidence).toEqual({ gaps: 1, lost: 1, healed: 0 });
    expect(value.line).toEqual([
      { process: "p", checkpoint: 2, position: 3, action: "replay" },
      { process: "q", checkpoint: 0, position: 0, action: "initial" },
    ]);
    expect(value.inTransit).toEqual([{ channel: "a", from: "p", to: "q", begin: 0, end: 4 }]);
  });

  test("a checkpoint with cut makes it certain again, in the file and in the log, and the log is whole", async () => {
    const events = [
      ...hidden,
      p.send("a", 6, 7),
      p.checkpoint(6, { cut: { sent: { a: 7 }, received: {} } }),
      q.receive("a", 0, 7),
      q.checkpoint(1),
    ];
    const { value } = await compute(events);
    // Lines 1 to 5, the rollback, the send, the checkpoint.
    expect(value.line).toEqual([
      { process: "p", checkpoint: 6, position: 8, action: "restore" },
      { process: "q", checkpoint: 1, position: 2, action: "restore" },
    ]);
    expect(value.inTransit).toEqual([]);
    const log = ["--log", join(dir, "home")];
    const halves = [events.slice(0, 7), events.slice(7)];
    for (const half of halves)
      expect((await run(["import", "app", "--from", "-", ...log], lines(...half))).code).toBe(0);
    const fromLog = await runJson(["compute", "app", ...log]);
    expect(fromLog.value.line).toEqual(value.line);
    expect((await run(["verify", "app", ...log])).code).toBe(0);
    expect((await run(["export", "app", ...log])).stdout.trim().split("\n")).toHaveLength(events.length);
  });

  test("without a gap between the checkpoints next to it there is none, and the file is refused", async () => {
    const file = join(dir, "none.jsonl");
    writeFileSync(file, lines(p.gap(1), p.checkpoint(2), p.checkpoint(9), p.gap(1), p.rollback(5)));
    const { code, stderr } = await run(["compute", "--from", file]);
    expect(code).toBe(2);
    expect(stderr).toContain(`${file}, line 5, field "checkpoint"`);
  });
});
