/**
 * Component bytes → component, for a host that did not build them itself: bytes from disk or a socket are doubted once, here. What comes
 * out has only words of the vocabulary, indices that exist, expressions whose units fit, and bounds that hold; it is in normal form,
 * and its hash is that of its bytes.
 */
import { createHash } from "node:crypto";
import { RecoveryLineError } from "../model/errors.ts";
import { COMPONENT_FORMAT, type Component, encodeComponent } from "./component.ts";
import { describeType, isSameType, NUMBER, productOf, typeOf } from "./types.ts";
import {
  BOUNDS,
  type Dimension,
  EVENTS,
  type EventName,
  eventRow,
  type FactName,
  FUNCTIONS,
  factRow,
  isEvent,
  isFact,
  isFunction,
  isOfProcess,
  isOperator,
  isType,
  OPERATORS,
  ORDERS,
  PLACES,
  SCOPES,
  type Scope,
  type TypeName,
  type ValueType,
  WHO,
} from "./vocabulary.ts";

/** Bytes of a component; 10 000 statements and 100 000 parts of expressions fit. */
export const MAX_COMPONENT_BYTES = 8 * 1024 * 1024;

type Fields = Readonly<Record<string, unknown>>;

/** Throws RL_BAD_INPUT. `hash`: what whoever sent it says it is. */
export function decodeComponent(bytes: Uint8Array, hash?: string): Component {
  if (bytes.length > MAX_COMPONENT_BYTES) throw wrong(`is longer than ${MAX_COMPONENT_BYTES} bytes`);
  const found = createHash("sha256").update(bytes).digest("hex");
  if (hash !== undefined && hash !== found) throw wrong(`has the hash ${found}, not ${hash}`);
  const value = parse(bytes);
  new Decoder().check(value);
  const component = value as Component;
  if (Buffer.compare(encodeComponent(component), bytes) !== 0) throw wrong("is not in normal form");
  return component;
}

function parse(bytes: Uint8Array): unknown {
  try {
    return JSON.parse(new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes));
  } catch (cause) {
    throw wrong("is no JSON in UTF-8", cause);
  }
}

function wrong(what: string, cause?: unknown): RecoveryLineError {
  return new RecoveryLineError(
    "RL_BAD_INPUT",
    `the component ${what}`,
    "Build it anew: recovery-line policy build.",
    cause,
  );
}

/** Where a statement or an expression stands. */
interface Scene {
  readonly event: EventName;
  readonly each: Scope;
}

class Decoder {
  #parameters: ValueType[] = [];
  #states: { readonly type: ValueType; readonly each: Scope }[] = [];
  #facts: readonly FactName[] = [];
  #terms = 0;
  #statements = 0;

  check(value: unknown): void {
    const fields = record(value, [
      "format",
      "name",
      "version",
      "title",
      "parameters",
      "states",
      "facts",
      "handlers",
      "refused",
    ]);
    if (fields["format"] !== COMPONENT_FORMAT) throw wrong(`is not of format "${COMPONENT_FORMAT}"`);
    label(fields["name"], /^[A-Za-z0-9-]+$/);
    if (!Number.isSafeInteger(fields["version"]) || (fields["version"] as number) < 1)
      throw wrong("has no version");
    text(fields["title"], BOUNDS.fileBytes);
    this.#parameterList(fields["parameters"]);
    this.#stateList(fields["states"]);
    this.#factList(fields["facts"]);
    this.#handlers(fields["handlers"]);
    refusals(fields["refused"]);
  }

  #parameterList(value: unknown): void {
    const names = new Set<string>();
    for (const row of list(value, BOUNDS.names)) {
      const fields = record(row, ["name", "type", "default"]);
      const type = this.#named(fields, names);
      this.#expect(this.#term(fields["default"], undefined, 0), type);
      this.#parameters.push(type);
    }
  }

  #stateList(value: unknown): void {
    const names = new Set<string>();
    const states: { type: ValueType; each: Scope }[] = [];
    for (const row of list(value, BOUNDS.names)) {
      const fields = record(row, ["name", "type", "each", "initial"]);
      const type = this.#named(fields, names);
      this.#expect(this.#term(fields["initial"], undefined, 0), type);
      states.push({ type, each: word(fields["each"], SCOPES) });
    }
    this.#states = states;
  }

  #named(fields: Fields, names: Set<string>): ValueType {
    const name = label(fields["name"], /^[A-Za-z]\w*$/);
    if (names.has(name)) throw wrong(`names ${name} twice`);
    names.add(name);
    const { type } = fields;
    if (typeof type !== "string" || !isType(type)) throw wrong(`knows no type ${JSON.stringify(type)}`);
    return typeOf(type as TypeName);
  }

  #factList(value: unknown): void {
    const facts = list(value, BOUNDS.names).map((name) => {
      if (typeof name !== "string" || !isFact(name)) throw wrong(`knows no fact ${JSON.stringify(name)}`);
      return name;
    });
    if (new Set(facts).size !== facts.length) throw wrong("names a fact twice");
    this.#facts = facts;
  }

  #handlers(value: unknown): void {
    const known = new Set<string>();
    for (const row of list(value, 2 * Object.keys(EVENTS).length)) {
      const { event, each, body } = record(row, ["event", "each", "body"]);
      if (typeof event !== "string" || !isEvent(event))
        throw wrong(`knows no event ${JSON.stringify(event)}`);
      const scene = { event, each: word(each, eventRow(event).each) };
      const key = `${event} ${scene.each}`;
      if (known.has(key)) throw wrong(`handles ${key} twice`);
      known.add(key);
      this.#body(body, scene, 0, false);
    }
    if (known.size === 0) throw wrong("handles no event");
  }

  #body(value: unknown, scene: Scene, depth: number, held: boolean): void {
    if (depth > BOUNDS.nesting * (BOUNDS.macroLevels + 1))
      throw wrong("has statements too deep in one another");
    for (const row of list(value, BOUNDS.statements)) this.#instruction(row, scene, depth, held);
  }

  #instruction(value: unknown, scene: Scene, depth: number, held: boolean): void {
    const kind = (value as Fields | null)?.["do"];
    const names = typeof kind === "string" && Object.hasOwn(SHAPES, kind) ? SHAPES[kind] : undefined;
    if (names === undefined) throw wrong(`knows no statement ${JSON.stringify(kind)}`);
    const fields = record(value, ["id", "do", ...names]);
    if (fields["id"] !== this.#statements) throw wrong("does not number its statements in their order");
    this.#statements += 1;
    if (this.#statements > BOUNDS.statements) throw wrong(`has more than ${BOUNDS.statements} statements`);
    if (held && kind !== "checkpoint" && kind !== "note") throw wrong(`has ${kind} inside synchronize`);
    this.#parts(fields, scene, depth);
  }

  #parts(fields: Fields, scene: Scene, depth: number): void {
    for (const [name, value] of Object.entries(fields))
      switch (name) {
        case "test":
          this.#expect(this.#term(value, scene, 0), "boolean");
          break;
        case "within":
          this.#expect(this.#term(value, scene, 0), typeOf("duration"));
          break;
        case "value":
          this.#expect(this.#term(value, scene, 0), this.#assigned(fields, scene));
          break;
        case "yes":
        case "no":
          this.#body(value, scene, depth + 1, false);
          break;
        case "body":
          this.#body(value, scene, depth + 1, true);
          break;
        case "who":
          who(value, scene);
          break;
        case "order":
          word(value, Object.keys(ORDERS));
          break;
        case "text":
          text(value, BOUNDS.textCharacters);
          break;
        case "forced":
        case "payload":
          if (typeof value !== "boolean") throw wrong(`says neither true nor false as ${name}`);
      }
  }

  /** What the value of `set` or `tell` must be. */
  #assigned(fields: Fields, { each }: Scene): ValueType {
    if (fields["do"] !== "set") return NUMBER;
    const state = this.#states[index(fields["state"], this.#states.length)]!;
    if (each === "node" && state.each === "process") throw wrong("sets one process's state for the node");
    return state.type;
  }

  #expect(found: ValueType, type: ValueType): void {
    if (isSameType(found, type)) return;
    throw wrong(`has ${describeType(found)} where ${describeType(type)} belongs`);
  }

  /** Type of an expression; `scene` undefined: of a constant. */
  #term(value: unknown, scene: Scene | undefined, depth: number): ValueType {
    this.#terms += 1;
    if (this.#terms > BOUNDS.terms) throw wrong(`has expressions of more than ${BOUNDS.terms} parts`);
    if (depth > BOUNDS.expressionDepth * (BOUNDS.macroLevels + 1)) throw wrong("has an expression too deep");
    if (!Array.isArray(value)) throw wrong("has an expression that is none");
    const [kind, first, second] = value as unknown[];
    const inner = (one: unknown): ValueType => this.#term(one, scene, depth + 1);
    const parts = (count: number): void => {
      if (value.length !== count) throw wrong(`has ${value.length - 1} parts for ${String(kind)}`);
    };
    switch (kind) {
      case "constant":
        parts(3);
        return constant(first, second);
      case "parameter":
        parts(2);
        return this.#parameters[index(first, this.#parameters.length)]!;
      case "fact":
        parts(2);
        return this.#fact(first, scene);
      case "state":
        parts(2);
        return this.#state(first, scene);
      case "not":
        parts(2);
        this.#expect(inner(first), "boolean");
        return "boolean";
      case "negate":
        parts(2);
        return dimension(inner(first));
    }
    parts(3);
    if (typeof kind !== "string") throw wrong("has an expression without an operator");
    return this.#operation(kind, inner(first), inner(second));
  }

  #fact(value: unknown, scene: Scene | undefined): ValueType {
    const name = this.#facts[index(value, this.#facts.length)]!;
    const row = factRow(name);
    if (scene === undefined) throw wrong(`names the fact ${name} in a constant`);
    if (scene.each === "node" && isOfProcess(name)) throw wrong(`reads ${name} for the node`);
    if ((row.event ?? scene.event) !== scene.event)
      throw wrong(`reads ${name} when ${scene.event} is handled`);
    return typeOf(row.type);
  }

  #state(value: unknown, scene: Scene | undefined): ValueType {
    const row = this.#states[index(value, this.#states.length)]!;
    if (scene === undefined) throw wrong("names a state in a constant");
    if (scene.each === "node" && row.each === "process")
      throw wrong("reads one process's state for the node");
    return row.type;
  }

  #operation(kind: string, left: ValueType, right: ValueType): ValueType {
    if (isFunction(kind)) {
      const [first, second] = FUNCTIONS[kind].takes;
      if (first === "any") return this.#equals(dimension(left), right);
      this.#expect(left, typeOf(first));
      this.#expect(right, typeOf(second as TypeName));
      return typeOf(FUNCTIONS[kind].gives as TypeName);
    }
    if (!isOperator(kind)) throw wrong(`knows no operator ${JSON.stringify(kind)}`);
    switch (OPERATORS[kind].takes) {
      case "booleans":
        this.#expect(left, "boolean");
        this.#expect(right, "boolean");
        return "boolean";
      case "equals":
        this.#equals(left, right);
        return "boolean";
      case "order":
        this.#equals(dimension(left), right);
        return "boolean";
      case "sum":
        return this.#equals(dimension(left), right);
      case "product":
        return scaled(left, right, 1);
      case "quotient":
        return scaled(left, right, -1);
    }
  }

  #equals(left: ValueType, right: ValueType): ValueType {
    this.#expect(right, left);
    return left;
  }
}

/** Fields of each statement beside `id` and `do`, in normal order. */
const SHAPES: Readonly<Record<string, readonly string[]>> = {
  if: ["test", "yes", "no"],
  set: ["state", "value"],
  checkpoint: ["who", "forced"],
  synchronize: ["who", "within", "body"],
  restart: ["who"],
  "roll-back": ["who"],
  log: ["payload", "order"],
  tell: ["who", "value"],
  collect: [],
  note: ["text"],
};

const CONSTANTS: Readonly<Record<string, ValueType>> = {
  boolean: "boolean",
  number: NUMBER,
  duration: typeOf("duration"),
  size: typeOf("size"),
};

function constant(value: unknown, kind: unknown): ValueType {
  const type = typeof kind === "string" && Object.hasOwn(CONSTANTS, kind) ? CONSTANTS[kind] : undefined;
  const fits = typeof value === "number" && (type !== "boolean" || value === 0 || value === 1);
  if (type === undefined || !fits) throw wrong("has a constant that is none");
  return type;
}

function scaled(left: ValueType, right: ValueType, sign: 1 | -1): ValueType {
  const type = productOf(dimension(left), dimension(right), sign);
  if (type === undefined) throw wrong(`has a unit with an exponent beyond ${BOUNDS.exponent}`);
  return type;
}

function dimension(type: ValueType): Dimension {
  if (type === "boolean") throw wrong("has a boolean where a number belongs");
  return type;
}

/** Exactly these fields, in this order. */
function record(value: unknown, names: readonly string[]): Fields {
  if (typeof value !== "object" || value === null || Array.isArray(value)) throw wrong("lacks an object");
  const found = Object.keys(value);
  if (found.length !== names.length || found.some((name, at) => name !== names[at]))
    throw wrong(`has the fields ${found.join(", ").slice(0, 200)}, not ${names.join(", ")}`);
  return value as Fields;
}

function list(value: unknown, most: number): readonly unknown[] {
  if (!Array.isArray(value)) throw wrong("lacks a list");
  if (value.length > most) throw wrong(`has a list of more than ${most}`);
  return value;
}

function text(value: unknown, most: number): string {
  if (typeof value === "string" && value.length <= most) return value;
  throw wrong(`has a text that is none, or is longer than ${most} characters`);
}

function label(value: unknown, pattern: RegExp): string {
  const name = text(value, BOUNDS.nameCharacters);
  if (!pattern.test(name)) throw wrong(`has ${JSON.stringify(name)} as a name`);
  return name;
}

function word<T extends string>(value: unknown, words: readonly T[]): T {
  const found = words.find((one) => one === value);
  if (found === undefined) throw wrong(`has ${JSON.stringify(value)} for one of ${words.join(", ")}`);
  return found;
}

function index(value: unknown, count: number): number {
  if (Number.isSafeInteger(value) && (value as number) >= 0 && (value as number) < count)
    return value as number;
  throw wrong(`has the index ${JSON.stringify(value)} into ${count}`);
}

function who(value: unknown, { event, each }: Scene): void {
  const name = word(value, Object.keys(WHO) as (keyof typeof WHO)[]);
  const row: { each: readonly Scope[]; event?: EventName } = WHO[name];
  if (!row.each.includes(each) || (row.event ?? event) !== event)
    throw wrong(`acts on ${name} when ${event} is handled for each ${each}`);
}

function refusals(value: unknown): void {
  const fields = record(value, PLACES);
  for (const place of PLACES)
    for (const one of list(fields[place], BOUNDS.terms)) text(one, BOUNDS.textCharacters);
}
