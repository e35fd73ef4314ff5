/**
 * A mutation run: each fault of faults.ts is put into a copy of the engine, and a fixed set of questions must find it. It also counts what
 * the verifier finds alone: it judges without knowing the right answer.
 */
import { expect, test } from "vitest";
import { sized } from "../size.ts";
import { type Engine, EngineCopies } from "./engine-copy.ts";
import { examine, questions, verifierFails, wrongAnswers } from "./exam.ts";
import { ENGINE_FAULTS, VERIFIER_FAULTS } from "./faults.ts";

const copies = new EngineCopies();
const asked = questions(Number(process.env["RL_MUTATION_QUESTIONS"] ?? sized(1500, 800)));
const sound: Engine = copies.load([], true);

test("the engine without a fault passes", () => {
  const bare = copies.load([], false);
  expect(examine(sound, bare, sound, asked)).toEqual({ judge: false, verifier: false });
});

test("every fault of the engine is caught; most by the verifier alone", () => {
  const missed: string[] = [];
  const alone: string[] = [];
  for (const fault of ENGINE_FAULTS) {
    const checked = copies.load([fault], true);
    const bare = copies.load([fault], false);
    const { judge, verifier } = examine(checked, bare, sound, asked);
    if (!judge && !verifier) missed.push(fault.what);
    if (verifier) alone.push(fault.what);
  }
  const blind = ENGINE_FAULTS.map(({ what }) => what).filter((what) => !alone.includes(what));
  console.log(
    `${ENGINE_FAULTS.length} engine faults, ${missed.length} missed, ${alone.length} caught by the verifier alone; not by it: ${blind.join(" · ")}`,
  );
  expect(missed).toEqual([]);
  expect(ENGINE_FAULTS.length).toBeGreaterThanOrEqual(20);
  expect(alone.length).toBeGreaterThan(ENGINE_FAULTS.length / 2);
});

test("every fault of the verifier makes it accept a wrong answer or refuse a right one", () => {
  const some = asked.slice(0, 160);
  const wrong = wrongAnswers(sound, some);
  expect(verifierFails(sound, sound, some, wrong)).toBe(false);
  const missed: string[] = [];
  for (const fault of VERIFIER_FAULTS)
    if (!verifierFails(copies.load([fault], true), sound, some, wrong)) missed.push(fault.what);
  console.log(
    `${VERIFIER_FAULTS.length} verifier faults, ${missed.length} missed, ${wrong.length} wrong answers`,
  );
  expect(missed).toEqual([]);
});
