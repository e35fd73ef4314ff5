#!/usr/bin/env node
/**
 * The command line. One module a command; every module exports `register(program)`.
 *
 * To add a command: write `src/cli/<name>.ts`, import it here and put it into `COMMANDS`. Rules that keep it simple:
 *   - import heavy modules (log, engine, graph, ring) inside the action with `await import(...)`: `--help` stays fast;
 *   - throw a `RecoveryLineError`; this file prints it (one sentence on stderr; with `--json` one object on stdout) and
 *     chooses the exit code by `exit-codes.ts`. Name the application's argument `app`: then the object names it;
 *   - for another exit code than 0 set `process.exitCode`; never call `process.exit`.
 */
import { Command, CommanderError } from "commander";
import { RecoveryLineError } from "../model/errors.ts";
import { printableSentence } from "../model/printable.ts";
import { EXIT, exitCodeOf, failureOutcome } from "../terminal/exit-codes.ts";
import { write, writeJson } from "../terminal/print.ts";
import * as attach from "./attach.ts";
import * as checkpoint from "./checkpoint.ts";
import * as collect from "./collect.ts";
import * as collectRings from "./collect-rings.ts";
import * as commitOutput from "./commit-output.ts";
import * as compute from "./compute.ts";
import * as cut from "./cut.ts";
import * as data from "./data.ts";
import * as demo from "./demo.ts";
import * as doctor from "./doctor.ts";
import * as explain from "./explain.ts";
import * as exportCommand from "./export.ts";
import * as failures from "./failures.ts";
import * as gc from "./gc.ts";
import * as graph from "./graph.ts";
import * as importCommand from "./import.ts";
import * as leaving from "./leaving.ts";
import * as policy from "./policy.ts";
import * as restart from "./restart.ts";
import * as run from "./run.ts";
import * as sdkEvents from "./sdk-events.ts";
import * as status from "./status.ts";
import * as verify from "./verify.ts";
import { packageVersion } from "./version.ts";
import * as zcycles from "./zcycles.ts";

const COMMANDS: readonly { register(program: Command): void }[] = [
  compute,
  importCommand,
  exportCommand,
  verify,
  explain,
  failures,
  cut,
  zcycles,
  graph,
  gc,
  collect,
  collectRings,
  run,
  attach,
  checkpoint,
  data,
  restart,
  status,
  policy,
  leaving,
  commitOutput,
  sdkEvents,
  doctor,
  demo,
];

/** The command whose action runs, once there is one. */
let acting: Command | undefined;

function buildProgram(): Command {
  const program = new Command("recovery-line")
    .description("Records what processes tell each other and computes the latest consistent restart line.")
    .version(packageVersion(), "--version", "print the version")
    .exitOverride()
    .configureOutput({
      outputError: (text, output) => output(text.split("\n").map(printableSentence).join("\n")),
    })
    .hook("preAction", (_, action) => {
      acting = action;
    });
  for (const command of COMMANDS) command.register(program);
  return program;
}

/** Prints the failure and sets the exit code. */
async function fail(thrown: unknown): Promise<void> {
  if (thrown instanceof CommanderError) return failUsage(thrown);
  const error = told(thrown);
  process.exitCode = exitCodeOf(error);
  if (acting?.opts()["json"] === true)
    await writeFailure(process.exitCode, acting.processedArgs[appArgument(acting)], error);
  await write(`recovery-line: ${sentences(error).map(printableSentence).join("\n")}\n`, process.stderr);
}

/** What the operating system refuses (no space, no right, no such file) is outside trouble, whoever let it through. */
function told(error: unknown): unknown {
  if (!(error instanceof Error) || error instanceof RecoveryLineError) return error;
  const { syscall, code } = error as NodeJS.ErrnoException;
  if (syscall === undefined || code === undefined) return error;
  return new RecoveryLineError(
    "RL_SYSTEM",
    `the operating system refused: ${error.message}`,
    "Free space, correct the rights or the path, whatever it names, and call again.",
    error,
  );
}

/** What to say about a failure, line by line: message and advice; of a bug of ours also where it is. */
function sentences(error: unknown): string[] {
  if (error instanceof RecoveryLineError) return [error.message, error.advice].filter((text) => text !== "");
  if (error instanceof Error) return (error.stack ?? error.message).split("\n");
  return [String(error)];
}

/** commander has printed its own message already; help and version are successes. */
async function failUsage(error: CommanderError): Promise<void> {
  process.exitCode = error.exitCode === 0 ? EXIT.clean : EXIT.usage;
  if (error.exitCode === 0 || !process.argv.includes("--json")) return;
  const wrong = new RecoveryLineError(
    "RL_USAGE",
    error.message.replace(/^error: /, ""),
    "See --help.",
    error,
  );
  await writeFailure(EXIT.usage, undefined, wrong);
}

function appArgument(command: Command): number {
  return command.registeredArguments.findIndex((argument) => argument.name() === "app");
}

async function writeFailure(exitCode: number, application: unknown, error: unknown): Promise<void> {
  const known = error instanceof RecoveryLineError;
  await writeJson({
    application: typeof application === "string" ? application : null,
    outcome: failureOutcome(exitCode),
    error: {
      code: known ? error.code : "RL_INTERNAL",
      message: error instanceof Error ? error.message : String(error),
      advice: known ? error.advice : "This is a bug of recovery-line; please report it.",
    },
  });
}

/** A reader that went away (`| head`) is no failure, and nothing can be written to it any more; a full disk is one. */
function leaveWhenOutputEnds(): void {
  process.stdout.on("error", (error: NodeJS.ErrnoException) => {
    if (error.code === "EPIPE") process.exit(process.exitCode ?? EXIT.clean);
    process.stderr.write(`recovery-line: the output can't be written: ${error.message}\n`);
    process.exit(EXIT.other);
  });
  process.stderr.on("error", (error: NodeJS.ErrnoException) =>
    process.exit(process.exitCode ?? (error.code === "EPIPE" ? EXIT.clean : EXIT.other)),
  );
}

leaveWhenOutputEnds();
await buildProgram().parseAsync().catch(fail);
