/**
 * Expressions: jsep with words for operators gives a tree, the checker here turns it into one of its own, typed and with places. Nothing
 * of the author's text is evaluated; what jsep knows and the language does not is refused.
 */
import jsep from "jsep";
import { describeType, isSameType, NUMBER, productOf, typeOf } from "./types.ts";
import {
  BOUNDS,
  type Dimension,
  FACTS,
  type FactName,
  FUNCTIONS,
  type FunctionName,
  isFact,
  isFunction,
  isOperator,
  OPERATORS,
  type Operator,
  UNITS,
  type ValueType,
} from "./vocabulary.ts";

interface Typed {
  readonly type: ValueType;
  /** Character of the attribute's value it starts at. */
  readonly at: number;
}
export type NamedKind = "parameter" | "state" | "argument";
export type Expression = Typed &
  (
    | { readonly kind: "constant"; readonly value: number }
    | { readonly kind: "fact"; readonly name: FactName }
    | { readonly kind: NamedKind; readonly name: string }
    | { readonly kind: "not" | "negate"; readonly operand: Expression }
    | {
        readonly kind: "binary";
        readonly operator: Operator;
        readonly left: Expression;
        readonly right: Expression;
      }
    | { readonly kind: "call"; readonly function: FunctionName; readonly args: readonly Expression[] }
  );

/** What a name stands for, beside facts. */
export interface Names {
  readonly types: ReadonlyMap<string, { readonly kind: NamedKind; readonly type: ValueType }>;
  /** Facts that are known there, for advice; undefined: no fact may be named, as in constants. */
  readonly facts: readonly FactName[] | undefined;
}

/** Wrong at a character of the expression; the caller knows where that is in the file. */
export class ExpressionError extends Error {
  readonly at: number;
  readonly allowed: readonly string[];
  readonly word: string | undefined;

  constructor(at: number, message: string, allowed: readonly string[] = [], word?: string) {
    super(message);
    this.at = at;
    this.allowed = allowed;
    this.word = word;
  }
}

type Node = jsep.Expression;

const NUMBER_TEXT = /\d+(?:\.\d+)?(?:[eE][+-]?\d+)?/y;
const UNIT_TEXT = new RegExp(
  `\\s*(?:(${Object.keys(UNITS)
    .filter((u) => u !== "%")
    .join("|")})(?![\\w.(])|(%))`,
  "y",
);
const NAME_TEXT = /[A-Za-z_][\w]*(?:\.[A-Za-z_]\w*)*/y;
/** What people write for our words. */
const MEANT: Readonly<Record<string, string>> = {
  ">=": "ge",
  "<=": "le",
  "==": "eq",
  "!=": "ne",
  "<>": "ne",
  "&&": "and",
  "||": "or",
  ">": "gt",
  "<": "lt",
  "=": "eq",
  "!": "not",
};

interface Scanner {
  index: number;
  readonly expr: string;
  gobbleArguments(until: number): Node[];
}

function prepare(): void {
  jsep.removeAllBinaryOps();
  jsep.removeAllUnaryOps();
  jsep.removeAllLiterals();
  for (const [word, { strength }] of Object.entries(OPERATORS)) jsep.addBinaryOp(word, strength);
  jsep.addUnaryOp("not");
  jsep.addUnaryOp("-");
  jsep.hooks.add("gobble-token", function (this: jsep.HookScope, env: { node?: Node }) {
    const node = token(this as unknown as Scanner);
    if (node !== undefined) env.node = node;
  });
}
prepare();

/** Numbers, names and calls are ours: they get places and units. Groups and unary operators stay with jsep. */
function token(scanner: Scanner): Node | undefined {
  const { expr, index: at } = scanner;
  const number = take(scanner, NUMBER_TEXT);
  if (number !== undefined) return { type: "Quantity", at, value: Number(number), unit: unitOf(scanner) };
  NAME_TEXT.lastIndex = at;
  const name = NAME_TEXT.exec(expr)?.[0];
  if (name === "not" || at >= expr.length || "(-),".includes(expr[at] as string)) return undefined;
  if (name === undefined) throw new ExpressionError(at, `${JSON.stringify(expr[at])} can't stand here`);
  if (isOperator(name)) throw new ExpressionError(at, `a value is missing before ${name}`);
  scanner.index = at + name.length;
  if (!/^\s*\(/.test(expr.slice(scanner.index))) return { type: "Name", at, name };
  scanner.index = expr.indexOf("(", scanner.index) + 1;
  return { type: "Call", at, name, arguments: scanner.gobbleArguments(41) };
}

function take(scanner: Scanner, pattern: RegExp): string | undefined {
  pattern.lastIndex = scanner.index;
  const found = pattern.exec(scanner.expr)?.[0];
  if (found !== undefined) scanner.index += found.length;
  return found;
}

function unitOf(scanner: Scanner): string {
  return take(scanner, UNIT_TEXT)?.trim() ?? "";
}

/** Throws ExpressionError and nothing else. */
export function parseExpression(text: string, names: Names): Expression {
  if (text.trim() === "") throw new ExpressionError(0, "an expression is missing");
  if (text.length > BOUNDS.expressionCharacters)
    throw new ExpressionError(0, `the expression is longer than ${BOUNDS.expressionCharacters} characters`);
  checkCharacters(text);
  return new Checker(names).check(treeOf(text), 0);
}

/** Characters that mean nothing, commas outside of calls, groups too deep in one another: before jsep passes over or recurses into them. */
function checkCharacters(text: string): void {
  let depth = 0;
  for (let at = 0; at < text.length; at += 1) {
    const character = text[at] as string;
    if (character === "(") depth += 1;
    if (character === ")") depth -= 1;
    if (depth < 0 || (character === "," && depth === 0))
      throw new ExpressionError(at, `"${character}" can't stand here`);
    if (depth > BOUNDS.expressionDepth) throw tooDeep(at);
    if (!/[\w.%()+\-*/,\s]/.test(character)) throw meaningless(text, at);
  }
  if (depth > 0) throw new ExpressionError(text.length, `")" is missing`);
}

function meaningless(text: string, at: number): ExpressionError {
  const two = text.slice(at, at + 2);
  const written = MEANT[two] === undefined ? String.fromCodePoint(text.codePointAt(at) as number) : two;
  const word = MEANT[written];
  const said = JSON.stringify(written);
  if (word !== undefined) return new ExpressionError(at, `${said} is written ${word} here`);
  return new ExpressionError(at, `${said} means nothing in an expression`, Object.keys(OPERATORS));
}

function tooDeep(at: number): ExpressionError {
  return new ExpressionError(at, `the expression is more than ${BOUNDS.expressionDepth} deep`);
}

function treeOf(text: string): Node {
  try {
    return jsep(text);
  } catch (error) {
    if (error instanceof ExpressionError) throw error;
    const { index, description } = error as { index?: number; description?: string };
    if (index === undefined || description === undefined) throw error;
    throw new ExpressionError(Math.min(index, text.length), sentence(description));
  }
}

/** jsep's words for it in ours. */
function sentence(description: string): string {
  const after = /^Expected expression after (.*)$/.exec(description)?.[1];
  if (after !== undefined) return `a value is missing after ${after}`;
  if (description.startsWith("missing unaryOp")) return "a value is missing";
  return description.charAt(0).toLowerCase() + description.slice(1);
}

class Checker {
  readonly #names: Names;

  constructor(names: Names) {
    this.#names = names;
  }

  check(node: Node, depth: number): Expression {
    if (depth > BOUNDS.expressionDepth) throw tooDeep(startOf(node));
    switch (node.type) {
      case "Quantity":
        return quantity(node as unknown as { at: number; value: number; unit: string });
      case "Name":
        return this.#name(node["name"] as string, node["at"] as number);
      case "Call":
        return this.#call(node, depth);
      case "UnaryExpression":
        return this.#unary(node as jsep.UnaryExpression, depth);
      case "BinaryExpression":
        return this.#binary(node as jsep.BinaryExpression, depth);
      case "Compound":
        throw neighbours(node["body"] as Node[]);
      default:
        throw new ExpressionError(startOf(node), "this can't stand in an expression");
    }
  }

  #name(name: string, at: number): Expression {
    if (name === "true" || name === "false")
      return { kind: "constant", type: "boolean", value: name === "true" ? 1 : 0, at };
    const known = this.#names.types.get(name);
    if (known !== undefined) return { kind: known.kind, name, type: known.type, at };
    if (isFact(name) && this.#names.facts !== undefined)
      return { kind: "fact", name, type: typeOf(FACTS[name].type), at };
    if (isFact(name))
      throw new ExpressionError(at, `${name} is a fact; a constant knows numbers and parameters only`);
    if (isFunction(name)) throw new ExpressionError(at, `${name} is a function: write ${name}(…)`);
    throw new ExpressionError(at, `nothing is called ${name}`, this.#known(name), name);
  }

  /** Names that may stand here; of facts, those of the group that was written, or all. */
  #known(name: string): string[] {
    const own = [...this.#names.types.keys()];
    const { facts = [] } = this.#names;
    const group = name.includes(".") ? name.slice(0, name.indexOf(".") + 1) : "";
    const near = facts.filter((fact) => group !== "" && fact.startsWith(group));
    return near.length > 0 ? near : [...own, ...facts];
  }

  #call(node: Node, depth: number): Expression {
    const name = node["name"] as string;
    const at = node["at"] as number;
    if (!isFunction(name))
      throw new ExpressionError(at, `no function is called ${name}`, Object.keys(FUNCTIONS), name);
    const takes: readonly string[] = FUNCTIONS[name].takes;
    const given = (node["arguments"] as (Node | null)[]).map((arg) => {
      if (arg === null) throw new ExpressionError(at, `an argument of ${name} is missing`);
      return this.check(arg, depth + 1);
    });
    if (given.length !== takes.length)
      throw new ExpressionError(at, `${name} takes ${takes.length} values, not ${given.length}`);
    const [first, second] = given as [Expression, Expression];
    if (takes[0] === "any") {
      if (first.type === "boolean" || !isSameType(first.type, second.type))
        throw unequal(name, first, second);
      return { kind: "call", function: name, args: given, type: first.type, at };
    }
    given.forEach((arg, index) => {
      this.#expect(arg, typeOf(takes[index] as "duration"), name);
    });
    return { kind: "call", function: name, args: given, type: typeOf("duration"), at };
  }

  #expect(found: Expression, type: ValueType, by: string): void {
    if (isSameType(found.type, type)) return;
    throw new ExpressionError(
      found.at,
      `${by} takes ${describeType(type)}, but ${textOf(found)} is ${describeType(found.type)}`,
    );
  }

  #unary({ operator, argument }: jsep.UnaryExpression, depth: number): Expression {
    const operand = this.check(argument, depth + 1);
    if (operator === "not") {
      this.#expect(operand, "boolean", "not");
      return { kind: "not", operand, type: "boolean", at: operand.at };
    }
    if (operand.type === "boolean") this.#expect(operand, NUMBER, "-");
    return { kind: "negate", operand, type: operand.type, at: operand.at };
  }

  #binary(node: jsep.BinaryExpression, depth: number): Expression {
    const left = this.check(node.left, depth + 1);
    const right = this.check(node.right, depth + 1);
    const operator = node.operator as Operator;
    return { kind: "binary", operator, left, right, type: this.#result(operator, left, right), at: left.at };
  }

  #result(operator: Operator, left: Expression, right: Expression): ValueType {
    switch (OPERATORS[operator].takes) {
      case "booleans":
        this.#expect(left, "boolean", operator);
        this.#expect(right, "boolean", operator);
        return "boolean";
      case "equals":
        if (!isSameType(left.type, right.type)) throw unequal(operator, left, right);
        return "boolean";
      case "order":
        if (left.type === "boolean" || !isSameType(left.type, right.type))
          throw unequal(operator, left, right);
        return "boolean";
      case "sum":
        if (left.type === "boolean" || !isSameType(left.type, right.type))
          throw unequal(operator, left, right);
        return left.type;
      case "product":
        return scaled(operator, left, right, 1);
      case "quotient":
        return scaled(operator, left, right, -1);
    }
  }
}

/** Two expressions beside each other: a unit that is none, or an operator forgotten. */
function neighbours([first, second]: readonly Node[]): ExpressionError {
  if (second === undefined) return new ExpressionError(0, "an expression is missing");
  const at = startOf(second);
  const name = second.type === "Name" ? (second["name"] as string) : undefined;
  const last = first === undefined ? undefined : lastOf(first);
  if (name !== undefined && last?.type === "Quantity" && last["unit"] === "")
    return new ExpressionError(at, `no unit is called ${name}`, Object.keys(UNITS), name);
  return new ExpressionError(at, "an operator is missing before this", Object.keys(OPERATORS));
}

/** The rightmost leaf. */
function lastOf(node: Node): Node {
  const inner = (node["right"] ?? node["argument"]) as Node | undefined;
  return inner === undefined ? node : lastOf(inner);
}

function unequal(by: string, left: Expression, right: Expression): ExpressionError {
  const of = (one: Expression): string => `${textOf(one)} is ${describeType(one.type)}`;
  return new ExpressionError(left.at, `${by} takes two of one unit, but ${of(left)} and ${of(right)}`);
}

function scaled(operator: string, left: Expression, right: Expression, sign: 1 | -1): Dimension {
  for (const one of [left, right])
    if (one.type === "boolean")
      throw new ExpressionError(one.at, `${operator} takes numbers, but ${textOf(one)} is a boolean`);
  const type = productOf(left.type as Dimension, right.type as Dimension, sign);
  if (type === undefined)
    throw new ExpressionError(left.at, `the unit of ${operator} has an exponent beyond ${BOUNDS.exponent}`);
  return type;
}

function quantity({ at, value, unit }: { at: number; value: number; unit: string }): Expression {
  const row = unit === "" ? undefined : UNITS[unit as keyof typeof UNITS];
  const scaledValue = value * (row?.scale ?? 1);
  if (!Number.isFinite(scaledValue)) throw new ExpressionError(at, "the number is too large");
  return { kind: "constant", value: scaledValue, type: row?.type ?? NUMBER, at };
}

function startOf(node: Node): number {
  if (typeof node["at"] === "number") return node["at"];
  const inner = (node["left"] ?? node["argument"] ?? (node["expressions"] as Node[] | undefined)?.[0]) as
    | Node
    | undefined;
  return inner === undefined ? 0 : startOf(inner);
}

/** The expression as the language writes it, with no more parentheses than it needs. */
export function textOf(expression: Expression, strength = 0): string {
  switch (expression.kind) {
    case "constant":
      return constantText(expression.value, expression.type);
    case "not":
    case "negate":
      return `${expression.kind === "not" ? "not " : "-"}${textOf(expression.operand, 10)}`;
    case "call":
      return `${expression.function}(${expression.args.map((arg) => textOf(arg)).join(", ")})`;
    case "binary": {
      const own = OPERATORS[expression.operator].strength;
      const text = `${textOf(expression.left, own)} ${expression.operator} ${textOf(expression.right, own + 1)}`;
      return own < strength ? `(${text})` : text;
    }
    default:
      return expression.name;
  }
}

/** In the largest unit that gives it back exactly; never loses a bit. */
export function constantText(value: number, type: ValueType): string {
  if (type === "boolean") return value === 1 ? "true" : "false";
  if (isSameType(type, NUMBER)) return String(value);
  let best = "";
  for (const [unit, row] of Object.entries(UNITS)) {
    if (!isSameType(row.type, type)) continue;
    const text = String(value / row.scale);
    if (Number(text) * row.scale === value && (best === "" || text.length < best.length - unit.length))
      best = `${text} ${unit}`;
  }
  return best;
}
