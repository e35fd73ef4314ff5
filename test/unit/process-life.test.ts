/** How a process ended, where the collector takes the word of it in between two looks. */
import { expect, test } from "vitest";
import { endedIn } from "../../src/terminal/process-life.ts";
import { run } from "../cli/cli.ts";
import { fakeCollector } from "./fake-collector.ts";

/** Its number was never anybody's: no word of its end is left. */
const JOB = { app: "shop", process: "job", cgroupId: 7, task: { pid: 2 ** 22 + 1, startTicks: 1 }, left: [] };
const STATS = { events: [], bytes: [], lost: [], brokenApps: [], unreadableLogs: [] };

/** The first answer comes before the word is taken, the next one after it. */
async function takesTheWord(): Promise<string> {
  let asked = 0;
  return fakeCollector({
    "/v1/processes": () => {
      asked += 1;
      return [{ ...JOB, ...(asked === 1 ? { live: true } : { live: false, end: { code: 0 } }) }];
    },
    "/v1/stats": () => STATS,
    "/v1/policies": () => [],
  });
}

test("a job whose end the collector takes in just then has finished: no restart does its work again", async () => {
  const ended = await endedIn([await takesTheWord()], "shop");
  expect(Object.fromEntries(ended)).toEqual({ job: { state: "finished", exitCode: 0, left: [] } });
});

test("status calls it finished, too", async () => {
  const { stdout } = await run(["status", "--json", "--log", await takesTheWord()]);
  expect((JSON.parse(stdout) as { processes: unknown }).processes).toMatchObject([
    { process: "job", state: "finished", exitCode: 0 },
  ]);
});

test("who ended without a word is not waited for: once the collector has given up, nobody knows how", async () => {
  let asked = 0;
  const home = await fakeCollector({
    "/v1/processes": () => {
      asked += 1;
      return [{ ...JOB, live: false }];
    },
  });
  expect((await endedIn([home], "shop")).get("job")).toMatchObject({ state: "exited" });
  expect(asked).toBe(1);
});
