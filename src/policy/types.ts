/** Arithmetic of units. */
import { BOUNDS, type Dimension, TYPES, type TypeName, type ValueType } from "./vocabulary.ts";

export const NUMBER: Dimension = TYPES.number.type;

export function typeOf(name: TypeName): ValueType {
  return TYPES[name].type;
}

export function isSameType(a: ValueType, b: ValueType): boolean {
  if (a === "boolean" || b === "boolean") return a === b;
  return a.time === b.time && a.size === b.size;
}

/** "a duration", "a boolean", or the unit of what has no name. */
export function describeType(type: ValueType): string {
  for (const [name, row] of Object.entries(TYPES)) if (isSameType(row.type, type)) return `a ${name}`;
  const { time, size } = type as Dimension;
  const units = [power("s", time), power("B", size)].filter((unit) => unit !== "");
  return `in ${units.join("·")}`;
}

function power(unit: string, exponent: number): string {
  if (exponent === 0) return "";
  return exponent === 1 ? unit : `${unit}^${exponent}`;
}

/** Undefined where the exponents leave the bound. */
export function productOf(a: Dimension, b: Dimension, sign: 1 | -1): Dimension | undefined {
  const time = a.time + sign * b.time;
  const size = a.size + sign * b.size;
  return Math.max(Math.abs(time), Math.abs(size)) > BOUNDS.exponent ? undefined : { time, size };
}
