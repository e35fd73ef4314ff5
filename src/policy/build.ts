/** Policy tree → component: macros expanded, names turned into indices, and what is said checked against where it is said. */
import { assert } from "../model/assert.ts";
import type { SourceLine } from "../model/plugged-policy.ts";
import { checkPolicy } from "./check.ts";
import {
  type BuiltPolicy,
  COMPONENT_FORMAT,
  type Component,
  type ComponentState,
  type ConstantType,
  type Instruction,
  type Term,
} from "./component.ts";
import type { Expression } from "./expression.ts";
import { PolicyText } from "./policy-text.ts";
import type { Handler, Macro, Placed, PolicyTree, Statement } from "./policy-tree.ts";
import {
  BOUNDS,
  type EventName,
  elementRow,
  eventRow,
  type FactName,
  factRow,
  isElement,
  isOfProcess,
  ORDERS,
  PLACES,
  type ValueType,
  WHO,
  type Where,
  type Who,
  type WordPlace,
} from "./vocabulary.ts";

/** Throws RL_BAD_INPUT with the place of what is wrong. */
export function buildPolicy(file: string, text: string): BuiltPolicy {
  const source = new PolicyText(file, text);
  return new Builder(source, checkPolicy(source)).build();
}

/** Where the statements that are expanded stand. */
interface Context {
  readonly handler: Handler;
  readonly args: ReadonlyMap<string, () => Term>;
  /** Macros that are being expanded, outermost first, with the offset of the outermost use. */
  readonly macros: readonly string[];
  readonly usedAt: number;
  /** Whom the `synchronize` around holds. */
  readonly held?: Who;
}

const NO_ARGS: ReadonlyMap<string, () => Term> = new Map();

class Builder {
  readonly #source: PolicyText;
  readonly #tree: PolicyTree;
  readonly #facts: FactName[] = [];
  readonly #lines: SourceLine[] = [];
  readonly #refused: Record<WordPlace, Set<string>> = {
    live: new Set(),
    sdk: new Set(),
    comparison: new Set(),
  };
  #terms = 0;

  constructor(source: PolicyText, tree: PolicyTree) {
    this.#source = source;
    this.#tree = tree;
  }

  build(): BuiltPolicy {
    const { name, version, title } = this.#tree;
    const handlers = this.#tree.handlers.map((handler) => {
      const { event, each } = handler;
      this.#requires(`event ${event}`, eventRow(event).where, event);
      if (each === "node" && event === "beat") this.#refused.sdk.add("beat for the node");
      const context = { handler, args: NO_ARGS, macros: [], usedAt: -1 };
      return { event, each, body: this.#body(handler.body, context) };
    });
    const component: Component = {
      format: COMPONENT_FORMAT,
      name,
      version,
      title,
      parameters: this.#tree.parameters.map((row) => ({
        name: row.name,
        type: row.type,
        default: this.#constant(row.value),
      })),
      states: this.#states(),
      facts: this.#facts,
      handlers,
      refused: this.#refusals(),
    };
    return { component, lines: this.#lines };
  }

  #states(): ComponentState[] {
    return this.#tree.states.map(({ name, type, each, initial }) => ({
      name,
      type,
      each,
      initial: this.#constant(initial),
    }));
  }

  #refusals(): Component["refused"] {
    const of = (place: WordPlace): string[] => [...this.#refused[place]].sort();
    return { live: of("live"), sdk: of("sdk"), comparison: of("comparison") };
  }

  /** What stands in a handler whose event never comes there is in nobody's way. */
  #requires(word: string, where: Where, event: EventName): void {
    const comes = eventRow(event).where;
    for (const place of PLACES)
      if (where[place] === "no" && comes[place] !== "never") this.#refused[place].add(word);
  }

  #body(statements: readonly Statement[], context: Context): Instruction[] {
    return statements.flatMap((statement) => this.#statement(statement, context));
  }

  #statement(statement: Statement, context: Context): Instruction[] {
    if (statement.kind === "use") return this.#use(statement, context);
    const id = this.#lines.length;
    if (id >= BOUNDS.statements)
      throw this.#wrong(
        statement.at,
        context,
        `the policy has more than ${BOUNDS.statements} statements when its macros are expanded`,
      );
    const macro = context.macros.at(-1);
    this.#lines.push({ ...this.#source.place(statement.at), ...(macro === undefined ? {} : { macro }) });
    if (isElement(statement.kind))
      this.#requires(statement.kind, elementRow(statement.kind).where ?? ANYWHERE, context.handler.event);
    return [this.#instruction(id, statement, context)];
  }

  #instruction(id: number, statement: Exclude<Statement, { kind: "use" }>, context: Context): Instruction {
    switch (statement.kind) {
      case "if": {
        const test = this.#term(statement.test, context);
        const yes = this.#body(statement.yes, context);
        return { id, do: "if", test, yes, no: this.#body(statement.no, context) };
      }
      case "set": {
        const state = this.#stateIndex(statement.state, statement.at, context);
        return { id, do: "set", state, value: this.#term(statement.value, context) };
      }
      case "checkpoint": {
        const who = this.#held(statement, context);
        this.#requires(`who ${who}`, WHO[who].where, context.handler.event);
        return { id, do: "checkpoint", who, forced: statement.forced };
      }
      case "synchronize": {
        const who = this.#who(statement.who, statement.whoAt, context);
        this.#requires(`who ${who}`, WHO[who].where, context.handler.event);
        const within = this.#term(statement.within, context);
        return {
          id,
          do: "synchronize",
          who,
          within,
          body: this.#body(statement.body, { ...context, held: who }),
        };
      }
      case "restart":
      case "roll-back":
        return { id, do: statement.kind, who: this.#who(statement.who, statement.whoAt, context) };
      case "log":
        this.#requires(`log order ${statement.order}`, ORDERS[statement.order].where, context.handler.event);
        return { id, do: "log", payload: statement.payload, order: statement.order };
      case "tell": {
        const who = this.#who(statement.who, statement.whoAt, context);
        return { id, do: "tell", who, value: this.#term(statement.value, context) };
      }
      case "collect":
        return { id, do: "collect" };
      case "note":
        return { id, do: "note", text: statement.text };
    }
  }

  #use(statement: Extract<Statement, { kind: "use" }>, context: Context): Instruction[] {
    if (context.macros.length >= BOUNDS.macroLevels)
      throw this.#wrong(
        statement.at,
        context,
        `macros use macros more than ${BOUNDS.macroLevels} levels deep`,
      );
    const macro = this.#tree.macros.get(statement.macro) as Macro;
    const args = new Map<string, () => Term>();
    for (const [name, value] of statement.args)
      args.set(
        name,
        once(() => this.#term(value, context)),
      );
    return this.#body(macro.body, {
      ...context,
      args,
      macros: [...context.macros, macro.name],
      usedAt: context.usedAt < 0 ? statement.at : context.usedAt,
    });
  }

  /** Inside `synchronize`: those that are held. */
  #held({ who, whoAt }: { who: Who | undefined; whoAt: number }, context: Context): Who {
    const { held, handler } = context;
    if (held !== undefined && who !== undefined && who !== held)
      throw this.#wrong(whoAt, context, `synchronize holds ${held}, not ${who}`, [held]);
    return this.#who(who ?? held ?? (handler.each === "process" ? "self" : "node"), whoAt, context);
  }

  #who(who: Who, at: number, context: Context): Who {
    const { event, each } = context.handler;
    const fits = (one: Who): boolean => {
      const row: { each: readonly string[]; event?: string } = WHO[one];
      return row.each.includes(each) && (row.event ?? event) === event;
    };
    if (fits(who)) return who;
    const allowed = (Object.keys(WHO) as Who[]).filter(fits);
    throw this.#wrong(at, context, `${event} for each ${each} knows no "${who}"`, allowed);
  }

  #stateIndex(name: string, at: number, context: Context | undefined): number {
    const index = this.#tree.states.findIndex((row) => row.name === name);
    if (context?.handler.each === "node" && this.#tree.states[index]?.each === "process")
      throw this.#wrong(
        at,
        context,
        `${name} is one for each process: a handler for the node can't tell whose`,
      );
    return index;
  }

  #constant(expression: Expression): Term {
    return this.#compile({ value: expression, at: () => 0 }, expression, undefined);
  }

  #term(placed: Placed<Expression>, context: Context): Term {
    return this.#compile(placed, placed.value, context);
  }

  #compile(placed: Placed<Expression>, expression: Expression, context: Context | undefined): Term {
    this.#terms += 1;
    if (this.#terms > BOUNDS.terms)
      throw this.#wrong(
        placed.at(0),
        context,
        `the policy's expressions have more than ${BOUNDS.terms} parts when its macros are expanded`,
      );
    const inner = (one: Expression): Term => this.#compile(placed, one, context);
    switch (expression.kind) {
      case "constant":
        return ["constant", expression.value, constantType(expression.type)];
      case "fact":
        return ["fact", this.#fact(expression.name, placed.at(expression.at), context as Context)];
      case "parameter":
        return ["parameter", this.#tree.parameters.findIndex((row) => row.name === expression.name)];
      case "state":
        return ["state", this.#stateIndex(expression.name, placed.at(expression.at), context)];
      case "argument": {
        const argument = context?.args.get(expression.name);
        assert(argument !== undefined, "a macro's expansion has all its arguments");
        const term = argument();
        this.#terms += sizeOf(term) - 1;
        return term;
      }
      case "not":
      case "negate":
        return [expression.kind, inner(expression.operand)];
      case "binary":
        return [expression.operator, inner(expression.left), inner(expression.right)];
      case "call":
        return [
          expression.function,
          inner(expression.args[0] as Expression),
          inner(expression.args[1] as Expression),
        ];
    }
  }

  #fact(name: FactName, at: number, context: Context): number {
    const row = factRow(name);
    const { event, each } = context.handler;
    if (each === "node" && isOfProcess(name))
      throw this.#wrong(at, context, `${name} is one process's: a handler for the node can't tell whose`);
    if (row.event !== undefined && row.event !== event)
      throw this.#wrong(at, context, `${name} is known while ${row.event} is handled, not ${event}`);
    this.#requires(name, row.where, event);
    const known = this.#facts.indexOf(name);
    return known >= 0 ? known : this.#facts.push(name) - 1;
  }

  #wrong(at: number, context: Context | undefined, what: string, allowed: readonly string[] = []): Error {
    const macro = context?.macros[0];
    if (context === undefined || macro === undefined) return this.#source.wrong(at, what, allowed);
    const { line } = this.#source.place(context.usedAt);
    return this.#source.wrong(at, `${what} (macro ${macro}, used in line ${line})`, allowed);
  }
}

function constantType(type: ValueType): ConstantType {
  if (type === "boolean") return type;
  if (type.time === 0 && type.size === 0) return "number";
  return type.time === 0 ? "size" : "duration";
}

const ANYWHERE: Where = { live: "yes", sdk: "yes", comparison: "yes" };

/** Arguments are compiled where they are used first: what is never used needs nothing. */
function once(make: () => Term): () => Term {
  let made: Term | undefined;
  return () => {
    made ??= make();
    return made;
  };
}

/** Parts of a term; it is a tree, though arguments are shared. */
function sizeOf(term: Term): number {
  let size = 1;
  for (const part of term) if (Array.isArray(part)) size += sizeOf(part as unknown as Term);
  return size;
}
