// Plugs one policy, then another again and again, into a log on disk; dies by SIGKILL at a step of a swap, or by whoever started it.
// Arguments: home, application, step of the second plug ("" = none). Prints each epoch once plug has returned.
import { writeSync } from "node:fs";
import { join } from "node:path";
import { AppLog } from "../../dist/collect/app-log.js";
import { Policies } from "../../dist/daemon/policies.js";
import { openEventLog } from "../../dist/log/append-log.js";
import { PolicyProcesses } from "../../dist/policy/host.js";
import { loadPolicy } from "../../dist/policy/shipped.js";

const [home, app, step] = process.argv.slice(2);
const log = new AppLog(app, join(home, app), openEventLog, "boot");
await log.open(true);
let position = 0;
let armed = false;

const policies = new Policies({
  home,
  collector: {
    policies: {
      of: async () => ({ record: log.policy, memory: log.policyMemory }),
      keep: async (_, record, memory) => {
        log.policy = record;
        log.policyMemory = memory;
        position += 1;
        await log.commit({ ringId: "ring", bootId: "boot", session: 1 }, position);
      },
      remember: () => undefined,
      counts: () => [],
    },
    processes: () => [],
  },
  payloads: { enable: async () => undefined, disable: async () => undefined },
  program: ["unused"],
  withoutRights: false,
  onTrouble: () => undefined,
  onStep: (now) => {
    if (armed && now === step) process.kill(process.pid, "SIGKILL");
  },
  processes: new PolicyProcesses(async () => ({
    running: true,
    ask: async ({ sequence, epoch, rows }) => ({
      sequence,
      epoch,
      rows: rows.map(([, state]) => ({ actions: [], state: Float64Array.from(state) })),
    }),
    close: async () => undefined,
  })),
});

const terms = { set: [], allow: [], fallback: { interval: 60 }, driver: "none" };
for (let turn = 0; ; turn += 1) {
  armed = turn === 1;
  const { component, lines } = loadPolicy(turn % 2 === 0 ? "periodic" : "coordinated");
  const { epoch } = await policies.plug(app, { component, lines, terms, shadowMs: 0, dryRun: false }, true);
  writeSync(1, `${epoch}\n`);
}
