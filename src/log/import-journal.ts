/**
 * Large imports, all or nothing: a redo journal beside the log.
 *
 * A log commits at most what fits into memory, so a large import takes many commits. Its events, checked and in canonical form, first
 * become the file `import-<id>.jsonl` in the log's folder (synced, then renamed into place: from here on the import WILL happen). Each
 * commit stores with its blocks how many of them it has applied; whoever opens the log next goes on from there. The file is removed
 * when all are in. What fits into one commit needs no journal.
 */
import { randomUUID } from "node:crypto";
import { createReadStream } from "node:fs";
import { readdir, rename, unlink } from "node:fs/promises";
import { join } from "node:path";
import { EventColumns } from "../format/event-columns.ts";
import { type EventCheck, readEventBatches } from "../format/interchange.ts";
import { syncFolder } from "../host/replace-file.ts";
import type { Event } from "../model/event.ts";
import { IMPORT_BATCH_BYTES, IMPORT_BATCH_EVENTS } from "../model/limits.ts";
import type { EventLog } from "./event-log.ts";

/** State key: how far the newest import is. */
const STATE_KEY = "import";

interface Applied {
  readonly id: string;
  /** Events of the journal that are in the log. */
  readonly events: number;
}

const JOURNAL = /^import-([0-9a-f-]{36})\.jsonl$/;
const READ_BYTES = 1024 * 1024;

/** The file was checked when it was staged, against the history it was to follow. */
const CHECKED: EventCheck = { add: () => undefined };

/** Appends the staged file's events. On return they are committed and the file is gone; after a crash all or none will be there. */
export async function appendStaged(
  dir: string,
  log: EventLog,
  file: string,
  size: { events: number; bytes: number },
): Promise<void> {
  if (size.events <= IMPORT_BATCH_EVENTS && size.bytes <= IMPORT_BATCH_BYTES) {
    await apply(log, file, undefined);
    await unlink(file);
    return;
  }
  const id = randomUUID();
  const journal = join(dir, `import-${id}.jsonl`);
  await rename(file, journal);
  await syncFolder(dir);
  await apply(log, journal, id);
  await unlink(journal);
}

/** Completes an import that a crash cut off. `log` is the open log of `dir`. */
export async function finishImport(dir: string, log: EventLog): Promise<void> {
  for (const { path, id } of await journals(dir)) {
    await apply(log, path, id);
    await unlink(path);
  }
}

/** True if a crash cut off an import into the log of `dir`. */
export async function isImportCutOff(dir: string): Promise<boolean> {
  return (await journals(dir)).length > 0;
}

async function journals(dir: string): Promise<{ path: string; id: string }[]> {
  const names = await readdir(dir).catch((error: NodeJS.ErrnoException) => {
    if (error.code === "ENOENT" || error.code === "ENOTDIR") return [];
    throw error;
  });
  return names.flatMap((name) => {
    const id = JOURNAL.exec(name)?.[1];
    return id === undefined ? [] : [{ path: join(dir, name), id }];
  });
}

/** Appends and commits batch by batch; with `id` it goes on behind what earlier commits have applied. */
async function apply(log: EventLog, file: string, id: string | undefined): Promise<void> {
  const state = log.getState(STATE_KEY) as Applied | undefined;
  let skip = id !== undefined && state?.id === id ? state.events : 0;
  let events = skip;
  const batch = new ImportBatch();
  const commit = async (): Promise<void> => {
    events += batch.events;
    await batch.appendTo(log);
    if (id !== undefined) log.putState(STATE_KEY, { id, events } satisfies Applied);
    await log.commit();
  };
  for await (const piece of readEventBatches(batch.counting(file), file, CHECKED)) {
    const left = piece.slice(skip);
    skip = Math.max(0, skip - piece.length);
    for (const event of left) batch.add(event);
    if (batch.isFull) await commit();
  }
  if (batch.events > 0) await commit();
}

/** Events by process, in order of each process's first one: the order that `export` gives back. */
class ImportBatch {
  readonly #columns = new Map<string, EventColumns>();
  events = 0;
  #bytes = 0;

  /** The file's bytes; what is handed out counts towards this batch. */
  async *counting(file: string): AsyncGenerator<Uint8Array> {
    const chunks: AsyncIterable<Uint8Array> = createReadStream(file, { highWaterMark: READ_BYTES });
    for await (const chunk of chunks) {
      this.#bytes += chunk.length;
      yield chunk;
    }
  }

  add(event: Event): void {
    let columns = this.#columns.get(event.process);
    if (columns === undefined) {
      columns = new EventColumns(event.process);
      this.#columns.set(event.process, columns);
    }
    columns.push(event);
    this.events += 1;
  }

  /** Never true before the end of a file that `appendStaged` takes as one commit. */
  get isFull(): boolean {
    return this.events > IMPORT_BATCH_EVENTS || this.#bytes > IMPORT_BATCH_BYTES;
  }

  async appendTo(log: EventLog): Promise<void> {
    for (const columns of this.#columns.values()) await log.append(columns);
    this.#columns.clear();
    this.events = 0;
    this.#bytes = 0;
  }
}
