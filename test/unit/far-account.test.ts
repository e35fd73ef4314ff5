/** On LevelDB: a collector's log that is opened anew far behind its last covering cut (log/far-account.ts). */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { expect, test } from "vitest";
import { parseBlock } from "../../src/format/block-header.ts";
import { EventColumns } from "../../src/format/event-columns.ts";
import { EventLog } from "../../src/log/event-log.ts";
import type { Event } from "../../src/model/event.ts";

/** One process that sends a byte a block. */
class Writer {
  readonly dir = join(mkdtempSync(join(tmpdir(), "recovery-line-far-")), "app");
  #log: EventLog | undefined;
  #sent = 0;
  #checkpoint = 0;
  /** Lines written, count. */
  lines = 0;

  get log(): EventLog {
    return this.#log!;
  }

  async open(): Promise<void> {
    this.#log = await EventLog.open(this.dir, { create: true, mayForget: true, segmentBytes: 20_000 });
  }

  async #append(event: Event): Promise<void> {
    const columns = new EventColumns("a");
    columns.push(event);
    this.lines += 1;
    await this.log.append(columns);
    await this.log.commit();
  }

  async send(blocks = 1): Promise<void> {
    for (let left = blocks; left > 0; left -= 1) {
      this.#sent += 1;
      await this.#append({
        type: "send",
        process: "a",
        channel: "ab",
        begin: this.#sent - 1,
        end: this.#sent,
      });
    }
  }

  /** Does its cut cover? */
  async checkpoint(): Promise<boolean | undefined> {
    this.#checkpoint += 1;
    const cut = { sent: new Map([["ab", this.#sent]]), received: new Map() };
    await this.#append({ type: "checkpoint", process: "a", checkpoint: this.#checkpoint, usable: true, cut });
    return parseBlock(await this.log.block(this.log.lastChain)).header.covers;
  }

  async remove(): Promise<void> {
    await this.#log?.close();
    rmSync(join(this.dir, ".."), { recursive: true, force: true });
  }
}

test("a log that is opened anew far behind its last covering cut: cuts cover again, and its older part can be removed", async () => {
  const writer = new Writer();
  try {
    await writer.open();
    await writer.send();
    expect(await writer.checkpoint()).toBe(true);
    await writer.send(400);
    await writer.log.close();

    await writer.open();
    await writer.send();
    await writer.log.close(); // what is read on the side ends with it
    await writer.open();
    await writer.send();
    expect(await writer.checkpoint()).toBe(false); // a moment later nobody can know
    let covers: boolean | undefined = false;
    for (let left = 200; left > 0 && covers !== true; left -= 1) {
      await sleep(20);
      await writer.send();
      covers = await writer.checkpoint();
    }
    expect(covers).toBe(true);
    await writer.log.rotate();
    const plan = await writer.log.planPrune(new Map([["a", writer.lines]]));
    expect(plan.base?.boundary).toBeGreaterThan(300);
  } finally {
    await writer.remove();
  }
});
