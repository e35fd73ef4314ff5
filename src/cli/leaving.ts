/** `recovery-line leaving`: for a cloud's preemption hook. */
import type { Command } from "commander";
import { resolveHome } from "../logs/home.ts";
import { MAX_SHADOW_S } from "../model/limits.ts";
import { write } from "../terminal/print.ts";
import { LOG_DEFAULT } from "./log-option.ts";
import { integerOption } from "./numbers.ts";

interface LeavingFlags {
  readonly log?: string;
  readonly within: number;
}

const DEFAULT_WITHIN_S = 30;

export function register(program: Command): void {
  program
    .command("leaving")
    .summary("tell policies that this node is about to go")
    .description(
      "Raises `leaving` in all plugged policies, and ends once they have done what they wanted, or the time is up.",
    )
    .option("--log <dir>", `log directory of the collector ${LOG_DEFAULT}`)
    .option(
      "--within <seconds>",
      "time left",
      (text: string) => integerOption("--within", text, 0, MAX_SHADOW_S),
      DEFAULT_WITHIN_S,
    )
    .action(leaving);
}

async function leaving(flags: LeavingFlags): Promise<void> {
  const { requireCollector } = await import("../client/client.ts");
  const collector = await requireCollector(resolveHome(flags.log));
  try {
    await collector.leaving(flags.within);
    await write("policies have heard it\n");
  } finally {
    collector.close();
  }
}
