/**
 * The writer that the campaign kills: rounds of two talking processes with checkpoints, segments, retention, reopening; prints the number of
 * acknowledged rounds after each commit.
 *
 *   node log-writer.mjs DIST [brisk] DIR     brisk: all it ever does, it does within a few rounds
 */
import { writeSync } from "node:fs";
import { during, say } from "./during.mjs";

const [dist, ...rest] = process.argv.slice(2);
const [dir, pace] = rest.reverse();
const { EventLog } = await import(`${dist}/log/event-log.js`);
const { EventColumns } = await import(`${dist}/format/event-columns.js`);
const { planCollection, rulesToKeep } = await import(`${dist}/gc/gc.js`);
const { readEvidence } = await import(`${dist}/logs/read-evidence.js`);

const RANGES = 40;
const EVERY = pace === "brisk" ? { rotate: 2, prune: 4, reopen: 5 } : { rotate: 7, prune: 17, reopen: 23 };

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

async function prune(log) {
  const evidence = await readEvidence(log.readBlocks());
  const { base } = await log.planPrune(planCollection(evidence, rulesToKeep(evidence)).oldest);
  if (base !== undefined) await during("prune", async () => (await log.prune(base)).removed);
}

async function work(log) {
  say("open");
  for (let turn = 1; ; turn += 1) {
    const n = log.getState("rounds") ?? 0;
    for (const process of ["a", "b"]) await log.append(round(process, n));
    log.putState("rounds", n + 1);
    await during("commit", () => log.commit());
    say(n + 1);
    if (turn % EVERY.rotate === 0) await during("rotate", () => log.rotate());
    if (turn % EVERY.prune === 0) await prune(log);
    if (turn % EVERY.reopen === 0) return;
  }
}

/** Any trouble of the disk: closed, opened anew, as the collector does. */
for (;;) {
  let log;
  try {
    log = await during("open", () => EventLog.open(dir, { create: true, segmentBytes: 20_000 }));
    await work(log);
  } catch (error) {
    if (error.code !== "RL_LOG_WRITE") {
      writeSync(2, `${error.code} ${error.stack}\n`);
      process.exit(3);
    }
    say(`trouble ${error.message}`);
  } finally {
    await during("close", async () => await log?.close().catch(() => undefined));
  }
}
