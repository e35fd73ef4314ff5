/** What whoever plugs a policy says besides its parameters. Nothing else: the command line reads it for its help. */

/** What can hurt, and is done only where whoever plugged allowed it. */
export const ALLOWABLE = ["restart", "roll-back", "collect"] as const;
export type Allowable = (typeof ALLOWABLE)[number];

export const POLICY_DRIVERS = ["auto", "criu", "hook", "none"] as const;

/** How it was plugged. */
export interface PlugTerms {
  /** Parameters that differ from their defaults; seconds, bytes. */
  readonly set: readonly (readonly [string, number])[];
  readonly allow: readonly Allowable[];
  /** What takes over from a policy that has ended by a fault: a checkpoint of each process after every so many seconds, or nothing. */
  readonly fallback: { readonly interval: number } | null;
  readonly driver: (typeof POLICY_DRIVERS)[number];
  /** With driver hook: the file of the commands, absolute. */
  readonly hooks?: string;
  /** Work that one failure may cost before the host acts by itself, seconds. */
  readonly mostLoss?: number;
  /** How often at most the lines of all single failures are computed, seconds; absent: every 5. */
  readonly lineEvery?: number;
}
