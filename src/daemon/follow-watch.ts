/**
 * Containers that are made anew under a name that a process follows (`attach --follow`): when its life has ended, one of that name which
 * runs is its next life. It is attached by our own command, as by hand, with its first checkpoint.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { readdirSync } from "node:fs";
import { dirname } from "node:path";
import type { ProcessInfo } from "../client/protocol.ts";
import type { Collector } from "../collect/collect.ts";
import { ProcessCgroup } from "../host/cgroups.ts";
import { containerPid } from "../host/containers.ts";
import { FOLLOW_LOOK_MAX_MS, FOLLOW_LOOK_MS, POLICY_ACTION_LIMIT_MS } from "../model/limits.ts";
import { readJournal, restartFolder } from "../restart/restart-journal.ts";

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
  #child: ChildProcess | undefined;
  #running: Promise<void> = Promise.resolve();
  #closed = false;

  constructor(options: FollowOptions) {
    this.#options = options;
  }

  /** One at a time, and nobody waits for it. */
  look(): void {
    if (this.#closed || this.#child !== undefined) return;
    const ended = this.#options.collector
      .processes()
      .filter(({ live, follows }) => !live && follows !== undefined);
    const names = new Set(ended.map(({ app, process }) => `${app}/${process}`));
    for (const name of this.#awaited.keys()) if (!names.has(name)) this.#awaited.delete(name);
    const due = ended.find((one) => this.#isDue(one));
    if (due !== undefined) this.#running = this.#running.then(() => this.#lookAt(due));
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
    const said = await this.#attach(app, process, follows!);
    const awaited = this.#awaited.get(`${app}/${process}`);
    if (said === undefined || this.#closed || awaited === undefined || awaited.trouble === said) return;
    awaited.trouble = said;
    this.#options.onTrouble(
      `the container ${follows} that was made anew is not recorded as ${process} of ${app} yet: ${said}`,
    );
  }

  /** Undefined: it is recorded; else what our command says. */
  async #attach(app: string, process: string, follows: string): Promise<string | undefined> {
    const [file, ...first] = this.#options.program;
    const words = ["attach", app, process, "--container", follows, "--follow", "--log", this.#options.home];
    const child = spawn(file, [...first, ...words], {
      stdio: ["ignore", "ignore", "pipe"],
      detached: true, // a terminal's signals are for the collector, which ends it in its own way
    });
    this.#child = child;
    const timer = setTimeout(() => child.kill("SIGKILL"), POLICY_ACTION_LIMIT_MS);
    let said = "";
    child.stderr.on("data", (bytes: Buffer) => {
      said = (said + bytes.toString()).slice(-MAX_SAID);
    });
    const [code] = (await once(child, "close").catch(() => [null])) as [number | null];
    clearTimeout(timer);
    this.#child = undefined;
    return code === 0 ? undefined : said.trim().replaceAll("\n", " ") || "the command was killed";
  }

  /** An attach that is under way ends; nothing stays frozen, whatever ends it. */
  async close(): Promise<void> {
    this.#closed = true;
    this.#child?.kill("SIGTERM");
    await this.#running;
  }
}

/** Of what a failed command says, characters. */
const MAX_SAID = 1000;

function cgroupsBeside(app: string, process: string): string {
  try {
    return readdirSync(dirname(new ProcessCgroup(app, process).path))
      .sort()
      .join("\n");
  } catch {
    return ""; // the runtime has removed its own as well
  }
}
