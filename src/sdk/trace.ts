/** The logs of an application's SDK processes → events of interchange.md. */
import { closeSync, existsSync, fdatasyncSync, openSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { lockHolder } from "../host/reader-lock.ts";
import { lockPath } from "../log/log-paths.ts";
import { RecoveryLineError } from "../model/errors.ts";
import type { Cut, Event } from "../model/event.ts";
import { hasState } from "./checkpoint-files.ts";
import type { ChannelRole, CheckpointRecord, LogRecord } from "./log-format.ts";
import { scanLog } from "./log-scan.ts";
import { LOG_FILE, sdkFolder } from "./process-log.ts";

/** One process's events in program order, and whether the process is alive. */
export interface ProcessTrace {
  readonly process: string;
  readonly live: boolean;
  readonly events: Event[];
}

/** Names can't hold ">". */
export function channelName(from: string, to: string): string {
  return `sdk:${from}>${to}`;
}

/**
 * What each process's log proves, ended by a `stable` line: it is synced before it is read. Logs of live processes grow while
 * others are read; what such a log says was received from a live process whose log was read before the send is left out, as if it had
 * been read a little earlier. Of dead processes nothing is ever left out. Throws RL_UNKNOWN_APP, RL_CORRUPT_LOG.
 */
export function sdkTrace(home: string, app: string): ProcessTrace[] {
  const folder = sdkFolder(home, app);
  const found = loggedIn(folder);
  if (found.length === 0)
    throw new RecoveryLineError("RL_UNKNOWN_APP", `no SDK process of "${app}" has a log in ${folder}`);
  const traces = found.map((name) => readTrace(join(folder, name), name));
  settle(
    traces,
    loggedIn(folder).filter((name) => !found.includes(name)),
  );
  for (const { process, events } of traces) events.push({ type: "stable", process });
  return traces;
}

function loggedIn(folder: string): string[] {
  const names = existsSync(folder) ? readdirSync(folder).sort() : [];
  return names.filter((name) => existsSync(join(folder, name, LOG_FILE)));
}

/**
 * Cuts live traces back, in place, to what can have been at one moment: before what they received and what the sender's trace does not
 * hold, being that of a live process and read before, or of one of `newcomers`, whose log was made while others were read.
 */
export function settle(traces: readonly ProcessTrace[], newcomers: readonly string[]): void {
  while (trim(traces, newcomers));
}

function readTrace(folder: string, process: string): ProcessTrace {
  const path = join(folder, LOG_FILE);
  const live = lockHolder(lockPath(folder)) !== undefined;
  const fd = openSync(path, "r");
  try {
    fdatasyncSync(fd);
    const events: Event[] = [];
    const reader = new TraceReader(folder, process);
    for (const { record } of scanLog(fd, path)) {
      const event = reader.event(record);
      if (event !== undefined) events.push(event);
    }
    return { process, live, events };
  } finally {
    closeSync(fd);
  }
}

class TraceReader {
  readonly #folder: string;
  readonly #process: string;
  readonly #channels: { readonly name: string; readonly role: ChannelRole }[] = [];

  constructor(folder: string, process: string) {
    this.#folder = folder;
    this.#process = process;
  }

  event(record: LogRecord): Event | undefined {
    const process = this.#process;
    if (record.kind === "channel") {
      const { role, peer } = record;
      const name = role === "send" ? channelName(process, peer) : channelName(peer, process);
      this.#channels[record.number] = { name, role };
      return undefined;
    }
    if (record.kind === "checkpoint") return this.#checkpoint(record);
    if (record.kind !== "send" && record.kind !== "deliver") return undefined;
    const range = {
      channel: this.#channels[record.channel]!.name,
      begin: record.sequence,
      end: record.sequence + 1,
    };
    return { type: record.kind === "send" ? "send" : "receive", process, ...range };
  }

  #checkpoint({ checkpoint, offsets }: CheckpointRecord): Event {
    const side = (wanted: ChannelRole): Map<string, number> =>
      new Map(
        offsets
          .map(([number, offset]) => ({ ...this.#channels[number]!, offset }))
          .filter(({ role }) => role === wanted)
          .map(({ name, offset }) => [name, offset]),
      );
    const cut: Cut = { sent: side("send"), received: side("receive") };
    const usable = hasState(this.#folder, checkpoint);
    return { type: "checkpoint", process: this.#process, checkpoint, usable, cut };
  }
}

/** True: something was cut. */
function trim(traces: readonly ProcessTrace[], newcomers: readonly string[]): boolean {
  const sent = new Map<string, number>();
  for (const { events, live } of traces)
    for (const event of events)
      if (event.type === "send") sent.set(event.channel, live ? event.end : Number.POSITIVE_INFINITY);
  const senders = [...traces.filter(({ live }) => live).map(({ process }) => process), ...newcomers];
  let cut = false;
  for (const { events, live, process } of traces) {
    if (!live) continue;
    const unsettled = new Set(senders.map((sender) => channelName(sender, process)));
    const first = events.findIndex(
      (event) =>
        event.type === "receive" &&
        unsettled.has(event.channel) &&
        event.end > (sent.get(event.channel) ?? 0),
    );
    if (first < 0) continue;
    events.length = first;
    cut = true;
  }
  return cut;
}
