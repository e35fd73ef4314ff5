/** `recovery-line data`: the directory trees that are part of a process's state. */
import type { Command } from "commander";
import { checkedAppName, ownHome } from "../logs/home.ts";
import { RecoveryLineError } from "../model/errors.ts";
import { printable, printableSentence } from "../model/printable.ts";
import type { ProcessData } from "../model/stored-process.ts";
import { write, writeJson } from "../terminal/print.ts";
import { type DataFlags, dataLimit } from "./data-options.ts";
import { repeated } from "./failed-names.ts";
import { LOG_DEFAULT } from "./log-option.ts";

interface Flags extends DataFlags {
  readonly log?: string;
  readonly none?: boolean;
  readonly json?: boolean;
}

const HELP = `
Every checkpoint from now on saves what lies below the folders, and a restart from it puts that back exactly: contents, holes, modes,
owners, times, links, extended attributes; what was made since is gone, what was deleted is there. Without --data and --none it lists them.
Checkpoints that were taken before hold nothing of them, and a restart refuses to go back to these: take one now.
What was there before the process began only run --data saves.

Examples:
  recovery-line data shop db --data /var/lib/shop
  recovery-line data shop db --none`;

export function register(program: Command): void {
  program
    .command("data")
    .summary("make directory trees part of a process's state")
    .description(
      "Names the directory trees that are saved with a process's checkpoints and put back with them.",
    )
    .argument("<app>", "application")
    .argument("<process>", "process")
    .option("--log <dir>", `log directory of the collector ${LOG_DEFAULT}`)
    .option("--data <dir>", "a folder, instead of those before; repeatable", repeated)
    .option(
      "--data-limit <bytes>",
      "most bytes to copy while the process stands still (default: 1 GiB)",
      dataLimit,
    )
    .option("--none", "it has no data any more")
    .option("--json", "print one JSON object")
    .addHelpText("after", HELP)
    .action(data);
}

async function data(app: string, process: string, flags: Flags): Promise<void> {
  checkedAppName(app);
  checkedAppName(process, "process");
  if (flags.none && flags.data !== undefined)
    throw new RecoveryLineError("RL_USAGE", "--none and --data contradict each other");
  const { requireCollector } = await import("../client/client.ts");
  const home = ownHome(flags.log);
  const collector = await requireCollector(home);
  const kept = await collector.data(app, process, await wanted(process, flags, home));
  if (kept === undefined || flags.none) await forgetStart(home, app, process);
  collector.close();
  if (flags.json)
    await writeJson({
      application: app,
      process,
      roots: kept?.roots ?? [],
      limitBytes: kept?.limitBytes ?? null,
    });
  else await write(keptText(process, kept));
}

/** Undefined: only asked. */
async function wanted(process: string, flags: Flags, home: string): Promise<ProcessData | undefined> {
  if (flags.data === undefined && flags.dataLimit === undefined && !flags.none) return undefined;
  const { dataOf } = await import("./data-roots.ts");
  const { refuseUnfinished } = await import("../images/data/exchange-tree.ts");
  const named = dataOf(process, flags, home);
  for (const root of named.roots) refuseUnfinished(root);
  return named;
}

async function forgetStart(home: string, app: string, process: string): Promise<void> {
  const { removeOtherStarts } = await import("../checkpoint/process-data.ts");
  removeOtherStarts(home, app, process, undefined);
}

function keptText(process: string, kept: ProcessData | undefined): string {
  if (kept === undefined) return `${printable(process)} has no data\n`;
  const roots = kept.roots.map((root) => `  ${printableSentence(root)}\n`).join("");
  return `Data of ${printable(process)}, at most ${kept.limitBytes} bytes copied while it stands still:\n${roots}`;
}
