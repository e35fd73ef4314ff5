/**
 * Two processes that talk through a pipe are *tied*: a pipe has no positions, so they go back together or not at all, to checkpoints that were
 * taken at one moment. The log says so by messages of one unit, in both directions, on two channels of the pair, `tied:A>B` and `tied:B>A`:
 *
 *   A   c(n)  send A>B [n, n+1)  receive B>A [n, n+1)  …  c(n+1)
 *   B   c(n)  receive A>B [n, n+1)  send B>A [n, n+1)  …  c(n+1)
 *
 * Each of the two knows after a moment what the other did after it: undoing the one's interval undoes the other's. The cuts of their next
 * checkpoints hold n+1 on both, and only those that were taken together are consistent. The messages of a moment are in the log with the
 * checkpoints before them, or none of it is: a checkpoint of the one alone is on no line, as the other knows what it had not sent yet.
 */
import { EVENT_KIND } from "../format/event-columns.ts";
import type { Cut } from "../model/event.ts";
import type { StoredTie } from "../model/stored-process.ts";
import type { FoundChannel } from "../model/unseen-channel.ts";
import type { AppLog } from "./app-log.ts";
import type { ProcessBuffer } from "./process-buffer.ts";

function tieChannel(from: string, to: string): string {
  return `tied:${from}>${to}`;
}

/** What a look found, of lives that go on. */
interface Pair {
  readonly one: ProcessBuffer;
  readonly other: ProcessBuffer;
}

/** True if a look says what the log does not: a pair that is not tied yet, or, after a look at `all`, one that is tied no more. */
export function tiesChange(app: AppLog, found: readonly FoundChannel[], all: boolean): boolean {
  const pairs = pairsOf(app, found);
  return pairs.some((pair) => !isTied(pair)) || (all && untied(app, pairs).length > 0);
}

/** Ties those found that are not, and unties those of them all that are not found. */
export function takeTies(app: AppLog, found: readonly FoundChannel[], all: boolean): void {
  const pairs = pairsOf(app, found);
  if (all) for (const pair of untied(app, pairs)) untie(pair);
  for (const pair of pairs) if (!isTied(pair)) pass(app, pair);
}

/** They have checkpoints of one moment now: from here on each of them, and whoever is tied to it, goes back together. */
export function passMoment(app: AppLog, names: readonly string[]): void {
  const done = new Set<string>();
  for (const name of names)
    for (const { other } of app.processes.get(name)?.state.ties ?? []) {
      const key = [name, other].sort().join(">");
      const pair = pairOf(app, name, other);
      if (pair === undefined || done.has(key) || !isTied(pair)) continue;
      done.add(key);
      pass(app, pair);
    }
}

/** It went back: what passed with it is undone. The next look ties it again. */
export function loosenTies(app: AppLog, name: string): void {
  for (const { other } of app.processes.get(name)?.state.ties ?? []) {
    const [one, peer] = [app.processes.get(name), app.processes.get(other)];
    if (one !== undefined && peer !== undefined) untie({ one, other: peer });
  }
}

/** The cut of a process with what has passed on its ties. */
export function withTies({ sent, received, ...cut }: Cut, { name, state }: ProcessBuffer): Cut {
  const whole = { sent: new Map(sent), received: new Map(received) };
  for (const { other, moments } of state.ties) {
    whole.sent.set(tieChannel(name, other), moments);
    whole.received.set(tieChannel(other, name), moments);
  }
  return { ...cut, ...whole };
}

function pairOf(app: AppLog, name: string, otherName: string): Pair | undefined {
  const [one, other] = [app.processes.get(name), app.processes.get(otherName)];
  return one?.state.live && other?.state.live ? { one, other } : undefined;
}

/** Each once. */
function pairsOf(app: AppLog, found: readonly FoundChannel[]): Pair[] {
  const pairs = new Map<string, Pair>();
  for (const { process, other, incarnation, tied } of found) {
    const pair = tied === true ? pairOf(app, process, other) : undefined;
    if (pair?.one.state.incarnation === incarnation) pairs.set([process, other].sort().join(">"), pair);
  }
  return [...pairs.values()];
}

function tieOf({ state }: ProcessBuffer, { name }: ProcessBuffer): StoredTie | undefined {
  return state.ties.find(({ other }) => other === name);
}

function isTied({ one, other }: Pair): boolean {
  const lives = tieOf(one, other)?.lives;
  return lives?.[0] === one.state.incarnation && lives[1] === other.state.incarnation;
}

/** Pairs of living processes that are tied and were not found. */
function untied(app: AppLog, found: readonly Pair[]): Pair[] {
  return [...app.processes.values()].flatMap((one) =>
    one.state.ties.flatMap(({ other }) => {
      const pair = pairOf(app, one.name, other);
      const isFound = found.some((known) => isSame(known, one.name, other));
      return pair === undefined || isFound || !isTied(pair) ? [] : [pair];
    }),
  );
}

function isSame({ one, other }: Pair, name: string, otherName: string): boolean {
  return (one.name === name && other.name === otherName) || (one.name === otherName && other.name === name);
}

function untie({ one, other }: Pair): void {
  for (const [process, peer] of [
    [one, other],
    [other, one],
  ] as const) {
    const known = tieOf(process, peer);
    if (known !== undefined) keep(process, { other: peer.name, moments: known.moments });
  }
}

/** One unit in each direction. */
function pass(app: AppLog, { one, other }: Pair): void {
  const begin = Math.max(tieOf(one, other)?.moments ?? 0, tieOf(other, one)?.moments ?? 0);
  for (const [process, peer] of [
    [one, other],
    [other, one],
  ] as const) {
    push(process, EVENT_KIND.send, tieChannel(process.name, peer.name), begin);
    push(process, EVENT_KIND.receive, tieChannel(peer.name, process.name), begin);
    app.pending.events += 2;
    const lives = [process.state.incarnation, peer.state.incarnation] as const;
    keep(process, { other: peer.name, moments: begin + 1, lives });
  }
}

function push({ columns }: ProcessBuffer, kind: number, channel: string, begin: number): void {
  columns.pushRange(kind, columns.addChannel(channel), begin, begin + 1, Number.NaN, 0);
}

function keep({ state }: ProcessBuffer, tie: StoredTie): void {
  state.ties = [...state.ties.filter(({ other }) => other !== tie.other), tie];
  state.changed = true;
}
