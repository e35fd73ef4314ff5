/** Input files by name, `-` = standard input. */
import { createReadStream } from "node:fs";
import { basename } from "node:path";
import { RecoveryLineError } from "../model/errors.ts";

const CHUNK_BYTES = 256 * 1024;

/** What messages call the file. */
export function inputName(file: string): string {
  return file === "-" ? "standard input" : file;
}

/** What stands for the application where nobody named one. */
export function inputBaseName(file: string): string {
  return file === "-" ? "-" : basename(file);
}

/** The bytes of a file, in chunks. Throws RL_USAGE where it can't be opened or read. */
export async function* readInput(file: string): AsyncGenerator<Uint8Array> {
  const stream: AsyncIterable<Uint8Array> =
    file === "-" ? process.stdin : createReadStream(file, { highWaterMark: CHUNK_BYTES });
  try {
    yield* stream;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).syscall === undefined) throw error;
    throw cantRead(file, error as Error);
  }
}

/** RL_USAGE that names the file and the system's reason. */
export function cantRead(file: string, cause: Error): RecoveryLineError {
  return new RecoveryLineError(
    "RL_USAGE",
    `can't read ${inputName(file)}: ${cause.message}`,
    "Name a file that exists and that you may read; - is standard input.",
    cause,
  );
}
