/**
 * One life of a collector of a home, the whole service with the kernel's ring, and a client of it that checkpoints: says "ack POSITION" for
 * each acknowledged `stable` line of the first process, then starts the service again.
 *
 *   node collect-writer.mjs DIST OPTIONS DIR     OPTIONS: JSON { app, processes: [[name, cgroup id, its path]…], pinDir, ringBytes, only? }
 *
 * `only`: "register" or "drain": does that, says "stats JSON" with what the kernel counted (committed, lost), and ends.
 */
import { readFileSync, writeFileSync } from "node:fs";
import { during, makePoints, say } from "./during.mjs";

const [dist, json, home] = process.argv.slice(2);
const { startDaemon } = await import(`${dist}/daemon/daemon.js`);
const { requireCollector } = await import(`${dist}/client/client.js`);
const { KernelSource } = await import(`${dist}/capture/kernel-source.js`);
const { app, processes, pinDir, ringBytes, only } = JSON.parse(json);

makePoints(
  KernelSource.prototype,
  ...["drain", "commit", "rewind", "select", "flush", "verdicts", "cut", "readPosition", "close"],
);

const { counters } = KernelSource.prototype;
let counted;
KernelSource.prototype.counters = function () {
  counted = counters.call(this);
  return counted;
};

const OPTIONS = {
  home,
  pinDir,
  ringBytes,
  commitIntervalMs: 5,
  onFull: "taint",
  payloadLimitMib: 64,
  version: "campaign",
  onFatal: (error) => {
    throw error;
  },
  onTrouble: (sentence) => process.stderr.write(`${sentence}\n`),
};

const freeze = (path, yes) => writeFileSync(`${path}/cgroup.freeze`, yes ? "1" : "0");
const frozen = (path) => readFileSync(`${path}/cgroup.events`, "utf8").includes("frozen 1");

/** The process stands still until the record is there, as in `checkpoint/checkpoint.ts`: else the cut would heal what was lost after it. */
async function checkpoint(client, name, path) {
  freeze(path, true);
  while (!frozen(path)) await new Promise((resolve) => setTimeout(resolve, 1));
  await recordCut(client, name);
  freeze(path, false);
}

async function recordCut(client, name) {
  const index = await during("checkpoint index", () => client.nextCheckpoint(app, name));
  const { cut, complete, uncaptured } = await during("cut", () => client.cut(app, name));
  const event = { type: "checkpoint", process: name, checkpoint: index, usable: false };
  await during("checkpoint record", () =>
    client.append(app, complete && uncaptured.length === 0 ? { ...event, cut } : event),
  );
}

async function register(client) {
  for (const [process, cgroupId] of processes) {
    const known = (await client.processes()).some((one) => one.process === process && one.live);
    if (!known) await during("register", () => client.register({ app, process, cgroupId }));
  }
}

async function serve(client) {
  await register(client);
  for (let turn = 0; turn < 2; turn += 1) {
    const [[name]] = processes;
    const { position } = await during("control", () => client.append(app, { type: "stable", process: name }));
    say(`ack ${position}`);
    for (const [process, , path] of processes) await checkpoint(client, process, path);
  }
  await during("rotate", () => client.rotate(app));
}

for (const [, , path] of processes) freeze(path, false); // a life may have been killed meanwhile
do {
  const daemon = await during("start", () => startDaemon(OPTIONS));
  const client = await requireCollector(home);
  if (only === undefined) await serve(client);
  else {
    if (only === "register") await register(client);
    await client.drain();
    await client.stats();
    say(`stats ${JSON.stringify(counted)}`);
  }
  client.close();
  await during("close", () => daemon.close());
} while (only === undefined);
