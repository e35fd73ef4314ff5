/** The collector's endpoints (protocol.ts): each checks what it was sent and makes one call. */

import { type Ping, type ProcessRequest, type WireDependents, wireCut } from "../client/protocol.ts";
import type { Collector } from "../collect/collect.ts";
import { parseEvent, printEvent } from "../format/interchange.ts";
import { ProcessCgroup } from "../host/cgroups.ts";
import type { Keep } from "../log/keep.ts";
import type { Registration } from "../model/collector-answers.ts";
import { hasCode, RecoveryLineError } from "../model/errors.ts";
import type { Event } from "../model/event.ts";
import type { PayloadLoggers } from "../payload/payload-loggers.ts";
import { stringField, wordField } from "./body.ts";
import type { HoldWatch } from "./hold-watch.ts";
import type { Membership } from "./membership.ts";
import type { Policies } from "./policies.ts";
import { leavingOf, plugOf } from "./policy-body.ts";
import {
  cutEntries,
  foundChannels,
  objectOf,
  peerRules,
  processData,
  reasons,
  restoredPast,
  startRecipe,
  taskName,
} from "./restore-body.ts";
import type { UnseenWatch } from "./unseen-watch.ts";

export interface Service {
  readonly collector: Collector;
  readonly membership: Membership;
  readonly payloads: PayloadLoggers;
  readonly unseen: UnseenWatch;
  readonly policies: Policies;
  readonly holds: HoldWatch;
  readonly ping: Ping;
  /** Prometheus text. */
  metrics(): Promise<string>;
}

type Body = Readonly<Record<string, unknown>>;
export type Route = (service: Service, body: Body) => unknown;

/** "METHOD path" → what it does; the answer goes out as JSON. */
export const ROUTES: ReadonlyMap<string, Route> = new Map<string, Route>([
  ["GET /v1/ping", ({ ping }) => ping],
  ["GET /v1/processes", ({ collector, holds }) => holds.told(collector.processes())],
  ["GET /v1/stats", ({ collector }) => collector.stats()],
  ["POST /v1/register", register],
  ["POST /v1/unregister", unregister],
  ["POST /v1/ended", ended],
  ["POST /v1/cut", (service, body) => cut(service, processOf(body))],
  ["POST /v1/append", ({ collector }, body) => append(collector, body)],
  [
    "POST /v1/next-checkpoint",
    async ({ collector }, body) => {
      const { app, process } = processOf(body);
      const unused = body["unused"] === undefined ? undefined : numberField(body, "unused");
      return { checkpoint: await collector.nextCheckpoint(app, process, unused) };
    },
  ],
  [
    "POST /v1/start-recipe",
    async ({ collector }, body) => {
      const { app, process } = processOf(body);
      const start = await collector.facts.startRecipe(app, process);
      return start === undefined ? {} : { start };
    },
  ],
  ["POST /v1/data", dataOf],
  [
    "POST /v1/peer-names",
    async ({ collector }, body) => ({ names: await collector.facts.peerNames(stringField(body, "app")) }),
  ],
  [
    "POST /v1/expect-restore",
    ({ collector }, body) => {
      collector.expectRestore(cutEntries(body, "entries"));
      return {};
    },
  ],
  ["POST /v1/unseen", unseen],
  ["POST /v1/dependents", dependents],
  ["GET /v1/policies", ({ policies }) => policies.list()],
  [
    "POST /v1/policy/plug",
    ({ policies }, body) =>
      policies.plug(stringField(body, "app"), plugOf(body), body["allow"] !== undefined),
  ],
  ["POST /v1/policy/unplug", ({ policies }, body) => policies.unplug(stringField(body, "app"))],
  [
    "POST /v1/leaving",
    async ({ policies }, body) => {
      await policies.leaving(leavingOf(body));
      return {};
    },
  ],
  [
    "POST /v1/drain",
    async ({ collector, payloads, unseen }) => {
      await payloads.flush();
      await unseen.beforeAnswer();
      await collector.drain();
      return {};
    },
  ],
  ["POST /v1/rotate", ({ collector }, body) => rotate(collector, stringField(body, "app"))],
  [
    "POST /v1/prune",
    ({ collector }, body) =>
      collector.logs.prune(stringField(body, "app"), oldestField(body), keepField(body)),
  ],
]);

function processOf(body: Body): ProcessRequest {
  return { app: stringField(body, "app"), process: stringField(body, "process") };
}

function registration(body: Body): Registration {
  const { cgroupId, trust, rules } = body;
  if (!Number.isSafeInteger(cgroupId))
    throw new RecoveryLineError("RL_USAGE", 'the request\'s field "cgroupId" is no integer');
  const { start, past, task, data, group, holdLimitMs, attached, follows } = body;
  return {
    ...processOf(body),
    cgroupId: cgroupId as number,
    ...(trust === undefined ? {} : { trust: reasons(trust, "trust") }),
    ...(rules === undefined ? {} : { rules: peerRules(rules) }),
    ...(start === undefined ? {} : { start: startRecipe(start) }),
    ...(past === undefined ? {} : { past: restoredPast(past) }),
    ...(task === undefined ? {} : { task: taskName(task) }),
    ...(data === undefined ? {} : { data: processData(data) }),
    ...(group === undefined ? {} : { group: stringField(body, "group") }),
    ...(holdLimitMs === undefined ? {} : { holdLimitMs: numberField(body, "holdLimitMs") }),
    ...(attached === undefined
      ? {}
      : { attached: { parent: numberField(objectOf(attached, "attached"), "parent") } }),
    ...(follows === undefined ? {} : { follows: stringField(body, "follows") }),
  };
}

function numberField(body: Body, name: string): number {
  const value = body[name];
  if (typeof value === "number" && Number.isSafeInteger(value) && value >= 0) return value;
  throw new RecoveryLineError("RL_USAGE", `the request's field "${name}" is no number`);
}

async function dataOf({ collector, membership }: Service, body: Body): Promise<object> {
  const { app, process } = processOf(body);
  const { data } = body;
  if (data !== undefined) await membership.keepData(app, process, processData(data));
  const kept = await collector.facts.data(app, process);
  return kept === undefined ? {} : { data: kept };
}

/** The process stands still until it has the answer: with payloads, they are kept from its first byte on. */
async function register({ membership, payloads, holds, policies }: Service, body: Body): Promise<unknown> {
  const { payload = false } = body;
  if (typeof payload !== "boolean") throw new RecoveryLineError("RL_USAGE", '"payload" is true or false');
  const wanted = registration(body);
  if (payload) payloads.requireRights();
  const mode = wordField(body, "mode", ["first", "fresh", "resume", "attach"]);
  if (mode !== "resume" && !wanted.holdLimitMs) await policies.requireHeld(wanted.app, wanted.process);
  const answer = await membership.register(wanted, mode);
  holds.begin();
  await (payload ? payloads.enable(wanted.app) : payloads.ensure(wanted.app));
  return answer;
}

async function unregister({ collector, membership }: Service, body: Body): Promise<object> {
  const { app, process } = processOf(body);
  if (body["follow"] === false) await collector.facts.followsNoMore(app, process);
  await membership.detach(app, process);
  return {};
}

async function ended({ collector }: Service, body: Body): Promise<object> {
  const { app, process } = processOf(body);
  const { status } = body;
  if (!Number.isSafeInteger(status))
    throw new RecoveryLineError("RL_USAGE", 'the request\'s field "status" is no integer');
  await collector.facts.ended(app, process, status as number);
  return {};
}

async function cut({ collector }: Service, { app, process }: ProcessRequest): Promise<unknown> {
  const found = collector.processes().find((one) => one.app === app && one.process === process);
  if (found === undefined)
    throw new RecoveryLineError(
      "RL_UNKNOWN_PROCESS",
      `the collector records no process ${process} of ${app}`,
    );
  const over = () => new RecoveryLineError("RL_USAGE", `process ${process} of ${app} has ended`);
  if (!found.live) throw over();
  const told = await collector.cut(found.cgroupId).catch((error: unknown) => {
    throw hasCode(error, "RL_UNKNOWN_PROCESS") ? over() : error; // it ended meanwhile
  });
  return wireCut(told);
}

/** The event passes the same gateway as an imported one. */
function append(collector: Collector, body: Body): Promise<object> {
  const app = stringField(body, "app");
  const { events } = body;
  if (events === undefined) return collector.append(app, reliableEvent(stringField(body, "event"), 1));
  if (!Array.isArray(events) || !events.every((one) => typeof one === "string"))
    throw new RecoveryLineError("RL_USAGE", 'the request\'s field "events" is no list of lines');
  const [first, ...others] = events.map((text, at) => reliableEvent(text, at + 1));
  if (first === undefined) throw new RecoveryLineError("RL_USAGE", 'the request\'s field "events" is empty');
  const { held, lives } = body;
  if (held !== true) return collector.appendAll(app, [first, ...others]);
  if (!Array.isArray(lives) || lives.length !== events.length || !lives.every(Number.isSafeInteger))
    throw new RecoveryLineError("RL_USAGE", 'the request\'s field "lives" is no list of incarnations');
  const cgroups = [first, ...others].map(({ process }) => new ProcessCgroup(app, process));
  const inTime = (): boolean => cgroups.every(({ freezing }) => freezing);
  return collector.appendAll(app, [first, ...others], { inTime, lives: lives as number[] });
}

function reliableEvent(text: string, line: number): Event {
  const event = parseEvent(text, { file: "request", line });
  if (["checkpoint", "stable", "rollback", "gap"].includes(event.type)) return event;
  throw new RecoveryLineError(
    "RL_USAGE",
    `the reliable path takes no ${event.type} event: ${printEvent(event)}`,
  );
}

async function unseen({ unseen: watch }: Service, body: Body): Promise<object> {
  const app = stringField(body, "app");
  if (body["found"] === undefined) return watch.look(app);
  await watch.take(app, foundChannels(body["found"]));
  return {};
}

async function dependents({ policies }: Service, body: Body): Promise<WireDependents> {
  const { processes } = body;
  if (!Array.isArray(processes) || !processes.every((one) => typeof one === "string"))
    throw new RecoveryLineError("RL_USAGE", 'the request\'s field "processes" is no list of names');
  const found = await policies.dependents(stringField(body, "app"), processes);
  return found === undefined ? {} : { dependents: found };
}

function oldestField({ oldest }: Body): ReadonlyMap<string, number> {
  const whole =
    Array.isArray(oldest) &&
    oldest.every(
      (pair) =>
        Array.isArray(pair) && typeof pair[0] === "string" && Number.isSafeInteger(pair[1]) && pair[1] >= 0,
    );
  if (!whole)
    throw new RecoveryLineError(
      "RL_USAGE",
      'the request\'s field "oldest" is no list of [process, position]',
    );
  return new Map(oldest as [string, number][]);
}

function keepField({ keep }: Body): Keep | undefined {
  if (keep === undefined) return undefined;
  const fields = Object.entries(keep ?? {});
  const known = ([name, value]: [string, unknown]): boolean =>
    (name === "bytes" || name === "hours") && typeof value === "number" && value >= 0;
  if (fields.length > 0 && fields.every(known)) return keep as Keep;
  throw new RecoveryLineError("RL_USAGE", 'the request\'s field "keep" is not { bytes?, hours? }');
}

async function rotate(collector: Collector, app: string): Promise<object> {
  await collector.logs.rotate(app);
  return {};
}
