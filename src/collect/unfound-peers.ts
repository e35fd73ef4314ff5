/**
 * Connections at whose other end nobody was found, and what that means:
 *
 *   a process of the application is at it by its log     of the application: its end was closed, and forgotten, before anybody looked
 *   the user has said meanwhile what the address is      that
 *   the address is of this host                          in doubt: a closed end, a socket that was repaired without an announcement, one on
 *                                                        its way in a message
 *   it is not, and this host translates addresses        in doubt: it may lead to a process here
 *   else                                                 far: whoever it is, it is on another machine. The application has no node there
 *
 * What waits is part of the log's state (`AppLog`, "unfound"), so that a crash loses none; a drain decides.
 */
import type { Surroundings } from "../host/surroundings.ts";
import { channelName } from "../model/channel-names.ts";
import { MAX_UNFOUND_PEERS } from "../model/limits.ts";
import type { AppLog } from "./app-log.ts";
import type { PeerRules } from "./peer-rules.ts";

/** A recorded process's end of a connection. */
export interface ConnectionEnd {
  readonly process: string;
  readonly incarnation: number;
  readonly local: number;
  readonly remote: number;
  /** `RingFlag`s of the PEER record. */
  readonly flags: number;
}

export interface PeerAddress {
  readonly host: string;
  readonly port: number;
  /** For people: of whom connected the port says nothing. */
  readonly text: string;
}

/** Plain values for msgpackr. */
export interface UnfoundPeer extends ConnectionEnd, PeerAddress {}

export type UnfoundVerdict =
  | { readonly is: "inside" | "outside" | "far" }
  | { readonly is: "doubted"; readonly why?: string };

export class UnfoundPeers {
  #waiting = new Map<string, UnfoundPeer>();
  /** What waits is not what the log's state says. */
  changed = false;

  stored(): UnfoundPeer[] {
    return [...this.#waiting.values()];
  }

  load(stored: readonly UnfoundPeer[]): void {
    this.#waiting = new Map(stored.map((peer) => [keyOf(peer), peer]));
    this.changed = false;
  }

  get waits(): boolean {
    return this.#waiting.size > 0;
  }

  /** So many wait that a drain is due now. */
  get full(): boolean {
    return this.#waiting.size >= MAX_UNFOUND_PEERS;
  }

  /** Told once more, it is known better whether data has passed. */
  add(peer: UnfoundPeer): void {
    this.#waiting.set(keyOf(peer), peer);
    this.changed = true;
  }

  /** Somebody was found there after all. */
  delete(end: ConnectionEnd): void {
    if (this.#waiting.delete(keyOf(end))) this.changed = true;
  }

  /** Decides all; what they talked about stands in the log. Throws what reading the log throws; then all wait on. */
  async settle(
    app: AppLog,
    rules: PeerRules,
    bootId: string,
    here: Surroundings,
  ): Promise<{ peer: UnfoundPeer; verdict: UnfoundVerdict }[]> {
    const decided = [];
    for (const peer of this.#waiting.values())
      decided.push({ peer, verdict: await judge(peer, app, rules, bootId, here) });
    this.#waiting.clear();
    this.changed = true;
    return decided;
  }
}

const FAR_BACK = "the logs of other processes go further back than is read, as no checkpoint was taken";

function keyOf({ process, incarnation, local, remote }: ConnectionEnd): string {
  return `${process} ${incarnation} ${local} ${remote}`;
}

async function judge(
  { process, local, remote, host, port }: UnfoundPeer,
  app: AppLog,
  rules: PeerRules,
  bootId: string,
  { owns, doubt }: Surroundings,
): Promise<UnfoundVerdict> {
  const [sends, receives] = [
    channelName(false, bootId, local, remote),
    channelName(false, bootId, remote, local),
  ];
  const inside = await app.isAtOtherEnd(process, receives, sends);
  if (inside === true) return { is: "inside" };
  const said = rules.says(host, port);
  if (said !== undefined) return { is: said.side };
  if (owns(host)) return { is: "doubted" };
  const why = inside === undefined ? FAR_BACK : doubt;
  return why === undefined ? { is: "far" } : { is: "doubted", why };
}
