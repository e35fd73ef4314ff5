/** `recovery-line verify`: is an application's log whole? */
import type { Command } from "commander";
import type { LogReport } from "../log/verify-log.ts";
import { onceInReach } from "../logs/closed-log.ts";
import { appDirectory, resolveHome } from "../logs/home.ts";
import { hasCode } from "../model/errors.ts";
import { counted, printable, printableSentence } from "../model/printable.ts";
import { EXIT } from "../terminal/exit-codes.ts";
import { write, writeJson } from "../terminal/print.ts";
import { LOG_DEFAULT } from "./log-option.ts";

const HELP = `
Reads every block: checksum, chain, positions, the anchor, the state. Damage does not stop it: all places are named.
Bytes that one process sent or received twice on a channel are reported, too; they are tolerated (exit code 0).
Stored images of checkpoints are read, too, and the data of their processes (run --data): every byte against its checksum.
One that the log of a process recorded here names, that is not there and that neither gc has removed nor a rollback undone is damage, too.
While a collector lives the log is read through it; then only what it has acknowledged is checked.

Exit codes: 0 whole, 5 damaged, 2 wrong use or no such application, 1 anything else.

Example:
  recovery-line verify heat --log /var/lib/recovery-line`;

export function register(program: Command): void {
  program
    .command("verify")
    .summary("check the integrity of a log and of its images")
    .description("Checks the integrity of an application's log and of the images of its checkpoints.")
    .argument("<app>", "application")
    .option("--log <dir>", `log directory ${LOG_DEFAULT}`)
    .option("--json", "print one JSON object")
    .addHelpText("after", HELP)
    .action(verify);
}

async function verify(app: string, flags: { log?: string; json?: boolean }): Promise<void> {
  const home = resolveHome(flags.log);
  const log = await onceInReach(() => check(home, app));
  const report = log.damages.length > 0 ? { ...log, images: 0 } : await withImages(home, app, log);
  const outcome = report.damages.length > 0 ? "corrupt" : "clean";
  if (outcome === "corrupt") process.exitCode = EXIT.corrupt;
  const { application: _, ...facts } = report;
  if (flags.json) await writeJson({ application: app, outcome, ...facts });
  else await write(reportText(app, report));
}

type LogPart = Omit<LogReport, "segments"> & { readonly segments: number | null };
/** `images`: that were read. */
type Report = LogPart & { readonly images: number };

/** Those that the log names and that are stored still, or should be. A log that can't be trusted says nothing of its images. */
async function withImages(home: string, app: string, report: LogPart): Promise<Report> {
  const { verifyImages } = await import("./verify-images.ts");
  const { images, damages } = await verifyImages(home, app);
  return { ...report, images, damages: [...report.damages, ...damages] };
}

async function check(home: string, app: string): Promise<LogPart> {
  const { verifyLog } = await import("../log/verify-log.ts");
  try {
    return await verifyLog(appDirectory(home, app));
  } catch (error) {
    const { connectCollector } = await import("../client/client.ts");
    const collector = hasCode(error, "RL_LOCKED") ? await connectCollector(home) : undefined;
    if (collector === undefined) throw error;
    collector.close();
    return checkThroughCollector(home, app);
  }
}

/** Both ends check each block on its way; damage is thrown as RL_CORRUPT_LOG or RL_BAD_BLOCK. */
async function checkThroughCollector(home: string, app: string): Promise<LogPart> {
  const { appBlocks } = await import("../logs/app-logs.ts");
  const { decodeBlock } = await import("../format/block.ts");
  const processes = new Set<string>();
  const sum = { blocks: 0, events: 0, bytes: 0, gaps: 0, firstChain: 1, lastChain: 0 };
  for await (const block of appBlocks(home, app)) {
    const { header, columns } = decodeBlock(block);
    if (sum.blocks === 0) sum.firstChain = header.chain;
    sum.lastChain = header.chain;
    sum.blocks += 1;
    sum.events += columns.count;
    sum.bytes += block.length;
    for (const event of columns.events()) if (event.type === "gap") sum.gaps += 1;
    processes.add(columns.process);
  }
  return {
    application: app,
    segments: null,
    carriedBlocks: 0,
    ...sum,
    processes: processes.size,
    damages: [],
    overlaps: [],
    omitted: 0,
  };
}

function reportText(app: string, report: Report): string {
  const { damages, overlaps, omitted } = report;
  const where = report.segments === null ? "read through the collector" : counted(report.segments, "segment");
  const head =
    `${printable(app)}: ${damages.length === 0 ? "whole" : "DAMAGED"}; ` +
    `${counted(report.events, "event")} of ${counted(report.processes, "process", "processes")} in ` +
    `${counted(report.blocks, "block")}, ${report.bytes} bytes, ${where}; ${counted(report.gaps, "gap")}` +
    `${report.images === 0 ? "" : `; ${counted(report.images, "image")}`}\n` +
    (report.carriedBlocks > 0
      ? `Blocks before number ${report.firstChain} were removed by gc; ${counted(report.carriedBlocks, "block")} stand for them\n`
      : "");
  const places = damages.map(
    ({ place, why }) => `  ${printableSentence(place)}: ${printableSentence(why)}\n`,
  );
  const doubled = overlaps.map((overlap) => `  ${overlapText(overlap)}\n`);
  return [
    head,
    places.length > 0 ? `Damaged places:\n${places.join("")}` : "",
    doubled.length > 0 ? `Worth a look (tolerated):\n${doubled.join("")}` : "",
    omitted > 0 ? `... and ${omitted} more\n` : "",
  ].join("");
}

function overlapText({
  process,
  channel,
  direction,
  begin,
  end,
  other,
}: LogReport["overlaps"][number]): string {
  const verb = direction === "send" ? "sent" : "received";
  const rest = other === undefined ? "twice" : `and so did ${printable(other)}`;
  return `${printable(process)} ${verb} [${begin}, ${end}) of ${printable(channel)} ${rest}`;
}
