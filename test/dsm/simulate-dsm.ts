/**
 * True executions of the home-based, sequentially consistent protocol of native/dsm, message by message in a random order, with a
 * ledger of what really happened: who wrote and read which content, and who held what, at every moment of every process.
 *
 * A *moment* of a process is `2 n` for its line n and `2 n + 1` for a local step between lines n and n + 1. A cut that keeps n lines
 * keeps the moments up to `2 n`; a process that continues keeps all.
 */
import type { DsmEvent } from "../../src/model/event.ts";
import { Random } from "../reference/random.ts";

export interface DsmSetting {
  readonly processes: number;
  readonly homes: number;
  readonly pages: number;
  readonly steps: number;
  /** Checkpoints carry cut vectors. */
  readonly cuts: boolean;
}

/** One write: the content it makes is named by its number in `writes`, 1-based; content 0 is the zero page. */
interface Write {
  readonly process: string;
  readonly moment: number;
  readonly page: number;
}
interface Read {
  readonly process: string;
  readonly moment: number;
  readonly content: number;
}
/** From this moment on the process holds this content of the page; -1: nothing. */
interface Hold {
  readonly process: string;
  readonly moment: number;
  readonly page: number;
  readonly content: number;
  /** The copy is invalid and only there because invalidation retains it. */
  readonly retained: boolean;
}

export interface DsmExecution {
  readonly events: readonly DsmEvent[];
  readonly entities: readonly string[];
  readonly lines: ReadonlyMap<string, number>;
  readonly writes: readonly Write[];
  readonly reads: readonly Read[];
  readonly holds: readonly Hold[];
}

type Kind = "read" | "write" | "data" | "grant" | "invalidate" | "downgrade" | "write-back" | "ack";
const LOGGED: ReadonlySet<Kind> = new Set(["data", "grant", "invalidate", "write-back"]);

interface Content {
  readonly content: number;
  readonly version: number;
  readonly writer: string;
  readonly interval: number;
}

interface Message {
  readonly kind: Kind;
  readonly from: string;
  readonly to: string;
  readonly page: number;
  readonly copy: Content;
  /** data: ownership; write-back: dropped. */
  readonly flag: boolean;
  readonly sequence: number;
}

const ZERO: Content = { content: 0, version: 0, writer: "", interval: 0 };

interface LocalPage {
  state: "invalid" | "shared" | "modified";
  copy: Content;
}

interface HomePage {
  copy: Content;
  owner: string | undefined;
  readonly sharers: Set<string>;
  readonly awaiting: Set<string>;
  busy: { readonly process: string; readonly write: boolean } | undefined;
  readonly queue: { readonly process: string; readonly write: boolean }[];
}

interface Entity {
  readonly name: string;
  lines: number;
  checkpoint: number;
  readonly sent: Map<string, number>;
  readonly received: Map<string, number>;
  /** Processes only. */
  readonly pages: Map<number, LocalPage>;
  waiting: number | undefined;
}

class Simulation {
  readonly events: DsmEvent[] = [];
  readonly writes: Write[] = [];
  readonly reads: Read[] = [];
  readonly holds: Hold[] = [];
  readonly entities = new Map<string, Entity>();
  readonly #random: Random;
  readonly #setting: DsmSetting;
  readonly #homes = new Map<number, HomePage>();
  /** Messages under way, by channel, FIFO. */
  readonly #channels = new Map<string, Message[]>();

  constructor(seed: number, setting: DsmSetting) {
    this.#random = new Random(seed);
    this.#setting = setting;
    const names = [...letters("p", setting.processes), ...letters("h", setting.homes)];
    for (const name of names)
      this.entities.set(name, {
        name,
        lines: 0,
        checkpoint: 0,
        sent: new Map(),
        received: new Map(),
        pages: new Map(),
        waiting: undefined,
      });
    for (let page = 0; page < setting.pages; page += 1) {
      const home: HomePage = {
        copy: ZERO,
        owner: undefined,
        sharers: new Set(),
        awaiting: new Set(),
        busy: undefined,
        queue: [],
      };
      this.#homes.set(page, home);
      this.#hold(this.#homeOf(page), 0, page, ZERO, false);
    }
  }

  #homeOf(page: number): Entity {
    return this.#entity(`h${page % this.#setting.homes}`);
  }

  #entity(name: string): Entity {
    return this.entities.get(name)!;
  }

  #happen(event: DsmEvent): void {
    this.events.push(event);
    this.#entity(event.process).lines += 1;
  }

  #hold(entity: Entity, moment: number, page: number, copy: Content, retained: boolean): void {
    this.holds.push({ process: entity.name, moment, page, content: copy.content, retained });
  }

  step(): void {
    const random = this.#random;
    const dice = random.below(10);
    const ready = [...this.#channels.values()].filter((queue) => queue.length > 0);
    if (dice < 6 && ready.length > 0) this.#deliver(random.pick(ready).shift()!);
    else if (dice < 9) this.#act(this.#entity(`p${random.below(this.#setting.processes)}`));
    else this.#checkpoint(random.pick([...this.entities.values()]));
  }

  #checkpoint(entity: Entity): void {
    entity.checkpoint += 1;
    const cut = { sent: new Map(entity.sent), received: new Map(entity.received) };
    this.#happen({
      type: "checkpoint",
      process: entity.name,
      checkpoint: entity.checkpoint,
      usable: !this.#random.oneIn(8),
      ...(this.#setting.cuts ? { cut } : {}),
    });
  }

  // ---- processes

  #act(process: Entity): void {
    if (process.waiting !== undefined) return;
    const number = this.#random.below(this.#setting.pages);
    const page = process.pages.get(number) ?? { state: "invalid", copy: ZERO };
    process.pages.set(number, page);
    const write = this.#random.oneIn(2);
    if (write ? page.state === "modified" : page.state !== "invalid")
      this.#access(process, number, page, write);
    else this.#fault(process, number, write);
  }

  #access(process: Entity, number: number, page: LocalPage, write: boolean): void {
    const moment = 2 * process.lines + 1;
    if (!write) {
      this.reads.push({ process: process.name, moment, content: page.copy.content });
      return;
    }
    this.writes.push({ process: process.name, moment, page: number });
    page.copy = {
      content: this.writes.length,
      version: page.copy.version,
      writer: process.name,
      interval: process.checkpoint + 1,
    };
    this.#hold(process, moment, number, page.copy, false);
  }

  #fault(process: Entity, page: number, write: boolean): void {
    const access = write ? "write" : "read";
    process.waiting = page;
    this.#happen({ type: "page-fault", process: process.name, page, access });
    this.#send(access, process, this.#homeOf(page), page, ZERO, write);
  }

  /** The faulting access itself happens right away: nothing is taken away before it. */
  #install(process: Entity, message: Message): void {
    const { page: number, copy, flag } = message;
    const write = message.kind === "grant" || flag;
    const before = process.pages.get(number)!;
    const content = message.kind === "grant" ? before.copy : copy;
    const page: LocalPage = {
      state: write ? "modified" : "shared",
      copy: { ...content, version: copy.version + (write ? 1 : 0) },
    };
    process.pages.set(number, page);
    process.waiting = undefined;
    this.#hold(process, 2 * process.lines, number, page.copy, false);
    this.#access(process, number, page, write);
  }

  #recall(process: Entity, message: Message): void {
    const { page: number } = message;
    const page = process.pages.get(number)!;
    const drop = message.kind === "invalidate";
    const owned = page.state === "modified";
    page.state = drop ? "invalid" : "shared";
    if (drop) this.#hold(process, 2 * process.lines, number, page.copy, true);
    const home = this.#entity(message.from);
    if (owned) this.#send("write-back", process, home, number, page.copy, drop);
    else this.#send("ack", process, home, number, ZERO, false);
  }

  // ---- homes

  #request(process: string, number: number, write: boolean): void {
    const page = this.#homes.get(number)!;
    if (page.busy === undefined) this.#start(number, process, write);
    else page.queue.push({ process, write });
  }

  #start(number: number, process: string, write: boolean): void {
    const page = this.#homes.get(number)!;
    const home = this.#homeOf(number);
    page.busy = { process, write };
    const called = page.owner !== undefined ? [page.owner] : write ? [...page.sharers] : [];
    for (const other of called) if (other !== process) page.awaiting.add(other);
    for (const other of page.awaiting)
      this.#send(write ? "invalidate" : "downgrade", home, this.#entity(other), number, page.copy, false);
    if (page.awaiting.size === 0) this.#finish(number);
  }

  #answer(message: Message): void {
    const page = this.#homes.get(message.page)!;
    page.awaiting.delete(message.from);
    page.sharers.delete(message.from);
    if (message.kind === "write-back") {
      page.copy = message.copy;
      page.owner = undefined;
      if (!message.flag) page.sharers.add(message.from);
      const home = this.#entity(message.to);
      this.#hold(home, 2 * home.lines, message.page, page.copy, false);
    }
    if (page.awaiting.size === 0) this.#finish(message.page);
  }

  #finish(number: number): void {
    const page = this.#homes.get(number)!;
    const { process, write } = page.busy!;
    const to = this.#entity(process);
    const grant = write && page.sharers.has(process);
    this.#send(grant ? "grant" : "data", this.#homeOf(number), to, number, page.copy, write);
    if (write) {
      page.owner = process;
      page.sharers.clear();
      page.copy = { ...page.copy, version: page.copy.version + 1 };
    } else page.sharers.add(process);
    page.busy = undefined;
    const next = page.queue.shift();
    if (next !== undefined) this.#start(number, next.process, next.write);
  }

  // ---- messages

  #send(kind: Kind, from: Entity, to: Entity, page: number, copy: Content, flag: boolean): void {
    const channel = `${from.name}>${to.name}`;
    const sequence = from.sent.get(channel) ?? 0;
    const message = { kind, from: from.name, to: to.name, page, copy, flag, sequence };
    if (LOGGED.has(kind)) {
      from.sent.set(channel, sequence + 1);
      this.#happen(eventOf(message, from.name, channel, true));
    }
    this.#channels.set(channel, [...(this.#channels.get(channel) ?? []), message]);
  }

  #deliver(message: Message): void {
    const { kind, from, to, page } = message;
    const entity = this.#entity(to);
    if (LOGGED.has(kind)) {
      const channel = `${from}>${to}`;
      entity.received.set(channel, message.sequence + 1);
      this.#happen(eventOf(message, to, channel, false));
    }
    if (kind === "read" || kind === "write") this.#request(from, page, kind === "write");
    else if (kind === "data" || kind === "grant") this.#install(entity, message);
    else if (kind === "invalidate" || kind === "downgrade") this.#recall(entity, message);
    else this.#answer(message);
  }
}

function letters(letter: string, count: number): string[] {
  return Array.from({ length: count }, (_, number) => `${letter}${number}`);
}

function eventOf(
  { kind, page, copy, flag, sequence }: Message,
  process: string,
  channel: string,
  source: boolean,
): DsmEvent {
  const range = { process, channel, begin: sequence, end: sequence + 1 };
  const known = {
    page,
    version: copy.version,
    ...(copy.interval === 0 ? {} : { writer: copy.writer, interval: copy.interval }),
  };
  const role = source ? "source" : "destination";
  if (kind === "grant") return { type: source ? "send" : "receive", ...range, ...known, owner: true };
  if (kind === "invalidate") return { type: "page-invalidate", role, ...range, ...known };
  return { type: "page-copy", role, ...range, ...known, ...(kind === "data" && flag ? { owner: true } : {}) };
}

/** The same seed and setting always give the same execution. */
export function simulateDsm(seed: number, setting: DsmSetting): DsmExecution {
  const simulation = new Simulation(seed, setting);
  for (let step = 0; step < setting.steps; step += 1) simulation.step();
  const { events, writes, reads, holds, entities } = simulation;
  const lines = new Map([...entities].map(([name, { lines }]) => [name, lines]));
  return { events, writes, reads, holds, lines, entities: [...entities.keys()] };
}

/** Last moment that a cut keeps of each process. */
export type Moments = ReadonlyMap<string, number>;

/** Kept reads of a content whose write is undone: there must be none. */
export function orphanReads({ reads, writes }: DsmExecution, moments: Moments): number {
  let orphans = 0;
  for (const { process, moment, content } of reads) {
    if (content === 0 || moment > moments.get(process)!) continue;
    const write = writes[content - 1]!;
    if (write.moment > moments.get(write.process)!) orphans += 1;
  }
  return orphans;
}

/** Pages whose newest kept content nobody holds at the cut. `retention` false: invalidation throws copies away. */
export function lostPages({ writes, holds }: DsmExecution, moments: Moments, retention: boolean): number {
  const newest = new Map<number, number>();
  writes.forEach(({ process, moment, page }, index) => {
    if (moment <= moments.get(process)!) newest.set(page, index + 1);
  });
  const held = new Map<string, Hold>();
  for (const hold of holds)
    if (hold.moment <= moments.get(hold.process)!) held.set(`${hold.page} ${hold.process}`, hold);
  const alive = new Set<string>();
  for (const { page, content, retained } of held.values())
    if (retention || !retained) alive.add(`${page} ${content}`);
  return [...newest].filter(([page, content]) => !alive.has(`${page} ${content}`)).length;
}
