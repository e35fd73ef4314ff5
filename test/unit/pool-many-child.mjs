// A million processes in a ring: two sends, a receive and a checkpoint each. Prints what the line is and what it took.
import { join } from "node:path";
import { pathToFileURL } from "node:url";

const [dist, count] = [process.argv[2], Number(process.argv[3])];
const load = (path) => import(pathToFileURL(join(dist, path)).href);
const { EvidenceBuilder } = await load("graph/evidence/evidence-builder.js");
const { computeLine } = await load("compute/compute.js");

const builder = new EvidenceBuilder();
for (let p = 0; p < count; p += 1) {
  const name = `p${p}`;
  const left = `c${(p + count - 1) % count}`;
  builder.addEvent({ type: "send", process: name, channel: `c${p}`, begin: 0, end: 5 });
  builder.addEvent({ type: "checkpoint", process: name, checkpoint: 1, usable: true });
  builder.addEvent({ type: "receive", process: name, channel: left, begin: 0, end: 5 });
  builder.addEvent({ type: "send", process: name, channel: `c${p}`, begin: 5, end: 7 });
}
const evidence = builder.build();
const rules = { dsm: "sequential", inTransit: "any" };
const one = computeLine(evidence, { failed: ["p0"], ...rules });
const all = computeLine(evidence, rules);
const { user, system } = process.cpuUsage();
console.log(
  JSON.stringify({
    one: one.line.filter(({ action }) => action !== "continue"),
    oneInTransit: one.inTransit.length,
    all: all.line.filter(({ checkpoint, position }) => checkpoint === 1 && position === 2).length,
    allInTransit: all.inTransit.length,
    cpuSeconds: (user + system) / 1e6,
    peakMiB: process.resourceUsage().maxRSS / 1024,
  }),
);
