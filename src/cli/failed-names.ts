/** `--failed P,Q`: repeatable; a name that is a process as it stands wins over splitting at commas. */
import { RecoveryLineError } from "../model/errors.ts";

/**
 * The failed processes; undefined where no option was given (everybody failed). Throws RL_USAGE for an empty name or one given twice,
 * RL_UNKNOWN_PROCESS for a name that is no process.
 */
export function failedNames(
  options: readonly string[] | undefined,
  processes: readonly string[],
): string[] | undefined {
  if (options === undefined) return undefined;
  const known = new Set(processes);
  const names = options.flatMap((option) => (known.has(option) ? [option] : option.split(",")));
  const seen = new Set<string>();
  for (const name of names) {
    if (name === "")
      throw new RecoveryLineError(
        "RL_USAGE",
        "--failed has an empty name",
        "Write --failed P,Q; leave the option out if everybody failed.",
      );
    if (seen.has(name))
      throw new RecoveryLineError(
        "RL_USAGE",
        `--failed names ${JSON.stringify(name)} twice`,
        "Name it once.",
      );
    if (!known.has(name)) throw unknownProcess(name, processes);
    seen.add(name);
  }
  return names;
}

const SHOWN_PROCESSES = 20;

function unknownProcess(name: string, processes: readonly string[]): RecoveryLineError {
  const shown = processes.slice(0, SHOWN_PROCESSES).map((known) => JSON.stringify(known));
  const more = processes.length > SHOWN_PROCESSES ? `, … (${processes.length} in all)` : "";
  return new RecoveryLineError(
    "RL_UNKNOWN_PROCESS",
    `--failed names ${JSON.stringify(name)}, which is no process of the evidence`,
    `Known: ${shown.join(", ")}${more}. Repeat --failed for names that hold commas.`,
  );
}

/** For commander: collects the values of an option that may be repeated. */
export function repeated(value: string, before: readonly string[] | undefined): readonly string[] {
  return [...(before ?? []), value];
}
