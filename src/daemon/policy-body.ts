/** What a client sends to plug a policy, and the gateway that doubts it. */
import { isAbsolute } from "node:path";
import { RecoveryLineError } from "../model/errors.ts";
import { MAX_SHADOW_S } from "../model/limits.ts";
import type { SourceLine } from "../model/plugged-policy.ts";
import { ALLOWABLE, type Allowable, type PlugTerms, POLICY_DRIVERS } from "../model/policy-terms.ts";
import type { Component } from "../policy/component.ts";
import { decodeComponent } from "../policy/decode-component.ts";
import { fromWire } from "../policy/host-protocol.ts";
import type { PlugRequest } from "./app-policy.ts";
import { stringField, wordField } from "./body.ts";

type Body = Readonly<Record<string, unknown>>;

/** Throws RL_USAGE, and RL_BAD_INPUT for the component. */
export function plugOf(body: Body): PlugRequest {
  const component = decodeComponent(
    new TextEncoder().encode(stringField(body, "component")),
    stringField(body, "hash"),
  );
  const { dryRun } = body;
  if (typeof dryRun !== "boolean") throw wrong("dryRun", "true or false");
  return {
    component,
    lines: linesOf(body["lines"]),
    terms: termsOf(body, component),
    shadowMs: seconds(body, "shadow", 0, MAX_SHADOW_S) * 1000,
    dryRun,
  };
}

/** Seconds until the node goes. */
export function leavingOf(body: Body): number {
  return seconds(body, "within", 0, MAX_SHADOW_S);
}

function termsOf(body: Body, component: Component): PlugTerms {
  const { hooks, mostLoss, lineEvery, fallback } = body;
  const driver = wordField(body, "driver", POLICY_DRIVERS);
  if (hooks !== undefined && (typeof hooks !== "string" || !isAbsolute(hooks)))
    throw wrong("hooks", "an absolute path");
  return {
    set: settings(body["set"], component),
    allow: allowed(body["allow"] ?? []),
    fallback: fallback === null ? null : { interval: seconds(body, "fallback", 1) },
    driver,
    ...(hooks === undefined ? {} : { hooks: hooks as string }),
    ...(mostLoss === undefined ? {} : { mostLoss: seconds(body, "mostLoss", 0) }),
    ...(lineEvery === undefined ? {} : { lineEvery: seconds(body, "lineEvery", 1) }),
  };
}

function seconds(body: Body, field: string, least: number, most = Number.MAX_SAFE_INTEGER): number {
  const value = body[field];
  if (typeof value === "number" && value >= least && value <= most) return value;
  throw wrong(field, `a number of seconds, at least ${least}`);
}

function settings(value: unknown, { parameters }: Component): PlugTerms["set"] {
  if (!Array.isArray(value)) throw wrong("set", "a list");
  return value.map((one: unknown) => {
    const [name, number] = Array.isArray(one) ? one : [];
    if (!parameters.some((row) => row.name === name))
      throw wrong("set", "parameters of the policy and values");
    return [name as string, fromWire(number)] as const;
  });
}

function allowed(value: unknown): Allowable[] {
  if (Array.isArray(value) && value.every((word) => (ALLOWABLE as readonly unknown[]).includes(word)))
    return value as Allowable[];
  throw wrong("allow", `a list of ${ALLOWABLE.join(", ")}`);
}

/** For people: where statements stand. Nothing is decided by them. */
function linesOf(value: unknown): SourceLine[] {
  if (!Array.isArray(value)) throw wrong("lines", "a list");
  return value.map((one: unknown) => {
    const { line, column, macro } = (one ?? {}) as Record<string, unknown>;
    if (!Number.isSafeInteger(line) || !Number.isSafeInteger(column))
      throw wrong("lines", "places in a file");
    return {
      line: line as number,
      column: column as number,
      ...(typeof macro === "string" ? { macro } : {}),
    };
  });
}

function wrong(field: string, what: string): RecoveryLineError {
  return new RecoveryLineError("RL_USAGE", `the request's field "${field}" is not ${what}`);
}
