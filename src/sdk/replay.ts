/** The logged steps of a program that does them again: each must be the same, in the same order. */
import { RecoveryLineError } from "../model/errors.ts";
import { SDK_REPLAY_STALL_MS } from "../model/limits.ts";
import type { HistoryStep } from "./history.ts";

type StepOf<K extends HistoryStep["kind"]> = Extract<HistoryStep, { kind: K }>;

export class Replay {
  #steps: HistoryStep[];
  #at = 0;
  readonly #receives: () => boolean;
  readonly #onStall: (error: RecoveryLineError) => void;
  #timer: NodeJS.Timeout | undefined;

  /** `receives`: is the program waiting for a message? */
  constructor(steps: HistoryStep[], receives: () => boolean, onStall: (error: RecoveryLineError) => void) {
    this.#steps = steps;
    this.#receives = receives;
    this.#onStall = onStall;
    this.#watch();
  }

  get active(): boolean {
    return this.#at < this.#steps.length;
  }

  /** Steps that are still to come. */
  get remaining(): number {
    return this.#steps.length - this.#at;
  }

  get next(): HistoryStep | undefined {
    return this.#steps[this.#at];
  }

  /** The next step, which must be of this kind. Throws RL_CONTRADICTION. */
  take<K extends HistoryStep["kind"]>(kind: K): StepOf<K> {
    const step = this.#steps[this.#at]!;
    if (step.kind !== kind) throw this.diverged(`does a ${kind} where the log has a ${step.kind}`);
    this.#at += 1;
    if (!this.active) this.#steps = [];
    if (!this.active) this.#at = 0;
    this.#watch();
    return step as StepOf<K>;
  }

  diverged(how: string): RecoveryLineError {
    return new RecoveryLineError(
      "RL_CONTRADICTION",
      `replay: the program ${how} (${this.remaining} logged steps remain)`,
      "It must do the same again from the same state and messages: take what varies (time, chance, files) through record().",
    );
  }

  /** A program that waits for a message where the log has something else next would wait for ever. */
  #watch(): void {
    clearTimeout(this.#timer);
    if (!this.active) return;
    this.#timer = setTimeout(() => {
      const waitsForPeer = this.next?.kind === "deliver"; // the peer may be away for long
      if (waitsForPeer || !this.#receives()) this.#watch();
      else this.#onStall(this.diverged(`waits for a message where the log has a ${this.next?.kind}`));
    }, SDK_REPLAY_STALL_MS);
    this.#timer.unref();
  }

  close(): void {
    clearTimeout(this.#timer);
  }
}
