/** The applications whose logs are open, and what is remembered of the others. */

import { readdir } from "node:fs/promises";
import { constants } from "node:os";
import { join } from "node:path";
import { RingFlag, Told } from "../format/ring-layout.ts";
import { channelName } from "../model/channel-names.ts";
import type { CollectedProcess, UnreadableLog } from "../model/collector-answers.ts";
import { hasCode, RecoveryLineError } from "../model/errors.ts";
import type { CutEntry } from "../model/event-source.ts";
import { IDLE_LOG_MS, MAX_IDLE_LOGS } from "../model/limits.ts";
import { isAppName } from "../model/names.ts";
import { AppLog } from "./app-log.ts";
import type { CollectorParts } from "./collect-options.ts";
import type { CollectPump } from "./collect-pump.ts";
import { beginSession } from "./collect-session.ts";
import { collectedProcesses, EndedProcesses } from "./ended-processes.ts";
import type { HeldOutputs } from "./held-outputs.ts";
import { openKnownLogs } from "./known-logs.ts";
import type { ProcessBuffer } from "./process-buffer.ts";
import { selectProcess } from "./process-state.ts";

/** How often logs that may be closed are looked for, in ms. */
const IDLE_LOOK_MS = 1000;

export class OpenApps {
  readonly #parts: CollectorParts;
  readonly #pump: CollectPump;
  readonly #outputs: HeldOutputs;
  readonly #unreadable = new Map<string, UnreadableLog>();
  readonly #ended = new EndedProcesses();
  #nextIdleLookMs = 0;

  constructor(parts: CollectorParts, pump: CollectPump, outputs: HeldOutputs) {
    this.#parts = parts;
    this.#pump = pump;
    this.#outputs = outputs;
  }

  /** Logs that were passed over. */
  get unreadable(): readonly UnreadableLog[] {
    return [...this.#unreadable.values()];
  }

  /** Those with live processes go on; `last` is the newest session that began. Throws what opening one throws whose application runs. */
  async openKnown(last: number): Promise<void> {
    const logs = openKnownLogs({
      home: this.#parts.home,
      make: (name) => this.#make(name),
      runs: this.#parts.runs ?? (() => true),
      skipped: (log) => this.#passOver(log),
      waits: ({ message }) => this.#parts.onTrouble?.(`the start waits until it is free: ${message}`),
      ended: (app) => {
        const known = collectedProcesses(app);
        if (known.some(({ follows }) => follows !== undefined)) this.#ended.keep(app.name, known); // they may live again
      },
    });
    for await (const app of logs) {
      this.#pump.apps.set(app.name, app);
      this.#pump.admit(app, last);
    }
    await this.#resume();
    await beginSession(this.#parts.home, this.#pump.session);
  }

  #passOver(log: UnreadableLog): void {
    this.#unreadable.set(log.app, log);
    const until = log.code === "RL_LOCKED" ? "it is free" : "it is repaired or moved away";
    this.#parts.onTrouble?.(
      `the log of ${log.app} is passed over, nothing of it can be recorded until ${until}: ${log.message}`,
    );
  }

  /** The reopened applications go on: recorded again where the programs are new, and part of this session. */
  async #resume(): Promise<void> {
    const { source } = this.#parts;
    for (const app of this.#pump.apps.values()) {
      for (const { state } of app.processes.values()) {
        if (!state.live) continue;
        try {
          if (state.holdLimitMs > 0) this.#outputs.hold(state.cgroupId);
          selectProcess(state, source);
        } catch (error) {
          if (!isCgroupGone(error)) throw error; // it has ended: what the kernel still has of it is read like that of others that have
        }
      }
      this.#recallOpenings(app);
      app.touch();
      await this.#pump.commitApp(app);
      if (app.broken !== undefined) throw app.broken;
    }
  }

  /** Sends of sockets that exist: their receives may be to come. Those of closed ones are looked for in the log. */
  #recallOpenings(app: AppLog): void {
    const { source } = this.#parts;
    for (const { state } of app.processes.values()) {
      if (!state.live) continue;
      try {
        for (const entry of source.cut(state.cgroupId).entries)
          app.messages.known(namesToldBy(entry, source.bootId));
      } catch (error) {
        if (!hasCode(error, "RL_UNKNOWN_PROCESS")) throw error; // its cgroup is gone, and the programs are new
      }
    }
  }

  #make(name: string): AppLog {
    const { home, openLog, source, node } = this.#parts;
    return new AppLog(name, join(home, name), openLog, source.bootId, node);
  }

  /** The application, its log open. Throws RL_UNKNOWN_APP where it has none. */
  async open(name: string, create: boolean): Promise<AppLog> {
    const known = this.#pump.apps.get(name);
    if (known !== undefined) {
      known.usedAtMs = performance.now();
      return known;
    }
    if (!isAppName(name) || (!create && !(await this.#hasLog(name))))
      throw new RecoveryLineError(
        "RL_UNKNOWN_APP",
        `there is no application "${name}" in ${this.#parts.home}`,
      );
    const app = this.#make(name);
    await app.open(create);
    // Whatever was live when its log was left behind has ended meanwhile, and its last records went by.
    app.reconcile(this.#pump.ringFacts, this.#pump.session);
    for (const cgroupId of app.endLive()) this.#parts.source.select(cgroupId, false, 0);
    app.skipBefore = this.#pump.source.readPosition();
    this.#unreadable.delete(name);
    this.#ended.forget(name);
    this.#pump.apps.set(name, app);
    if (app.pending.gaps > 0) await this.#pump.commitApp(app); // readers see committed blocks only
    return app;
  }

  async #hasLog(name: string): Promise<boolean> {
    return (await readdir(this.#parts.home)).includes(name);
  }

  /** The process and its application, its log open. Throws RL_UNKNOWN_APP, RL_UNKNOWN_PROCESS. */
  async process(appName: string, name: string): Promise<ProcessBuffer> {
    const app = await this.open(appName, false);
    const process = app.processes.get(name);
    if (process !== undefined) return process;
    throw new RecoveryLineError("RL_UNKNOWN_PROCESS", `${appName} has no process "${name}"`);
  }

  /** Durable on return. Throws RL_LOG_WRITE: then it may or may not be. */
  async commit(app: AppLog): Promise<void> {
    app.touch();
    await this.#pump.commitApp(app);
    if (app.broken !== undefined) throw app.broken;
  }

  /** Logs of applications that nothing runs of any more take memory: LevelDB's buffers, what is known of their channels. */
  async closeIdle(): Promise<void> {
    const now = performance.now();
    if (now < this.#nextIdleLookMs) return;
    this.#nextIdleLookMs = now + IDLE_LOOK_MS;
    const idle = [...this.#pump.apps.values()].filter((app) => app.isIdle);
    idle.sort((a, b) => a.usedAtMs - b.usedAtMs);
    const tooMany = idle.length - MAX_IDLE_LOGS;
    for (const [at, app] of idle.entries()) {
      if (at >= tooMany && now - app.usedAtMs < IDLE_LOG_MS) return;
      this.#ended.keep(app.name, collectedProcesses(app));
      this.#pump.apps.delete(app.name);
      await app.close();
    }
  }

  /** The processes that are recorded, and those that were: of the open applications all, of the others as far as they are remembered. */
  processes(): readonly CollectedProcess[] {
    return [...[...this.#pump.apps.values()].flatMap(collectedProcesses), ...this.#ended.all()];
  }

  async close(): Promise<void> {
    for (const app of this.#pump.apps.values()) await app.close();
  }
}

/** Of holding or selecting: whoever was in the cgroup has ended, and somebody has removed it (`run` in the foreground, a container's engine). */
function isCgroupGone(error: unknown): boolean {
  const { errno } = ((error as Error).cause ?? {}) as { errno?: unknown };
  return error instanceof RecoveryLineError && errno === constants.errno.ENOENT;
}

/** Messages of one unit whose sends the log has for this socket. */
function namesToldBy({ flags, told, local, remote }: CutEntry, bootId: string): string[] {
  const channel = channelName((flags & RingFlag.UNIX) !== 0, bootId, local, remote);
  const names: string[] = [];
  if ((told & Told.OPEN_SENT) !== 0) names.push(`${channel}/open`);
  if ((told & Told.END_SENT) !== 0) names.push(`${channel}/end`);
  return names;
}
