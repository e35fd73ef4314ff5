/**
 * The interpreter of a component, pure: facts and state in, actions and state out. It is total: no loops, every expression has a value
 * (x/0 is unbounded, 0/0 is 0, and nothing is ever "not a number"), and a handler ends after at most as many steps as it has parts.
 *
 * It imports nothing at run time: the host sends this file's compiled text to the process that runs a policy (host-process.ts).
 * Terms become closures over one context, made once: a policy that hears of every message is asked a million times.
 */
import type { Component, Instruction, Term } from "./component.ts";
import type { EventName, LogOrder, Scope, Who } from "./vocabulary.ts";

/** What a policy asks for. `id`: the instruction that did; seconds, bytes. */
export type PolicyAction = { readonly id: number } & (
  | { readonly do: "checkpoint"; readonly who: Who; readonly forced: boolean }
  | {
      readonly do: "synchronize";
      readonly who: Who;
      readonly within: number;
      readonly body: readonly PolicyAction[];
    }
  | { readonly do: "restart" | "roll-back"; readonly who: Who }
  | { readonly do: "log"; readonly payload: boolean; readonly order: LogOrder }
  | { readonly do: "tell"; readonly who: Who; readonly value: number }
  | { readonly do: "collect" }
  | { readonly do: "note"; readonly text: string }
);

/** One value a state, in the component's order; booleans are 0 and 1. */
export type PolicyState = Float64Array;

export interface PolicyStep {
  readonly actions: readonly PolicyAction[];
  /** The one that was given, where nothing was set. */
  readonly state: PolicyState;
}

/** Values of the component's facts, in its order; booleans are 0 and 1. */
export type Facts = ArrayLike<number>;

interface Run {
  facts: Facts;
  state: PolicyState;
  isOwn: boolean;
  actions: PolicyAction[];
}
type Evaluate = (run: Run) => number;
type Perform = (run: Run) => void;

const NONE: Facts = [];
const NO_POLICY = {
  parameters: [],
  handlers: [] as Component["handlers"],
  states: [] as Component["states"],
};

/** What is needed of a component to run it. */
export type Runnable = Pick<Component, "handlers" | "states"> & {
  readonly parameters: readonly Pick<Component["parameters"][number], "name" | "default">[];
};

export class Program {
  readonly component: Runnable;
  /** In the component's order. */
  readonly parameters: Float64Array;
  readonly #handlers = new Map<string, Perform>();
  readonly #run: Run = { facts: NONE, state: new Float64Array(0), isOwn: false, actions: [] };

  /** `set`: parameters that differ from their defaults. */
  constructor(component: Runnable, set: ReadonlyMap<string, number> = new Map()) {
    this.component = component;
    this.parameters = new Float64Array(component.parameters.length);
    component.parameters.forEach((row, index) => {
      this.parameters[index] = set.get(row.name) ?? this.value(row.default);
    });
    for (const { event, each, body } of component.handlers)
      this.#handlers.set(`${event} ${each}`, this.#sequence(body));
  }

  handles(event: EventName, each: Scope): boolean {
    return this.#handlers.has(`${event} ${each}`);
  }

  initialState(): PolicyState {
    return Float64Array.from(this.component.states, ({ initial }) => this.value(initial));
  }

  /** What the policy does about an event. `state` is not changed. */
  step(event: EventName, each: Scope, facts: Facts, state: PolicyState): PolicyStep {
    const handler = this.#handlers.get(`${event} ${each}`);
    if (handler === undefined) return { actions: [], state };
    const run = this.#run;
    run.facts = facts;
    run.state = state;
    run.isOwn = false;
    run.actions = [];
    handler(run);
    return { actions: run.actions, state: run.state };
  }

  /** Of a term without facts and state. */
  value(term: Term): number {
    return this.#term(term)(this.#run);
  }

  #sequence(body: readonly Instruction[]): Perform {
    const steps = body.map((instruction) => this.#perform(instruction));
    const [only] = steps;
    if (steps.length === 1 && only !== undefined) return only;
    return (run) => {
      for (const step of steps) step(run);
    };
  }

  #perform(instruction: Instruction): Perform {
    switch (instruction.do) {
      case "if":
        return this.#if(instruction);
      case "set":
        return this.#set(instruction.state, this.#term(instruction.value));
      case "synchronize":
        return this.#synchronize(instruction);
      case "tell": {
        const value = this.#term(instruction.value);
        const { id, who } = instruction;
        return (run) => run.actions.push({ id, do: "tell", who, value: value(run) });
      }
      default:
        return (run) => run.actions.push(instruction);
    }
  }

  #if(instruction: Extract<Instruction, { do: "if" }>): Perform {
    const holds = this.#term(instruction.test);
    const yes = this.#sequence(instruction.yes);
    const no = this.#sequence(instruction.no);
    return (run) => {
      if (holds(run) !== 0) yes(run);
      else no(run);
    };
  }

  #set(index: number, value: Evaluate): Perform {
    return (run) => {
      const next = value(run);
      if (!run.isOwn) run.state = run.state.slice();
      run.isOwn = true;
      run.state[index] = next;
    };
  }

  #synchronize({ id, who, within, body }: Extract<Instruction, { do: "synchronize" }>): Perform {
    const limit = this.#term(within);
    const inner = this.#sequence(body);
    return (run) => {
      const outer = run.actions;
      run.actions = [];
      inner(run);
      outer.push({ id, do: "synchronize", who, within: limit(run), body: run.actions });
      run.actions = outer;
    };
  }

  #term(term: Term): Evaluate {
    switch (term[0]) {
      case "constant": {
        const [, value] = term;
        return () => value;
      }
      case "fact": {
        const [, index] = term;
        return ({ facts }) => facts[index] as number;
      }
      case "parameter": {
        const value = this.parameters[term[1]] as number;
        return () => value;
      }
      case "state": {
        const [, index] = term;
        return ({ state }) => state[index] as number;
      }
      case "not": {
        const operand = this.#term(term[1]);
        return (run) => (operand(run) === 0 ? 1 : 0);
      }
      case "negate": {
        const operand = this.#term(term[1]);
        return (run) => -operand(run);
      }
      default: {
        const [word, left, right] = term;
        return binary(word, this.#term(left), this.#term(right));
      }
    }
  }
}

/** Not a number → 0: ∞ − ∞, 0 · ∞, 0 / 0, ∞ / ∞. */
function number(value: number): number {
  return Number.isNaN(value) ? 0 : value;
}

const flag = (value: boolean): number => (value ? 1 : 0);

/** Of a term that names nothing. */
export function constantValue(term: Term): number {
  return new Program(NO_POLICY).value(term);
}

function binary(word: Extract<Term[0], string>, a: Evaluate, b: Evaluate): Evaluate {
  switch (word) {
    case "or":
      return (run) => flag(a(run) !== 0 || b(run) !== 0);
    case "and":
      return (run) => flag(a(run) !== 0 && b(run) !== 0);
    case "eq":
      return (run) => flag(a(run) === b(run));
    case "ne":
      return (run) => flag(a(run) !== b(run));
    case "lt":
      return (run) => flag(a(run) < b(run));
    case "le":
      return (run) => flag(a(run) <= b(run));
    case "gt":
      return (run) => flag(a(run) > b(run));
    case "ge":
      return (run) => flag(a(run) >= b(run));
    case "+":
      return (run) => number(a(run) + b(run));
    case "-":
      return (run) => number(a(run) - b(run));
    case "*":
      return (run) => number(a(run) * b(run));
    case "/":
      return (run) => number(a(run) / b(run));
    case "min":
      return (run) => Math.min(a(run), b(run));
    case "max":
      return (run) => Math.max(a(run), b(run));
    case "young":
      return (run) => young(a(run), b(run));
    case "daly":
      return (run) => daly(a(run), b(run));
    default:
      throw new TypeError(`no term is called ${word}`);
  }
}

/** Young 1974: the interval that loses least, to the first order. */
function young(cost: number, mtbf: number): number {
  return number(Math.sqrt(Math.max(0, 2 * cost * mtbf)));
}

/** Daly 2006, equation 37. */
export function daly(cost: number, mtbf: number): number {
  if (!(cost > 0 && mtbf > 0)) return 0;
  if (cost >= 2 * mtbf) return mtbf;
  const ratio = cost / (2 * mtbf);
  return number(young(cost, mtbf) * (1 + Math.sqrt(ratio) / 3 + ratio / 9) - cost);
}
