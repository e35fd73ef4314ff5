/**
 * Putting a tree back: what is below the root and what was stored change places, by renames. The root itself stays, it may be a mount
 * point. All that a crash can leave is told by the work folder, which keeps the old tree until the restart has ended well:
 *
 *     <work>/state.json     the step, the root as it was, the names that come in
 *     <work>/new/           built here, then moved in
 *     <work>/old/           what stood below the root
 *     <work>/extra/         what somebody else made there meanwhile
 *
 *     ready ──> emptying ──> filling ──> whole ──> (gone)
 *       │           └───────────┴──> returning ──> (gone)
 *       └──> (gone)
 *
 * A mixture lies below the root from `emptying` to `whole`: `unfinished` finds it, nothing may be started on it. In each step it is told by
 * the folders what has been moved: a name in `old` has left the root, a name in `new` is not in the root.
 */
import { createHash } from "node:crypto";
import { mkdirSync, readFileSync, renameSync, rmdirSync, rmSync, writeFileSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import { makeFolders } from "../../host/make-folders.ts";
import { RecoveryLineError } from "../../model/errors.ts";
import { buildTree, setFacts } from "./build-tree.ts";
import type { StoredTree } from "./stored-tree.ts";
import { syncAll, syncEach } from "./sync-files.ts";
import { type ByteString, below, byteString, bytesOf, shown, type TreeEntry } from "./tree-entry.ts";
import { entryOf, isGone, namesIn, statOf, WORK_PREFIX } from "./walk-tree.ts";

export type ExchangeStep = "ready" | "emptying" | "filling" | "whole" | "returning";

interface ExchangeState {
  readonly format: 1;
  readonly root: ByteString;
  readonly step: ExchangeStep;
  /** The root as it was; absent where there was none. */
  readonly before?: TreeEntry;
  /** The root as it shall be, and all its names. */
  readonly after: TreeEntry;
  readonly names: readonly ByteString[];
}

const STATE = "state.json";
const NEW = "new";
const OLD = "old";
const EXTRA = "extra";

/** Called before each change on the disk; a test throws in it. */
export type BeforeChange = (what: string) => void;

export class TreeExchange {
  readonly work: ByteString;
  #state: ExchangeState;
  readonly #beforeChange: BeforeChange;

  private constructor(work: ByteString, state: ExchangeState, beforeChange: BeforeChange) {
    this.work = work;
    this.#state = state;
    this.#beforeChange = beforeChange;
  }

  /**
   * Builds the tree aside, durable on return; nothing of the old one is touched, but a root that is gone is made. `id` tells exchanges of one
   * root apart: `[A-Za-z0-9._-]`. What an earlier call with it left unready is cleared away. Throws RL_LOCKED for one under way.
   */
  static async stage(
    tree: StoredTree,
    root: string,
    id: string,
    beforeChange: BeforeChange = () => undefined,
  ): Promise<TreeExchange> {
    const place = byteString(root);
    refuseUnfinished(root);
    const before = rootEntry(place);
    beforeChange("make the work folder");
    if (before === undefined) makeFolders(root);
    const work = makeWork(place, id);
    if (before !== undefined) setFacts(place, before);
    const folder = join(work, NEW);
    try {
      for (const name of [NEW, OLD, EXTRA]) mkdirSync(bytesOf(join(work, name)), 0o700);
      await buildTree(tree, folder);
      await syncAll(shown(work));
    } catch (error) {
      rmSync(bytesOf(work), { recursive: true, force: true }); // a full disk would stay full
      if (before !== undefined) setFacts(place, before);
      throw error;
    }
    const after = tree.entries[0]!;
    const state: ExchangeState = { format: 1, root: place, step: "ready", after, names: namesIn(folder) };
    const exchange = new TreeExchange(
      work,
      before === undefined ? state : { ...state, before },
      beforeChange,
    );
    await exchange.#enter("ready");
    return exchange;
  }

  /** Those of a root that a crash has left, ready or further. */
  static find(root: string, beforeChange: BeforeChange = () => undefined): TreeExchange[] {
    const place = byteString(root);
    return workFolders(place).flatMap((work) => {
      const state = readState(work);
      return state === undefined ? [] : [new TreeExchange(work, state, beforeChange)];
    });
  }

  get step(): ExchangeStep {
    return this.#state.step;
  }

  /** The stored tree is there on return, the old one aside. */
  async forward(): Promise<void> {
    if (this.step === "returning") await this.#return();
    if (this.step === "ready" || this.step === "returning") await this.#enter("emptying");
    if (this.step === "emptying") {
      for (const name of this.#namesInRoot()) this.#moveAside(name);
      await this.#enter("filling");
    }
    if (this.step !== "filling") return;
    for (const name of namesIn(this.#in(NEW))) {
      if (statOf(this.#inRoot(name)) !== undefined) this.#moveAside(name);
      this.#move(join(this.#in(NEW), name), this.#inRoot(name));
    }
    this.#setRoot(this.#state.after);
    await this.#enter("whole");
  }

  /** The old tree is there on return, the work folder gone, unless somebody else's files are in it. */
  async back(): Promise<void> {
    if (this.step !== "ready") {
      await this.#enter("returning");
      await this.#return();
    }
    this.#beforeChange("remove the work folder");
    const { before, root } = this.#state;
    if (namesIn(this.#in(EXTRA)).length > 0) rmSync(bytesOf(join(this.work, STATE)), { force: true });
    else this.#removeWork();
    if (before !== undefined) this.#setRoot(before);
    else if (namesIn(root).length === 0 && statOf(root) !== undefined) rmdirSync(bytesOf(root));
    await syncEach([shown(dirname(root))]);
  }

  /** Ends it. `keep`: the old tree stays aside, and its folder is returned; else it is removed. */
  async end(keep: boolean): Promise<string | undefined> {
    if (this.step !== "whole") throw new TypeError(`the exchange of ${shown(this.#state.root)} is not whole`);
    this.#beforeChange("end");
    const kept = keep ? this.#keepWork() : undefined;
    if (!keep) this.#removeWork();
    this.#setRoot(this.#state.after); // a work folder inside of the root has moved its time
    await syncEach([shown(dirname(this.work))]);
    return kept;
  }

  /** Under a name that no later exchange takes. */
  #keepWork(): string {
    const kept = `${this.work}-kept-${Date.now()}`;
    rmSync(bytesOf(join(this.work, STATE)), { force: true });
    renameSync(bytesOf(this.work), bytesOf(kept));
    return shown(join(kept, OLD));
  }

  /** What was moved in goes out, what was moved out goes in; again from any state that it was cut off in. */
  async #return(): Promise<void> {
    for (const name of this.#state.names)
      if (statOf(join(this.#in(NEW), name)) === undefined && statOf(this.#inRoot(name)) !== undefined)
        this.#move(this.#inRoot(name), join(this.#in(NEW), name));
    for (const name of namesIn(this.#in(OLD))) {
      if (statOf(this.#inRoot(name)) !== undefined) this.#moveExtra(name);
      this.#move(join(this.#in(OLD), name), this.#inRoot(name));
    }
    if (this.#state.before !== undefined) this.#setRoot(this.#state.before);
    await this.#sync();
  }

  #in(folder: string): ByteString {
    return join(this.work, folder);
  }

  #inRoot(name: ByteString): ByteString {
    return below(this.#state.root, name);
  }

  #namesInRoot(): ByteString[] {
    return namesIn(this.#state.root).filter((name) => !name.startsWith(WORK_PREFIX));
  }

  #moveAside(name: ByteString): void {
    if (statOf(join(this.#in(OLD), name)) !== undefined) this.#moveExtra(name);
    else this.#move(this.#inRoot(name), join(this.#in(OLD), name));
  }

  #moveExtra(name: ByteString): void {
    const taken = namesIn(this.#in(EXTRA)).length;
    this.#move(this.#inRoot(name), join(this.#in(EXTRA), `${taken + 1}`));
  }

  #move(from: ByteString, to: ByteString): void {
    this.#beforeChange(`move ${shown(from)}`);
    renameSync(bytesOf(from), bytesOf(to));
  }

  #setRoot(entry: TreeEntry): void {
    this.#beforeChange("set the root's attributes");
    setFacts(this.#state.root, entry);
  }

  /** Durable on return, and all that was moved before it. */
  async #enter(step: ExchangeStep): Promise<void> {
    await this.#sync();
    this.#beforeChange(`enter ${step}`);
    this.#state = { ...this.#state, step };
    const partial = join(this.work, `.${STATE}`);
    writeFileSync(bytesOf(partial), JSON.stringify(this.#state), { mode: 0o600 });
    await syncEach([shown(partial)]);
    renameSync(bytesOf(partial), bytesOf(join(this.work, STATE)));
    await syncEach([shown(this.work)]);
  }

  async #sync(): Promise<void> {
    await syncEach([this.#in(NEW), this.#in(OLD), this.#state.root].map(shown));
  }

  /** The state last: without it nobody would know what else is in there. */
  #removeWork(): void {
    for (const name of [NEW, OLD, EXTRA]) rmSync(bytesOf(this.#in(name)), { recursive: true, force: true });
    rmSync(bytesOf(this.work), { recursive: true, force: true });
  }
}

function rootEntry(root: ByteString): TreeEntry | undefined {
  const stat = statOf(root);
  if (stat === undefined || stat.isDirectory()) return stat && entryOf(root, "", stat);
  throw new RecoveryLineError(
    "RL_REFUSED",
    `${shown(root)} is no folder any more, so its data can't be put back`,
    "Move away what stands there now.",
  );
}

/** Throws RL_LOCKED where a tree is being put back below `root`, or was when it was cut off: what lies there is a mixture. */
export function refuseUnfinished(root: string): void {
  const exchange = TreeExchange.find(root).find(({ step }) => step !== "ready");
  if (exchange === undefined) return;
  throw new RecoveryLineError(
    "RL_LOCKED",
    `${root} is being put back (${exchange.step}): what lies there may be a mixture of two states`,
    `Call restart again. What stood there before is kept in ${shown(exchange.work)}.`,
  );
}

/** Beside the root, where that is the same file system by a rename's measure; else in the root. */
function makeWork(root: ByteString, id: string): ByteString {
  for (const work of placesOf(root).map((prefix) => prefix + id)) {
    rmSync(bytesOf(work), { recursive: true, force: true });
    if (tryMake(work, root)) return work;
  }
  throw new RecoveryLineError(
    "RL_SYSTEM",
    `no folder can be made in ${shown(root)}`,
    "Data is put back by renames: its folder must be writable.",
  );
}

function tryMake(work: ByteString, root: ByteString): boolean {
  const probe = join(work, "probe");
  const inRoot = join(root, `${WORK_PREFIX}probe`);
  try {
    mkdirSync(bytesOf(work), 0o700);
    mkdirSync(bytesOf(probe), 0o700);
    renameSync(bytesOf(probe), bytesOf(inRoot));
    rmdirSync(bytesOf(inRoot));
    return true;
  } catch (error) {
    rmSync(bytesOf(work), { recursive: true, force: true });
    if (["EXDEV", "EACCES", "EPERM", "EROFS"].includes((error as NodeJS.ErrnoException).code ?? ""))
      return false;
    throw error;
  }
}

/** How the names of its work folders begin. */
function placesOf(root: ByteString): [beside: ByteString, inside: ByteString] {
  const name = createHash("sha256")
    .update(bytesOf(basename(root)))
    .digest("hex")
    .slice(0, 8);
  return [join(dirname(root), `${WORK_PREFIX}${name}-`), join(root, WORK_PREFIX)];
}

function workFolders(root: ByteString): ByteString[] {
  return placesOf(root).flatMap((prefix) =>
    namesIn(dirname(prefix))
      .map((name) => join(dirname(prefix), name))
      .filter((path) => path.startsWith(prefix)),
  );
}

/** undefined: it was not ready yet, or has ended and is kept. */
function readState(work: ByteString): ExchangeState | undefined {
  try {
    return JSON.parse(readFileSync(bytesOf(join(work, STATE)), "utf8")) as ExchangeState; // renamed when it was whole
  } catch (error) {
    if (isGone(error)) return undefined;
    throw error;
  }
}
