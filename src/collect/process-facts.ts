/** What is kept of a process beside its events. All but `peerNames` throw RL_UNKNOWN_APP, RL_UNKNOWN_PROCESS. */

import type { KnownPeer } from "../model/collector-answers.ts";
import { MAX_LEFT_TASKS } from "../model/limits.ts";
import type { ProcessData, ProcessEnd, StartRecipe, TaskName } from "../model/stored-process.ts";
import type { Drain } from "./drain.ts";
import type { OpenApps } from "./open-apps.ts";
import { originOf } from "./process-state.ts";
import type { Shared } from "./shared.ts";
import type { Turns } from "./turns.ts";

export class ProcessFacts {
  readonly #turns: Turns;
  readonly #apps: OpenApps;
  readonly #drain: Drain;

  constructor({ turns, apps, drain }: Shared) {
    this.#turns = turns;
    this.#apps = apps;
    this.#drain = drain;
  }

  /** How the command of a process that is recorded still ended: its last messages are understood by it. Stored with the next commit. */
  commandEnded(app: string, process: string, end: ProcessEnd): Promise<void> {
    return this.#turns.run(async () => {
      const { state } = await this.#apps.process(app, process);
      state.end = end;
      state.exitStatus = "code" in end ? end.code : 128 + end.signal;
      state.changed = true;
    });
  }

  /** Tasks of it go on in another cgroup: what they do is missing from now on. Durable on return. */
  left(appName: string, name: string, tasks: readonly TaskName[]): Promise<void> {
    return this.#turns.run(async () => {
      const { app } = await this.#apps.process(appName, name);
      await this.#drain.into([app]);
      const process = await this.#apps.process(appName, name); // a failed log's processes are new objects
      const { state } = process;
      const known = (one: TaskName): boolean => tasks.some(({ pid }) => pid === one.pid);
      state.left = [...state.left.filter((one) => !known(one)), ...tasks].slice(-MAX_LEFT_TASKS);
      state.changed = true;
      const gaps = process.verdict("left");
      process.app.pending.addGaps(gaps);
      await this.#apps.commit(process.app);
    });
  }

  /** How the process is started again; undefined where nobody said. Throws RL_UNKNOWN_APP, RL_UNKNOWN_PROCESS. */
  startRecipe(appName: string, name: string): Promise<StartRecipe | undefined> {
    return this.#turns.run(async () => (await this.#apps.process(appName, name)).state.origin.start);
  }

  /** Directory trees that are part of the process's state; undefined: none. Throws RL_UNKNOWN_APP, RL_UNKNOWN_PROCESS. */
  data(appName: string, name: string): Promise<ProcessData | undefined> {
    return this.#turns.run(async () => (await this.#apps.process(appName, name)).state.origin.data);
  }

  /** Who was found at the other end of an application's newest connections with the outside, by channel. Throws RL_UNKNOWN_APP. */
  peerNames(appName: string): Promise<KnownPeer[]> {
    return this.#turns.run(async () => [...(await this.#apps.open(appName, false)).peers.names.all()]);
  }

  /** They are so from now on. Durable on return. */
  keepData(appName: string, name: string, data: ProcessData): Promise<void> {
    return this.#turns.run(async () => {
      const { state, app } = await this.#apps.process(appName, name);
      state.origin = originOf({ ...state.origin, data });
      state.changed = true;
      await this.#apps.commit(app);
    });
  }

  /** A container that is made anew is its next life no more. Durable on return. */
  followsNoMore(appName: string, name: string): Promise<void> {
    return this.#turns.run(async () => {
      const { state, app } = await this.#apps.process(appName, name);
      const { follows, ...origin } = state.origin;
      if (follows === undefined) return;
      state.origin = origin;
      state.changed = true;
      await this.#apps.commit(app);
    });
  }

  /** Exit status of a process's command, as a shell tells it, from who waited for it: whether its endings were the failure itself. */
  ended(appName: string, name: string, status: number): Promise<void> {
    return this.#turns.run(async () => {
      (await this.#apps.process(appName, name)).state.exitStatus = status;
    });
  }

  /** Reasons of uncaptured, untrusted communication of a process since it was registered. */
  async uncaptured(appName: string, name: string): Promise<readonly string[]> {
    return this.#turns.run(async () => [...(await this.#apps.process(appName, name)).state.uncaptured]);
  }
}
