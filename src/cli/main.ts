#!/usr/bin/env node
/** The program: the command line of this process. */
import { EXIT } from "../terminal/exit-codes.ts";
import { failUnlessUnread } from "../terminal/outlive-readers.ts";
import { runCommandLine } from "./command-line.ts";

/**
 * A reader that went away (`| head`) is no failure, and nothing can be written to it any more; a full disk is one. That what is said beside
 * the output can't be written ends nothing.
 */
function leaveWhenOutputEnds(): void {
  process.stdout.on("error", (error: NodeJS.ErrnoException) => {
    if (error.code === "EPIPE") process.exit(process.exitCode ?? EXIT.clean);
    process.stderr.write(`recovery-line: the output can't be written: ${error.message}\n`);
    process.exit(EXIT.other);
  });
  process.stderr.on("error", failUnlessUnread);
}

leaveWhenOutputEnds();
await runCommandLine(process.argv.slice(2));
