/**
 * A process of the test application under a policy: tokens wander, and each delivery is told to the world before it goes on. Arguments: home, name, all
 * names, tokens, hops, policy, its parameters.
 */
import { createHash } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";
import { joinWithPolicy } from "recovery-line/sdk/policy";

const [home, me, list, tokens, hops, policy, ...set] = process.argv.slice(2);
const processes = list.split(",");
const others = processes.filter((name) => name !== me);
let state = { hash: "", count: 0, started: false };
const { node, output } = await joinWithPolicy({
  ...{ app: "policed", process: me, home, policy, set, processes, beatMs: 50 },
  state: () => state,
});
state = node.restored ?? state;
for (const name of others) node.connect(name);
process.stdout.write(`joined ${node.incarnation} ${state.count}\n`);

if (!state.started) {
  state = { ...state, started: true };
  for (let token = 0; token < Number(tokens); token += 1)
    await node.send(
      others[token % others.length],
      JSON.stringify({ token: `${me}.${token}`, hops: Number(hops) }),
    );
}
for (;;) {
  const { from, sequence, payload } = await node.receive();
  const { token, hops: left } = JSON.parse(payload.toString());
  const hash = createHash("sha256").update(`${state.hash} ${from} ${sequence} ${payload}`).digest("hex");
  state = { ...state, hash, count: state.count + 1 };
  await output(() => process.stdout.write(`out ${state.count} ${hash}\n`));
  if (!node.replaying) await sleep(2);
  const chance = node.record(() => Math.floor(Math.random() * others.length));
  if (left > 0) await node.send(others[chance], JSON.stringify({ token, hops: left - 1 }));
}
