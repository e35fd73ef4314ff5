/** What stands in the way of an image, and the refusal that names it. */
import { RecoveryLineError } from "../model/errors.ts";

/** Obstacles that are named, count. */
const MAX_NAMED = 8;

/** What stands in the way of one image, or, with checkpoint 0, of a start from the initial state. */
export interface Obstacle {
  readonly process: string;
  readonly checkpoint: number;
  readonly what: string;
}

/** RL_REFUSED, naming all that stands in the way; nothing is touched. An older line may do without those images. */
export class Obstructed extends RecoveryLineError {
  readonly found: readonly Obstacle[];

  constructor(found: readonly Obstacle[]) {
    const named = found.slice(0, MAX_NAMED).map(({ process, what }) => `${process}: ${what}`);
    const more = found.length > MAX_NAMED ? `; and ${found.length - MAX_NAMED} more` : "";
    super(
      "RL_REFUSED",
      `what stands in the way of the restart: ${named.join("; ")}${more}`,
      "Nothing was killed or restored. Put it right, then call again; --back-further goes back to older checkpoints instead, where there are such.",
    );
    this.found = found;
  }
}
