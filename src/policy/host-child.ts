/**
 * What runs in a policy's process: reads requests (host-protocol.ts) from descriptor 3, runs the component, answers. It has no rights, no files and no
 * environment; its code came over a pipe. Whatever is wrong ends it: the host sees that and acts.
 */
import { Socket } from "node:net";
import type { WireNumber } from "../model/plugged-policy.ts";
import type { Request, WireAction } from "./host-protocol.ts";
import { type PolicyAction, type PolicyState, Program, type Runnable } from "./program.ts";

/** Compiled programs that are kept, count: one a set of parameters. */
const MAX_PROGRAMS = 64;

const wire = (value: number): WireNumber => (Number.isFinite(value) ? value : value < 0 ? "-inf" : "inf");
const value = (text: WireNumber): number =>
  typeof text === "number" ? text : text === "inf" ? Number.POSITIVE_INFINITY : Number.NEGATIVE_INFINITY;

function wireAction(action: PolicyAction): WireAction {
  if (action.do === "tell") return [action.id, wire(action.value)];
  if (action.do === "synchronize") return [action.id, wire(action.within), action.body.map(wireAction)];
  return [action.id];
}

const programs = new Map<string, Program>();
let component: Runnable | undefined;

function programOf(parameters: readonly WireNumber[]): Program {
  const key = JSON.stringify(parameters);
  const known = programs.get(key);
  if (known !== undefined) return known;
  if (programs.size >= MAX_PROGRAMS) programs.clear();
  const names = component!.parameters.map(({ name }, at) => [name, value(parameters[at]!)] as const);
  const made = new Program(component!, new Map(names));
  programs.set(key, made);
  return made;
}

/** Rows in their order; what one says for the node the next one sees. */
function answer({ sequence, epoch, event, each, parameters, rows }: Request): string {
  const program = programOf(parameters);
  let before: PolicyState | undefined;
  const done = rows.map(([facts, given]) => {
    const state = Float64Array.from(given, value);
    component!.states.forEach((row, at) => {
      if (row.each === "node" && before !== undefined) state[at] = before[at]!;
    });
    const step = program.step(event, each, facts.map(value), state);
    before = step.state;
    return [step.actions.map(wireAction), Array.from(step.state, wire)];
  });
  return `${JSON.stringify({ sequence, epoch, rows: done })}\n`;
}

const host = new Socket({ fd: 3, readable: true, writable: true });
let pending = "";
host.setEncoding("utf8");
host.on("data", (text: string) => {
  const lines = (pending + text).split("\n");
  pending = lines.pop()!;
  for (const line of lines) {
    if (component !== undefined) host.write(answer(JSON.parse(line) as Request));
    else {
      component = (JSON.parse(line) as { component: Runnable }).component;
      host.write('{"ready":true}\n');
    }
  }
});
host.on("end", () => process.exit(0));
