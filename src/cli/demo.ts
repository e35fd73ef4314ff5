/** `recovery-line demo`: the whole way from a live kernel to a recovery line, on real programs. */
import type { Command } from "commander";
import { RecoveryLineError } from "../model/errors.ts";
import { integerOption } from "./numbers.ts";

interface DemoFlags {
  readonly seed?: number;
  readonly seconds: number;
}

const DEFAULT_SECONDS = 6;
const MAX_SECONDS = 60;
const MAX_SEED = 2 ** 32 - 1;

const HELP = `
nats  two clustered nats-servers, a publisher and a subscriber, unmodified, and a client that nobody records; checkpointed
      together and then independently; one is killed. It checks its own answers, and says in its last line what was seen
dsm   a distributed-shared-memory program on four processes; one is killed, all go on from the line to the sequential result
policy  two HA policies on the same programs as nats: plugged, swapped under load, crashed until the fallback decides, compared

Where nothing can be captured, nats computes the line of a recorded log instead, and says so.

Examples:
  recovery-line demo
  recovery-line demo dsm
  recovery-line demo policy`;

export function register(program: Command): void {
  program
    .command("demo")
    .summary("trace, checkpoint and kill real programs, and print the recovery line")
    .description(
      "Shows the whole way from a live kernel to a recovery line. Ends by itself within two minutes.",
    )
    .argument("[which]", "nats, dsm or policy", "nats")
    .option("--seed <n>", "seed of the random plan (default: the clock)", (text: string) =>
      integerOption("--seed", text, 0, MAX_SEED),
    )
    .option(
      "--seconds <n>",
      "how long independent checkpoints are taken",
      (text: string) => integerOption("--seconds", text, 1, MAX_SECONDS),
      DEFAULT_SECONDS,
    )
    .addHelpText("after", HELP)
    .action(demo);
}

async function demo(which: string, flags: DemoFlags): Promise<void> {
  if (which === "dsm") return (await import("../demo/demo-dsm.ts")).runDsmDemo();
  if (which === "policy") return (await import("../demo/demo-policy.ts")).policyDemo();
  if (which !== "nats")
    throw new RecoveryLineError("RL_USAGE", `there is no demo "${which}"`, "nats, dsm or policy.");
  const options = { seed: flags.seed ?? Date.now() % MAX_SEED, seconds: flags.seconds };
  const { captureTrouble, recordedDemo } = await import("../demo/demo-recorded.ts");
  const trouble = captureTrouble();
  if (trouble !== undefined) return recordedDemo(trouble);
  const { natsDemo } = await import("../demo/demo-nats.ts");
  return natsDemo(options);
}
