/**
 * What a restart will do: who goes on, who comes back from which image, who starts again, and where the bytes in transit are.
 * Nothing is touched here; whatever can't be done is refused here.
 *
 * A survivor with an open connection to a process that goes back can't keep it (its other end dies), and one that has closed such a
 * connection since that process's checkpoint can't give it back: both count as failed as well, and the line is computed again, until
 * nothing changes.
 */

import { inheritedPipe, pipeRefused } from "../checkpoint/refuse-copies.ts";
import { imageSockets } from "../images/criu/criu-sockets.ts";
import type { StoredTree } from "../images/data/stored-tree.ts";
import type { CheckpointDriver } from "../images/driver.ts";
import { openImage, type StoredImage } from "../images/image-store.ts";
import { channelOfUnit, isUnit, reverseChannel } from "../log/complete-cut.ts";
import { assert } from "../model/assert.ts";
import type { CutDetail } from "../model/collector-answers.ts";
import { hasCode, RecoveryLineError } from "../model/errors.ts";
import type { CheckpointEvent } from "../model/event.ts";
import { type Evidence, RECEIVER, SENDER } from "../model/evidence-layout.ts";
import type { LineEntry, RecoveryLine } from "../model/recovery-line.ts";
import type { StartRecipe } from "../model/stored-process.ts";
import type { UnseenChannel } from "../model/unseen-channel.ts";
import { Obstructed } from "./obstacle.ts";
import { type KnownData, refuseMissing } from "./restart-data.ts";
import {
  type EndedConnections,
  type PayloadSource,
  planTransit,
  type TransitPlan,
  type TransitProcess,
} from "./transit.ts";

/** One checkpoint of one process. */
export interface CheckpointName {
  readonly process: string;
  readonly checkpoint: number;
}

export interface PlanSource {
  readonly home: string;
  readonly app: string;
  /** The line for these failures, as if the listed checkpoints were not usable. */
  compute(
    failed: readonly string[],
    unusable: readonly CheckpointName[],
  ): Promise<{ readonly line: RecoveryLine; readonly evidence: Evidence }>;
  /** An image's checkpoint, as the log has it. */
  checkpoint(process: string, checkpoint: number): Promise<CheckpointEvent | undefined>;
  /** Cuts of the processes that run now, standing still. */
  readonly running: ReadonlyMap<string, readonly CutDetail[]>;
  startRecipe(process: string): Promise<StartRecipe | undefined>;
  /** Directory trees that are part of processes' states now. */
  readonly data: KnownData;
  /** What they held before the process began, checked. Throws RL_REFUSED. */
  startTrees(process: string): Promise<readonly StoredTree[]>;
  /** What a process uses together with others, or did when it ended. */
  unseen(process: string): readonly UnseenChannel[] | undefined;
  /** Its checkpoints are its runtime's (memory rings), not ours. */
  takesOwnCheckpoints(process: string): boolean;
  readonly payload?: PayloadSource;
  /** Who restores an image, by the name in its manifest; undefined: nobody does. */
  driverOf(name: string): CheckpointDriver | undefined;
}

export interface PlanOptions {
  readonly failed: readonly string[];
  /** Survivors keep going though connections of theirs break. */
  readonly keepSurvivors: boolean;
  /** Where bytes in transit are nowhere, or a connection was being closed, go back to an earlier line without that. */
  readonly fallBack: boolean;
  /** Checkpoints that something stands in the way of: the line is computed without them. */
  readonly obstructed?: readonly CheckpointName[];
}

export type Target =
  | {
      readonly process: string;
      readonly action: "restore";
      readonly checkpoint: number;
      readonly image: StoredImage;
      readonly driver: CheckpointDriver;
      /** Put back with it. */
      readonly trees: readonly StoredTree[];
    }
  | {
      readonly process: string;
      readonly action: "initial";
      readonly checkpoint: 0;
      readonly recipe: StartRecipe;
      readonly trees: readonly StoredTree[];
    };

export interface PassedOver extends CheckpointName {
  readonly why: "bytes" | "closing" | "obstacle";
}

export interface RestartPlan {
  readonly application: string;
  readonly failed: readonly string[];
  /** Survivors that go back because an open connection ties them to `to`. */
  readonly alsoFailed: readonly { readonly process: string; readonly to: string }[];
  /** Survivors whose open connection to `to` breaks (`keepSurvivors`). */
  readonly breaking: readonly { readonly process: string; readonly to: string }[];
  /** Checkpoints passed over: bytes they had sent are nowhere, or images don't fit (`fallBack`); or something stands in the way of their images. */
  readonly passedOver: readonly PassedOver[];
  readonly line: RecoveryLine;
  readonly targets: readonly Target[];
  readonly transit: TransitPlan;
  /** [who connected, to whom], each pair once, as far as the evidence tells. */
  readonly connects: readonly (readonly [string, string])[];
}

/** Throws RL_REFUSED for what can't be restarted exactly, RL_NOT_SUPPORTED, and what computing and opening images throws. */
export async function planRestart(source: PlanSource, options: PlanOptions): Promise<RestartPlan> {
  const planner = new RestartPlanner(source, options);
  for (;;) {
    const plan = await planner.plan();
    const lost = plan.transit.ranges.filter(({ place }) => place === "nowhere");
    const [unfit] = plan.transit.unfit;
    if (lost.length === 0 && unfit === undefined) return plan;
    if (!options.fallBack || !planner.passOver(plan))
      throw lost.length > 0 ? refusedFor(lost) : unfitRefused(unfit!);
  }
}

class RestartPlanner {
  readonly #source: PlanSource;
  readonly #options: PlanOptions;
  readonly #failed: string[];
  readonly #alsoFailed: { process: string; to: string }[] = [];
  readonly #unusable: PassedOver[];
  readonly #images = new Map<string, Promise<StoredImage>>();

  constructor(source: PlanSource, options: PlanOptions) {
    this.#source = source;
    this.#options = options;
    this.#failed = [...options.failed];
    this.#unusable = (options.obstructed ?? []).map((one) => ({ ...one, why: "obstacle" }));
  }

  async plan(): Promise<RestartPlan> {
    const { line, evidence, targets, breaking } = await this.#closedLine();
    const back = new Set(targets.map(({ process }) => process));
    const continues = new Set(line.line.map(({ process }) => process).filter((name) => !back.has(name)));
    const transit = await planTransit(
      [...(await this.#restored(targets)), ...this.#survivors(continues)],
      line.inTransit,
      continues,
      this.#source.payload,
      endedConnections(channelOwners(this.#source.running, evidence), evidence, line),
    );
    return {
      application: this.#source.app,
      failed: this.#failed.slice(0, this.#options.failed.length),
      alsoFailed: this.#alsoFailed,
      breaking,
      passedOver: this.#unusable,
      line,
      targets,
      transit,
      connects: connectors(evidence),
    };
  }

  /** The line after all survivors that can't go on alone have been taken in. */
  async #closedLine(): Promise<
    Pick<RestartPlan, "line" | "targets" | "breaking"> & { readonly evidence: Evidence }
  > {
    for (;;) {
      const { line, evidence } = await this.#source.compute(this.#failed, this.#unusable);
      const targets = await this.#targets(line);
      const back = new Set(targets.map(({ process }) => process));
      assert(
        this.#failed.every((name) => back.has(name)),
        "who has failed does not go on",
      );
      const tied = tiedSurvivors(this.#source.running, evidence, targets);
      if (tied.length === 0 || this.#options.keepSurvivors)
        return { line, evidence, targets, breaking: tied };
      for (const one of tied) {
        this.#alsoFailed.push(one);
        this.#failed.push(one.process);
      }
    }
  }

  /** Images are checked side by side: one waits for the disk while another is summed. All that stand in the way are named. */
  async #targets({ line }: RecoveryLine): Promise<Target[]> {
    const opened = await Promise.allSettled(line.map((entry) => this.#target(entry)));
    const failures = opened.flatMap((one) => (one.status === "rejected" ? [one.reason as unknown] : []));
    const found = failures.flatMap((failure) => (failure instanceof Obstructed ? failure.found : []));
    if (found.length > 0) throw new Obstructed(found);
    if (failures.length > 0) throw failures[0];
    return opened.flatMap((one) => (one.status === "fulfilled" ? (one.value ?? []) : []));
  }

  async #target({ process, action, checkpoint }: LineEntry): Promise<Target | undefined> {
    if (action === "continue") return undefined;
    await this.#refuseRanks(process);
    if (action === "initial") return this.#initial(process);
    if (action !== "restore") throw notSupported(`${process} needs its message log replayed`);
    const image = await this.#image(process, checkpoint!);
    const { name } = image.manifest.driver;
    const driver = this.#source.driverOf(name);
    if (driver === undefined) throw notSupported(`${process} has an image of driver ${name}`);
    refuseMissing(process, checkpoint!, image.trees, this.#source.data.get(process));
    return { process, action, checkpoint: checkpoint!, image, driver, trees: image.trees };
  }

  /** A rank is its mpirun's child, and mpirun ends the others when one dies: neither comes back without the other. */
  async #refuseRanks(process: string): Promise<void> {
    const job = (await this.#source.startRecipe(process))?.mpiJob;
    if (job === undefined) return;
    throw new RecoveryLineError(
      "RL_REFUSED",
      `${process} would have to go back, and Open MPI can't take single processes of a job back: mpirun (${job}) is the parent of its ranks and ends all when one dies, what its image holds is the whole tree, and a rank of an older image would not be its child`,
      `Nothing was killed or restored. Start the job again with run --fresh --ranks; one that is to come back is recorded whole: run APP ${job} --data DIR -- env TMPDIR=DIR mpirun …, without --ranks.`,
    );
  }

  async #initial(process: string): Promise<Target> {
    const pipe = inheritedPipe(this.#source.unseen(process));
    if (pipe !== undefined) throw pipeRefused(pipe);
    const recipe = await this.#source.startRecipe(process);
    if (recipe !== undefined) {
      const trees = await this.#source.startTrees(process);
      return { process, action: "initial", checkpoint: 0, recipe, trees };
    }
    throw new RecoveryLineError(
      "RL_REFUSED",
      `${process} has to start again from its initial state, and its command is not known`,
      "Nothing was killed or restored. `recovery-line run` keeps the command; start it by hand with --fresh.",
    );
  }

  async #image(process: string, checkpoint: number): Promise<StoredImage> {
    const reference = (await this.#source.checkpoint(process, checkpoint))?.image;
    if (reference === undefined) throw this.#noImage(process, checkpoint);
    const known = this.#images.get(reference) ?? openImage(this.#source.home, this.#source.app, reference);
    this.#images.set(reference, known);
    return known.catch((error: unknown) => {
      if (!hasCode(error, "RL_REFUSED")) throw error;
      throw new Obstructed([{ process, checkpoint, what: error.message }]);
    });
  }

  #noImage(process: string, checkpoint: number): RecoveryLineError {
    const why = `checkpoint ${checkpoint} of ${process} has no image: the program brings its own state back`;
    if (this.#source.takesOwnCheckpoints(process)) return notSupported(why);
    const what = `checkpoint ${checkpoint} has no image (--driver none): its program would have to bring its own state back`;
    return new Obstructed([{ process, checkpoint, what }]);
  }

  async #restored(targets: readonly Target[]): Promise<TransitProcess[]> {
    const processes: TransitProcess[] = [];
    for (const target of targets) {
      const { process } = target;
      if (target.action === "initial") processes.push({ process, connections: [], sockets: [] });
      else {
        const { files, manifest } = target.image;
        processes.push({
          process,
          connections: manifest.connections,
          sockets: target.driver.holdsConnections ? await imageSockets(files) : [],
        });
      }
    }
    return processes;
  }

  #survivors(continues: ReadonlySet<string>): TransitProcess[] {
    return [...this.#source.running]
      .filter(([process]) => continues.has(process))
      .map(([process, connections]) => ({ process, connections, sockets: [] }));
  }

  /** Forbids what had sent the lost bytes, and the later end of what was being closed. False where there is nothing to forbid. */
  passOver({ transit, targets }: RestartPlan): boolean {
    const [closing] = transit.unfit;
    const senders = [
      ...transit.ranges.flatMap(({ from, place }) =>
        place === "nowhere" ? [{ from, why: "bytes" as const }] : [],
      ),
      ...(closing === undefined ? [] : [{ from: closing.later, why: "closing" as const }]),
    ];
    let changed = false;
    for (const { from, why } of senders) {
      const target = targets.find(({ process }) => process === from);
      if (target === undefined && !this.#failed.includes(from)) this.#failed.push(from);
      else if (target?.action !== "restore" || this.#isUnusable(target)) continue;
      else this.#unusable.push({ process: from, checkpoint: target.checkpoint, why });
      changed = true;
    }
    return changed;
  }

  #isUnusable(one: CheckpointName): boolean {
    return this.#unusable.some((known) => nameOf(known) === nameOf(one));
  }
}

function nameOf({ process, checkpoint }: CheckpointName): string {
  return `${process}/${checkpoint}`;
}

/**
 * Running survivors that share a connection with a process that goes back: open at their end now, or at the other one's at the
 * checkpoint. Who uses the other end is known from the evidence and from the cuts of those that run.
 */
function tiedSurvivors(
  running: ReadonlyMap<string, readonly CutDetail[]>,
  evidence: Evidence,
  targets: readonly Target[],
): { process: string; to: string }[] {
  const owners = channelOwners(running, evidence);
  const back = new Set(targets.map(({ process }) => process));
  const ties = new Map<string, string>();
  for (const [process, connections] of running)
    if (!back.has(process))
      for (const other of otherEnds(owners, connections))
        if (other !== process && back.has(other)) ties.set(process, other);
  for (const target of targets)
    if (target.action === "restore")
      for (const other of otherEnds(owners, target.image.manifest.connections))
        if (running.has(other) && !back.has(other)) ties.set(other, target.process);
  return [...ties].map(([process, to]) => ({ process, to }));
}

/** Who uses the other ends of the open ones. */
function otherEnds(owners: Owners, connections: readonly CutDetail[]): string[] {
  return connections
    .filter(({ live }) => live === 1)
    .map(({ sends, receives }) => owners.receivers.get(sends) ?? owners.senders.get(receives))
    .filter((other) => other !== undefined);
}

interface Owners {
  readonly senders: Map<string, string>;
  readonly receivers: Map<string, string>;
}

function channelOwners(running: ReadonlyMap<string, readonly CutDetail[]>, evidence: Evidence): Owners {
  const owners: Owners = { senders: new Map(), receivers: new Map() };
  evidence.channels.forEach((channel, number) => {
    const sender = evidence.processes[evidence.processAt[2 * number + SENDER]!];
    const receiver = evidence.processes[evidence.processAt[2 * number + RECEIVER]!];
    if (sender !== undefined) owners.senders.set(channel, sender);
    if (receiver !== undefined) owners.receivers.set(channel, receiver);
    addUnitEnds(owners, channel, sender, receiver);
  });
  for (const [process, connections] of running)
    for (const { sends, receives } of connections) {
      owners.senders.set(sends, process);
      owners.receivers.set(receives, process);
    }
  return owners;
}

/** By the openings of connections, which are messages from who connects to who accepts. */
function connectors({ channels, processes, processAt }: Evidence): [string, string][] {
  const pairs = new Map<string, [string, string]>();
  channels.forEach((channel, number) => {
    const from = processes[processAt[2 * number + SENDER]!];
    const to = processes[processAt[2 * number + RECEIVER]!];
    if (!channel.endsWith("/open") || from === undefined || to === undefined || from === to) return;
    pairs.set(JSON.stringify([from, to]), [from, to]);
  });
  return [...pairs.values()];
}

/** Who has connected, accepted or ended stands at that end of the connection, also where no byte went over it. */
function addUnitEnds(
  owners: Owners,
  unit: string,
  sender: string | undefined,
  receiver: string | undefined,
): void {
  if (!isUnit(unit)) return;
  const channel = channelOfUnit(unit);
  const reverse = reverseChannel(channel);
  const put = (map: Map<string, string>, name: string, process: string | undefined): void => {
    if (process !== undefined && !map.has(name)) map.set(name, process);
  };
  put(owners.senders, channel, sender);
  put(owners.receivers, reverse, sender);
  put(owners.receivers, channel, receiver);
  put(owners.senders, reverse, receiver);
}

/** What the evidence says of ends that no image and no kernel shows. */
function endedConnections(owners: Owners, evidence: Evidence, { line }: RecoveryLine): EndedConnections {
  const positions = new Map(line.map(({ process, position }) => [process, position]));
  const numberOf = new Map(evidence.channels.map((name, number) => [name, number]));
  const usedBy = (end: number | undefined, position: number): boolean =>
    end !== undefined && isUsedBy(evidence, end, position);
  return {
    receiverOf: (channel) => owners.receivers.get(channel),
    hadReceived: (process, channel) => {
      const position = positions.get(process) ?? 0;
      const reverse = reverseChannel(channel);
      const end = (name: string, side: number): number | undefined => {
        const number = numberOf.get(name);
        return number === undefined ? undefined : number * 2 + side;
      };
      return ["", "/open", "/end"].some(
        (unit) =>
          usedBy(end(`${channel}${unit}`, RECEIVER), position) ||
          usedBy(end(`${reverse}${unit}`, SENDER), position),
      );
    },
  };
}

function isUsedBy({ rows, cuts, segments }: Evidence, end: number, position: number): boolean {
  const [row, cut] = [rows.start[end] as number, cuts.start[end] as number];
  return (
    (row < (rows.start[end + 1] as number) && (rows.line[row] as number) <= position) ||
    (cut < (cuts.start[end + 1] as number) &&
      (segments.line[cuts.segment[cut] as number] as number) <= position)
  );
}

function refusedFor(lost: TransitPlan["ranges"]): RecoveryLineError {
  const shown = lost
    .slice(0, 8)
    .map(
      ({ from, to, begin, end, channel, why }) =>
        `[${begin}, ${end}) of ${channel} from ${from} to ${to ?? "?"} (${why})`,
    );
  const more = lost.length > shown.length ? `; ${lost.length} ranges in all` : "";
  return new RecoveryLineError(
    "RL_REFUSED",
    `bytes in transit at the line can't be replayed: ${shown.join("; ")}${more}`,
    "Nothing was killed or restored. --fall-back goes back to an earlier line that needs none of them; coordinated checkpoints hold them all.",
  );
}

function unfitRefused({ channel, from, to }: TransitPlan["unfit"][number]): RecoveryLineError {
  return new RecoveryLineError(
    "RL_REFUSED",
    `${from} and ${to} were closing a connection (${channel}) while their checkpoints were taken, at different moments`,
    "Nothing was killed or restored. --fall-back goes back to an earlier line without it; coordinated checkpoints are of one moment.",
  );
}

function notSupported(what: string): RecoveryLineError {
  return new RecoveryLineError(
    "RL_NOT_SUPPORTED",
    `${what}: that can't be restarted here`,
    "Nothing was killed or restored.",
  );
}
