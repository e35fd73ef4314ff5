/** What `restart --json` prints, as far as tests look at it. */
import type { RecoveryLine } from "../../src/model/recovery-line.ts";

export interface Connection {
  readonly process: string;
  readonly sends: string;
  readonly receives: string;
  readonly sent: number;
  readonly received: number;
}

export interface Answer {
  readonly restarted: readonly { process: string; action: string; checkpoint: number }[];
  readonly connections: readonly Connection[];
  /** Connections whose other end does not come back; `reset`: they are over, as the process goes back. */
  readonly broken?: readonly { readonly receives: string; readonly reset: boolean }[];
  readonly lostInputs?: RecoveryLine["lostInputs"];
  readonly unsayable?: RecoveryLine["unsayable"];
  readonly inTransit: readonly { place: string; begin: number; end: number }[];
  readonly passedOver: readonly unknown[];
  readonly alsoFailed: readonly { process: string }[];
  readonly phasesMs: Readonly<Record<string, number>>;
}

/**
 * A right result alone proves nothing: at the line nobody has received what is not sent. Channels where that is broken; a receiver of
 * a channel whose sender does not come back is one of them unless it received nothing. Connections to the outside are reset.
 */
export function fromNowhere({ connections, broken = [] }: Answer): string[] {
  const reset = new Set(broken.flatMap(({ reset: is, receives }) => (is ? [receives] : [])));
  const sent = new Map(connections.map((one) => [one.sends, one.sent]));
  return connections
    .filter(({ receives }) => !reset.has(receives))
    .filter(({ receives, received }) => received > (sent.get(receives) ?? 0))
    .map(({ receives }) => receives);
}
