/**
 * What messages carry for policies that look at each of them: the index of Briatico, Ciuffoletti and Simoncini (1984), the dependency
 * vector of Wang (1997), the control data of Hélary, Mostéfaoui, Netzer and Raynal (2000). Kept only where a component reads it.
 *
 * A snapshot is what a process stands at; it is copied when it changes after a send, so that a thousand sends share one.
 */

import type { Component } from "./component.ts";

interface Needs {
  readonly vector: boolean;
  readonly closes: boolean;
}

/** Of one process, and what its messages carry. Never changed once a message carries it. */
export interface Snapshot {
  index: number;
  /** Per process: the newest checkpoint interval depended on; of itself, the current one. */
  readonly vector: number[];
  /** HMNR: Lamport clock of checkpoints, … */
  clock: number;
  /** … per process: known checkpoints; 1 where the clock is greater than that of k as far as is known; 1 where a Z-path from k's newest known checkpoint holds a checkpoint. */
  readonly known: number[];
  readonly greater: number[];
  readonly taken: number[];
}

export class Piggyback {
  readonly #needs: Needs;
  readonly #own: Snapshot[];
  readonly #carried: boolean[];
  /** By event number of the send, until its last byte is received. */
  readonly #messages = new Map<number, Snapshot>();
  /** Per process and receiver: sent to it since the newest checkpoint. */
  readonly #sentTo: Uint8Array;
  readonly #processes: number;

  constructor(processes: number, needs: Needs) {
    this.#needs = needs;
    this.#processes = processes;
    this.#own = Array.from({ length: processes }, (_, p) => this.#first(p));
    this.#carried = new Array<boolean>(processes).fill(false);
    this.#sentTo = new Uint8Array(needs.closes ? processes * processes : 0);
  }

  #first(p: number): Snapshot {
    const zeros = (wanted: boolean): number[] => new Array<number>(wanted ? this.#processes : 0).fill(0);
    const { vector, closes } = this.#needs;
    const own: Snapshot = {
      index: 0,
      vector: zeros(vector),
      clock: 1,
      known: zeros(closes),
      greater: zeros(closes).fill(1),
      taken: zeros(closes).fill(1),
    };
    if (vector) own.vector[p] = 1;
    if (closes) {
      own.known[p] = 1;
      own.greater[p] = 0;
      own.taken[p] = 0;
    }
    return own;
  }

  /** The process's own, safe to change. */
  #change(p: number): Snapshot {
    const own = this.#own[p] as Snapshot;
    if (!this.#carried[p]) return own;
    this.#carried[p] = false;
    const copy: Snapshot = {
      ...own,
      vector: own.vector.slice(),
      known: own.known.slice(),
      greater: own.greater.slice(),
      taken: own.taken.slice(),
    };
    this.#own[p] = copy;
    return copy;
  }

  indexOf(p: number): number {
    return (this.#own[p] as Snapshot).index;
  }

  send(p: number, event: number, receiver: number): void {
    this.#messages.set(event, this.#own[p] as Snapshot);
    this.#carried[p] = true;
    if (this.#needs.closes && receiver >= 0) this.#sentTo[p * this.#processes + receiver] = 1;
  }

  /** What its messages carry from now on: the very object, until it changes. */
  carriedBy(p: number): Snapshot {
    this.#carried[p] = true;
    return this.#own[p] as Snapshot;
  }

  /** A message from elsewhere, known by any number until it is delivered. */
  arrived(send: number, carried: Snapshot): void {
    this.#messages.set(send, carried);
  }

  /** To whom it has sent since its newest checkpoint, with what it stands at: all that is needed to go on elsewhere. */
  stored(p: number): { readonly own: Snapshot; readonly sentTo: readonly number[] } {
    const row = p * this.#processes;
    return { own: this.carriedBy(p), sentTo: [...this.#sentTo.subarray(row, row + this.#processes)] };
  }

  restore(p: number, { own, sentTo }: { readonly own: Snapshot; readonly sentTo: readonly number[] }): void {
    this.#own[p] = own;
    this.#carried[p] = true;
    this.#sentTo.set(sentTo, this.#needs.closes ? p * this.#processes : 0);
  }

  /** `forcedBy`: the index of the message that it precedes; it is taken over where it is greater. 0: it precedes none. */
  checkpoint(p: number, forcedBy: number): void {
    const own = this.#change(p);
    own.index = Math.max(own.index + (forcedBy > own.index ? 0 : 1), forcedBy);
    if (this.#needs.vector) own.vector[p] = (own.vector[p] as number) + 1;
    if (!this.#needs.closes) return;
    this.#sentTo.fill(0, p * this.#processes, (p + 1) * this.#processes);
    own.taken.fill(1);
    own.taken[p] = 0;
    own.greater.fill(1);
    own.greater[p] = 0;
    own.clock += 1;
    own.known[p] = (own.known[p] as number) + 1;
  }

  messageIndex(send: number): number {
    return this.#messages.get(send)?.index ?? 0;
  }

  /** The message brings a dependency on a newer interval of somebody. */
  bringsNews(p: number, send: number): boolean {
    const message = this.#messages.get(send);
    return message !== undefined && this.#isNewer(p, message);
  }

  /** HMNR's condition: a Z-cycle may close, through this process (first part) or through its newest checkpoint (second). */
  mayClose(p: number, send: number): boolean {
    const message = this.#messages.get(send);
    if (message === undefined) return false;
    const own = this.#own[p] as Snapshot;
    if (message.known[p] === own.known[p] && message.taken[p] === 1) return true;
    if (message.clock <= own.clock) return false;
    const row = p * this.#processes;
    return message.greater.some((greater, k) => greater === 1 && this.#sentTo[row + k] === 1);
  }

  /** The receiver learns what the message carries. `isLast`: no byte of it is still to come. */
  deliver(p: number, send: number, isLast: boolean): void {
    const message = this.#messages.get(send);
    if (message === undefined) return;
    if (isLast) this.#messages.delete(send);
    if (this.#needs.vector && this.#isNewer(p, message)) this.#learnVector(this.#change(p), message);
    if (this.#needs.closes) this.#learn(p, this.#change(p), message);
  }

  #isNewer(p: number, message: Snapshot): boolean {
    const { vector } = this.#own[p] as Snapshot;
    return message.vector.some((interval, k) => interval > (vector[k] as number));
  }

  #learnVector(own: Snapshot, message: Snapshot): void {
    message.vector.forEach((interval, k) => {
      if (interval > (own.vector[k] as number)) own.vector[k] = interval;
    });
  }

  #learn(p: number, own: Snapshot, message: Snapshot): void {
    const isLater = message.clock > own.clock;
    for (let k = 0; k < this.#processes; k += 1) {
      if (k === p) continue;
      if (isLater) own.greater[k] = message.greater[k] as number;
      else if (message.clock === own.clock)
        own.greater[k] = (own.greater[k] as number) & (message.greater[k] as number);
      const theirs = message.known[k] as number;
      const ours = own.known[k] as number;
      if (theirs > ours) {
        own.known[k] = theirs;
        own.taken[k] = message.taken[k] as number;
      } else if (theirs === ours) own.taken[k] = (own.taken[k] as number) | (message.taken[k] as number);
    }
    if (isLater) own.clock = message.clock;
  }
}

/** Undefined where the component looks at nothing that messages carry. */
export function piggybackOf({ facts }: Pick<Component, "facts">, processes: number): Piggyback | undefined {
  const needs = {
    index: facts.includes("message.index") || facts.includes("self.index"),
    vector: facts.includes("message.news"),
    closes: facts.includes("message.closes"),
  };
  return needs.index || needs.vector || needs.closes ? new Piggyback(processes, needs) : undefined;
}
