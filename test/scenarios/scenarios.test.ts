/**
 * Runs every drawing in this folder: rows (drawing.ts), then commands, each with `----` and what it says below it, up to an empty line.
 * A person reads the difference after RL_REWRITE=1 has written down what is said now.
 */
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { cutText } from "../../src/cli/cut.ts";
import { explanationText } from "../../src/cli/explain.ts";
import { failuresReport } from "../../src/cli/failures.ts";
import { gcText } from "../../src/cli/gc.ts";
import { zcyclesText } from "../../src/cli/zcycles.ts";
import { computeLine, processNumbers } from "../../src/compute/compute.ts";
import { cutEntries, membersOf } from "../../src/compute/cut-through.ts";
import { explanation } from "../../src/compute/explanation.ts";
import { LossReport } from "../../src/compute/losses.ts";
import { uselessReport } from "../../src/compute/useless.ts";
import { planCollection, rulesToKeep } from "../../src/gc/gc.ts";
import { EvidenceBuilder } from "../../src/graph/evidence/evidence-builder.ts";
import { dominoOf } from "../../src/graph/questions/domino.ts";
import { rollbackModel } from "../../src/graph/rollback/rollback-model.ts";
import { RecoveryLineError } from "../../src/model/errors.ts";
import type { Evidence } from "../../src/model/evidence-layout.ts";
import type { DsmModel, InTransitPolicy } from "../../src/model/recovery-line.ts";
import { eventsOf, isRow } from "./drawing.ts";

const folder = import.meta.dirname;
const rewrite = process.env["RL_REWRITE"] === "1";

for (const file of readdirSync(folder).filter((name) => name.endsWith(".txt")))
  test(file.replace(".txt", ""), async () => {
    const path = join(folder, file);
    const written = readFileSync(path, "utf8");
    const said = await replay(written);
    if (rewrite) writeFileSync(path, said);
    else expect(said).toBe(written);
  });

/** The file as it would read if every command said what it says now. */
async function replay(text: string): Promise<string> {
  const out: string[] = [];
  let rows: string[] = [];
  let commands = 0;
  let old = false;
  for (const [at, line] of text.split("\n").entries()) {
    if (old && line !== "") continue;
    old = false;
    out.push(line);
    if (isRow(line)) rows = isRow(text.split("\n")[at - 1] ?? "") ? [...rows, line] : [line];
    if (line !== "----") continue;
    commands += 1;
    out.push(...(await answer(out.at(-2) as string, evidenceOf(rows))));
    old = true;
  }
  expect(commands, "a scenario asks something").toBeGreaterThan(0);
  return out.join("\n");
}

function evidenceOf(rows: readonly string[]): Evidence {
  const builder = new EvidenceBuilder();
  for (const event of eventsOf(rows)) builder.addEvent(event);
  return builder.build();
}

/** Lines of an answer, without the empty ones. */
async function answer(command: string, evidence: Evidence): Promise<string[]> {
  const [verb = "", ...words] = command.split(" ");
  const options = new Map(words.map((word) => word.split("=", 2) as [string, string]));
  const say = VERBS[verb];
  if (say === undefined) throw new Error(`no command "${verb}"`);
  try {
    return (await say(evidence, options)).split("\n").filter((line) => line !== "");
  } catch (error) {
    if (!(error instanceof RecoveryLineError)) throw error;
    return [`${error.code}: ${error.message}`];
  }
}

type Options = ReadonlyMap<string, string>;

function ruleOf(options: Options) {
  const dsm = (options.get("dsm") ?? "sequential") as DsmModel;
  const inTransit = (options.get("in-transit") ?? "any") as InTransitPolicy;
  return { dsm, inTransit };
}

function failedOf(options: Options): { failed?: string[] } {
  const names = options.get("failed");
  return names === undefined ? {} : { failed: names.split(",") };
}

const VERBS: Record<string, (evidence: Evidence, options: Options) => string | Promise<string>> = {
  line(evidence, options) {
    const found = computeLine(evidence, { ...failedOf(options), ...ruleOf(options) });
    const { depth, breadth, unbounded } = dominoOf(evidence, found.line);
    const places = found.line.map(({ process, action, checkpoint, position }) =>
      action === "continue" ? `${process} continues` : `${process} ${action} c${checkpoint} at ${position}`,
    );
    const moving = found.inTransit.map(
      ({ channel, from, to }) => `in transit: ${channel} ${from} -> ${to ?? "?"}`,
    );
    const outside = [
      ...found.lostInputs.map(({ channel, process }) => `lost input: ${channel} of ${process}`),
      ...found.unsayable.map(({ channel, process }) => `unsayable: ${channel} of ${process}`),
    ];
    return [
      ...places,
      ...moving,
      ...outside,
      `${found.outcome}, depth ${depth}, breadth ${breadth}, unbounded ${unbounded}`,
    ].join("\n");
  },
  explain(evidence, options) {
    const found = computeLine(evidence, { ...failedOf(options), ...ruleOf(options) });
    return explanationText(explanation(evidence, found, options.get("process") ?? ""));
  },
  failures: (evidence, options) =>
    failuresReport("app", new LossReport(rollbackModel(evidence, ruleOf(options))), failedOf(options).failed),
  async zcycles(evidence, options) {
    return zcyclesText("app", await uselessReport(rollbackModel(evidence, ruleOf(options))));
  },
  gc: (evidence) =>
    gcText("app", planCollection(evidence, rulesToKeep(evidence)), [], {
      applied: false,
      payloads: true,
      finished: 0,
      logs: [],
    }),
  async cut(evidence, options) {
    const model = rollbackModel(evidence, ruleOf(options));
    const which = options.has("least") ? "least" : "greatest";
    const wanted = await membersOf(model, [options.get("containing") ?? ""]);
    const failed = processNumbers(evidence, failedOf(options).failed ?? []);
    return cutText("app", which, await cutEntries(model, wanted, failed, which));
  },
};
