/** A log in memory: real blocks at their real places, without LevelDB. */
import { type ParsedBlock, parseBlock } from "../../src/format/block-header.ts";
import { EventColumns } from "../../src/format/event-columns.ts";
import { NO_HASH } from "../../src/format/log-anchor.ts";
import type { ProcessHead } from "../../src/format/log-commit.ts";
import { BlockPlacer } from "../../src/log/block-placer.ts";
import { LogState } from "../../src/log/log-state.ts";
import type { Cut, Event } from "../../src/model/event.ts";

export class MemoryLog {
  readonly bytes = new Map<number, Uint8Array>();
  readonly #state = new LogState();
  readonly #mayForget: boolean;
  #placer: BlockPlacer;
  readonly firstChain = 1;
  /** Nothing of it was ever removed: it has no base. */
  readonly firstCarried: ReadonlyMap<string, number> = new Map();
  reads = 0;

  constructor(mayForget = false) {
    this.#mayForget = mayForget;
    this.#placer = this.#newPlacer(NO_HASH);
  }

  carried(): undefined {}

  get lastChain(): number {
    return this.bytes.size;
  }

  /** What chain the blocks are. */
  get ends() {
    const lastHash = this.bytes.get(this.bytes.size)?.slice(-32) ?? NO_HASH;
    return { application: "memory", firstChain: 1, lastChain: this.lastChain, baseHash: NO_HASH, lastHash };
  }

  #newPlacer(lastHash: Uint8Array): BlockPlacer {
    return new BlockPlacer(
      "memory",
      this.#state,
      { lastChain: this.bytes.size, lastHash },
      async (chain) => this.bytes.get(chain),
      this.#mayForget,
    );
  }

  async append(columns: EventColumns): Promise<void> {
    await this.#placer.place(columns, ({ chain, bytes }) => this.bytes.set(chain, bytes));
    this.#state.take().settle();
  }

  async appendEvent(event: Event): Promise<void> {
    const columns = new EventColumns(event.process);
    columns.push(event);
    await this.append(columns);
  }

  /** `EventLog.completeCut`. */
  completeCut(process: string, cut: Cut): Promise<Cut> {
    return this.#placer.completeCut(process, cut, this.#state.heads.keys());
  }

  /** As if the owner had died and another one had opened it. */
  reopen(): void {
    void this.#placer.stop();
    this.#placer = this.#newPlacer(this.bytes.get(this.bytes.size)?.slice(-32) ?? NO_HASH);
  }

  heads(): ReadonlyMap<string, ProcessHead> {
    return this.#state.heads;
  }

  async block(chain: number): Promise<ParsedBlock> {
    this.reads += 1;
    return parseBlock(this.bytes.get(chain) as Uint8Array);
  }

  async *blocks(): AsyncGenerator<Uint8Array> {
    for (const bytes of this.bytes.values()) yield Uint8Array.from(bytes);
  }
}

/** The events in batches a process, their sizes taken in turns; 0 = the log is opened anew, too. */
export async function memoryLog(
  events: readonly Event[],
  sizes: readonly number[],
  mayForget = false,
): Promise<MemoryLog> {
  const log = new MemoryLog(mayForget);
  const open = new Map<string, EventColumns>();
  let turn = 0;
  const flush = async (process: string): Promise<void> => {
    const columns = open.get(process);
    if (columns !== undefined) await log.append(columns);
    open.delete(process);
    turn += 1;
  };
  for (const event of events) {
    const columns = open.get(event.process) ?? new EventColumns(event.process);
    open.set(event.process, columns);
    columns.push(event);
    const size = sizes[turn % sizes.length] as number;
    if (columns.count < Math.max(1, size)) continue;
    await flush(event.process);
    if (size === 0) log.reopen();
  }
  for (const process of [...open.keys()]) await flush(process);
  return log;
}
