/** Several nodes' logs in one compute: a node whose log is missing is refused by name. */
import { cpSync } from "node:fs";
import { join } from "node:path";
import { afterEach, beforeAll, beforeEach, expect, test } from "vitest";
import { EventColumns } from "../../src/format/event-columns.ts";
import { EventLog } from "../../src/log/event-log.ts";
import { build, run, runJson, scratch } from "./cli.ts";

let folder: ReturnType<typeof scratch>;
beforeAll(build);
beforeEach(() => {
  folder = scratch();
});
afterEach(() => folder.clean());

/** The log of one node, as a collector of `collect --node NAME --nodes …` leaves it: a process that sends to one of the next node. */
async function nodeLog(name: string, all: readonly string[]): Promise<string> {
  const home = join(folder.dir, name);
  const log = await EventLog.open(join(home, "app"), { create: true });
  const process = `p-${name}`;
  const columns = new EventColumns(process);
  const next = all[(all.indexOf(name) + 1) % all.length] as string;
  const before = all[(all.indexOf(name) + all.length - 1) % all.length] as string;
  columns.push({ type: "send", process, channel: `${name}-${next}`, begin: 0, end: 5 });
  columns.push({ type: "receive", process, channel: `${before}-${name}`, begin: 0, end: 5 });
  await log.append(columns);
  log.putState("node", { name, all });
  await log.commit();
  await log.close();
  return home;
}

test("every node's log there: clean; one missing: refused by name, or tainted with --assume-lost", async () => {
  const all = ["n1", "n2", "n3"];
  const homes = [];
  for (const name of all) homes.push(await nodeLog(name, all));
  const [one, two, three] = homes.map((home) => ["--log", home]) as [string[], string[], string[]];
  expect(
    (await runJson(["compute", "app", ...one, ...two, ...three, "--failed", "p-n1"])).value,
  ).toMatchObject({
    outcome: "clean",
  });

  const refused = await run(["compute", "app", ...one, ...three, "--failed", "p-n1"]);
  expect(refused.code).toBe(4);
  expect(refused.stderr).toMatch(/node "n2"/);
  for (const more of [["--from-events"], ["--diagram"]])
    expect((await run(["compute", "app", ...one, ...three, ...more])).code).toBe(4);
  for (const command of ["failures", "gc", "graph"])
    expect(await run([command, "app", ...one, ...three])).toMatchObject({
      code: 4,
      stderr: expect.stringContaining('"n2"'),
    });

  const assumed = await run(["compute", "app", ...one, ...three, "--assume-lost", "--json"]);
  expect(assumed.code).toBe(3);
  expect(JSON.parse(assumed.stdout)).toMatchObject({ outcome: "tainted", missingNodes: ["n2"] });
  expect((await run(["compute", "app", ...one, ...three, "--assume-lost"])).stdout).toContain(
    "The log of node n2 is missing",
  );
});

test("--nodes names nodes that no log knows of; a copy of one node's log is told from another node's", async () => {
  const home = await nodeLog("n1", ["n1"]);
  expect((await run(["compute", "app", "--log", home])).code).toBe(0);
  const refused = await run(["compute", "app", "--log", home, "--nodes", "n1,n9"]);
  expect([refused.code, refused.stderr]).toEqual([4, expect.stringContaining('"n9"')]);
  expect((await run(["compute", "app", "--log", home, "--nodes", "n1,"])).code).toBe(2);
  const copy = join(folder.dir, "copy");
  cpSync(home, copy, { recursive: true });
  const twice = await run(["compute", "app", "--log", home, "--log", copy]);
  expect(twice.code).toBe(2);
});
