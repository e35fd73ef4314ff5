/** Judges damage as users meet it: a real folder, the public reader, the computed line, and now and then an owner with LevelDB. */
import { createHash } from "node:crypto";
import { cpSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { computeApp } from "../../src/compute/compute-app.ts";
import { EventLog } from "../../src/log/event-log.ts";
import { openLogReader } from "../../src/log/segment-reader.ts";
import { hasCode } from "../../src/model/errors.ts";
import type { Verdict } from "./judge.ts";

const MODE = { mode: 0o600 } as const;

/** A digest of everything a reader can learn from a log. Throws what reading throws. */
async function contentOf(dir: string): Promise<string> {
  const reader = await openLogReader(dir);
  try {
    const { application, firstChain, lastChain, firstCarried } = reader;
    const hash = createHash("sha256");
    const known = [application, firstChain, lastChain, [...firstCarried]];
    hash.update(JSON.stringify([known, [...reader.heads()], reader.getState("ring")]));
    for await (const { bytes } of reader.blocks()) hash.update(bytes);
    return hash.digest("hex");
  } finally {
    await reader.close();
  }
}

/** What `compute` finds, from cuts or events as it chooses. */
async function lineOf(dir: string): Promise<string> {
  const reader = await openLogReader(dir);
  try {
    const log = { cuts: reader, blocks: () => reader.unchecked(), ends: reader.ends, close: async () => {} };
    const options = { dsm: "sequential", inTransit: "any", workers: 0 } as const;
    const { line, inTransit, outcome } = (await computeApp([{ name: "log", ...log }], options)).line;
    return JSON.stringify([line, inTransit, outcome]);
  } finally {
    await reader.close();
  }
}

/** What an owner reads, which opens the newest segment with LevelDB. */
async function ownedContentOf(dir: string, opened = (): void => undefined): Promise<string> {
  const log = await EventLog.open(dir, { create: false });
  opened();
  try {
    const hash = createHash("sha256");
    hash.update(JSON.stringify([log.application, log.firstChain, log.lastChain, log.getState("ring")]));
    for await (const bytes of log.readBlocks()) hash.update(bytes);
    return hash.digest("hex");
  } finally {
    await log.close();
  }
}

async function verdictOf(truth: string, find: () => Promise<string>): Promise<Verdict> {
  try {
    return (await find()) === truth ? "harmless" : "SILENT: another content";
  } catch (error) {
    const detected = hasCode(error, "RL_CORRUPT_LOG") || hasCode(error, "RL_BAD_BLOCK");
    return detected ? "detected" : `WRONG ERROR: ${String(error)}`;
  }
}

interface Truth {
  readonly content: string;
  readonly line: string;
  readonly owned: string;
}

export class PublicWay {
  readonly #home: string;
  readonly #files: ReadonlyMap<string, Buffer>;
  readonly #truth = new Map<string, Truth>();

  private constructor(home: string, files: ReadonlyMap<string, Buffer>) {
    this.#home = home;
    this.#files = new Map([...files].map(([path, bytes]) => [path, Buffer.from(bytes)])); // others flip bits in theirs
  }

  /** Of a home on disk, which holds these files and is whole. */
  static async of(home: string, files: ReadonlyMap<string, Buffer>): Promise<PublicWay> {
    const way = new PublicWay(home, files);
    for (const app of new Set([...files.keys()].map((path) => path.split("/")[0]!))) {
      const dir = join(home, app);
      const [content, line] = [await contentOf(dir), await lineOf(dir)];
      const owned = await way.#copied(app, undefined, (copy) => ownedContentOf(copy));
      way.#truth.set(app, { content, line, owned });
    }
    return way;
  }

  /** Of the log in which one file holds other bytes. Throws where the computed line is silent about damage. */
  async judge(path: string, bytes: Buffer): Promise<Verdict> {
    const app = path.split("/")[0]!;
    const dir = join(this.#home, app);
    const { content, line } = this.#truth.get(app)!;
    writeFileSync(join(this.#home, path), bytes, MODE);
    try {
      const verdict = await verdictOf(content, () => contentOf(dir));
      const computed = await verdictOf(line, () => lineOf(dir));
      const fits = computed === "harmless" || (computed === "detected" && verdict === "detected");
      if (!fits) return `SILENT: reading is ${verdict}, compute ${computed}`;
      return verdict;
    } finally {
      writeFileSync(join(this.#home, path), this.#files.get(path)!, MODE);
    }
  }

  /** The same by an owner. What it refuses to open it must leave as it is. */
  async judgeOwned(path: string, bytes: Buffer): Promise<Verdict> {
    const app = path.split("/")[0]!;
    return await this.#copied(app, [path, bytes], async (dir) => {
      let opened = false; // then LevelDB may merge tables, damaged values and all
      const read = () =>
        ownedContentOf(dir, () => {
          opened = true;
        });
      const verdict = await verdictOf(this.#truth.get(app)!.owned, read);
      const kept = opened || verdict !== "detected" || readFileSync(join(dir, "..", path)).equals(bytes);
      return kept ? verdict : "SILENT: the damaged file was written over";
    });
  }

  async #copied<T>(
    app: string,
    changed: readonly [string, Buffer] | undefined,
    work: (dir: string) => Promise<T>,
  ): Promise<T> {
    const copy = `${this.#home}.owned`;
    try {
      cpSync(join(this.#home, app), join(copy, app), { recursive: true, mode: 0 });
      if (changed !== undefined) writeFileSync(join(copy, changed[0]), changed[1], MODE);
      return await work(join(copy, app));
    } finally {
      rmSync(copy, { recursive: true, force: true });
    }
  }
}
