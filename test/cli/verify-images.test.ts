/** `verify`: an image that the log names is whole, or gone by `gc`, or never was here. */
import { renameSync, rmSync } from "node:fs";
import { join } from "node:path";
import { afterEach, beforeAll, expect, test } from "vitest";
import { build, run } from "./cli.ts";
import { APP, append, emptyHome, taken } from "./recorded-home.ts";

const homes: string[] = [];
beforeAll(build);
afterEach(() => {
  for (const home of homes.splice(0)) rmSync(home, { recursive: true });
});

/** Of s and t, two checkpoints each. */
async function recorded(): Promise<string> {
  const home = emptyHome();
  homes.push(home);
  for (const process of ["s", "t"])
    await append(home, [await taken(home, process, 1), await taken(home, process, 2)]);
  return home;
}

interface Verified {
  readonly code: number | null;
  readonly images: number;
  readonly damages: readonly { readonly place: string; readonly why: string }[];
}

async function verify(home: string): Promise<Verified> {
  const { code, stdout } = await run(["verify", APP, "--log", home, "--json"]);
  return { ...JSON.parse(stdout), code };
}

test("an image that is gone is damage, also where all are; one that gc has removed is none", async () => {
  const home = await recorded();
  expect(await verify(home)).toMatchObject({ code: 0, images: 4, damages: [] });
  expect((await run(["gc", APP, "--log", home, "--apply"])).code).toBe(0);
  expect(await verify(home)).toMatchObject({ code: 0, images: 2, damages: [] });
  await append(home, [await taken(home, "s", 3)]);
  expect(await verify(home)).toMatchObject({ code: 0, images: 3, damages: [] });
  rmSync(join(home, APP, "images/t/2"), { recursive: true });
  expect(await verify(home)).toMatchObject({
    code: 5,
    images: 2,
    damages: [{ place: "checkpoint 2 of t", why: expect.stringMatching(/images\/t\/2 is missing/) }],
  });
  expect((await run(["gc", APP, "--log", home, "--apply"])).code).toBe(0);
  expect(await verify(home)).toMatchObject({ code: 5, images: 1 }); // s's second one went, t's is missing still
  renameSync(join(home, APP, "images"), join(home, "elsewhere"));
  const { code, damages } = await verify(home);
  expect([code, ...damages.map(({ place }) => place)]).toEqual([5, "checkpoint 2 of t", "checkpoint 3 of s"]);
});

test("an image that is gone is missed no longer once a rollback has undone its checkpoint", async () => {
  const home = await recorded();
  rmSync(join(home, APP, "images/s/2"), { recursive: true });
  expect(await verify(home)).toMatchObject({ code: 5 });
  await append(home, [{ type: "rollback", process: "s", checkpoint: 1 }]);
  expect(await verify(home)).toMatchObject({ code: 0, images: 3 });
});

test("by other rules than before a collection keeps nothing that went: no image of it is missed", async () => {
  const home = emptyHome();
  homes.push(home);
  const range = { channel: "st", begin: 0, end: 1 };
  await append(home, [
    await taken(home, "s", 1),
    { type: "send", process: "s", ...range },
    await taken(home, "s", 2),
  ]);
  await append(home, [await taken(home, "t", 1)]);
  const gc = async (...flags: string[]): Promise<unknown[]> =>
    JSON.parse((await run(["gc", APP, "--log", home, "--json", ...flags])).stdout).obsolete;
  expect([(await gc()).length, (await gc("--apply", "--in-transit", "any")).length]).toEqual([0, 1]);
  expect(await gc("--apply")).toEqual([]);
  expect(await verify(home)).toMatchObject({ code: 0, images: 2 });
});

test("a log that was imported misses no image that was never here", async () => {
  const home = await recorded();
  const copy = emptyHome();
  homes.push(copy);
  const { stdout } = await run(["export", APP, "--log", home]);
  expect(stdout).toContain('"image":"images/s/1#');
  expect((await run(["import", APP, "--from", "-", "--log", copy], stdout)).code).toBe(0);
  expect(await verify(copy)).toMatchObject({ code: 0, images: 0 });
});
