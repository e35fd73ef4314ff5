/** JSON bodies of requests, within bounds for one and for all together. */
import type { IncomingMessage } from "node:http";
import { RecoveryLineError } from "../model/errors.ts";
import { MAX_BODIES_BYTES, MAX_BODY_BYTES } from "../model/limits.ts";

let underWayBytes = 0;

/** The body as an object; none is {}. Throws RL_LIMIT where it is too long, RL_USAGE where it is no JSON object. */
export async function readBody(request: IncomingMessage): Promise<Record<string, unknown>> {
  let taken = 0;
  const chunks: Buffer[] = [];
  try {
    for await (const chunk of request as AsyncIterable<Buffer>) {
      taken += chunk.length;
      underWayBytes += chunk.length;
      if (taken > MAX_BODY_BYTES || underWayBytes > MAX_BODIES_BYTES)
        throw new RecoveryLineError("RL_LIMIT", `a request's body is longer than ${MAX_BODY_BYTES} bytes`);
      chunks.push(chunk);
    }
  } finally {
    underWayBytes -= taken;
  }
  return parseObject(Buffer.concat(chunks).toString("utf8"));
}

function parseObject(text: string): Record<string, unknown> {
  let value: unknown;
  try {
    value = text === "" ? {} : JSON.parse(text);
  } catch (cause) {
    throw new RecoveryLineError("RL_USAGE", "the request's body is no JSON", "", cause);
  }
  if (typeof value === "object" && value !== null && !Array.isArray(value))
    return value as Record<string, unknown>;
  throw new RecoveryLineError("RL_USAGE", "the request's body is no JSON object");
}

/** A field that must be a non-empty string. */
export function stringField(body: Readonly<Record<string, unknown>>, field: string): string {
  const value = body[field];
  if (typeof value === "string" && value !== "") return value;
  throw new RecoveryLineError("RL_USAGE", `the request's field "${field}" is no string`);
}

/** A field that must be one of the words; absent: the first. */
export function wordField<T extends string>(
  body: Readonly<Record<string, unknown>>,
  field: string,
  words: readonly [T, ...T[]],
): T {
  const value = body[field] ?? words[0];
  const word = words.find((one) => one === value);
  if (word !== undefined) return word;
  throw new RecoveryLineError("RL_USAGE", `the request's field "${field}" is none of ${words.join(", ")}`);
}
