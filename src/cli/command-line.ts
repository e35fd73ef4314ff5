/**
 * The command line. One module a command; every module exports `register(program)`.
 *
 * To add a command: write `src/cli/<name>.ts` and put its names and module into `MODULES`. Rules that keep it simple:
 *   - import heavy modules (log, engine, graph, ring) inside the action with `await import(...)`: `--help` stays fast, and
 *     a command loads no other command's modules;
 *   - throw a `RecoveryLineError`; this file prints it (one sentence on stderr; with `--json` one object on stdout) and
 *     chooses the exit code by `exit-codes.ts`. Name the application's argument `app`: then the object names it;
 *   - for another exit code than 0 set `process.exitCode`; never call `process.exit`;
 *   - an option with a value may be given once, unless its parser is `repeated` or its name ends in "...".
 */
import { Command, CommanderError, type Option } from "commander";
import { RecoveryLineError } from "../model/errors.ts";
import { printableSentence } from "../model/printable.ts";
import { EXIT, exitCodeOf, failureOutcome, outsideTrouble } from "../terminal/exit-codes.ts";
import { write, writeJson } from "../terminal/print.ts";
import { repeated } from "./failed-names.ts";
import { packageVersion } from "./version.ts";

/** In the order of the help. */
const MODULES: readonly (readonly [names: readonly string[], load: () => Promise<CommandModule>])[] = [
  [["compute"], () => import("./compute.ts")],
  [["import"], () => import("./import.ts")],
  [["export"], () => import("./export.ts")],
  [["verify"], () => import("./verify.ts")],
  [["explain"], () => import("./explain.ts")],
  [["failures"], () => import("./failures.ts")],
  [["cut"], () => import("./cut.ts")],
  [["zcycles"], () => import("./zcycles.ts")],
  [["graph"], () => import("./graph.ts")],
  [["gc"], () => import("./gc.ts")],
  [["collect"], () => import("./collect.ts")],
  [["collect-rings"], () => import("./collect-rings.ts")],
  [["run"], () => import("./run.ts")],
  [["attach", "detach"], () => import("./attach.ts")],
  [["checkpoint"], () => import("./checkpoint.ts")],
  [["data"], () => import("./data.ts")],
  [["restart"], () => import("./restart.ts")],
  [["status"], () => import("./status.ts")],
  [["policy"], () => import("./policy.ts")],
  [["leaving"], () => import("./leaving.ts")],
  [["commit-output"], () => import("./commit-output.ts")],
  [["sdk-events"], () => import("./sdk-events.ts")],
  [["doctor"], () => import("./doctor.ts")],
  [["demo"], () => import("./demo.ts")],
];

interface CommandModule {
  register(program: Command): void;
}

/** The modules that an invocation needs: the named command's, or all of them to list the commands or to know a misspelt one. */
function modulesFor(name: string | undefined): Promise<CommandModule[]> {
  const named = MODULES.filter(([names]) => name !== undefined && names.includes(name));
  return Promise.all((named.length > 0 ? named : MODULES).map(([, load]) => load()));
}

/** One call of the command line: prints what it has to say, sets the exit code and throws nothing. */
export async function runCommandLine(args: readonly string[]): Promise<void> {
  const call: Call = { args, acting: undefined };
  await buildProgram(call)
    .then((program) => program.parseAsync(args, { from: "user" }))
    .catch((error: unknown) => fail(call, error));
}

interface Call {
  readonly args: readonly string[];
  /** The command whose action runs, once there is one. */
  acting: Command | undefined;
}

async function buildProgram(call: Call): Promise<Command> {
  const program = new Command("recovery-line")
    .description("Records what processes tell each other and computes the latest consistent restart line.")
    .version(packageVersion(), "--version", "print the version")
    .exitOverride()
    .configureOutput({
      outputError: (text, output) => output(text.split("\n").map(printableSentence).join("\n")),
    })
    .hook("preAction", (_, action) => {
      call.acting = action;
    });
  for (const command of await modulesFor(call.args[0])) command.register(program);
  for (const command of program.commands) refuseTwice(command);
  return program;
}

/** commander keeps the last value of an option that is given twice: half of what was named would go unheard. Throws RL_USAGE. */
function refuseTwice(command: Command): void {
  for (const option of command.options) {
    if (!(option.required || option.optional) || option.variadic || option.parseArg === repeated) continue;
    let given = false;
    command.on(`option:${option.name()}`, () => {
      if (given) throw twice(option);
      given = true;
    });
  }
  for (const inner of command.commands) refuseTwice(inner);
}

function twice({ long, flags }: Option): RecoveryLineError {
  return new RecoveryLineError(
    "RL_USAGE",
    `${long ?? flags} is given twice, and takes one value`,
    "Give it once; --help says which options may be repeated.",
  );
}

/** Not of the command behind `run … --`. */
function asksForJson(args: readonly string[]): boolean {
  const end = args.indexOf("--");
  return args.slice(0, end < 0 ? undefined : end).includes("--json");
}

/** Prints the failure and sets the exit code. */
async function fail({ args, acting }: Call, thrown: unknown): Promise<void> {
  if (thrown instanceof CommanderError) return failUsage(args, thrown);
  const error = outsideTrouble(thrown);
  process.exitCode = exitCodeOf(error);
  if (acting === undefined ? asksForJson(args) : acting.opts()["json"] === true)
    await writeFailure(process.exitCode, acting?.processedArgs[appArgument(acting)], error);
  await write(`recovery-line: ${sentences(error).map(printableSentence).join("\n")}\n`, process.stderr);
}

/** What to say about a failure, line by line: message and advice; of a bug of ours also where it is. */
function sentences(error: unknown): string[] {
  if (error instanceof RecoveryLineError) return [error.message, error.advice].filter((text) => text !== "");
  if (error instanceof Error) return (error.stack ?? error.message).split("\n");
  return [String(error)];
}

/** commander has printed its own message already; help and version are successes. */
async function failUsage(args: readonly string[], error: CommanderError): Promise<void> {
  process.exitCode = error.exitCode === 0 ? EXIT.clean : EXIT.usage;
  if (error.exitCode === 0 || !asksForJson(args)) return;
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
