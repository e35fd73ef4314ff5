/**
 * A component: a policy in normal form, as the policy host loads it. Names have become indices, macros are expanded, units are seconds
 * and bytes. Its bytes are one JSON text that depends on the meaning of the policy alone, not on its layout; the hash is over them.
 * Where a statement stands in the author's file is kept beside it (`lines`), so that a comment more makes no other component.
 */
import { createHash } from "node:crypto";
import type { SourceLine } from "../model/plugged-policy.ts";
import type {
  EventName,
  FactName,
  FunctionName,
  LogOrder,
  Operator,
  Scope,
  TypeName,
  Who,
  WordPlace,
} from "./vocabulary.ts";

/** What a constant was written as; only printing it needs that. */
export type ConstantType = "boolean" | "number" | "duration" | "size";

/** `["fact", 3]` and the like count places in the component's own lists. */
export type Term =
  | readonly ["constant", number, ConstantType]
  | readonly ["fact" | "parameter" | "state", number]
  | readonly ["not" | "negate", Term]
  | readonly [Operator | FunctionName, Term, Term];

/** `id`: its number in the order of the text, index into `lines`. */
export type Instruction = { readonly id: number } & (
  | {
      readonly do: "if";
      readonly test: Term;
      readonly yes: readonly Instruction[];
      readonly no: readonly Instruction[];
    }
  | { readonly do: "set"; readonly state: number; readonly value: Term }
  | { readonly do: "checkpoint"; readonly who: Who; readonly forced: boolean }
  | {
      readonly do: "synchronize";
      readonly who: Who;
      readonly within: Term;
      readonly body: readonly Instruction[];
    }
  | { readonly do: "restart" | "roll-back"; readonly who: Who }
  | { readonly do: "log"; readonly payload: boolean; readonly order: LogOrder }
  | { readonly do: "tell"; readonly who: Who; readonly value: Term }
  | { readonly do: "collect" }
  | { readonly do: "note"; readonly text: string }
);

export interface ComponentState {
  readonly name: string;
  readonly type: TypeName;
  readonly each: Scope;
  readonly initial: Term;
}

export interface Component {
  readonly format: typeof COMPONENT_FORMAT;
  readonly name: string;
  readonly version: number;
  readonly title: string;
  readonly parameters: readonly { readonly name: string; readonly type: TypeName; readonly default: Term }[];
  readonly states: readonly ComponentState[];
  readonly facts: readonly FactName[];
  readonly handlers: readonly {
    readonly event: EventName;
    readonly each: Scope;
    readonly body: readonly Instruction[];
  }[];
  /** Per place the words that keep the policy from running there; empty: it runs. */
  readonly refused: Readonly<Record<WordPlace, readonly string[]>>;
}

export const COMPONENT_FORMAT = "recovery-line policy component 1";

export interface BuiltPolicy {
  readonly component: Component;
  /** By instruction's id. */
  readonly lines: readonly SourceLine[];
}

export function encodeComponent(component: Component): Uint8Array {
  return new TextEncoder().encode(`${JSON.stringify(component)}\n`);
}

/** SHA-256 in hexadecimal, what plug and log name a component by. */
export function hashOf(component: Component): string {
  return createHash("sha256").update(encodeComponent(component)).digest("hex");
}
