/** `recovery-line sdk-events`: the logs of programs on the SDK as JSON Lines (interchange.md). */
import type { Command } from "commander";
import { checkedAppName, resolveHome } from "../logs/home.ts";
import { write } from "../terminal/print.ts";
import { LOG_DEFAULT } from "./log-option.ts";

const HELP = `
Programs on the SDK (docs/sdk.md) keep their own logs in <log>/<app>/sdk/. This prints what they prove, for compute and
import. It may be used while processes run: then it is a consistent moment of the recent past.

Examples:
  recovery-line sdk-events ring | recovery-line compute --from - --failed a
  recovery-line sdk-events ring --process a`;

/** Text collected before it is written, characters. */
const WRITE_CHARACTERS = 256 * 1024;

export function register(program: Command): void {
  program
    .command("sdk-events")
    .summary("print the logs of programs on the SDK as JSON Lines")
    .description("Prints the events in the logs of an application's SDK processes.")
    .argument("<app>", "application")
    .option("--log <dir>", `log directory ${LOG_DEFAULT}`)
    .option("--process <name>", "only this process")
    .addHelpText("after", HELP)
    .action(print);
}

async function print(
  app: string,
  flags: { readonly log?: string; readonly process?: string },
): Promise<void> {
  const { sdkTrace } = await import("../sdk/trace.ts");
  const { printEvent } = await import("../format/interchange.ts");
  let text = "";
  for (const { process, events } of sdkTrace(resolveHome(flags.log), checkedAppName(app))) {
    if (flags.process !== undefined && flags.process !== process) continue;
    for (const event of events) {
      text += `${printEvent(event)}\n`;
      if (text.length < WRITE_CHARACTERS) continue;
      await write(text);
      text = "";
    }
  }
  await write(text);
}
