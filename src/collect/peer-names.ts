/** Who was found at the other end of connections with the outside, for answers: the newest of them, while this collector lives. */
import { programName, startTicksOf } from "../host/process-tree.ts";
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

  /** By channel. Programs are looked up now: most come once, and are gone before anybody asks. */
  *all(): Generator<[channel: string, name: string]> {
    for (const [channel, { pid, began, process, place }] of this.#found) {
      const who = pid === 0 ? process : programAt(pid, began);
      const name = [who, place?.()].filter((part) => part !== undefined).join(" at ");
      if (name !== "") yield [channel, name];
    }
  }
}

const NS_PER_TICK = 1e7;

/** Its number may be another program's by now. */
export function programAt(pid: number, began: number): string {
  const isIt = startTicksOf(pid) === Math.floor(began / NS_PER_TICK);
  return `process ${pid}${isIt ? ` (${programName(pid)})` : ""}`;
}
