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
  await vi.waitFor(() => expect(children()).toBe(0));
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
