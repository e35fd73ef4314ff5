/** Who keeps payloads is started, started again and ended by the collector, and nobody else would end it. */
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { PayloadLogger, type PayloadLoggerOptions } from "../../src/payload/payload-logger.ts";
import { PayloadLoggers, type PayloadLoggersOptions } from "../../src/payload/payload-loggers.ts";
import { missing } from "../daemon/rig.ts";

const live = test.skipIf(missing !== undefined);
const APP = "shop";

let home = "";
beforeEach(() => {
  home = mkdtempSync(join(tmpdir(), "rl-payload-loggers-"));
  mkdirSync(join(home, APP, "payload"), { recursive: true });
});
afterEach(() => rmSync(home, { recursive: true }));

/** Processes whose arguments name the home, count. */
function children(): number {
  const pids = readdirSync("/proc").filter((name) => /^\d+$/.test(name));
  return pids.filter((pid) => {
    try {
      return readFileSync(`/proc/${pid}/cmdline`, "utf8").includes(home);
    } catch {
      return false;
    }
  }).length;
}

/** Loggers that are played; `refuses`: what the next start throws. */
class Played {
  readonly started: PayloadLoggerOptions[] = [];
  readonly trouble: string[] = [];
  refuses: Error | undefined;
  tries = 0;
  readonly loggers: PayloadLoggers;

  constructor(options: Partial<PayloadLoggersOptions> = {}) {
    this.loggers = new PayloadLoggers({
      home,
      pinDir: "unused",
      limitMib: 1,
      withoutRights: false,
      onTrouble: (sentence) => this.trouble.push(sentence),
      start: async (one) => {
        this.tries += 1;
        if (this.refuses !== undefined) throw this.refuses;
        const logger = {
          cgroupId: 1,
          running: true,
          flush: async () => nothing,
          close: async () => undefined,
        };
        this.started.push({
          ...one,
          onEnd: (why) => {
            logger.running = false;
            one.onEnd(why);
          },
        });
        return logger;
      },
      ...options,
    });
  }
}

const nothing = { writtenBytes: 0, lostBytes: 0, failedBytes: 0, heldPackets: 0 };

test("a logger that does not answer its start is ended: beside the next one it would write everything twice", async () => {
  const program = join(home, "silent");
  writeFileSync(program, "#!/bin/sh\nread never\n", { mode: 0o700 });
  const started = PayloadLogger.start({
    appDir: join(home, APP),
    cgroup: home,
    pinDir: "unused",
    onEnd: () => undefined,
    program,
    answerLimitMs: 50,
  });
  await expect(started).rejects.toMatchObject({
    code: "RL_NOT_SUPPORTED",
    message: expect.stringContaining("no answer within 50 ms"),
  });
  await vi.waitFor(() => expect(children()).toBe(0), { timeout: 30_000 });
});

live("a process that comes while the collector ends starts no logger that nobody would end", async () => {
  const played = new Played();
  const before = played.loggers.ensure(APP);
  await played.loggers.close();
  await before;
  await played.loggers.ensure(APP);
  await played.loggers.enable(APP);
  expect(played.started).toEqual([]);
});

live(
  "a logger that can't be started again is tried until it starts, later and later, told once, and no longer than its application lives",
  async () => {
    vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout"] });
    try {
      const played = new Played();
      /** When it is tried, ms from now on. */
      const triesWithin = async (ms: number): Promise<number[]> => {
        const at: number[] = [];
        for (let nowMs = 100; nowMs <= ms; nowMs += 100) {
          const { tries } = played;
          await vi.advanceTimersByTimeAsync(100);
          await played.loggers.flush(); // behind what has begun
          if (played.tries > tries) at.push(nowMs);
        }
        return at;
      };
      await played.loggers.ensure(APP);
      played.refuses = new Error("no memory");
      played.started[0]!.onEnd("killed");
      expect(await triesWithin(3_500)).toEqual([200, 600, 1_400, 3_000]);
      expect(played.trouble).toEqual([
        `the payload logger of ${APP} ended and is started again: killed`,
        `the payload logger of ${APP} is tried again: no memory`,
      ]);
      expect((await triesWithin(130_000)).slice(-2)).toEqual([77_500, 107_500]);
      played.refuses = undefined;
      expect(await triesWithin(60_000)).toHaveLength(1);
      expect(played.started).toHaveLength(2);
      played.refuses = new Error("no memory");
      played.started[1]!.onEnd("killed");
      expect(await triesWithin(1_000)).toEqual([200, 600]);
      await played.loggers.retain(new Set());
      expect(await triesWithin(60_000)).toEqual([]);
      await played.loggers.resume(APP); // the next collector's, as it starts
      expect(await triesWithin(1_000)).toEqual([400]);
      await played.loggers.disable(APP);
      expect(await triesWithin(60_000)).toEqual([]);
      expect(vi.getTimerCount()).toBe(0);
    } finally {
      vi.useRealTimers();
    }
  },
);
