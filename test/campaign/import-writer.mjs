/**
 * Imports events, large imports by a journal and small ones in one commit, each on a channel of its own; says the channel and the count
 * before ("begin C N") and after ("end C N").
 *
 *   node import-writer.mjs DIST DIR
 */
import { randomUUID } from "node:crypto";
import { during, say } from "./during.mjs";

const [dist, dir] = process.argv.slice(2);
const { importEvents } = await import(`${dist}/import/import-events.js`);

/** Above and below what one commit takes here (IMPORT_BATCH_EVENTS as the campaign shrinks it). */
const SIZES = [150, 30];

function* events(channel, count) {
  for (let n = 0; n < count; n += 1) yield { type: "send", process: "p", channel, begin: n, end: n + 1 };
}

for (let turn = 0; ; turn += 1) {
  const [channel, size] = [`c-${randomUUID().slice(0, 13)}`, SIZES[turn % SIZES.length]];
  say(`begin ${channel} ${size}`);
  await during("import", () =>
    importEvents(dir, "app", async function* (check) {
      const batch = [...events(channel, size)];
      for (const [at, event] of batch.entries()) check.add(event, { file: "-", line: at + 1 });
      yield batch;
    }),
  );
  say(`end ${channel} ${size}`);
}
