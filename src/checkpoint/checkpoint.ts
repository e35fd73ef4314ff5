/**
 * Checkpoints of processes: freeze, cut vector, image, record in the log, thaw.
 *
 * The record is appended while the process stands still: its position in the history is then exactly the cut, and the image
 * is durable before the log names it. What fails leaves no record, no image, and a running process.
 */

import { readFileSync } from "node:fs";
import type { Writable } from "node:stream";
import { setTimeout as sleep } from "node:timers/promises";
import type { ProcessCgroup } from "../host/cgroups.ts";
import { standsStill, whileFrozen } from "../host/freeze.ts";
import { listenersOf, networkOf, networksOf, openConnections } from "../host/open-connections.ts";
import type { OpenFile } from "../host/open-files.ts";
import { whileBlocked, whileNewcomersWait } from "../host/port-block.ts";
import { onlyRoot, treeRoot, treeRoots } from "../host/process-tree.ts";
import { atSomeMoment, type CheckpointDriver, type DriverNotes, NotNow } from "../images/driver.ts";
import {
  type ImageFacts,
  imagesFolder,
  MANIFEST_FORMAT,
  NewImage,
  type SharedPipe,
} from "../images/image-store.ts";
import type { CutAnswer } from "../model/collector-answers.ts";
import { hasCode, RecoveryLineError } from "../model/errors.ts";
import type { CheckpointEvent, Event } from "../model/event.ts";
import { ACCEPT_LIMIT_MS, ACCEPT_PAUSE_MS, DRIVER_LIMIT_MS, FREEZE_LIMIT_MS } from "../model/limits.ts";
import type { ProcessData } from "../model/stored-process.ts";
import { type UnseenChannel, VOUCHABLE_UNSEEN } from "../model/unseen-channel.ts";
import { DataSave, type SavedTree } from "./process-data.ts";
import { copiesRefused, pipeNotInImage } from "./refuse-copies.ts";

/** What a checkpoint needs of the collector. */
interface CheckpointLog {
  /** Looks what processes of the application use together now; in the log on return. */
  unseen(app: string): Promise<readonly UnseenChannel[]>;
  cut(app: string, process: string): Promise<CutAnswer>;
  /** `unused`: a number of an earlier call under which nothing was recorded. */
  nextCheckpoint(app: string, process: string, unused?: number): Promise<number>;
  /** All of them, or none. `lives`: incarnations of their processes, which must be these still, and stand still, when they are written. */
  appendAll(
    app: string,
    events: readonly Event[],
    lives: readonly number[],
  ): Promise<{ positions: readonly number[] }>;
}

/** One process to checkpoint. */
export interface CheckpointTarget {
  readonly app: string;
  readonly process: string;
  readonly incarnation: number;
  readonly cgroup: ProcessCgroup;
  /** Directory trees that are part of its state. */
  readonly data?: ProcessData;
  /** The driver's own options that it was started with. */
  readonly driverOptions?: readonly string[];
  /** Who takes its image, where that is another one than for all, and what `usable` of its record says. */
  readonly own?: Pick<CheckpointOptions, "driver" | "usable">;
}

export interface CheckpointOptions {
  readonly home: string;
  readonly log: CheckpointLog;
  readonly driver: CheckpointDriver;
  /** What `usable` of the records says: false where nothing can bring the process back. */
  readonly usable: boolean;
  /** Longest time for one image, in ms. */
  readonly limitMs?: number;
  /** `performance.now()` at which all go on, whatever has been done: then nothing is recorded. Absent: when all is done. */
  readonly deadlineMs?: number;
  /** Nobody gets a new connection to them meanwhile: no image holds one that waits to be accepted, and busy servers always have some. */
  readonly holdNew?: boolean;
  /** Numbers that earlier tries of this checkpoint got, by process: they are used before others, and what this try gets is noted there. */
  readonly numbers?: Map<string, number>;
  /** While the given ones stand still: who must be in the set besides them. Asked until nobody is; absent: nobody. */
  readonly more?: (standing: readonly CheckpointTarget[]) => Promise<readonly CheckpointTarget[]>;
}

export interface CheckpointResult {
  readonly process: string;
  readonly checkpoint: number;
  readonly position: number;
  readonly usable: boolean;
  /** Reference of the image, absent with driver none. */
  readonly image?: string;
  /** False: the record carries no cut, so it heals no gap. */
  readonly cut: boolean;
  /** Why there is no cut, or what it does not cover. */
  readonly uncaptured: readonly string[];
  readonly connections: number;
  readonly imageBytes: number;
  /** Directory trees that were saved with it. */
  readonly data: readonly SavedTree[];
  /** Files that it may write elsewhere than at their ends, and that no image and no data hold. */
  readonly inPlace: readonly string[];
  /** How long the process stood still, and what of it went into what, in ms. */
  readonly frozenMs: number;
  readonly phasesMs: Readonly<Record<"freeze" | "cut" | "dump" | "data" | "store" | "append", number>>;
}

/**
 * All stand still at one time; records are appended once every image is there: a failure leaves none of them.
 * Throws RL_LOCKED, RL_TIMEOUT, RL_DRIVER, RL_REFUSED where one image would hold a copy of what another process uses as well, and what the
 * collector throws.
 */
export async function checkpointTogether(
  targets: readonly CheckpointTarget[],
  options: CheckpointOptions,
): Promise<CheckpointResult[]> {
  const works: Work[] = [];
  try {
    const frozenMs = await withoutNewcomers(targets, options, () =>
      standing(targets, works, options, takeAll),
    );
    return works.map((work) => work.result(frozenMs));
  } catch (error) {
    for (const work of works) await work.discard();
    const { syscall } = error as NodeJS.ErrnoException; // a file below /proc, or of the cgroup, goes with what it is about
    throw (syscall === undefined ? undefined : endedMeanwhile(works)) ?? error;
  }

  /** While they stand still. */
  async function takeAll(guard: Writable, sinceMs: number): Promise<number> {
    const shared = await answered(options.log.unseen(targets[0]?.app ?? ""), options);
    for (const work of works) await work.readCut(sinceMs);
    for (const work of works) work.takeTied(shared, works);
    for (const work of works) if (work.driver.images) work.refuseCopies(shared);
    await takeImages(works, guard);
    inTime(options);
    await record(works, options);
    return performance.now() - sinceMs;
  }
}

/** The same at a moment at which it can be (`atSomeMoment`): from the second try on nobody gets a new connection meanwhile. */
export function checkpointAtSomeMoment(
  targets: readonly CheckpointTarget[],
  options: Omit<CheckpointOptions, "holdNew" | "numbers">,
): Promise<CheckpointResult[]> {
  const numbers = new Map<string, number>();
  return atSomeMoment((tried) => checkpointTogether(targets, { ...options, holdNew: tried > 0, numbers }));
}

/** Where that is asked for: what waits to be accepted gets a moment for it, and nothing new comes. Without nft as without being asked. */
async function withoutNewcomers(
  targets: readonly CheckpointTarget[],
  { holdNew, driver }: CheckpointOptions,
  work: () => Promise<number>,
): Promise<number> {
  const app = targets[0]?.app;
  if (holdNew !== true || !driver.images || app === undefined) return work();
  const pids = targets.flatMap(({ cgroup }) => cgroup.pids());
  const listeners = () => listenersOf(pids);
  let held = false;
  try {
    return await whileNewcomersWait(
      app,
      networksOf(pids).map((network) => ({
        network,
        ports: listenersOf(pids.filter((pid) => networkOf(pid) === networkOf(network))).map(
          ({ port }) => port,
        ),
      })),
      async () => {
        held = true;
        const untilMs = performance.now() + ACCEPT_LIMIT_MS;
        do await sleep(ACCEPT_PAUSE_MS);
        while (performance.now() < untilMs && listeners().some(({ waiting }) => waiting > 0));
        return work();
      },
    );
  } catch (error) {
    if (held || !hasCode(error, "RL_NOT_SUPPORTED")) throw error;
    return work();
  }
}

/** Does the work while they stand still, and who else must be in the set; all of them are in `works` then. */
async function standing(
  targets: readonly CheckpointTarget[],
  works: Work[],
  options: CheckpointOptions,
  work: (guard: Writable, sinceMs: number) => Promise<number>,
): Promise<number> {
  inTime(options);
  for (const target of targets) {
    const one = new Work(target, options);
    works.push(one);
    one.look();
    await one.prepareData();
  }
  const own = works.filter(({ target }) => targets.includes(target));
  const sinceMs = performance.now();
  const held = await Promise.allSettled(own.map((one) => one.hold())); // all are known before one is let go
  for (const one of held) if (one.status === "rejected") throw one.reason;
  const cgroups = (held: boolean): ProcessCgroup[] =>
    own.filter(({ driver }) => (driver.hold !== undefined) === held).map(({ target }) => target.cgroup);
  return whileFrozen(
    cgroups(false),
    async (guard, frozenMs) => {
      inTime(options);
      const more =
        options.more === undefined
          ? []
          : await answered(options.more(works.map(({ target }) => target)), options);
      inTime(options);
      const fromMs = cgroups(true).length === 0 ? frozenMs : sinceMs;
      return more.length === 0 ? work(guard, fromMs) : standing(more, works, options, work);
    },
    cgroups(true),
  );
}

function inTime({ deadlineMs = Number.POSITIVE_INFINITY }: CheckpointOptions): void {
  if (performance.now() >= deadlineMs) throw tooLate();
}

function tooLate(): RecoveryLineError {
  return new RecoveryLineError(
    "RL_TIMEOUT",
    "the checkpoint is not done within the time that its processes may stand still",
    "They go on, and nothing of it is recorded. Give it more time.",
  );
}

/** What the collector was asked for: a collector that does not answer keeps nobody still beyond the deadline. */
async function answered<T>(asked: Promise<T>, { deadlineMs }: CheckpointOptions): Promise<T> {
  if (deadlineMs === undefined) return asked;
  asked.catch(() => undefined); // nobody may wait for it any more
  let timer: NodeJS.Timeout | undefined;
  const up = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(tooLate()), Math.max(0, deadlineMs - performance.now()));
  });
  return Promise.race([asked, up]).finally(() => clearTimeout(timer));
}

/**
 * Several at one instant: the kernels of standing processes go on receiving and acknowledging, so bytes could pass between one image
 * and the next and be in neither. Their connections hear nothing until the last image is there.
 */
function takeImages(works: readonly Work[], guard: Writable): Promise<void> {
  const take = async (): Promise<void> => {
    for (const work of works) await work.takeImage(guard);
  };
  const first = works[0];
  if (!works.some(({ driver }) => driver.images) || works.length < 2 || first === undefined) return take();
  const pids = works.flatMap((work) => work.pids);
  return whileBlocked(first.app, openConnections(pids), networksOf(pids), take);
}

/** All of them in one commit: those that are tied count only together. */
async function record(works: readonly Work[], options: CheckpointOptions): Promise<void> {
  const fromMs = performance.now();
  const events = works.map((work) => work.beginRecord());
  const lives = works.map(({ target }) => target.incarnation);
  const { positions } = await answered(options.log.appendAll(works[0]!.app, events, lives), options).catch(
    (error: unknown) => {
      throw (hasCode(error, "RL_TIMEOUT") ? endedMeanwhile(works) : undefined) ?? error;
    },
  );
  works.forEach((work, at) => {
    work.recorded(positions[at]!, performance.now() - fromMs);
  });
}

/** Whoever does not stand still any more may have been killed, or removed by its runtime. */
function endedMeanwhile(works: readonly Work[]): RecoveryLineError | undefined {
  const ended = works.find(({ target }) => !target.cgroup.populated);
  if (ended === undefined) return undefined;
  return new RecoveryLineError(
    "RL_UNKNOWN_PROCESS",
    `process ${ended.target.process} of ${ended.app} has ended while it was being checkpointed: nothing of it is recorded`,
    "Call again: what has ended is left out, unless you name it.",
  );
}

/** One process on its way through the phases; each phase is timed. */
class Work {
  readonly #target: CheckpointTarget;
  readonly #options: CheckpointOptions;
  readonly #phasesMs = { freeze: 0, cut: 0, dump: 0, data: 0, store: 0, append: 0 };
  #cut: CutAnswer | undefined;
  #index = 0;
  #position = 0;
  #pids: readonly number[] = [];
  /** Of what a driver holds: it may have died since. */
  #heldRoot: number | undefined;
  #image: NewImage | undefined;
  #reference: string | undefined;
  #imageBytes = 0;
  #save: DataSave | undefined;
  #data: readonly SavedTree[] = [];
  #inPlace: readonly string[] = [];
  #appending = false;
  #pipes: readonly SharedPipe[] = [];

  constructor(target: CheckpointTarget, options: CheckpointOptions) {
    this.#target = target;
    this.#options = options;
  }

  async #timed<T>(phase: keyof CheckpointResult["phasesMs"], work: () => Promise<T>): Promise<T> {
    const from = performance.now();
    try {
      return await work();
    } finally {
      this.#phasesMs[phase] += performance.now() - from;
    }
  }

  get app(): string {
    return this.#target.app;
  }

  get driver(): CheckpointDriver {
    return (this.#target.own ?? this.#options).driver;
  }

  get #usable(): boolean {
    return (this.#target.own ?? this.#options).usable;
  }

  /** A driver that makes it stand still itself does so now. */
  async hold(): Promise<void> {
    const { driver } = this;
    if (driver.hold === undefined) return;
    const { cgroup, data, process } = this.#target;
    this.#pids = cgroup.pids();
    const roots = treeRoots(this.#pids);
    if (roots.length > 1)
      throw new NotNow(
        `${process} is ${roots.length} separate trees (roots ${roots.slice(0, 8).join(", ")}): a command that was brought into the container, such as its health check, is in no image`,
      );
    const image = await this.#begin();
    this.#heldRoot = onlyRoot(roots, process);
    await driver.hold({
      folder: image.files,
      rootPid: this.#heldRoot,
      pids: this.#pids,
      cgroupPath: cgroup.path,
      limitMs: this.#limitMs,
      dataRoots: data?.roots ?? [],
    });
  }

  get #limitMs(): number {
    const { deadlineMs = Number.POSITIVE_INFINITY, limitMs = DRIVER_LIMIT_MS } = this.#options;
    return Math.min(limitMs, Math.max(1, Math.ceil(deadlineMs - performance.now())));
  }

  get target(): CheckpointTarget {
    return this.#target;
  }

  get pids(): readonly number[] {
    return this.#pids;
  }

  /** Nothing stands still for an image that can't be. */
  look(): void {
    const { cgroup, data, driverOptions = [] } = this.#target;
    this.driver.look({
      pids: cgroup.pids(),
      dataRoots: data?.roots ?? [],
      options: driverOptions,
    });
  }

  /** What of its directory trees can be copied while it still runs. */
  async prepareData(): Promise<void> {
    const { app, process, cgroup, data } = this.#target;
    if (data === undefined || !this.driver.images) return;
    const image = await this.#begin();
    const images = imagesFolder(this.#options.home, app, process);
    this.#save = await DataSave.prepare(data, (number) => image.data(number), images, cgroup.pids());
  }

  async #numbered(): Promise<number> {
    if (this.#index !== 0) return this.#index;
    const { log, numbers } = this.#options;
    const { app, process } = this.#target;
    this.#index = await answered(log.nextCheckpoint(app, process, numbers?.get(process)), this.#options);
    numbers?.set(process, this.#index);
    return this.#index;
  }

  async #begin(): Promise<NewImage> {
    const { home } = this.#options;
    const { app, process } = this.#target;
    this.#image ??= await NewImage.begin(home, app, process, () => this.#numbered());
    return this.#image;
  }

  async readCut(sinceMs: number): Promise<void> {
    const { app, process, cgroup } = this.#target;
    this.#phasesMs.freeze = performance.now() - sinceMs;
    await this.#timed("cut", async () => {
      const { log } = this.#options;
      this.#cut = await answered(log.cut(app, process), this.#options);
      if (this.driver.images) await this.#begin();
      else await this.#numbered();
      this.#pids = cgroup.pids();
    });
  }

  /** Its pipes to others that have their checkpoints at this moment, too. Throws RL_REFUSED, and RL_DRIVER for a partner that came too late. */
  takeTied(shared: readonly UnseenChannel[], works: readonly Work[]): void {
    const tied = shared.filter((one) => one.process === this.#target.process && this.#isTied(one));
    const [first] = tied;
    if (first === undefined) return;
    const { driver } = this;
    if (!driver.holdsPipes) throw pipeNotInImage(driver.name, first);
    this.#pipes = tied.map(({ what, other }) => {
      const found = works.find(({ target }) => target.process === other);
      if (found === undefined)
        throw new NotNow(`${other} has only now got a pipe to ${this.#target.process}`);
      const inode = Number(/\d+/.exec(what)![0]);
      return { inode, others: [{ process: other, checkpoint: found.#index }] };
    });
  }

  /** What it exchanged before, while somebody else held the pipe, too, nobody can tell: that sticks to its life. */
  #isTied({ tied, reason }: UnseenChannel): boolean {
    return tied === true && !this.#cut!.uncaptured.includes(reason);
  }

  /** What somebody vouches for is no verdict; a verdict of that reason says that nobody does. */
  refuseCopies(shared: readonly UnseenChannel[]): void {
    const { uncaptured } = this.#cut!;
    const own = shared.filter(
      (one) =>
        one.process === this.#target.process &&
        !this.#isTied(one) &&
        (!VOUCHABLE_UNSEEN.includes(one.reason) || uncaptured.includes(one.reason)),
    );
    if (own.length > 0) throw copiesRefused(own);
  }

  async takeImage(guard: Writable): Promise<void> {
    const { driver } = this;
    if (!driver.images) return;
    if (!driver.holdsConnections) this.#noConnections();
    const image = await this.#begin();
    const notes = await this.#timed("dump", () => this.#dump(image, guard));
    this.#inPlace = filesInPlace(notes);
    await this.#timed("data", async () => {
      this.#data = (await this.#save?.finish(this.#pids)) ?? [];
    });
    await this.#timed("store", async () => {
      const { reference, sizeBytes } = await image.seal(this.#facts(notes));
      this.#reference = reference;
      this.#imageBytes = sizeBytes;
    });
  }

  async #dump(image: NewImage, guard: Writable): Promise<DriverNotes> {
    inTime(this.#options);
    const { cgroup } = this.#target;
    const rootPid = this.#heldRoot ?? treeRoot(this.#pids, this.#target.process);
    const notes = await this.driver.dump({
      folder: image.files,
      rootPid,
      pids: this.#pids,
      cgroupPath: cgroup.path,
      limitMs: this.#limitMs,
      guard,
      dataRoots: this.#target.data?.roots ?? [],
      options: this.#target.driverOptions ?? [],
    });
    await this.#sameInstant();
    return notes;
  }

  /** The driver let the process run inside itself: had that moved an offset, image and cut would contradict each other. */
  async #sameInstant(): Promise<void> {
    const { app, process, cgroup } = this.#target;
    // Whom a driver lets go of stands still again at once, and the kernel says so once the last of its threads has been scheduled.
    const { deadlineMs = Number.POSITIVE_INFINITY } = this.#options;
    const limitMs = Math.min(deadlineMs, performance.now() + FREEZE_LIMIT_MS);
    if (cgroup.freezing) await standsStill(cgroup, limitMs);
    const after = await answered(this.#options.log.cut(app, process), this.#options);
    if (!cgroup.frozen || offsets(after) !== offsets(this.#cut!))
      throw new NotNow(
        `driver ${this.driver.name} did not keep ${process} still: image and cut are of different instants`,
      );
    this.#cut = after;
    if (!this.driver.holdsConnections) this.#noConnections();
  }

  #noConnections(): void {
    const open = this.#cut!.details.filter(({ live }) => live !== 0).length;
    if (open === 0) return;
    throw new NotNow(
      `${this.#target.process} has ${open} open connections, and an image of driver ${this.driver.name} holds none`,
    );
  }

  #facts(notes: DriverNotes): ImageFacts {
    const { app, process, incarnation, cgroup } = this.#target;
    const { name, version } = this.driver;
    const cut = this.#cut!;
    return {
      format: MANIFEST_FORMAT,
      application: app,
      process,
      checkpoint: this.#index,
      incarnation,
      driver: { name, version, notes },
      time: new Date().toISOString(),
      kernel: readFileSync("/proc/sys/kernel/osrelease", "utf8").trim(),
      pids: this.#pids,
      cgroup: cgroup.path,
      connections: cut.details,
      cutComplete: cut.complete,
      uncaptured: cut.uncaptured,
      ...(this.#pipes.length === 0 ? {} : { pipes: this.#pipes }),
      ...(this.#save === undefined
        ? {}
        : { data: this.#data.map(({ root, sha256, dataBytes }) => ({ root, sha256, dataBytes })) }),
    };
  }

  /** From here on its record may be in the log. */
  beginRecord(): CheckpointEvent {
    this.#appending = true;
    this.#options.numbers?.delete(this.#target.process);
    return this.#event();
  }

  recorded(position: number, tookMs: number): void {
    this.#image?.release();
    this.#position = position;
    this.#phasesMs.append = tookMs;
  }

  #event(): CheckpointEvent {
    return {
      type: "checkpoint",
      process: this.#target.process,
      checkpoint: this.#index,
      usable: this.#usable,
      ...(this.#reference === undefined ? {} : { image: this.#reference }),
      ...(this.#covers ? { cut: this.#cut!.cut } : {}),
    };
  }

  /** Only a cut that holds for all channels may stand in the log (interchange.md). */
  get #covers(): boolean {
    return this.#cut!.complete && this.#cut!.uncaptured.length === 0;
  }

  /** A record that may be in the log keeps its image: an append whose answer got lost is such a one. */
  async discard(): Promise<void> {
    try {
      if (this.#image !== undefined) await this.driver.letGo?.(this.#image.files);
      if (!this.#appending) await this.#image?.discard();
    } finally {
      this.#image?.release();
    }
  }

  result(frozenMs: number): CheckpointResult {
    const cut = this.#cut!;
    const image = this.#reference === undefined ? {} : { image: this.#reference };
    return {
      process: this.#target.process,
      checkpoint: this.#index,
      position: this.#position,
      usable: this.#usable,
      ...image,
      cut: this.#covers,
      uncaptured: cut.complete ? cut.uncaptured : [...cut.uncaptured, "a connection without a name"],
      connections: cut.details.length,
      imageBytes: this.#imageBytes,
      data: this.#data,
      inPlace: this.#inPlace,
      frozenMs,
      phasesMs: this.#phasesMs,
    };
  }
}

/** As driver criu notes them. */
function filesInPlace(notes: DriverNotes): string[] {
  const files = (notes["files"] ?? []) as readonly OpenFile[];
  const mounts = (notes["unsaved"] ?? []) as readonly string[]; // as driver podman does
  return [...files.filter(({ inPlace }) => inPlace === true).map(({ path }) => path), ...mounts];
}

/**
 * The cut in one string, channels in a fixed order. A channel whose both ends are the process itself is left out where it is empty:
 * what went through it is part of the state.
 */
function offsets({ cut, complete }: CutAnswer): string {
  const inside = (channel: string): boolean =>
    cut.sent.has(channel) && cut.sent.get(channel) === cut.received.get(channel);
  const list = (map: ReadonlyMap<string, number>) =>
    [...map].filter(([channel]) => !inside(channel)).sort(([a], [b]) => (a < b ? -1 : 1));
  return JSON.stringify([complete, list(cut.sent), list(cut.received)]);
}
