/** Until all that recorded processes did is in the logs: the kernel tells, the ring is read, what waits for its other half is decided. */

import { setTimeout as sleep } from "node:timers/promises";
import { RingVerdict, VERDICT_REASONS } from "../format/ring-layout.ts";
import type { Surroundings } from "../host/surroundings.ts";
import { RecoveryLineError } from "../model/errors.ts";
import { BUSY_SLOT_MS, FLUSH_LIMIT_MS, LOG_RETRY_CALLER } from "../model/limits.ts";
import type { AppLog } from "./app-log.ts";
import type { IsPopulated } from "./collect-options.ts";
import type { CollectPump } from "./collect-pump.ts";
import type { FullPolicy } from "./full-policy.ts";
import type { ProcessBuffer } from "./process-buffer.ts";

/** How often it is looked whether a dying process has ended, in ms. */
const SETTLE_POLL_MS = 20;

/** What is asked of the host. */
interface OfThisHost {
  readonly populated: IsPopulated;
  readonly surroundings: () => Promise<Surroundings>;
}

export class Drain {
  readonly #pump: CollectPump;
  readonly #full: FullPolicy;
  readonly #populated: IsPopulated;
  readonly #surroundings: () => Promise<Surroundings>;

  constructor(pump: CollectPump, full: FullPolicy, { populated, surroundings }: OfThisHost) {
    this.#pump = pump;
    this.#full = full;
    this.#populated = populated;
    this.#surroundings = surroundings;
  }

  /**
   * All that processes of the applications had done at call time is in their logs on return. Throws RL_LOG_WRITE where one of them stays
   * unwritable, RL_TIMEOUT where a producer never finishes its slot or the ring stays full.
   */
  async into(apps: readonly AppLog[]): Promise<void> {
    for (let attempt = 0; ; attempt += 1) {
      await this.#pump.recover();
      await this.#full.look();
      await this.#flush(apps);
      await this.#settle(apps);
      await this.#settlePeers(apps);
      this.#pump.takeVerdicts();
      await this.#pump.commit();
      const broken = apps.find((app) => app.broken !== undefined);
      if (broken?.broken === undefined) return;
      if (attempt >= LOG_RETRY_CALLER) throw broken.broken;
      await sleep(1 + Math.max(0, Math.ceil(broken.retryAtMs - performance.now())));
    }
  }

  /** The kernel tells all that their live processes did, and it is read. */
  async #flush(apps: readonly AppLog[], gaveUp: () => boolean = () => false): Promise<void> {
    const { source } = this.#pump;
    const cgroups = apps.flatMap((app) =>
      app.broken === undefined ? [...app.processes.values()].filter(({ state }) => state.live) : [],
    );
    const ids = cgroups.map(({ state }) => state.cgroupId);
    await this.whilePending(
      () => source.flush(ids),
      () => gaveUp() || apps.some((app) => app.broken !== undefined),
    );
  }

  /** Asks again while the ring has no room for what it would tell, then reads all that is there. `gaveUp`: the caller begins anew. */
  async whilePending(ask: () => boolean, gaveUp: () => boolean = () => false): Promise<void> {
    const deadlineMs = performance.now() + FLUSH_LIMIT_MS;
    while (ask()) {
      await this.#readTo(this.#pump.source.producerPosition());
      await this.#pump.commit();
      if (gaveUp()) return;
      await this.#full.look();
      if (!(await this.#pump.recover())) await sleep(1);
      if (performance.now() > deadlineMs)
        throw new RecoveryLineError(
          "RL_TIMEOUT",
          "the kernel's ring stays full: events of the recorded processes wait behind it and can't be read",
          "A log that can't be written holds it: free space or repair the disk.",
        );
    }
    await this.#readTo(this.#pump.source.producerPosition());
  }

  /** Openings and endings that wait are decided; the kernel has told what it knows (`#flush`). */
  async #settle(apps: readonly AppLog[]): Promise<void> {
    if (!apps.some(({ messages, broken }) => messages.waits && broken === undefined)) return;
    for (let waitMs = 1; waitMs > 0; ) {
      await this.#pump.commit(); // what is looked for in a log must be there
      waitMs = 0;
      for (const app of apps)
        if (app.broken === undefined) waitMs = Math.max(waitMs, await this.#settleOnce(app));
      if (waitMs === 0) return;
      await sleep(Math.min(waitMs, SETTLE_POLL_MS));
      await this.#readTo(this.#pump.source.producerPosition());
    }
  }

  /** Returns how long to wait until more can be decided, ms. */
  async #settleOnce(app: AppLog): Promise<number> {
    const populated = this.#populated;
    const settling = {
      populated: ({ name, state }: ProcessBuffer) =>
        state.live && populated({ app: app.name, process: name, cgroupId: state.cgroupId }),
      senderOf: (name: string) => app.senderOf(name),
      ownerOf: (channel: string, reverse: string) => app.ownerOf(channel, reverse),
      nowMs: performance.now(),
    };
    const failing = app.messages.settleFailing(settling);
    return Math.max(failing, await app.messages.settleReceives(settling));
  }

  /** Who is at the other end of connections where nobody was found is decided. */
  async #settlePeers(apps: readonly AppLog[]): Promise<void> {
    if (!apps.some(({ peers, broken }) => peers.unfound.waits && broken === undefined)) return;
    await this.#pump.commit(); // what is looked for in a log must be there
    const waiting = apps.filter(({ peers, broken }) => peers.unfound.waits && broken === undefined);
    const here = await this.#surroundings();
    for (const app of waiting) {
      const gaps = await app.peers.settleUnfound(app, here);
      app.pending.addGaps(gaps);
    }
  }

  /** The same for what has waited long enough, between drains. While the ring stays full it waits on: nobody has asked for it. */
  async settleDue(): Promise<void> {
    const now = performance.now();
    const due = [...this.#pump.apps.values()].filter(
      ({ messages, peers, broken }) => broken === undefined && (messages.due(now) || peers.unfound.full),
    );
    if (due.length === 0) return;
    const untilMs = now + FLUSH_LIMIT_MS / 2;
    let isLate = false;
    await this.#flush(due, () => {
      isLate = performance.now() > untilMs || due.some(({ messages }) => messages.tooMany);
      return isLate;
    });
    if (isLate) return giveUp(due);
    await this.#settle(due);
    await this.#settlePeers(due.filter(({ peers }) => peers.unfound.full));
  }

  /** However much there is to read: only who stands at one slot for BUSY_SLOT_MS waits for a producer. */
  async #readTo(target: number): Promise<void> {
    const { source } = this.#pump;
    let [at, sinceMs] = [source.readPosition(), performance.now()];
    while (at < target) {
      if (this.#pump.read()) await this.#pump.commit();
      else if (source.readPosition() < target) await sleep(1);
      if (source.readPosition() !== at) [at, sinceMs] = [source.readPosition(), performance.now()];
      else if (performance.now() - sinceMs > BUSY_SLOT_MS) {
        throw new RecoveryLineError(
          "RL_TIMEOUT",
          "a producer reserved a slot of the ring and never finished it",
        );
      }
    }
  }
}

/** Whoever fills the ring faster than it can be read has a verdict, if it has none yet. */
function giveUp(apps: readonly AppLog[]): void {
  for (const app of apps)
    for (const process of app.messages.giveUp()) {
      const gaps = process.verdict(VERDICT_REASONS[RingVerdict.OVERFLOW]!);
      app.pending.addGaps(gaps);
    }
}
