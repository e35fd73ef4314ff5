/** `recovery-line export`: a log as JSON Lines (interchange.md). */
import { constants, rmSync } from "node:fs";
import { type FileHandle, lstat, open, realpath, rename, stat, unlink } from "node:fs/promises";
import { dirname, resolve } from "node:path";
import type { Command } from "commander";
import type { Block } from "../format/block.ts";
import { appBlocks } from "../logs/app-logs.ts";
import { resolveHome } from "../logs/home.ts";
import { RecoveryLineError } from "../model/errors.ts";
import type { Event } from "../model/event.ts";
import { counted, printable } from "../model/printable.ts";
import { write, writeJson } from "../terminal/print.ts";
import { LOG_DEFAULT } from "./log-option.ts";

interface ExportFlags {
  readonly log?: string;
  readonly to?: string;
  readonly json?: boolean;
}

const HELP = `
Everything is written, lines that a rollback undid and the rollback itself included, so that import gives the same log again.
Lines of one process stand in its program order. With --to the file appears whole or not at all; a device or pipe is written to.

Examples:
  recovery-line export heat --to heat.jsonl
  recovery-line export heat | grep '"checkpoint"'`;

const ENDING = ["SIGINT", "SIGTERM", "SIGHUP"] as const;

/** Text collected before it is written, characters. */
const WRITE_CHARACTERS = 256 * 1024;

export function register(program: Command): void {
  program
    .command("export")
    .summary("write a log as JSON Lines")
    .description("Writes all events of an application's log as JSON Lines (interchange.md).")
    .argument("<app>", "application")
    .option("--log <dir>", `log directory ${LOG_DEFAULT}`)
    .option("--to <file>", "file to write; - or nothing is standard output")
    .option("--json", "with --to FILE: print what was written as one JSON object")
    .addHelpText("after", HELP)
    .action(exportApp);
}

async function exportApp(app: string, flags: ExportFlags): Promise<void> {
  const blocks = appBlocks(resolveHome(flags.log), app);
  if (flags.to === undefined || flags.to === "-") {
    if (flags.json)
      throw new RecoveryLineError(
        "RL_USAGE",
        "--json needs --to FILE: the events themselves go to standard output",
      );
    await writeEvents(blocks, (text) => write(text));
    return;
  }
  const events = await writeTo(flags.to, blocks);
  if (flags.json) await writeJson({ application: app, events, file: flags.to });
  else await write(`exported ${counted(events, "event")} of ${app} to ${printable(flags.to)}\n`);
}

async function writeEvents(
  blocks: AsyncIterable<Uint8Array>,
  put: (text: string) => Promise<void>,
): Promise<number> {
  const { decodeBlock } = await import("../format/block.ts");
  const { printEvent } = await import("../format/interchange.ts");
  let events = 0;
  let text = "";
  const begun = new Set<string>();
  for await (const bytes of blocks)
    for (const event of eventsOf(decodeBlock(bytes), begun)) {
      text += `${printEvent(event)}\n`;
      events += 1;
      if (text.length < WRITE_CHARACTERS) continue;
      await put(text);
      text = "";
    }
  await put(text);
  return events;
}

/**
 * Retention removes lines that say what is outside; the checkpoint that stands for them knows it instead (logs-format.md, "Base"): lines
 * again for whoever reads the export. `begun`: processes whose first block came.
 */
function* eventsOf({ header, columns }: Block, begun: Set<string>): Generator<Event> {
  const { process } = columns;
  let isDue = header.previousBlock > 0 && !begun.has(process);
  begun.add(process);
  for (const event of columns.events()) {
    if (isDue && event.type === "checkpoint") {
      for (const channel of event.cut?.outside ?? []) yield { type: "outside", process, channel };
      isDue = false;
    }
    yield event;
  }
}

/** A device, a pipe, or what this process has open (/dev/stdout) is written to; a file, also behind a link, is replaced by a whole one. */
async function writeTo(path: string, blocks: AsyncIterable<Uint8Array>): Promise<number> {
  const found = await stat(path).catch(() => undefined);
  const isOpen = /^\/(proc\/|dev\/(fd\/|std))/.test(resolve(path));
  if (found?.isFile() && !isOpen) return replaceFile(await realpath(path), blocks);
  if (found === undefined && !(await isLink(path))) return replaceFile(path, blocks);
  try {
    const file = await open(path, constants.O_WRONLY | constants.O_CREAT | constants.O_TRUNC, 0o666);
    return await writeEvents(blocks, (text) => file.writeFile(text)).finally(() => file.close());
  } catch (error) {
    throw cantWrite(path, error);
  }
}

async function isLink(path: string): Promise<boolean> {
  return (await lstat(path).catch(() => undefined))?.isSymbolicLink() ?? false;
}

/** Under another name until it is whole and synced. */
async function replaceFile(path: string, blocks: AsyncIterable<Uint8Array>): Promise<number> {
  const part = `${path}.part-${process.pid}`;
  const ended = (signal: NodeJS.Signals): void => {
    rmSync(part, { force: true });
    process.kill(process.pid, signal); // now as it would have ended it
  };
  for (const signal of ENDING) process.once(signal, ended);
  try {
    const file = await open(part, constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL, 0o666);
    const events = await fill(file, blocks);
    await rename(part, path);
    const folder = await open(dirname(path), "r");
    await folder.sync().finally(() => folder.close());
    return events;
  } catch (error) {
    await unlink(part).catch(() => undefined);
    throw cantWrite(path, error);
  } finally {
    for (const signal of ENDING) process.off(signal, ended);
  }
}

async function fill(file: FileHandle, blocks: AsyncIterable<Uint8Array>): Promise<number> {
  try {
    const events = await writeEvents(blocks, (text) => file.writeFile(text));
    await file.sync();
    return events;
  } finally {
    await file.close();
  }
}

function cantWrite(path: string, error: unknown): unknown {
  const { syscall, message } = error as NodeJS.ErrnoException;
  if (syscall === undefined || error instanceof RecoveryLineError) return error;
  return new RecoveryLineError(
    "RL_USAGE",
    `can't write ${path}: ${message}`,
    "Name a file in a folder that you may write to and that has room.",
    error,
  );
}
