/**
 * `npm run campaign:log -- --kill N --named N --power N --faults N --fail N --damage N --flips SIZE [--part I/N] [--seed S] [--scenarios log,gc,import,collect,overflow] [--steps REGEX] [--seconds N]`,
 * or `-- --nightly` for the volumes of a night: the flags, for log-campaign.ts.
 */
import { parseArgs } from "node:util";
import { startCampaign } from "./start.mjs";

const NIGHTLY = {
  kill: "10000",
  named: "100",
  power: "1000",
  faults: "500",
  fail: "10",
  damage: "100000",
  flips: "1MiB",
};

const names = [
  "kill",
  "named",
  "power",
  "faults",
  "fail",
  "damage",
  "flips",
  "part",
  "seed",
  "scenarios",
  "steps",
  "seconds",
];
const { values } = parseArgs({
  options: {
    nightly: { type: "boolean" },
    ...Object.fromEntries(names.map((name) => [name, { type: "string" }])),
  },
});
const { nightly, ...given } = values;
startCampaign("log-campaign.ts", { ...(nightly ? NIGHTLY : {}), ...given });
