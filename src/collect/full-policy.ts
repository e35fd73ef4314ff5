/**
 * What happens while a log can't be written (no space, an I/O error): first its records wait in the kernel ring, and the log is
 * tried again and again. That wait is bounded by the ring, which all applications share:
 *
 *   taint, stop   nearly full, and another application's log is well: the broken ones are given up, so that the ring serves the
 *                 others. What goes by is counted and stands in the log as gaps once it is back. Are all logs broken, the
 *                 ring stays as it is: what finds no room the kernel counts, and that is declared in the same way.
 *   halt          nearly full, or broken for HALT_WAIT_MS: collection ends with RL_LOG_WRITE. Nothing is lost yet, the programs go
 *                 on recording into the ring.
 *
 * Before the ring lets go, a new session is durable in the home: a crash can't make a given up log look whole.
 */
import { RecoveryLineError } from "../model/errors.ts";
import { FULL_RING_SHARE, HALT_WAIT_MS } from "../model/limits.ts";
import type { AppLog } from "./app-log.ts";
import type { OnFull } from "./collect-options.ts";
import type { CollectPump } from "./collect-pump.ts";
import { beginSession } from "./collect-session.ts";

export class FullPolicy {
  readonly #pump: CollectPump;
  readonly #home: string;
  readonly #onFull: OnFull;
  readonly #tell: (sentence: string) => void;
  readonly #told = new Set<AppLog>();

  constructor(pump: CollectPump, home: string, onFull: OnFull, tell: (sentence: string) => void) {
    this.#pump = pump;
    this.#home = home;
    this.#onFull = onFull;
    this.#tell = tell;
  }

  /** Between two steps of the pump. Throws RL_LOG_WRITE where collection must end. */
  async look(): Promise<void> {
    const apps = [...this.#pump.apps.values()];
    const broken = apps.filter((app) => app.broken !== undefined);
    this.#report(broken);
    const waiting = broken.filter((app) => app.hasLive && !app.givenUp);
    if (waiting.length === 0) return;
    if (this.#onFull === "halt") return this.#halt(waiting);
    if (this.#nearlyFull && apps.some((app) => app.well && app.hasLive)) await this.#giveUp(waiting);
  }

  get #nearlyFull(): boolean {
    const { source } = this.#pump;
    return source.fillBytes() >= source.ringBytes * FULL_RING_SHARE;
  }

  #halt(waiting: readonly AppLog[]): void {
    const longest = waiting.find(
      (app) => this.#nearlyFull || performance.now() - app.brokenSinceMs >= HALT_WAIT_MS,
    );
    if (longest?.broken === undefined) return;
    throw new RecoveryLineError(
      "RL_LOG_WRITE",
      `${longest.broken.message}; collection ends, as --on-full halt asks`,
      "What was acknowledged is safe, and the kernel's ring goes on recording while it has room: repair the disk, then start the collector again.",
      longest.broken,
    );
  }

  async #giveUp(waiting: readonly AppLog[]): Promise<void> {
    const session = this.#pump.session + 1;
    try {
      await beginSession(this.#home, session);
    } catch {
      return; // not durable: the ring keeps everything, and the next look tries again
    }
    this.#pump.giveUp(waiting, session);
    for (const { name } of waiting)
      this.#tell(
        `the log of ${name} is given up until it can be written: the ring is nearly full and serves the other applications; what goes by will stand in it as a gap`,
      );
  }

  #report(broken: readonly AppLog[]): void {
    for (const app of broken) {
      if (this.#told.has(app)) continue;
      this.#told.add(app);
      this.#tell(app.broken!.message);
    }
    for (const app of this.#told) {
      if (!app.well) continue;
      this.#told.delete(app);
      this.#tell(`the log of ${app.name} can be written again`);
    }
  }
}
