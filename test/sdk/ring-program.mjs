/**
 * A process of the test application: tokens wander from process to process; where each goes next follows from the hash of everything
 * that its holder has received so far, in order, and from recorded chance. Arguments: home, name, all names, tokens, hops, checkpoint every.
 */
import { createHash } from "node:crypto";
import { join } from "recovery-line/sdk";

const [home, me, list, tokens, hops, every] = process.argv.slice(2);
const names = list.split(",");
const others = names.filter((name) => name !== me);
const node = await join({ app: "ring", process: me, home });
for (const name of others) node.connect(name);
const state = node.restored ?? { hash: "", count: 0, done: 0, started: false, stopped: false };
const say = (line) => process.stdout.write(`${line}\n`);
say(`joined ${node.incarnation}`);

if (!state.started) {
  for (let token = 0; token < Number(tokens); token += 1)
    await node.send(
      others[token % others.length],
      JSON.stringify({ token: `${me}.${token}`, hops: Number(hops) }),
    );
  state.started = true;
}
while (!state.stopped) {
  const { from, sequence, payload } = await node.receive();
  const message = JSON.parse(payload.toString());
  state.hash = createHash("sha256").update(`${state.hash} ${from} ${sequence} ${payload}`).digest("hex");
  state.count += 1;
  await act(message);
  if (state.count % Number(every) === 0) await node.checkpoint(state);
}
await node.checkpoint(state);
await node.released();
process.on("SIGTERM", () => void node.close().then(() => process.exit(0)));
say(`result ${JSON.stringify({ hash: state.hash, count: state.count })}`);

async function act({ token, hops, done, stop }) {
  if (stop) state.stopped = true;
  else if (done) await finished();
  else if (hops > 0) {
    const chance = node.record(() => Math.floor(Math.random() * 1000));
    const to = others[(Number.parseInt(state.hash.slice(0, 6), 16) + chance) % others.length];
    await node.send(to, JSON.stringify({ token, hops: hops - 1, chance }));
  } else if (me === names[0]) await finished();
  else await node.send(names[0], JSON.stringify({ done: token }));
}

/** The first process counts the tokens that have ended; with the last one it stops everybody. */
async function finished() {
  state.done += 1;
  if (state.done < names.length * Number(tokens)) return;
  await Promise.all(others.map((name) => node.send(name, JSON.stringify({ stop: true }))));
  state.stopped = true;
}
