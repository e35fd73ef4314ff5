/** What every command that computes from evidence takes: `<app> [--log DIR]...` or `--from FILE`, and the rules. */
import { type Command, Option } from "commander";
import type { RuleOptions } from "../index.ts";
import { homesOf } from "../logs/home.ts";
import { unrecordedText } from "../logs/unrecorded.ts";
import { RecoveryLineError } from "../model/errors.ts";
import type { Evidence } from "../model/evidence-layout.ts";
import type { DsmModel, InTransitPolicy } from "../model/recovery-line.ts";
import { write } from "../terminal/print.ts";
import { repeated } from "./failed-names.ts";
import { LOG_DEFAULT } from "./log-option.ts";
import { inputBaseName, inputName, readInput } from "./open-input.ts";

export interface EvidenceFlags {
  readonly log?: readonly string[];
  readonly from?: string;
  readonly dsm: DsmModel;
  readonly inTransit: InTransitPolicy;
  readonly json?: boolean;
}

export function dsmOption(): Option {
  return new Option("--dsm <model>", "how page traffic counts: every copy and invalidate, or only copies")
    .choices(["sequential", "transfers"])
    .default("sequential");
}

export function inTransitOption(): Option {
  return new Option(
    "--in-transit <policy>",
    "which messages may be left in transit: any, or only logged ones",
  )
    .choices(["any", "logged"])
    .default("any");
}

/** A command on evidence. Its further arguments and options are the caller's. */
export function evidenceCommand(program: Command, name: string, summary: string): Command {
  return program
    .command(name)
    .summary(summary)
    .argument("[app]", "application; may be left out with --from")
    .option("--log <dir>", `log directory; repeat it for the logs of several nodes ${LOG_DEFAULT}`, repeated)
    .option("--from <file>", "take an events file (JSON Lines) instead of a log; - is standard input")
    .addOption(dsmOption())
    .addOption(inTransitOption())
    .option("--json", "print one JSON object");
}

export function rulesOf({ dsm, inTransit }: EvidenceFlags): Required<RuleOptions> {
  return { dsm, inTransit };
}

export interface Source {
  readonly application: string;
  readonly evidence: Evidence;
  /** Processes that no collector records though their log says so (see unrecorded.ts). */
  readonly unrecorded: readonly string[];
}

/**
 * Reads the evidence that the flags name; `declare`: that of unrecorded processes ends in a gap. Throws RL_USAGE without a source or with
 * two, and what reading throws.
 */
export async function loadEvidence(
  app: string | undefined,
  flags: Pick<EvidenceFlags, "from" | "log">,
  declare = false,
): Promise<Source> {
  if (flags.from !== undefined) {
    if (flags.log !== undefined)
      throw new RecoveryLineError("RL_USAGE", "--from and --log exclude each other", "Choose one source.");
    const { readEvents } = await import("../index.ts");
    const evidence = await readEvents(readInput(flags.from), inputName(flags.from));
    return { application: app ?? inputBaseName(flags.from), evidence, unrecorded: [] };
  }
  if (app === undefined)
    throw new RecoveryLineError(
      "RL_USAGE",
      "no application and no events file",
      "Name an application, or an events file with --from.",
    );
  const { readLog } = await import("../index.ts");
  const { evidence, unrecorded } = await readLog(app, {
    log: homesOf(flags.log),
    unrecorded: declare ? "gap" : "named",
  });
  if (declare) await write(unrecordedText(unrecorded), process.stderr);
  return { application: app, evidence, unrecorded };
}
