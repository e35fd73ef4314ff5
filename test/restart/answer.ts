/** What `restart --json` prints, as far as tests look at it. */
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
  readonly inTransit: readonly { place: string; begin: number; end: number }[];
  readonly passedOver: readonly unknown[];
  readonly alsoFailed: readonly { process: string }[];
  readonly phasesMs: Readonly<Record<string, number>>;
}

/**
 * A right result alone proves nothing: at the line nobody has received what is not sent. Channels where that is broken; a receiver of
 * a channel whose sender does not come back is one of them unless it received nothing.
 */
export function fromNowhere({ connections }: Answer): string[] {
  const sent = new Map(connections.map((one) => [one.sends, one.sent]));
  return connections
    .filter(({ receives, received }) => received > (sent.get(receives) ?? 0))
    .map(({ receives }) => receives);
}
