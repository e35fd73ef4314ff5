import { createReadStream } from "node:fs";
import { lstat, open, readdir } from "node:fs/promises";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { RecoveryLineError } from "../model/errors.ts";
import type { Event } from "../model/event.ts";
import { RankTranslator } from "./smpi-rank.ts";

/**
 * Time-independent traces of SMPI (SimGrid): a directory with one text file per rank, each line
 * `<rank> <action> <arguments…>`. Every rank is translated on its own, line by line, so memory holds one rank's
 * pending requests and nothing else.
 *
 * Processes are named `rank<N>`, channels `mpi:<src>-<dst>#<tag>` (offsets count messages) and `mpi:<src>-<dst>#coll`.
 */

interface RankFile {
  readonly path: string;
  readonly rank: number;
}

function badTrace(path: string, line: number, what: string): RecoveryLineError {
  return new RecoveryLineError(
    "RL_BAD_INPUT",
    `${path}:${line}: ${what}`,
    "see the README, section Importing, for what is read",
  );
}

/** `0` and the older `p0` both name rank 0; -1 if it names none. */
function parseRank(word: string | undefined): number {
  const match = /^p?(\d{1,9})$/.exec(word ?? "");
  return match ? Number(match[1]) : -1;
}

async function firstRank(path: string): Promise<number> {
  const handle = await open(path);
  try {
    const { buffer, bytesRead } = await handle.read(Buffer.alloc(4096), 0, 4096, 0);
    return parseRank(buffer.toString("utf8", 0, bytesRead).trimStart().split(/\s+/, 1)[0]);
  } finally {
    await handle.close();
  }
}

/** The directory's rank files sorted by rank; files that do not begin with a rank are named in the error. */
async function listRanks(directory: string): Promise<RankFile[]> {
  const files: RankFile[] = [];
  for (const name of (await readdir(directory)).sort()) {
    const path = join(directory, name);
    if (!(await lstat(path)).isFile()) continue;
    const rank = await firstRank(path);
    if (rank < 0) throw badTrace(path, 1, "field 'rank': the line does not begin with a rank number");
    files.push({ path, rank });
  }
  files.sort((a, b) => a.rank - b.rank);
  files.forEach((file, index) => {
    if (file.rank !== index)
      throw badTrace(file.path, 1, `field 'rank': expected a file of rank ${index}, found rank ${file.rank}`);
  });
  if (files.length === 0) throw badTrace(directory, 0, "the directory holds no rank files");
  return files;
}

async function* translateFile(file: RankFile, ranks: number): AsyncGenerator<Event> {
  const translator = new RankTranslator(file.rank, ranks);
  const lines = createInterface({
    input: createReadStream(file.path, "utf8"),
    crlfDelay: Number.POSITIVE_INFINITY,
  });
  let number = 0;
  for await (const line of lines) {
    number += 1;
    const words = line.trim().split(/\s+/);
    if (words[0] === "" || words[0]?.startsWith("#")) continue;
    if (parseRank(words[0]) !== file.rank)
      throw badTrace(file.path, number, `field 'rank': '${words[0]}' in the file of rank ${file.rank}`);
    try {
      yield* translator.translate((words[1] ?? "").toLowerCase(), words.slice(2));
    } catch (error) {
      if (error instanceof RecoveryLineError) throw badTrace(file.path, number, error.message);
      throw error;
    }
  }
}

/**
 * All events of a trace directory, rank after rank.
 * @throws RecoveryLineError RL_BAD_INPUT naming file, line and field, also for actions that can't be expressed as messages.
 */
export async function* readSmpiTrace(directory: string): AsyncGenerator<Event> {
  const files = await listRanks(directory);
  for (const file of files) yield* translateFile(file, files.length);
}
