/**
 * The writer that the campaign kills: rounds of two talking processes with checkpoints, segments, retention, reopening; prints the number of
 * acknowledged rounds after each commit, and on stderr the step it was at when it killed itself.
 *
 *   node log-writer.mjs DIST DIR [STEP]     STEP: SIGKILL before or after that step of the disk's work, counted from 1
 */

import { writeSync } from "node:fs";
import fs from "node:fs/promises";
import { syncBuiltinESMExports } from "node:module";

const [dist, dir, at] = process.argv.slice(2);
let steps = 0;

/** Synchronous: what was said before a SIGKILL has been said. */
const say = (text) => writeSync(1, `${text}\n`);

function step(name) {
  steps += 1;
  if (steps !== Number(at)) return;
  writeSync(2, name.replaceAll(dir, "").replaceAll(/\d{6}/g, "N"));
  process.kill(process.pid, "SIGKILL");
}

function instrument(Level) {
  for (const name of ["open", "rename", "rm", "mkdir"]) {
    const original = fs[name];
    fs[name] = async (...args) => {
      step(`before ${name} ${args[0]}`);
      const result = await original(...args);
      step(`after ${name} ${args[0]}`);
      if (name !== "open") return result;
      for (const method of ["writeFile", "sync"]) {
        const whole = result[method].bind(result);
        result[method] = async (...given) => {
          step(`before ${method} ${args[0]}`);
          await whole(...given);
          step(`after ${method} ${args[0]}`);
        };
      }
      return result;
    };
  }
  const batch = Level.prototype.batch;
  Level.prototype.batch = async function (...args) {
    step("before batch");
    await batch.apply(this, args);
    step("after batch");
  };
  syncBuiltinESMExports();
}

if (at !== undefined) instrument((await import("level")).Level);
const { EventLog } = await import(`${dist}/log/event-log.js`);
const { EventColumns } = await import(`${dist}/format/event-columns.js`);
const { planCollection, rulesToKeep } = await import(`${dist}/engine/gc.js`);
const { readEvidence } = await import(`${dist}/engine/read-evidence.js`);

const RANGES = 40;

function round(process, n) {
  const columns = new EventColumns(process);
  const type = process === "a" ? "send" : "receive";
  for (let k = n * RANGES; k < (n + 1) * RANGES; k += 1)
    columns.push({ type, process, channel: "ab", begin: k, end: k + 1, time: 1e15 + k });
  const offsets = new Map([["ab", (n + 1) * RANGES]]);
  const cut = {
    sent: type === "send" ? offsets : new Map(),
    received: type === "send" ? new Map() : offsets,
  };
  columns.push({ type: "checkpoint", process, checkpoint: n + 1, usable: true, cut });
  return columns;
}

async function work(log) {
  say("open");
  for (let turn = 1; ; turn += 1) {
    const n = log.getState("rounds") ?? 0;
    for (const process of ["a", "b"]) await log.append(round(process, n));
    log.putState("rounds", n + 1);
    await log.commit();
    say(n + 1);
    if (turn % 7 === 0) await log.rotate();
    if (turn % 17 === 0) {
      const evidence = await readEvidence(log.readBlocks());
      const { base } = await log.planPrune(planCollection(evidence, rulesToKeep(evidence)).oldest);
      if (base !== undefined) await (await log.prune(base)).removed;
    }
    if (turn % 23 === 0) return;
  }
}

/** Any trouble of the disk: closed, opened anew, as the collector does. */
for (;;) {
  let log;
  try {
    log = await EventLog.open(dir, { create: true, segmentBytes: 20_000 });
    await work(log);
  } catch (error) {
    if (error.code !== "RL_LOG_WRITE") {
      writeSync(2, `${error.code} ${error.stack}\n`);
      process.exit(3);
    }
    say(`trouble ${error.message}`);
  } finally {
    await log?.close().catch(() => undefined);
  }
}
