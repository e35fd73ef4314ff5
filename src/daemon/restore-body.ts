/** What a restart and a look send: connections of an image, and how a command is started again. Each is checked field by field. */

import { PeerRules } from "../collect/peer-rules.ts";
import { VERDICT_REASONS } from "../format/ring-layout.ts";
import type { RestoredPast } from "../model/collector-answers.ts";
import { RecoveryLineError } from "../model/errors.ts";
import type { CutEntry } from "../model/event-source.ts";
import type { ProcessData, StartRecipe, StoredPeerRules, TaskName } from "../model/stored-process.ts";
import type { FoundChannel } from "../model/unseen-channel.ts";
import { UNSEEN_REASONS } from "../model/unseen-channel.ts";

type Body = Readonly<Record<string, unknown>>;

/** `told`, `seen`: an image of an older version says nothing of them. */
const ENTRY_FIELDS = [
  "flags",
  "live",
  "local",
  "remote",
  "sent",
  "received",
  "unacknowledged",
  "queued",
  "told",
  "seen",
] as const;

export function cutEntries(body: Body, field: string): CutEntry[] {
  const list = body[field];
  if (!Array.isArray(list)) throw wrong(field, "a list of connections");
  return list.map((one: unknown) => {
    const entry: Body = { told: 0, seen: received(one), ...objectOf(one, field) };
    for (const name of ENTRY_FIELDS) {
      const value = entry[name];
      if (!Number.isSafeInteger(value) || (value as number) < 0)
        throw wrong(field, `a connection with ${name}`);
    }
    return Object.fromEntries(ENTRY_FIELDS.map((name) => [name, entry[name]])) as unknown as CutEntry;
  });
}

function received(entry: unknown): unknown {
  return (entry as { received?: unknown } | null)?.received;
}

export function restoredPast(value: unknown): RestoredPast {
  const past = objectOf(value, "past");
  return {
    connections: cutEntries(past, "connections"),
    uncaptured: reasons(past["uncaptured"], "uncaptured"),
  };
}

/** What a look found that was made by who asks. */
export function foundChannels(value: unknown): FoundChannel[] {
  if (!Array.isArray(value)) throw wrong("found", "a list of channels");
  return value.map((one: unknown) => {
    const { process, pid, reason, what, other, otherPid, incarnation, tied } = objectOf(one, "found");
    const known = UNSEEN_REASONS.find((word) => word === reason);
    const whole = [pid, otherPid, incarnation].every((number) => Number.isSafeInteger(number));
    if (known === undefined || !whole || !isTextList([process, what, other]))
      throw wrong("found", "a list of channels");
    const channel = { process, pid, reason: known, what, other, otherPid, incarnation } as FoundChannel;
    return tied === true ? { ...channel, tied } : channel;
  });
}

/** Names of `VERDICT_REASONS`, and what the collector itself finds out. */
export function reasons(value: unknown, field: string): string[] {
  const known: readonly string[] = [...VERDICT_REASONS, ...UNSEEN_REASONS, "left", "relay"];
  if (!Array.isArray(value) || !value.every((reason) => known.includes(reason as string)))
    throw new RecoveryLineError("RL_USAGE", `"${field}" may name ${VERDICT_REASONS.slice(1).join(", ")}`);
  return value as string[];
}

/** Throws RL_USAGE for what is none. */
export function peerRules(value: unknown): StoredPeerRules {
  const { outside, inside } = objectOf(value, "rules");
  if (!isTextList(outside) || !isTextList(inside))
    throw wrong("rules", "two lists of addresses, outside and inside");
  return new PeerRules({ outside, inside }).stored();
}

export function startRecipe(value: unknown): StartRecipe {
  const start = objectOf(value, "start");
  const { command, cwd, env, output, allowIoUring, ownIpc, criuOptions, ready, mpiJob } = start;
  if (!isTextList(command) || command.length === 0) throw wrong("start.command", "a list of words");
  if (typeof cwd !== "string") throw wrong("start.cwd", "a path");
  const variables = objectOf(env, "start.env");
  if (!isTextList(Object.values(variables))) throw wrong("start.env", "an object of strings");
  for (const [name, value] of Object.entries({ allowIoUring, ownIpc }))
    if (value !== undefined && typeof value !== "boolean") throw wrong(`start.${name}`, "true or false");
  return {
    command,
    cwd,
    env: variables as Record<string, string>,
    ...(output === undefined ? {} : { output: outputFile(output) }),
    ...(allowIoUring === true ? { allowIoUring } : {}),
    ...(ownIpc === true ? { ownIpc } : {}),
    ...(typeof ready === "string" ? { ready } : {}),
    ...(typeof mpiJob === "string" ? { mpiJob } : {}),
    ...(criuOptions === undefined ? {} : { criuOptions: optionList(criuOptions) }),
  };
}

function optionList(value: unknown): string[] {
  if (!isTextList(value)) throw wrong("start.criuOptions", "a list of words");
  return value;
}

export function processData(value: unknown): ProcessData {
  const { roots, limitBytes, start } = objectOf(value, "data");
  if (!isTextList(roots) || !roots.every((root) => root.startsWith("/")))
    throw wrong("data.roots", "a list of paths");
  if (!Number.isSafeInteger(limitBytes) || (limitBytes as number) < 0)
    throw wrong("data.limitBytes", "a number of bytes");
  const kept = { roots, limitBytes: limitBytes as number };
  if (start === undefined) return kept;
  const { folder, sha256 } = objectOf(start, "data.start");
  const isWhole =
    typeof folder === "string" &&
    isTextList(sha256) &&
    sha256.length === roots.length &&
    !folder.includes("/");
  if (!isWhole) throw wrong("data.start", "a saved tree for each root");
  return { ...kept, start: { folder, sha256 } };
}

export function taskName(value: unknown): TaskName {
  const { pid, startTicks } = objectOf(value, "task");
  const whole = [pid, startTicks].every((one) => Number.isSafeInteger(one) && (one as number) >= 0);
  if (!whole) throw wrong("task", "a process id with its start");
  return { pid: pid as number, startTicks: startTicks as number };
}

function outputFile(value: unknown): NonNullable<StartRecipe["output"]> {
  const { path, sizeBytes, inode, device } = objectOf(value, "start.output");
  const numbers = [sizeBytes, inode, device].every(
    (one) => Number.isSafeInteger(one) && (one as number) >= 0,
  );
  if (typeof path !== "string" || !numbers) throw wrong("start.output", "a file");
  return {
    path,
    sizeBytes: sizeBytes as number,
    inode: inode as number,
    device: device as number,
  };
}

function isTextList(value: unknown): value is string[] {
  return Array.isArray(value) && value.every((one) => typeof one === "string");
}

export function objectOf(value: unknown, field: string): Body {
  if (typeof value === "object" && value !== null && !Array.isArray(value)) return value as Body;
  throw wrong(field, "an object");
}

function wrong(field: string, what: string): RecoveryLineError {
  return new RecoveryLineError("RL_USAGE", `the request's field "${field}" is not ${what}`);
}
