/** The diagram is bounded, shows the line, and never draws a message that arrives before it leaves. */
import fc from "fast-check";
import { expect, test } from "vitest";
import { computeLine } from "../../src/compute/compute.ts";
import { spaceTimeDiagram } from "../../src/diagram/space-time-diagram.ts";
import { EvidenceBuilder } from "../../src/graph/evidence/evidence-builder.ts";
import type { Event } from "../../src/model/event.ts";
import { Random } from "../reference/random.ts";
import { randomSetting, simulate } from "../reference/simulate.ts";

const WIDTH = 150;

function draw(events: readonly Event[], failed?: readonly string[]): string {
  const builder = new EvidenceBuilder();
  for (const event of events) builder.addEvent(event);
  const evidence = builder.build();
  const rules = { dsm: "sequential", inTransit: "any" } as const;
  const answer = computeLine(evidence, { ...rules, ...(failed === undefined ? {} : { failed }) });
  return spaceTimeDiagram(evidence, answer, { failed, dsm: "sequential", show: (name) => name });
}

/** Rows before the blank line. */
function rowsOf(diagram: string): string[] {
  return diagram.slice(0, diagram.indexOf("\n\n")).split("\n");
}

test("true executions: sends stand left of their receives, every row that is rolled back has its line", () => {
  fc.assert(
    fc.property(fc.integer(), (seed) => {
      const events = simulate(seed, { ...randomSetting(new Random(seed), 4, 40), rollbacks: false });
      fc.pre(events.length > 0);
      const rows = rowsOf(draw(events));
      for (const row of rows) expect(row).toMatch(/#/);
      const all = rows.join("\n");
      for (const [, label] of all.matchAll(/[^a-z]([a-z]+)>(?=[-.#X])/g)) {
        const send = rows.map((row) => row.search(new RegExp(`[^a-z>]${label}>`))).find((at) => at >= 0);
        const receive = rows.map((row) => row.search(new RegExp(`>${label}[^a-z>]`))).find((at) => at >= 0);
        if (send !== undefined && receive !== undefined) expect(receive).toBeGreaterThan(send);
      }
    }),
    { numRuns: 200 },
  );
});

test("whatever the size of the evidence, the diagram stays small", () => {
  const events: Event[] = [];
  for (let n = 0; n < 20_000; n += 1) {
    const [process, peer] = [`p${n % 40}`, `p${(n + 1 + (n % 7)) % 40}`];
    const channel = `${process}>${peer}`;
    events.push({ type: "send", process, channel, begin: n, end: n + 1 });
    events.push({ type: "receive", process: peer, channel, begin: n, end: n + 1 });
    if (n % 9 === 0) events.push({ type: "checkpoint", process, checkpoint: n + 1, usable: n % 2 === 0 });
  }
  const diagram = draw(events, ["p3"]);
  const lines = diagram.split("\n");
  expect(lines.length).toBeLessThan(120);
  for (const line of lines) expect(line.length).toBeLessThanOrEqual(WIDTH + 60);
  for (const row of rowsOf(diagram)) expect(row.length).toBeLessThanOrEqual(WIDTH);
});

test("channels that contradict causality are drawn, too", () => {
  const message = (type: "send" | "receive", process: string, channel: string): Event => ({
    type,
    process,
    channel,
    begin: 0,
    end: 1,
  });
  const cycle = [
    message("receive", "p", "a"),
    message("send", "p", "b"),
    message("receive", "q", "b"),
    message("send", "q", "a"),
  ];
  expect(rowsOf(draw(cycle))).toHaveLength(2);
});
