/** What becomes of a command when nobody can be told any more. */
import { EXIT } from "./exit-codes.ts";

/** A reader that is gone (Ctrl-C ends a `| tee`, too) changes nothing; a full disk is told by the exit status. */
export function failUnlessUnread({ code }: NodeJS.ErrnoException): void {
  if (code !== "EPIPE") process.exitCode ||= EXIT.other;
}

/** What is under way (a restart, a collector) goes on, whoever still reads its output. */
export function outliveReaders(): void {
  for (const stream of [process.stdout, process.stderr])
    stream.removeAllListeners("error").on("error", failUnlessUnread);
}
