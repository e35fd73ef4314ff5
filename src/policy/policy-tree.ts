/** A policy after checking: names resolved, expressions typed, macros not expanded yet. */
import type { Expression } from "./expression.ts";
import type { EventName, LogOrder, Scope, TypeName, Who } from "./vocabulary.ts";

/** Where an expression's characters stand in the file. */
export interface Placed<T> {
  readonly value: T;
  at(index: number): number;
}

/** `at`: offset of the element in the file. */
export type Statement = { readonly at: number } & (
  | {
      readonly kind: "if";
      readonly test: Placed<Expression>;
      readonly yes: readonly Statement[];
      readonly no: readonly Statement[];
    }
  | { readonly kind: "set"; readonly state: string; readonly value: Placed<Expression> }
  | { readonly kind: "use"; readonly macro: string; readonly args: ReadonlyMap<string, Placed<Expression>> }
  | {
      readonly kind: "checkpoint";
      readonly who: Who | undefined;
      readonly whoAt: number;
      readonly forced: boolean;
    }
  | {
      readonly kind: "synchronize";
      readonly who: Who;
      readonly whoAt: number;
      readonly within: Placed<Expression>;
      readonly body: readonly Statement[];
    }
  | { readonly kind: "restart" | "roll-back"; readonly who: Who; readonly whoAt: number }
  | { readonly kind: "log"; readonly payload: boolean; readonly order: LogOrder }
  | { readonly kind: "tell"; readonly who: Who; readonly whoAt: number; readonly value: Placed<Expression> }
  | { readonly kind: "collect" }
  | { readonly kind: "note"; readonly text: string }
);

export interface Parameter {
  readonly name: string;
  readonly type: TypeName;
  readonly value: Expression;
}
export interface StateRow {
  readonly name: string;
  readonly type: TypeName;
  readonly each: Scope;
  readonly initial: Expression;
}
export interface Macro {
  readonly name: string;
  readonly takes: ReadonlyMap<string, TypeName>;
  readonly body: readonly Statement[];
}
export interface Handler {
  readonly event: EventName;
  readonly each: Scope;
  readonly body: readonly Statement[];
}

export interface PolicyTree {
  readonly name: string;
  readonly version: number;
  readonly title: string;
  readonly parameters: readonly Parameter[];
  readonly states: readonly StateRow[];
  readonly macros: ReadonlyMap<string, Macro>;
  readonly handlers: readonly Handler[];
}
