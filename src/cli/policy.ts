/** `recovery-line policy`: the language of HA policies, and what a policy would do. */
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { Command } from "commander";
import { RecoveryLineError } from "../model/errors.ts";
import { counted, printable } from "../model/printable.ts";
import type { BuiltPolicy } from "../policy/component.ts";
import { write, writeJson } from "../terminal/print.ts";
import { LOG_DEFAULT } from "./log-option.ts";
import { registerCompare } from "./policy-compare.ts";
import { pluggedIn, pluggedTable, registerLive, showPlugged } from "./policy-live.ts";
import { registerTrial } from "./policy-trial.ts";

interface JsonFlag {
  readonly json?: boolean;
}
interface BuildFlags extends JsonFlag {
  readonly output?: string;
  readonly print?: boolean;
}

const HELP = `
A policy says when processes take checkpoints, what is logged, and what happens on a failure; docs/policies.md has the language.
POLICY is a file, or the name of a shipped policy; NAME:parameter=value,... sets parameters where it is compared,
--set parameter=value where it is plugged.

Examples:
  recovery-line policy check mine.xml
  recovery-line policy plug shop bounded-loss --set bound=1min --allow restart,collect
  recovery-line policy log shop
  recovery-line policy compare shop periodic:interval=30s bounded-loss index-based`;

export function register(program: Command): void {
  const policy = program
    .command("policy")
    .summary("check, compare and plug HA policies")
    .description("HA policies: checks and compares them, plugs them into running applications.")
    .addHelpText("after", HELP);
  policy
    .command("check")
    .argument("<file>", "policy file")
    .option("--json", "print one JSON object")
    .description(
      "Checks a policy: exit code 2 with file, line, column, what is wrong and what is allowed there.",
    )
    .action(check);
  policy
    .command("build")
    .argument("<policy>", "policy file, or the name of a shipped policy")
    .option("-o, --output <dir>", "where to put component.json and lines.json")
    .option("--print", "print the policy with all macros expanded")
    .option("--json", "print one JSON object")
    .description("Builds a policy's component: its normal form and hash.")
    .action(build);
  policy.command("schema").description("Prints the XML schema of the language.").action(schema);
  policy
    .command("palette")
    .option("--json", "print one JSON object (the only form)")
    .description("Prints all words of the language with types, places and help, for editors.")
    .action(palette);
  policy.command("reference").description("Prints docs/policies.md.").action(reference);
  policy
    .command("list")
    .argument("[app]", "only what is plugged into this application")
    .option("--log <dir>", `log directory of the collector ${LOG_DEFAULT}`)
    .option("--json", "print one JSON object")
    .description("Lists the policies that come with the program, and what is plugged where.")
    .action(list);
  registerLive(policy);
  registerCompare(policy);
  registerTrial(policy);
}

async function built(policy: string): Promise<BuiltPolicy> {
  const { loadPolicy } = await import("../policy/shipped.ts");
  return loadPolicy(policy);
}

async function check(file: string, flags: JsonFlag): Promise<void> {
  const { readPolicy } = await import("../policy/shipped.ts");
  const { buildPolicy } = await import("../policy/build.ts");
  const text = readPolicy(file);
  const made = buildPolicy(file, text);
  await checkBySchema(file, text);
  await tell(file, made, flags);
}

/** A second judge of structure, made from the same table: editors go by it. */
async function checkBySchema(file: string, text: string): Promise<void> {
  const { Schema } = await import("../policy/xml.ts");
  const { xmlSchema } = await import("../policy/schema.ts");
  const complaint = new Schema(xmlSchema()).complaint(text);
  if (complaint === undefined) return;
  throw new RecoveryLineError("RL_BAD_INPUT", `${file}:${complaint.line}:1: ${complaint.message}`);
}

async function tell(file: string, { component, lines }: BuiltPolicy, flags: JsonFlag): Promise<void> {
  const { hashOf } = await import("../policy/component.ts");
  const { name, version, refused } = component;
  const hash = hashOf(component);
  const statements = lines.length;
  if (flags.json === true) await writeJson({ file, name, version, hash, statements, refused });
  else
    await write(
      `${printable(file)}: ${name} ${version}, ${counted(statements, "statement")}, ${hash.slice(0, 16)}\n${refusals(refused)}`,
    );
}

/** Where the policy can't run, and why. */
function refusals(refused: BuiltPolicy["component"]["refused"]): string {
  const where = {
    live: "on unmodified programs",
    sdk: "on programs of the SDK",
    comparison: "in comparison",
  };
  return Object.entries(where)
    .map(([place, text]) => {
      const words = refused[place as keyof typeof refused];
      return words.length === 0 ? "" : `can't run ${text}: ${words.join(", ")}\n`;
    })
    .join("");
}

async function build(policy: string, flags: BuildFlags): Promise<void> {
  if (flags.output === undefined && flags.print !== true)
    throw new RecoveryLineError("RL_USAGE", "nothing to do", "Name a directory with -o, or add --print.");
  if (flags.print === true && flags.json === true)
    throw new RecoveryLineError(
      "RL_USAGE",
      "--print and --json exclude each other: what --print writes is the policy, as XML",
      "Leave one out.",
    );
  const made = await built(policy);
  if (flags.output !== undefined) await writeComponent(flags.output, made);
  if (flags.print === true) {
    const { printPolicy } = await import("../policy/print-policy.ts");
    await write(printPolicy(made.component));
  } else await tell(policy, made, flags);
}

/** Same policy, same bytes: nothing of time or place goes in. */
async function writeComponent(dir: string, { component, lines }: BuiltPolicy): Promise<void> {
  const { encodeComponent } = await import("../policy/component.ts");
  mkdirSync(dir, { recursive: true });
  writeFileSync(join(dir, "component.json"), encodeComponent(component));
  writeFileSync(join(dir, "lines.json"), `${JSON.stringify(lines)}\n`);
}

async function schema(): Promise<void> {
  const { xmlSchema } = await import("../policy/schema.ts");
  await write(xmlSchema());
}

async function palette(): Promise<void> {
  const made = await import("../policy/palette.ts");
  await writeJson(made.palette());
}

async function reference(): Promise<void> {
  const { loadPolicy, shippedPolicies, trialResults } = await import("../policy/shipped.ts");
  const { referencePage } = await import("../policy/reference.ts");
  await write(referencePage(shippedPolicies().map(loadPolicy), trialResults()));
}

async function list(app: string | undefined, flags: JsonFlag & { readonly log?: string }): Promise<void> {
  if (app !== undefined) return showPlugged(app, flags);
  const { loadPolicy, shippedPolicies } = await import("../policy/shipped.ts");
  const { hashOf } = await import("../policy/component.ts");
  const policies = shippedPolicies().map((name) => {
    const { component } = loadPolicy(name);
    return {
      name,
      version: component.version,
      title: component.title,
      hash: hashOf(component),
      refused: component.refused,
    };
  });
  const plugged = await pluggedIn(flags.log);
  if (flags.json === true) await writeJson({ policies, plugged: plugged ?? null });
  else
    await write(
      `${policies.map(({ name, title }) => `${name.padEnd(16)} ${title}\n`).join("")}${pluggedTable(plugged ?? [])}`,
    );
}
