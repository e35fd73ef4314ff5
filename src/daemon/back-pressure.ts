/**
 * `collect --on-full stop`: while the kernel's ring is nearly full, the recorded processes stand still, so that nothing they do is lost
 * where the disk is slow or full for a while. They go on once half of the ring is free.
 *
 * A process is held by its cgroup's freezer, behind the same lock as a checkpoint's freeze: one that is being checkpointed stands still
 * anyway, and one that is held can't be checkpointed. A watchdog, /bin/sh at the other end of a pipe, thaws what is held if this
 * program dies in any way; if the watchdog dies, everything goes on at once and another one is started.
 */
import type { ChildProcess } from "node:child_process";
import { once } from "node:events";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { ProcessCgroup } from "../host/cgroups.ts";
import { hasEnded, startWatchdog } from "../host/watchdog.ts";
import { RecoveryLineError } from "../model/errors.ts";
import { BACK_PRESSURE_POLL_MS, FULL_RING_SHARE, RELIEVED_RING_SHARE } from "../model/limits.ts";
import { call, native } from "../native/binding.ts";

/** What it needs of the collector. */
interface Recording {
  /** Share of the ring that is not yet committed, 0 … 1. */
  readonly ringFill: number;
  processes(): readonly { readonly app: string; readonly process: string; readonly live: boolean }[];
}

interface Held {
  readonly cgroup: ProcessCgroup;
  readonly lock: number;
}

/** From one try to start a watchdog to the next, in ms. */
const WATCHDOG_RETRY_MS = 250;

/** A line names a file that must be reset at the end; the line "-" forgets them all. */
const WATCHDOG = `set --
while read -r line; do if [ "$line" = - ]; then set --; else set -- "$@" "$line"; fi; done
for file; do echo 0 >"$file"; done 2>/dev/null`;

export class BackPressure {
  readonly #recording: Recording;
  readonly #tell: (sentence: string) => void;
  readonly #timer: NodeJS.Timeout;
  readonly #startWatchdog: () => Promise<ChildProcess>;
  /** Undefined: it has died and no other is there yet. Nothing may be held then. */
  #watchdog: ChildProcess | undefined;
  #held: Held[] = [];
  #holding = false;
  #sinceMs = 0;
  #beforeMs = 0;
  #closed = false;

  private constructor(
    recording: Recording,
    tell: (sentence: string) => void,
    watchdog: ChildProcess,
    again: () => Promise<ChildProcess>,
  ) {
    this.#recording = recording;
    this.#tell = tell;
    this.#startWatchdog = again;
    this.#follow(watchdog);
    this.#timer = setInterval(() => this.#look(), BACK_PRESSURE_POLL_MS);
  }

  /** Throws RL_NOT_SUPPORTED where no watchdog can be started. `watchdog`: other than real ones are for tests of faults. */
  static async start(
    recording: Recording,
    tell: (sentence: string) => void,
    watchdog = startThawing,
  ): Promise<BackPressure> {
    return new BackPressure(recording, tell, await watchdog(), watchdog);
  }

  /** Processes held still now, count. */
  get heldProcesses(): number {
    return this.#held.length;
  }

  /** How long processes were held still so far, in ms. */
  get heldMs(): number {
    return this.#beforeMs + (this.#holding ? performance.now() - this.#sinceMs : 0);
  }

  #look(): void {
    const fill = this.#recording.ringFill;
    const watchdog = this.#watchdog;
    if (watchdog === undefined) return;
    if (fill >= FULL_RING_SHARE || (this.#holding && fill > RELIEVED_RING_SHARE)) this.#hold(watchdog);
    else if (this.#holding) this.release();
  }

  /** Again and again: also those that were being checkpointed, or began, meanwhile. */
  #hold(watchdog: ChildProcess): void {
    if (!this.#holding) {
      this.#holding = true;
      this.#sinceMs = performance.now();
      this.#tell(
        "the ring is nearly full: the recorded processes are held still until the logs take its records",
      );
    }
    const known = new Set(this.#held.map(({ cgroup }) => cgroup.path));
    for (const { app, process, live } of this.#recording.processes()) {
      if (!live) continue;
      const cgroup = new ProcessCgroup(app, process);
      if (!known.has(cgroup.path)) this.#freeze(cgroup, watchdog);
    }
  }

  #freeze(cgroup: ProcessCgroup, watchdog: ChildProcess): void {
    let lock: number | undefined;
    try {
      lock = call(cgroup.place, () => native().lock(cgroup.place));
      if (!cgroup.freezing) {
        watchdog.stdin!.write(`${join(cgroup.path, "cgroup.freeze")}\n`);
        cgroup.setFreeze(true);
        this.#held.push({ cgroup, lock });
        return;
      } // else: a dump whose caller died is still at work
    } catch (error) {
      if (!(error instanceof RecoveryLineError)) throw error; // else: being checkpointed, or gone
    }
    if (lock !== undefined) native().unlock(lock);
  }

  /** Everything goes on. */
  release(): void {
    const held = this.#held;
    this.#held = [];
    for (const { cgroup, lock } of held) {
      try {
        cgroup.setFreeze(false);
      } catch {} // it is gone
      native().unlock(lock);
    }
    if (!this.#holding) return;
    this.#holding = false;
    this.#beforeMs += performance.now() - this.#sinceMs;
    this.#watchdog?.stdin?.write("-\n");
    this.#tell(`the recorded processes go on; they were held still for ${Math.round(this.heldMs)} ms in all`);
  }

  #follow(watchdog: ChildProcess): void {
    this.#watchdog = watchdog;
    watchdog.once("exit", () => {
      if (this.#closed) return;
      this.#watchdog = undefined;
      this.release();
      this.#tell("the watchdog of held processes died, and is started again");
      void this.#startAgain();
    });
  }

  async #startAgain(): Promise<void> {
    for (let told = false; !this.#closed; await sleep(WATCHDOG_RETRY_MS, undefined, { ref: false }))
      try {
        const next = await this.#startWatchdog();
        if (!this.#closed) this.#follow(next);
        else next.stdin!.end();
        return;
      } catch (error) {
        if (!told) this.#tell(`${(error as Error).message}; until one is there nothing is held still`);
        told = true;
      }
  }

  async close(): Promise<void> {
    this.#closed = true;
    clearInterval(this.#timer);
    this.release();
    const watchdog = this.#watchdog;
    if (watchdog === undefined || hasEnded(watchdog)) return;
    const ended = once(watchdog, "exit");
    watchdog.stdin!.end();
    await ended;
  }
}

async function startThawing(): Promise<ChildProcess> {
  try {
    return await startWatchdog(WATCHDOG);
  } catch (cause) {
    throw new RecoveryLineError(
      "RL_NOT_SUPPORTED",
      `no watchdog for held processes can be started: ${(cause as Error).message}`,
      "--on-full stop needs /bin/sh.",
      cause,
    );
  }
}
