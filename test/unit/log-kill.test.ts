/** kill -9 at random times while a process appends, commits, rotates: from compiled output, as it runs in the field. */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { join } from "node:path";
import { expect, test } from "vitest";
import { packageRoot } from "../../src/native/binding.ts";
import { builtCopy } from "../built.ts";
import { scratch, sends, storedEvents } from "./log-rig.ts";

const KILLS = Number(process.env["RECOVERY_LINE_KILLS"] ?? 12);

/** Goes on where the log ends; prints the number of acknowledged events after each commit. */
const PROGRAM = `
const { EventLog } = await import(process.argv[1] + "/log/event-log.js");
const { EventColumns } = await import(process.argv[1] + "/format/event-columns.js");
const log = await EventLog.open(process.argv[2], { create: true, segmentBytes: 40_000 });
let next = log.getState("next") ?? 0;
process.stdout.write("open\\n");
for (;;) {
  const columns = new EventColumns("p");
  const count = 1 + Math.floor(Math.random() * 400);
  for (let n = next; n < next + count; n += 1)
    columns.push({ type: "send", process: "p", channel: "from-p", begin: n, end: n + 1, time: 1e15 + n * 1000 });
  await log.append(columns);
  next += count;
  log.putState("next", next);
  await log.commit();
  process.stdout.write(next + "\\n");
}`;

test(`a writer killed ${KILLS} times at random loses nothing acknowledged and doubles nothing`, async () => {
  const folder = scratch();
  const dist = builtCopy(join(packageRoot(), "build/test/log-kill"));
  const dir = join(folder.path, "app");
  let acknowledged = 0;
  for (let kill = 0; kill < KILLS; kill += 1) {
    const child = spawn(process.execPath, ["--input-type=module", "-e", PROGRAM, dist, dir], {
      stdio: ["ignore", "pipe", "inherit"],
    });
    let told = "";
    child.stdout.on("data", (chunk: Buffer) => {
      told += chunk.toString();
    });
    await once(child.stdout, "data");
    setTimeout(() => child.kill("SIGKILL"), Math.random() * 120);
    await once(child, "close");
    expect(child.signalCode).toBe("SIGKILL"); // nothing else ended it
    const last = Number(told.split("\n").at(-2));
    if (!Number.isNaN(last)) acknowledged = last;
  }
  const events = await storedEvents(dir);
  expect(events.length).toBeGreaterThanOrEqual(acknowledged);
  expect(acknowledged).toBeGreaterThan(KILLS);
  expect(events).toEqual([...sends("p", 0, events.length).events()]);
  console.log(`${KILLS} kills, ${acknowledged} events acknowledged, ${events.length} there`);
  folder.remove();
}, 180_000);
