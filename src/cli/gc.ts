/** `recovery-line gc`: obsolete checkpoints and payloads that no replay needs; with --apply it removes them. */
import { basename, join } from "node:path";
import type { Command } from "commander";
import type { CollectedImage } from "../gc/collect-images.ts";
import type { KeptImages } from "../gc/kept-images.ts";
import type { SettledImage } from "../images/image-store.ts";
import type { CollectPlan } from "../index.ts";
import type { Keep } from "../log/keep.ts";
import { appDirectory, homesOf, requireOwn } from "../logs/home.ts";
import type { Pruned } from "../model/collector-answers.ts";
import { RecoveryLineError } from "../model/errors.ts";
import { counted, printable } from "../model/printable.ts";
import { exitCodeOfOutcome } from "../terminal/exit-codes.ts";
import { table, write, writeJson } from "../terminal/print.ts";
import { type EvidenceFlags, evidenceCommand, loadEvidence } from "./evidence-options.ts";
import { integerOption } from "./numbers.ts";

interface KeepFlags {
  readonly keepBytes?: number;
  readonly keepHours?: number;
}

interface GcFlags extends EvidenceFlags, KeepFlags {
  readonly apply?: boolean;
}

/** Rows of a table, count; --json prints all. */
const MAX_ROWS = 200;
const MAX_KEEP_HOURS = 1_000_000;

const HELP = `
A checkpoint is obsolete if no recovery line, of any failure now or later, restarts from it. Without --dsm and --in-transit what any of
those rules needs stays. With a message log (stable lines) only what lies below every line is obsolete, since the log will make more of
the past restorable; a log without any is taken to get none. Where newer checkpoints of a process have no image (checkpoint --driver
none), its newest image stays, and all that a restart from it needs. Images of checkpoints that a rollback undid, and of those that died
before they were recorded, are listed and go, too: not while one is being taken of their process, nor while a restart is unfinished.

Give --log for all nodes, as with compute: a node left out makes the others' past look safe to remove.

Without --apply nothing is changed. With it the images of obsolete checkpoints, prunable payloads (run --payload) and whole segments of
the log (64 MiB each) below every line are removed: a checkpoint with a cut then stands for all its process did before, and
positions go on counting. A log with stable lines or page invalidations stays whole. Lines, in-transit ranges and outcomes
stay the same; explain, graph and export begin later. Where processes send to others that nobody records, add
--in-transit any: by the rule "logged" such bytes keep everything.

--keep-bytes and --keep-hours leave more of the log than must stay: only segments beyond so many bytes, or sealed so long ago, go.
What may go at all is decided without them, and without a clock.

Examples:
  recovery-line gc heat
  recovery-line gc heat --in-transit any --apply --keep-hours 48`;

export function register(program: Command): void {
  evidenceCommand(program, "gc", "list obsolete checkpoints, and remove their images with --apply")
    .description("Finds checkpoints, payloads and segments of the log that no future recovery line can need.")
    .option("--apply", "remove images of obsolete checkpoints, prunable payloads and log segments")
    .option(
      "--keep-bytes <n>",
      "with --apply: remove of the log only what is beyond so many bytes",
      keepBytes,
    )
    .option("--keep-hours <n>", "… or was sealed more than so many hours ago", keepHours)
    .addHelpText("after", HELP)
    .action(gc);
}

/** Of blocks; for one application. */
export function keepBytes(text: string): number {
  return integerOption("--keep-bytes", text, 0, Number.MAX_SAFE_INTEGER);
}

export function keepHours(text: string): number {
  return integerOption("--keep-hours", text, 0, MAX_KEEP_HOURS);
}

/** Undefined: all of the log that can go is to go. */
export function keepOf({ keepBytes: bytes, keepHours: hours }: KeepFlags): Keep | undefined {
  if (bytes === undefined && hours === undefined) return undefined;
  return { ...(bytes === undefined ? {} : { bytes }), ...(hours === undefined ? {} : { hours }) };
}

async function gc(app: string | undefined, flags: GcFlags, command: Command): Promise<void> {
  if (flags.apply && flags.from !== undefined)
    throw new RecoveryLineError(
      "RL_USAGE",
      "--apply needs a log: an events file has no images",
      "Leave --apply out.",
    );
  if (keepOf(flags) !== undefined && !flags.apply)
    throw new RecoveryLineError("RL_USAGE", "--keep-bytes and --keep-hours say what --apply is to leave");
  const homes = flags.from === undefined && app !== undefined ? homesOf(flags.log) : [];
  if (flags.apply) homes.forEach(requireOwn);
  const dirs = homes.map((home) => appDirectory(home, app as string));
  const { finished, unlock } = await begin(flags.apply ? dirs : []);
  try {
    const found = await findObsolete(app, flags, homes, command);
    if (flags.apply)
      for (const [at, dir] of dirs.entries())
        await removeAll(dir, found, [...(found.images[at] ?? []), ...(found.leftovers[at] ?? [])]);
    const logs = flags.apply ? await pruneLogs(homes, found, keepOf(flags)) : [];
    const payloads = await keepsPayloads(dirs);
    await print(found, { applied: flags.apply === true, payloads, finished, logs }, flags);
    process.exitCode = exitCodeOfOutcome(found.outcome);
  } finally {
    unlock();
  }
}

/** Images first: whoever finds an older log has all images that it names. */
async function pruneLogs(
  homes: readonly string[],
  { application, plan }: Found,
  keep: Keep | undefined,
): Promise<Done["logs"]> {
  const { pruneLog } = await import("./prune-log.ts");
  const logs = [];
  for (const home of homes)
    logs.push({ log: home, ...(await pruneLog(home, application, plan.oldest, keep)) });
  return logs;
}

async function keepsPayloads(dirs: readonly string[]): Promise<boolean> {
  const { openPayloadStore } = await import("../payload/payload-log.ts");
  let found = false;
  for (const store of dirs.map(openPayloadStore)) {
    found ||= store !== undefined;
    await store?.close();
  }
  return found;
}

/** The caller holds the lock of the collection. */
async function removeAll(
  dir: string,
  { application, plan, kept }: Found,
  images: readonly CollectedImage[],
): Promise<void> {
  const { removeImages, unlessFull } = await import("../gc/collect-images.ts");
  const { noteKept } = await import("../gc/kept-images.ts");
  const { withPayloadLog } = await import("../payload/payload-log.ts");
  const { punchHoles } = await import("../payload/payload-logger.ts");
  const noted = await unlessFull(() => noteKept(dir, kept));
  await removeImages(dir, application, images);
  if (!noted) await unlessFull(() => noteKept(dir, kept)); // else the next one notes it
  await withPayloadLog(dir, async (log) => log?.prune(plan.prunable, punchHoles));
}

/** Locks what is there to be collected and ends what an earlier run began. */
async function begin(dirs: readonly string[]): Promise<{ finished: number; unlock: () => void }> {
  const { finishRemoval, isFolder } = await import("../gc/collect-images.ts");
  const { lockCollection } = await import("../log/log-lock.ts");
  const held: (() => void)[] = [];
  const unlock = (): void => {
    for (const release of held) release();
  };
  let finished = 0;
  try {
    for (const dir of dirs)
      if (await isFolder(dir)) {
        held.push(await lockCollection(dir));
        finished += await finishRemoval(dir);
      }
  } catch (error) {
    unlock();
    throw error;
  }
  return { finished, unlock };
}

interface Found {
  readonly application: string;
  readonly outcome: "clean" | "tainted";
  readonly plan: CollectPlan;
  readonly kept: KeptImages;
  /** Of obsolete checkpoints, by log directory. */
  readonly images: readonly (readonly CollectedImage[])[];
  /** Of no checkpoint in effect, by log directory. */
  readonly leftovers: readonly (readonly CollectedImage[])[];
}

/** Sealed images of which it is decided whether the log names them, as it is read from now on; none while a restart is unfinished. */
async function settledIn(home: string, dir: string): Promise<readonly SettledImage[]> {
  const { settledImages } = await import("../images/image-store.ts");
  const { readJournal, restartFolder } = await import("../restart/restart-journal.ts");
  if ((await readJournal(restartFolder(home, basename(dir)))) !== undefined) return [];
  return settledImages(join(dir, "images"));
}

async function findObsolete(
  app: string | undefined,
  flags: GcFlags,
  homes: readonly string[],
  command: Command,
): Promise<Found> {
  const { leftoverImages, storedImages } = await import("../gc/collect-images.ts");
  const { keptBy } = await import("../gc/kept-images.ts");
  const { obsolete } = await import("../index.ts");
  const dirs = homes.map((home) => appDirectory(home, app as string));
  const settled = await Promise.all(homes.map((home, at) => settledIn(home, dirs[at] as string)));
  const { application, evidence, unrecorded } = await loadEvidence(app, flags);
  const isDefault = (name: string): boolean => command.getOptionValueSource(name) === "default";
  const plan = obsolete(evidence, {
    ...(isDefault("dsm") ? {} : { dsm: flags.dsm }),
    ...(isDefault("inTransit") ? {} : { inTransit: flags.inTransit }),
  });
  const images: CollectedImage[][] = [];
  const leftovers: CollectedImage[][] = [];
  for (const [at, dir] of dirs.entries()) {
    images.push(await storedImages(dir, plan.obsolete));
    // What was asked of a log that its owner can't write, or died with, may be in it still.
    const decided = (settled[at] ?? []).filter(({ process }) => !unrecorded.includes(process));
    leftovers.push(await leftoverImages(dir, decided, evidence));
  }
  const outcome = evidence.gaps > 0 ? "tainted" : "clean";
  return { application, outcome, plan, kept: keptBy(plan, evidence), images, leftovers };
}

interface Done {
  readonly applied: boolean;
  /** One of the log directories holds payloads of the application (run --payload). */
  readonly payloads: boolean;
  /** Images whose removal an earlier run had begun and this one ended, count. */
  readonly finished: number;
  /** By log directory: bytes of removed blocks, or why none could go. Empty without --apply. */
  readonly logs: readonly (Pruned & { readonly log: string })[];
}

async function print(
  { application, outcome, plan, images, leftovers }: Found,
  done: Done,
  { json }: GcFlags,
): Promise<void> {
  const stored = images.flat();
  if (!json) return write(gcText(application, plan, stored, done, leftovers.flat()));
  const { oldest: _, ...facts } = plan;
  const sizes = new Map(stored.map((image) => [`${image.checkpoint} ${image.process}`, image.sizeBytes]));
  const obsolete = plan.obsolete.map((checkpoint) => ({
    ...checkpoint,
    imageBytes: sizes.get(`${checkpoint.checkpoint} ${checkpoint.process}`) ?? null,
  }));
  await writeJson({
    application,
    outcome,
    ...done,
    ...facts,
    retained: plan.checkpoints - obsolete.length,
    obsolete,
    leftovers: leftovers.flat().map(({ process, checkpoint, sizeBytes: imageBytes }) => ({
      process,
      checkpoint,
      imageBytes,
    })),
    bytes: bytesOf([...stored, ...leftovers.flat()]),
  });
}

const WHY_NOT_EXACT = {
  logging: "A message log will make more of the past restorable: only what lies below every line is listed.",
  "too-large": "The graph is too large to judge each checkpoint: only what lies below every line is listed.",
  "page-cuts":
    "Page moves known only from cuts may still be taken back: only what lies below every line is listed.",
  "own-channels":
    "What a process has under way to itself may still turn out to have left the application: only what lies below every line is listed.",
};

function bytesOf(images: readonly CollectedImage[]): number {
  return images.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0);
}

/** The human answer. `images`: of obsolete checkpoints; `leftovers`: of none in effect. */
export function gcText(
  application: string,
  plan: CollectPlan,
  images: readonly CollectedImage[],
  done: Done,
  leftovers: readonly CollectedImage[] = [],
): string {
  const { obsolete, checkpoints, prunable, exactness, keptForImages } = plan;
  const all = [...images, ...leftovers];
  const sizes = new Map(images.map((image) => [`${image.checkpoint} ${image.process}`, image.sizeBytes]));
  const rows = obsolete
    .slice(0, MAX_ROWS)
    .map(({ process, checkpoint, position, usable }) => [
      printable(process),
      String(checkpoint),
      String(position),
      usable ? "no line needs it" : "unusable",
      String(sizes.get(`${checkpoint} ${process}`) ?? "-"),
    ]);
  const left = leftovers
    .slice(0, MAX_ROWS)
    .map(({ process, checkpoint, sizeBytes }) => [
      printable(process),
      String(checkpoint),
      "-",
      "undone, or never recorded",
      String(sizeBytes),
    ]);
  const ranges = prunable
    .slice(0, MAX_ROWS)
    .map(({ channel, begin, end }) => [String(begin), String(end), printable(channel)]);
  const removed = done.applied ? "removed" : "to remove with --apply";
  return [
    `${printable(application)}: ${obsolete.length} of ${counted(checkpoints, "checkpoint")} obsolete\n`,
    exactness === "exact" ? "" : `${WHY_NOT_EXACT[exactness]}\n`,
    keptForImages.length === 0
      ? ""
      : `Newer checkpoints of ${keptForImages.map(printable).join(", ")} have no image: what a restart from older ones needs stays.\n`,
    rows.length + left.length === 0
      ? ""
      : table(["PROCESS", "CHECKPOINT", "POSITION", "WHY", "IMAGE BYTES"], [...rows, ...left]),
    more(obsolete.length, "checkpoints"),
    more(leftovers.length, "images of no checkpoint in effect"),
    `${counted(all.length, "image")}, ${counted(bytesOf(all), "byte")}: ${removed}\n`,
    done.finished > 0
      ? `${counted(done.finished, "image")} of an earlier run that was cut off: removed\n`
      : "",
    ...done.logs.map(({ log, bytes, reason }) =>
      bytes > 0
        ? `${printable(log)}: ${counted(bytes, "byte")} of older log removed\n`
        : `${printable(log)}: no segment of the log removed (${reason})\n`,
    ),
    ranges.length === 0 || !done.payloads
      ? ""
      : `Payloads that no replay needs, ${removed}:\n${table(["BEGIN", "END", "CHANNEL"], ranges)}`,
    done.payloads ? more(prunable.length, "ranges") : "",
  ]
    .filter((part) => part !== "")
    .join("\n");
}

function more(count: number, what: string): string {
  return count > MAX_ROWS ? `... and ${count - MAX_ROWS} more ${what}; --json prints all\n` : "";
}
