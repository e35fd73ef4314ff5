/**
 * One process's policy where every message passes by it: in the SDK, and in whoever plays that. Pure but for the clock it is given. What messages
 * carry is kept by piggyback.ts, as in comparison; a process knows nothing of others but that.
 *
 *   message   u32 bytes of the control data, control data as JSON, the program's bytes; little endian
 */
import { RecoveryLineError } from "../model/errors.ts";
import type { Component } from "./component.ts";
import { type Piggyback, piggybackOf, type Snapshot } from "./piggyback.ts";
import { type PolicyAction, Program } from "./program.ts";
import type { EventName, FactName } from "./vocabulary.ts";

export interface MessagePolicyOptions {
  readonly component: Component;
  readonly set?: ReadonlyMap<string, number>;
  /** All processes of the application, in the same order everywhere, and which one this is. */
  readonly processes: readonly string[];
  readonly process: string;
  /** Seconds of a clock that only goes forward. */
  readonly now: () => number;
}

/** What outlives the process. */
export interface StoredPolicy {
  readonly piggyback: ReturnType<Piggyback["stored"]> | null;
  readonly state: readonly number[];
  readonly sent: number;
  readonly received: number;
}

const LENGTH_BYTES = 4;
/** The number that the message in hand bears in the control data: there is one at a time. */
const IN_HAND = 0;
/** Weight of the newest checkpoint in `self.cost`. */
const COST_WEIGHT = 0.3;

export class MessagePolicy {
  readonly #component: Component;
  readonly #program: Program;
  readonly #piggyback: Piggyback | undefined;
  readonly #at: number;
  readonly #processes: readonly string[];
  readonly #now: () => number;
  readonly #startS: number;
  #state: Float64Array;
  #checkpointS: number;
  #sent = 0;
  #received = 0;
  #beatSent = 0;
  #beatReceived = 0;
  #costS = 0;
  #frozenS = 0;
  #covered = false;
  /** Asked for where there is no state to take: it comes before the next message, or with the next beat. */
  #wanted = false;

  /** Throws RL_NOT_SUPPORTED for a policy that needs what a process of the SDK does not have, TypeError for a process that is not among all. */
  constructor({ component, set = new Map(), processes, process, now }: MessagePolicyOptions) {
    const { sdk } = component.refused;
    if (sdk.length > 0)
      throw new RecoveryLineError(
        "RL_NOT_SUPPORTED",
        `not supported here: ${component.name} needs ${sdk.join(", ")}, which a process of the SDK does not have`,
        "Take another policy; `recovery-line policy list --json` says where each runs.",
      );
    this.#at = processes.indexOf(process);
    if (this.#at < 0) throw new TypeError(`${process} is not among the processes`);
    this.#component = component;
    this.#program = new Program(component, set);
    this.#piggyback = piggybackOf(component, processes.length);
    this.#processes = processes;
    this.#now = now;
    this.#state = this.#program.initialState();
    this.#startS = now();
    this.#checkpointS = this.#startS;
    this.#wants("plugged");
  }

  // ---- messages

  outgoing(peer: string): Uint8Array {
    const control = Buffer.from(JSON.stringify(this.#piggyback?.carriedBy(this.#at) ?? null));
    const head = Buffer.alloc(LENGTH_BYTES);
    head.writeUInt32LE(control.length);
    this.#piggyback?.send(this.#at, -1, this.#processes.indexOf(peer));
    this.#sent += 1;
    this.#beatSent += 1;
    this.#wants("sent");
    return Buffer.concat([head, control]);
  }

  /** A number: a checkpoint comes before its delivery, and `checkpointed` is to be told that. */
  receiving(bytes: Buffer): number | undefined {
    this.#inHand(bytes);
    if (!this.#asks("receiving") && !this.#wanted) return undefined;
    return this.#piggyback?.messageIndex(IN_HAND) ?? 0;
  }

  /** Returns the program's part. */
  delivered(bytes: Buffer): Buffer {
    this.#inHand(bytes);
    this.#piggyback?.deliver(this.#at, IN_HAND, true);
    this.#received += 1;
    this.#beatReceived += 1;
    this.#wants("received");
    return bytes.subarray(LENGTH_BYTES + controlBytes(bytes));
  }

  #inHand(bytes: Buffer): void {
    const control = bytes.subarray(LENGTH_BYTES, LENGTH_BYTES + controlBytes(bytes));
    const carried = JSON.parse(control.toString()) as Snapshot | null;
    if (carried !== null) this.#piggyback?.arrived(IN_HAND, carried);
  }

  // ---- checkpoints

  /** A second has passed. A number: as in `receiving`. */
  beat(): number | undefined {
    const wanted = this.#asks("beat") || this.#wanted;
    [this.#beatSent, this.#beatReceived] = [0, 0];
    return wanted ? 0 : undefined;
  }

  /** Something goes out to the world; `covered`: its state is never undone. True: it is to be made so first. */
  output(covered: boolean): boolean {
    this.#covered = covered;
    return this.#asks("output");
  }

  /** `why`: what `receiving` or `beat` gave; 0: nobody asked it. */
  checkpointed(why: number): void {
    this.#piggyback?.checkpoint(this.#at, why);
    [this.#sent, this.#received, this.#wanted] = [0, 0, false];
    this.#checkpointS = this.#now();
    this.#raise("checkpointed");
  }

  /** How long it took. */
  cost(seconds: number): void {
    this.#costS = this.#costS === 0 ? seconds : this.#costS + COST_WEIGHT * (seconds - this.#costS);
    this.#frozenS += seconds;
  }

  stored(): StoredPolicy {
    const { sent, received } = { sent: this.#sent, received: this.#received };
    return { piggyback: this.#piggyback?.stored(this.#at) ?? null, state: [...this.#state], sent, received };
  }

  restore({ piggyback, state, sent, received }: StoredPolicy): void {
    if (piggyback !== null) this.#piggyback?.restore(this.#at, piggyback);
    if (state.length === this.#state.length) this.#state = Float64Array.from(state);
    [this.#sent, this.#received] = [sent, received];
  }

  // ---- the component

  #asks(event: EventName): boolean {
    return this.#raise(event).some(isCheckpoint);
  }

  #wants(event: EventName): void {
    if (this.#asks(event)) this.#wanted = true;
  }

  #raise(event: EventName): readonly PolicyAction[] {
    const each = event === "plugged" ? "node" : "process";
    if (!this.#program.handles(event, each)) return [];
    const facts = this.#component.facts.map((fact) => this.#fact(fact));
    const { actions, state } = this.#program.step(event, each, facts, this.#state);
    this.#state = state;
    return actions;
  }

  #fact(fact: FactName): number {
    const kit = this.#piggyback;
    switch (fact) {
      case "self.age":
        return this.#now() - this.#checkpointS;
      case "self.changed":
        return this.#sent + this.#received > 0 ? 1 : 0;
      case "self.cost":
        return this.#costS;
      case "self.frozen":
        return Math.min(1, this.#frozenS / Math.max(1, this.#now() - this.#startS));
      case "self.breadth":
        return 1; // the order of receipt is logged: nobody else goes back, and nothing is lost
      case "self.sent":
        return this.#sent;
      case "self.received":
        return this.#received;
      case "self.fixed":
        return this.#sent > 0 ? 1 : 0;
      case "self.index":
        return kit?.indexOf(this.#at) ?? 0;
      case "self.turn":
        return this.#at / this.#processes.length;
      case "app.processes":
        return this.#processes.length;
      case "beat.sent":
        return this.#beatSent;
      case "beat.received":
        return this.#beatReceived;
      case "message.index":
        return kit?.messageIndex(IN_HAND) ?? 0;
      case "message.news":
        return kit?.bringsNews(this.#at, IN_HAND) === true ? 1 : 0;
      case "message.closes":
        return kit?.mayClose(this.#at, IN_HAND) === true ? 1 : 0;
      case "output.covered":
        return this.#covered ? 1 : 0;
      default: // 0 for all that a failure would cost, and for what a process of the SDK never hears of
        return 0;
    }
  }
}

function controlBytes(bytes: Buffer): number {
  return bytes.length < LENGTH_BYTES ? 0 : bytes.readUInt32LE(0);
}

/** A set is the process alone: nobody has to go back with it. */
function isCheckpoint(action: PolicyAction): boolean {
  return action.do === "checkpoint" || (action.do === "synchronize" && action.body.some(isCheckpoint));
}
