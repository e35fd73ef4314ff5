/**
 * Datagrams have no positions: between two recorded processes of one application they are a verdict for both, named; to and from all others
 * they are outputs and inputs, and nothing is said of them. What the kernel tells (native/bpf/datagram.bpf.h) is who has sent to which place,
 * and who has taken from one. A place is a socket, where the kernel knows it, or a UDP port, or all AF_UNIX sockets that anybody may send to.
 *
 * Where somebody may have taken what the other has sent, both have the verdict: in doubt they have exchanged it.
 */
import { RingFlag } from "../format/ring-layout.ts";
import type { RecordColumns } from "../format/ring-record.ts";
import { MAX_DATAGRAM_PLACES } from "../model/limits.ts";
import { addressOf, packedAddress } from "./peer-address.ts";
import type { PeerRules } from "./peer-rules.ts";
import type { ProcessBuffer } from "./process-buffer.ts";

/** By process; plain values for msgpackr. */
export type StoredPlaces = Readonly<Record<string, readonly number[]>>;

export interface StoredDatagrams {
  readonly sent: StoredPlaces;
  readonly took: StoredPlaces;
}

/** All AF_UNIX sockets that anybody may send to. Ports are above it, single sockets below ANY_PORT. */
const AT_LARGE = 0;
/** It has sent over UDP to so many places that it may have sent to any. */
const ANY_PORT = -1;

type Places = Map<string, Set<number>>;

interface Place {
  readonly number: number;
  readonly reason: string;
  /** For people. */
  readonly thing: string;
}

const UNIX = { reason: "unix-dgram", thing: "AF_UNIX datagrams" };

function udp(port: number): Omit<Place, "number"> {
  return { reason: "udp", thing: `UDP, port ${port}` };
}

export class Datagrams {
  #sent: Places = new Map();
  #took: Places = new Map();
  /** They are not what the log's state says. */
  changed = false;

  stored(): StoredDatagrams {
    return { sent: plain(this.#sent), took: plain(this.#took) };
  }

  load(stored: StoredDatagrams = { sent: {}, took: {} }): void {
    this.#sent = placesOf(stored.sent);
    this.#took = placesOf(stored.took);
    this.changed = false;
  }

  /** A new life of a process has taken nothing yet. What the old one has sent may still come, unless nobody else is there. */
  begins(name: string, alone: boolean): void {
    this.changed ||= this.#took.delete(name) || (alone && this.#sent.size > 0);
    if (alone) this.#sent.clear();
  }

  /** A DATAGRAM record. Returns the number of gap rows it made. */
  take(process: ProcessBuffer, records: RecordColumns, row: number, rules: PeerRules): number {
    const [flags, socket, port] = [records.flags[row]!, records.local[row]!, records.remote[row]!];
    const sends = (flags & RingFlag.SOURCE) !== 0;
    const unix = (flags & RingFlag.UNIX) !== 0;
    if (sends && !unix && rules.any) {
      const host = addressOf(packedAddress(records, row));
      if (rules.says(host, port)?.side === "outside") return 0;
    }
    const place = { number: socket === 0 ? port : ANY_PORT - socket, ...(unix ? UNIX : udp(port)) };
    return sends ? this.#sends(process, place) : this.#takes(process, place);
  }

  #sends(process: ProcessBuffer, place: Place): number {
    const places = this.#placesOf(this.#sent, process.name);
    const noted =
      places.size < MAX_DATAGRAM_PLACES ? place.number : place.reason === "udp" ? ANY_PORT : AT_LARGE;
    this.changed ||= !places.has(noted);
    places.add(noted);
    let gaps = 0;
    for (const [taker, taken] of this.#took)
      if (taken.has(place.number) || taken.has(noted) || (noted === ANY_PORT && hasNumbered(taken)))
        gaps += met(process, taker, place);
    return gaps;
  }

  /** The kernel tells it only of places that somebody has sent to: they are few. */
  #takes(process: ProcessBuffer, place: Place): number {
    const places = this.#placesOf(this.#took, process.name);
    this.changed ||= !places.has(place.number);
    places.add(place.number);
    let gaps = 0;
    for (const [sender, sent] of this.#sent)
      if (sent.has(place.number) || (place.reason === "udp" && sent.has(ANY_PORT)))
        gaps += met(process, sender, place);
    return gaps;
  }

  #placesOf(all: Places, name: string): Set<number> {
    const known = all.get(name) ?? new Set();
    all.set(name, known);
    return known;
  }
}

/** Both have exchanged datagrams. */
function met(process: ProcessBuffer, name: string, { reason, thing }: Place): number {
  const other = process.app.processes.get(name);
  if (other === undefined || other === process) return 0;
  return verdict(process, other, reason, thing) + verdict(other, process, reason, thing);
}

function verdict(process: ProcessBuffer, other: ProcessBuffer, reason: string, thing: string): number {
  if (!process.state.live || process.state.trust.has(reason)) return 0;
  process.state.meet({ what: "datagrams", peer: other.name, rule: thing });
  return process.verdict(reason);
}

function hasNumbered(places: ReadonlySet<number>): boolean {
  return [...places].some((place) => place !== AT_LARGE);
}

function plain(places: Places): StoredPlaces {
  return Object.fromEntries([...places].map(([name, each]) => [name, [...each]]));
}

function placesOf(stored: StoredPlaces): Places {
  return new Map(Object.entries(stored).map(([name, each]) => [name, new Set(each)]));
}
