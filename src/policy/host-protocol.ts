/**
 * What the policy host and a policy's process say to each other, pure: one JSON text a line, both ways.
 *
 *   host → process   {component}                                                    once, first
 *                    {sequence, epoch, event, each, parameters, rows: [[facts, state], …]}   a row a process, or one for the node
 *   process → host   {ready: true}                                                  once, first
 *                    {sequence, epoch, rows: [[actions, state], …]}                 as many rows
 *
 * An action is `[id]`, `[id, value]` for tell, `[id, within, actions]` for synchronize: what it does stands in the host's own copy of the component,
 * so that an answer can ask for nothing else. JSON has no ∞: it is "inf" or "-inf". The process keeps nothing between events but compiled terms:
 * a new one goes on with the state that the host has.
 */
import type { WireNumber } from "../model/plugged-policy.ts";
import type { Component, Instruction } from "./component.ts";
import type { PolicyAction } from "./program.ts";
import type { EventName, Scope } from "./vocabulary.ts";

/** Longest line either way, in bytes: 4096 processes with 256 states each fit not, and then the request is refused. */
export const MAX_LINE_BYTES = 4 * 1024 * 1024;

export type WireAction =
  | readonly [number]
  | readonly [number, WireNumber]
  | readonly [number, WireNumber, readonly WireAction[]];

export interface Request {
  readonly sequence: number;
  readonly epoch: number;
  readonly event: EventName;
  readonly each: Scope;
  readonly parameters: readonly WireNumber[];
  readonly rows: readonly (readonly [facts: readonly WireNumber[], state: readonly WireNumber[]])[];
}

export interface Answer {
  readonly sequence: number;
  readonly epoch: number;
  readonly rows: readonly { readonly actions: readonly PolicyAction[]; readonly state: Float64Array }[];
}

/** The process said what it must not say. */
export class BadAnswer extends Error {}

export function toWire(value: number): WireNumber {
  if (Number.isFinite(value)) return value;
  return value < 0 ? "-inf" : "inf";
}

/** Throws BadAnswer for anything but a number as it goes over the wire. */
export function fromWire(value: unknown): number {
  if (typeof value === "number") return value;
  if (value === "inf") return Number.POSITIVE_INFINITY;
  if (value === "-inf") return Number.NEGATIVE_INFINITY;
  throw new BadAnswer(`${JSON.stringify(value)} is no number`);
}

/** Bytes → whole lines. Throws BadAnswer where one grows beyond the bound. */
export class Lines {
  #pending: Buffer[] = [];
  #bytes = 0;

  take(chunk: Buffer): string[] {
    const lines: string[] = [];
    let from = 0;
    for (let end = chunk.indexOf(10); end >= 0; end = chunk.indexOf(10, from)) {
      this.#keep(chunk.subarray(from, end));
      lines.push(Buffer.concat(this.#pending).toString("utf8"));
      this.#pending = [];
      this.#bytes = 0;
      from = end + 1;
    }
    this.#keep(chunk.subarray(from));
    return lines;
  }

  #keep(part: Buffer): void {
    this.#bytes += part.length;
    if (this.#bytes > MAX_LINE_BYTES) throw new BadAnswer(`a line is longer than ${MAX_LINE_BYTES} bytes`);
    if (part.length > 0) this.#pending.push(part);
  }
}

/** The instructions of each handler by id; the host's own copy is what an answer's ids point into. */
export type Instructions = ReadonlyMap<string, ReadonlyMap<number, Instruction>>;

export function instructionsOf(component: Component): Instructions {
  return new Map(
    component.handlers.map(({ event, each, body }) => {
      const found = new Map<number, Instruction>();
      gather(body, found);
      return [`${event} ${each}`, found];
    }),
  );
}

function gather(body: readonly Instruction[], found: Map<number, Instruction>): void {
  for (const instruction of body) {
    found.set(instruction.id, instruction);
    if (instruction.do !== "if") continue;
    gather(instruction.yes, found);
    gather(instruction.no, found);
  }
}

/** The answer to a request. Throws BadAnswer and nothing else. */
export function readAnswer(
  line: string,
  request: Request,
  component: Component,
  instructions: Instructions,
): Answer {
  const value = parse(line);
  const { sequence, epoch, rows } = value as Record<string, unknown>;
  if (sequence !== request.sequence || epoch !== request.epoch)
    throw new BadAnswer("it answers another request");
  if (!Array.isArray(rows) || rows.length !== request.rows.length)
    throw new BadAnswer("it has another number of rows");
  const known = instructions.get(`${request.event} ${request.each}`) ?? new Map<number, Instruction>();
  return {
    sequence: request.sequence,
    epoch: request.epoch,
    rows: rows.map((row: unknown) => {
      if (!Array.isArray(row) || row.length !== 2) throw new BadAnswer("a row is not [actions, state]");
      return { actions: actionsOf(row[0], known), state: stateOf(row[1], component) };
    }),
  };
}

function parse(line: string): object {
  let value: unknown;
  try {
    value = JSON.parse(line);
  } catch {
    throw new BadAnswer("a line is no JSON");
  }
  if (typeof value !== "object" || value === null) throw new BadAnswer("a line is no JSON object");
  return value;
}

function stateOf(value: unknown, { states }: Component): Float64Array {
  if (!Array.isArray(value) || value.length !== states.length)
    throw new BadAnswer(`a state has not ${states.length} values`);
  return Float64Array.from(value, fromWire);
}

/** Each instruction acts at most once a row: there are no loops. */
function actionsOf(value: unknown, known: ReadonlyMap<number, Instruction>): PolicyAction[] {
  if (!Array.isArray(value)) throw new BadAnswer("actions are no list");
  let last = -1;
  return value.map((one: unknown) => {
    const id: unknown = Array.isArray(one) ? one[0] : undefined;
    const instruction = typeof id === "number" && id > last ? known.get(id) : undefined;
    if (instruction === undefined) throw new BadAnswer(`${JSON.stringify(id)} is no action of this handler`);
    last = instruction.id;
    return actionOf(one as unknown[], instruction);
  });
}

function actionOf(wire: readonly unknown[], instruction: Instruction): PolicyAction {
  const length = (count: number): void => {
    if (wire.length !== count) throw new BadAnswer(`action ${instruction.id} has ${wire.length} parts`);
  };
  const { id } = instruction;
  switch (instruction.do) {
    case "if":
    case "set":
      throw new BadAnswer(`${id} is ${instruction.do}, which is no action`);
    case "tell":
      length(2);
      return { id, do: "tell", who: instruction.who, value: fromWire(wire[1]) };
    case "synchronize": {
      length(3);
      const inner = new Map<number, Instruction>();
      gather(instruction.body, inner);
      const body = actionsOf(wire[2], inner);
      return { id, do: "synchronize", who: instruction.who, within: fromWire(wire[1]), body };
    }
    default:
      length(1);
      return instruction;
  }
}
