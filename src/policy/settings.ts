/** Parameters as people write them: `bound=2min`. */
import { assert } from "../model/assert.ts";
import { RecoveryLineError } from "../model/errors.ts";
import type { Component, Term } from "./component.ts";
import { type Expression, ExpressionError, type NamedKind, parseExpression } from "./expression.ts";
import { constantValue } from "./program.ts";
import { describeType, isSameType, typeOf } from "./types.ts";
import { TYPES, type ValueType } from "./vocabulary.ts";

/** "interval=10 s" for a component's parameters. Throws RL_USAGE. */
export function parseSettings(component: Component, settings: readonly string[]): Map<string, number> {
  const found = new Map<string, number>();
  for (const setting of settings) {
    const at = setting.indexOf("=");
    const name = setting.slice(0, Math.max(0, at));
    const row = component.parameters.find((parameter) => parameter.name === name);
    if (row === undefined) throw unknownParameter(component, setting);
    found.set(name, constantOf(setting.slice(at + 1), typeOf(row.type), setting));
  }
  return found;
}

const NO_NAMES = { types: new Map<string, { kind: NamedKind; type: ValueType }>(), facts: undefined };

/** "10 s" as a value of a type, in seconds or bytes. `setting`: what the message names. Throws RL_USAGE. */
export function constantOf(text: string, type: ValueType, setting: string): number {
  try {
    const expression = parseExpression(text, NO_NAMES);
    if (isSameType(expression.type, type)) return constantValue(termOf(expression));
    throw new ExpressionError(0, `${describeType(type)} is expected, not ${describeType(expression.type)}`);
  } catch (error) {
    if (!(error instanceof ExpressionError)) throw error;
    throw new RecoveryLineError("RL_USAGE", `${setting}: ${error.message}`, adviceOf(type));
  }
}

function adviceOf(type: ValueType): string {
  const help = Object.values(TYPES).find((row) => isSameType(row.type, type))?.help ?? "";
  const plain = help.replaceAll("`", "").replaceAll(/(\d) /g, "$1");
  return describeType(type) === "a number" ? `It is ${plain}.` : `Write it with its unit, such as ${plain}.`;
}

/** Of an expression without names. */
function termOf(expression: Expression): Term {
  switch (expression.kind) {
    case "constant":
      return ["constant", expression.value, "number"];
    case "not":
    case "negate":
      return [expression.kind, termOf(expression.operand)];
    case "binary":
      return [expression.operator, termOf(expression.left), termOf(expression.right)];
    case "call":
      return [expression.function, termOf(expression.args[0]!), termOf(expression.args[1]!)];
    default:
      assert(false, "a constant has no names");
  }
}

function unknownParameter(component: Component, setting: string): RecoveryLineError {
  const known = component.parameters.map(({ name }) => name).join(", ");
  return new RecoveryLineError(
    "RL_USAGE",
    `${setting}: ${component.name} has no such parameter`,
    known === "" ? "It has none." : `Its parameters are ${known}; write name=value.`,
  );
}
