import { RecoveryLineError } from "../model/errors.ts";
import type { Event } from "../model/event.ts";

/**
 * One rank's actions as messages. Collectives become the linear point-to-point pattern around their root (rank 0 where
 * they have none): a superset of the dependencies of any real algorithm for rooted-and-back collectives, and exactly
 * the data flow for the one-way ones. What can't be expressed is refused by name.
 *
 * A receive counts where it completed: at `recv`, at the `wait` or `waitall` that completes an `irecv`, and, because a
 * trace does not say whether a `test` succeeded, at the first `test` (the earliest moment: safe for orphans).
 */

const NO_MESSAGE = new Set(["init", "finalize", "compute", "sleep", "location", "comm_size", "comm_dup"]);
const REFUSED = new Map([
  ["comm_split", "messages inside sub-communicators name ranks we can't translate"],
  ["sendrecv", "write it as isend, recv, wait"],
]);
const TO_ROOT = new Set(["reduce", "gather", "gatherv"]);
const FROM_ROOT = new Set(["bcast", "scatter", "scatterv"]);
const THROUGH_ROOT_AND_BACK = new Set(["barrier", "allreduce", "allgather", "allgatherv", "reducescatter"]);

interface Pending {
  readonly key: string;
  readonly source: number;
}

function refuse(what: string): RecoveryLineError {
  return new RecoveryLineError("RL_BAD_INPUT", what);
}

export class RankTranslator {
  readonly #rank: number;
  readonly #ranks: number;
  /** Messages so far on each channel of this rank, count. */
  readonly #counts = new Map<string, number>();
  #pending: Pending[] = [];

  constructor(rank: number, ranks: number) {
    this.#rank = rank;
    this.#ranks = ranks;
  }

  *translate(action: string, args: readonly string[]): Generator<Event> {
    if (NO_MESSAGE.has(action)) return;
    if (action === "send" || action === "isend") yield this.#send(this.#peer(args[0]), this.#tag(args));
    else if (action === "recv") yield this.#receive(this.#peer(args[0]), this.#tag(args));
    else if (action === "irecv") this.#post(this.#peer(args[0]), this.#tag(args));
    else if (action === "wait" || action === "test") yield* this.#complete(args);
    else if (action === "waitall") yield* this.#completeAll();
    else yield* this.#collective(action, args);
  }

  #event(type: "send" | "receive", source: number, target: number, tag: string): Event {
    const channel = `mpi:${source}-${target}#${tag}`;
    const begin = this.#counts.get(channel) ?? 0;
    this.#counts.set(channel, begin + 1);
    return { type, process: `rank${this.#rank}`, channel, begin, end: begin + 1 };
  }

  #send(target: number, tag: string): Event {
    return this.#event("send", this.#rank, target, tag);
  }

  #receive(source: number, tag: string): Event {
    return this.#event("receive", source, this.#rank, tag);
  }

  /** The trace's oldest form has no tag: `send <dst> <size>`; then the tag is 0. */
  #tag(args: readonly string[]): string {
    return args.length >= 3 ? String(args[1]) : "0";
  }

  #peer(word: string | undefined): number {
    const match = /^p?(\d{1,9})$/.exec(word ?? "");
    const peer = match ? Number(match[1]) : -1;
    if (peer < 0)
      throw refuse(`field 'partner': '${word}' is no rank (a wildcard source can't be matched from a trace)`);
    if (peer >= this.#ranks)
      throw refuse(`field 'partner': rank ${peer} has no file, the trace has ${this.#ranks} ranks`);
    return peer;
  }

  #post(source: number, tag: string): void {
    this.#pending.push({ key: `${source} ${this.#rank} ${tag}`, source });
  }

  /** `wait <src> <dst> <tag>`; the oldest form has no arguments and means the latest request. */
  *#complete(args: readonly string[]): Generator<Event> {
    const key = `${args[0]} ${args[1]} ${args[2] ?? "0"}`;
    const index =
      args.length === 0
        ? this.#pending.length - 1
        : this.#pending.findIndex((pending) => pending.key === key);
    if (index < 0) return; // an isend's request, or one a test has completed
    const [request] = this.#pending.splice(index, 1);
    if (request) yield this.#receive(request.source, request.key.slice(request.key.lastIndexOf(" ") + 1));
  }

  *#completeAll(): Generator<Event> {
    const requests = this.#pending;
    this.#pending = [];
    for (const { source, key } of requests) yield this.#receive(source, key.slice(key.lastIndexOf(" ") + 1));
  }

  *#collective(action: string, args: readonly string[]): Generator<Event> {
    if (TO_ROOT.has(action)) yield* this.#toRoot(this.#root(action, args));
    else if (FROM_ROOT.has(action)) yield* this.#fromRoot(this.#root(action, args));
    else if (THROUGH_ROOT_AND_BACK.has(action)) {
      yield* this.#toRoot(0);
      yield* this.#fromRoot(0);
    } else if (action === "alltoall" || action === "alltoallv") yield* this.#allToAll();
    else if (action === "scan" || action === "exscan") yield* this.#scan();
    else
      throw refuse(
        `field 'action': '${action}' is not supported${REFUSED.has(action) ? `: ${REFUSED.get(action)}` : ""}`,
      );
  }

  /** Where each collective keeps its root among its arguments; rank 0 where it is left out. */
  #root(action: string, args: readonly string[]): number {
    const place = action === "bcast" ? 1 : action.endsWith("v") ? 1 + this.#ranks : 2;
    return args[place] === undefined ? 0 : this.#peer(args[place]);
  }

  *#others(): Generator<number> {
    for (let rank = 0; rank < this.#ranks; rank += 1) if (rank !== this.#rank) yield rank;
  }

  *#toRoot(root: number): Generator<Event> {
    if (this.#rank !== root) yield this.#send(root, "coll");
    else for (const other of this.#others()) yield this.#receive(other, "coll");
  }

  *#fromRoot(root: number): Generator<Event> {
    if (this.#rank !== root) yield this.#receive(root, "coll");
    else for (const other of this.#others()) yield this.#send(other, "coll");
  }

  *#allToAll(): Generator<Event> {
    for (const other of this.#others()) yield this.#send(other, "coll");
    for (const other of this.#others()) yield this.#receive(other, "coll");
  }

  /** Prefix reduction as a chain: rank r needs what ranks 0 … r-1 gave. */
  *#scan(): Generator<Event> {
    if (this.#rank > 0) yield this.#receive(this.#rank - 1, "coll");
    if (this.#rank < this.#ranks - 1) yield this.#send(this.#rank + 1, "coll");
  }
}
