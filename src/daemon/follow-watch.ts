/**
 * Containers that are made anew under a name that a process follows (`attach --follow`): when its life has ended, one of that name which
 * runs is its next life. It is attached by our own command, as by hand, with its first checkpoint.
 */
import { readdirSync } from "node:fs";
import { dirname } from "node:path";
import type { ProcessInfo } from "../client/protocol.ts";
import type { Collector } from "../collect/collect.ts";
import { ProcessCgroup } from "../host/cgroups.ts";
import { containerPid } from "../host/containers.ts";
import { FOLLOW_LOOK_MAX_MS, FOLLOW_LOOK_MS } from "../model/limits.ts";
import { readJournal, restartFolder } from "../restart/restart-journal.ts";
import { OwnCommands } from "./own-commands.ts";

interface FollowOptions {
  readonly home: string;
  readonly collector: Pick<Collector, "processes">;
  /** What starts the command line, node and its main file. */
  readonly program: readonly [string, ...string[]];
  readonly onTrouble: (sentence: string) => void;
}

/** A process whose life has ended. */
interface Awaited {
  /** Cgroups beside the one that it had, at the last look. */
  beside: string;
  /** ms of `performance.now()`. */
  dueMs: number;
  pauseMs: number;
  /** What was told of it already. */
  trouble: string;
}

export class FollowWatch {
  readonly #options: FollowOptions;
  /** By "app/process". */
  readonly #awaited = new Map<string, Awaited>();
  readonly #commands: OwnCommands;
  #looking: Promise<void> | undefined;
  #closed = false;

  constructor(options: FollowOptions) {
    this.#options = options;
    this.#commands = new OwnCommands(options.program, options.home);
  }

  /** One at a time, and nobody waits for it. */
  look(): void {
    if (this.#closed || this.#looking !== undefined) return;
    const ended = this.#options.collector
      .processes()
      .filter(({ live, follows }) => !live && follows !== undefined);
    const names = new Set(ended.map(({ app, process }) => `${app}/${process}`));
    for (const name of this.#awaited.keys()) if (!names.has(name)) this.#awaited.delete(name);
    const due = ended.find((one) => this.#isDue(one));
    if (due === undefined) return;
    this.#looking = this.#lookAt(due)
      .catch((error: unknown) => this.#options.onTrouble(`followed containers: ${(error as Error).message}`))
      .finally(() => {
        this.#looking = undefined;
      });
  }

  /** The runtime makes a cgroup for a new container: seldom is it asked where there is no other than before. */
  #isDue({ app, process }: ProcessInfo): boolean {
    const name = `${app}/${process}`;
    const beside = cgroupsBeside(app, process);
    const known = this.#awaited.get(name);
    const nowMs = performance.now();
    if (known !== undefined && known.beside === beside && nowMs < known.dueMs) return false;
    const pauseMs =
      known === undefined || known.beside !== beside
        ? FOLLOW_LOOK_MS
        : Math.min(known.pauseMs * 2, FOLLOW_LOOK_MAX_MS);
    this.#awaited.set(name, { beside, pauseMs, dueMs: nowMs + pauseMs, trouble: known?.trouble ?? "" });
    return true;
  }

  async #lookAt({ app, process, follows }: ProcessInfo): Promise<void> {
    if (this.#closed || !((await containerPid(follows!)) ?? 0)) return;
    if ((await readJournal(restartFolder(this.#options.home, app))) !== undefined) return; // what it brings back it records
    const { why } = await this.#commands.run(["attach", app, process, "--container", follows!, "--follow"]);
    const awaited = this.#awaited.get(`${app}/${process}`);
    if (why === "" || this.#closed || awaited === undefined || awaited.trouble === why) return;
    awaited.trouble = why;
    this.#options.onTrouble(
      `the container ${follows} that was made anew is not recorded as ${process} of ${app} yet: ${why}`,
    );
  }

  /** An attach that is under way may end, for a while; nothing stays frozen, whatever ends it. */
  async close(): Promise<void> {
    this.#closed = true;
    await this.#commands.close();
    await this.#looking;
  }
}

function cgroupsBeside(app: string, process: string): string {
  try {
    return readdirSync(dirname(new ProcessCgroup(app, process).path))
      .sort()
      .join("\n");
  } catch {
    return ""; // the runtime has removed its own as well
  }
}
