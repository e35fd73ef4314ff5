/** Who was found at the other end of connections with the outside, for answers: the newest of them, while this collector lives. */
import { programName, startTicksOf } from "../host/process-tree.ts";
import type { KnownPeer } from "../model/collector-answers.ts";
import { MAX_PEER_ADDRESSES } from "../model/limits.ts";

export interface PeerFound {
  /** A program that nobody records; 0: none. */
  readonly pid: number;
  /** When that began, ns of CLOCK_BOOTTIME. */
  readonly began: number;
  /** A process of another application. */
  readonly process?: string;
  /** Its address, and port where it serves. */
  readonly place?: () => string;
}

export class PeerNames {
  readonly #found = new Map<string, PeerFound>();
  /** Processes that a peer has given data to, by `keyOf` it. */
  readonly #gave = new Map<string, Set<string>>();

  /** `channels`: both directions of the connection. */
  add(channels: readonly string[], found: PeerFound): void {
    for (const channel of channels) {
      this.#found.delete(channel);
      this.#found.set(channel, found);
    }
    for (const channel of this.#found.keys()) {
      if (this.#found.size <= 2 * MAX_PEER_ADDRESSES) return;
      this.#found.delete(channel);
    }
  }

  /** The peer has given data to the process. */
  gave(found: PeerFound, process: string): void {
    if (this.#gave.size >= MAX_PEER_ADDRESSES) this.#gave.clear();
    const key = keyOf(found);
    const known = this.#gave.get(key);
    if (known === undefined) this.#gave.set(key, new Set([process]));
    else known.add(process);
  }

  /** By channel. Programs are looked up now: most come once, and are gone before anybody asks. */
  *all(): Generator<KnownPeer> {
    for (const [channel, found] of this.#found) {
      const { pid, began, process, place } = found;
      const who = pid === 0 ? process : programAt(pid, began);
      const name = [who, place?.()].filter((part) => part !== undefined).join(" at ");
      if (name !== "") yield { channel, name, gave: [...(this.#gave.get(keyOf(found)) ?? [])] };
    }
  }
}

/** A program of another machine is known by its address alone. */
function keyOf({ pid, began, process, place }: PeerFound): string {
  return pid === 0 ? (process ?? place?.() ?? "") : `${pid}@${began}`;
}

const NS_PER_TICK = 1e7;

/** Its number may be another program's by now. */
export function programAt(pid: number, began: number): string {
  const isIt = startTicksOf(pid) === Math.floor(began / NS_PER_TICK);
  return `process ${pid}${isIt ? ` (${programName(pid)})` : ""}`;
}
