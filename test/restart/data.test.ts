/** The data of processes (run --data): a restart brings their trees back exactly, whatever cuts it off, or refuses with nothing touched. */
import { spawn } from "node:child_process";
import { once } from "node:events";
import {
  appendFileSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { expect } from "vitest";
import { type Rig, until, withRig, withSharedCollector } from "../daemon/rig.ts";
import { describeTree, differs } from "../data-tree/judge.ts";
import { sized } from "../size.ts";
import { Keeper } from "./keeper.ts";
import { killPoints, kind, restartKilledAt } from "./killed-at.ts";
import { restartable } from "./restartable.ts";

const together = withSharedCollector("data");
const PREFIX = ".recovery-line-replaced-";

restartable(
  "a tree comes back exactly as it was at the checkpoint, also after kills -9 of the restart at its steps",
  { timeout: 180_000 },
  () =>
    withRig("data", async (rig) => {
      const library = killPoints(rig);
      await rig.collect();
      const keeper = new Keeper(rig);
      await keeper.start();
      await keeper.load(30);
      await rig.json("checkpoint", rig.app, "--coordinated");
      await keeper.load(20);
      await rig.json("checkpoint", rig.app, "--coordinated"); // refers to copies of the first
      const then = describeTree(keeper.tree);
      await keeper.load(30);
      expect(differs(describeTree(keeper.tree), then)).toBeDefined();
      keeper.kill();
      const journal = kind(`/home/${rig.app}/restart/journal.json`);
      const workFolders = (): string[] => readdirSync(rig.folder).filter((name) => name.startsWith(PREFIX));

      expect(await restartKilledAt(rig, library, `before rename ${journal}`)).toMatchObject({
        signal: "SIGKILL",
      });
      expect(existsSync(join(rig.home, rig.app, "restart/journal.json"))).toBe(false);
      const [workName, ...more] = workFolders();
      expect(more).toEqual([]);
      const work = kind(`/${workName}`);
      // Each life but the first begins with what the one before left.
      const points: readonly (readonly [string, number])[] = [
        [`after rename ${journal}`, 1],
        [`after rename ${work}/old/current`, 1],
        [`after rename ${work}/old/table`, 1],
        ["before rename /tree/current", 1],
        ["after rename /tree/table", 1],
        ["before chmod /tree", 1],
        [`after rename ${journal}`, 3],
        [`before unlink ${work}/old/current`, 1],
      ];
      for (const [point, nth] of sized(points, [points[4]!, points[7]!])) {
        const before = keeper.written;
        expect([point, await restartKilledAt(rig, library, point, nth)]).toEqual([
          point,
          expect.objectContaining({ signal: "SIGKILL" }),
        ]);
        expect(keeper.written).toBeLessThanOrEqual(before); // its output is cut back; nothing runs
        if (point.includes("/old/table") || point === "after rename /tree/table")
          await mixtureIsRefused(rig, keeper);
      }
      // All is recorded by now: what was overwritten goes, and all go on.
      const { code, out } = await rig.cli("restart", rig.app);
      expect([code, out]).toEqual([0, expect.stringContaining("they go on now")]);
      expect(differs(describeTree(keeper.tree), then)).toBeUndefined();
      expect(workFolders()).toEqual([]);
      await keeper.load(30);
      expect(keeper.wrong).toEqual([]);

      const last = keeper.written;
      keeper.kill();
      const answer = await rig.json<{ kept: string[]; data: unknown }>("restart", rig.app, "--keep-replaced");
      expect(answer.data).toEqual([{ process: "keeper", root: keeper.tree }]);
      expect(differs(describeTree(keeper.tree), then)).toBeUndefined();
      expect(readFileSync(join(answer.kept[0]!, "current"), "utf8")).toBe(String(last));
      await keeper.load(10);
      expect(keeper.wrong).toEqual([]);

      // Cut off where rollbacks are logged, and given up: all of it, the new tree among it.
      const kept = workFolders();
      keeper.kill();
      expect(await restartKilledAt(rig, library, `after rename ${journal}`, 3)).toMatchObject({
        signal: "SIGKILL",
      });
      expect(await rig.json("restart", rig.app, "--abandon")).toMatchObject({ resumed: [], undone: true });
      expect(differs(describeTree(keeper.tree), then)).toBeUndefined();
      expect([workFolders(), rig.cgroup("keeper").populated]).toEqual([kept, false]);
      const lines = (await rig.events()).filter(({ process }) => process === "keeper");
      expect(lines.at(-1)).toMatchObject({ type: "rollback", checkpoint: 2 });
      await rig.json("restart", rig.app);
      await keeper.load(10);
      expect(keeper.wrong).toEqual([]);
    }),
);

/** Nothing is started on it, by whatever name. */
async function mixtureIsRefused(rig: Rig, { tree }: Keeper): Promise<void> {
  const other = await rig.cli("run", `${rig.app}-other`, "p", "--data", tree, "--", "true");
  expect(other).toMatchObject({ code: 1, err: expect.stringContaining("may be a mixture of two states") });
  const again = await rig.cli("run", rig.app, "keeper", "--", "true");
  expect(again).toMatchObject({ code: 1, err: expect.stringContaining("was begun and is not done") });
}

restartable("a tree goes back to what it was before the program began, where there is no checkpoint", () =>
  together("data-initial", async (rig) => {
    const keeper = new Keeper(rig);
    keeper.prepare();
    await keeper.start();
    await keeper.load(10);
    keeper.kill();
    await rig.json("restart", rig.app);
    await until("it has begun again, on a tree as it was", () => rig.output("keeper").includes("listening"));
  }),
);

const WRITER = `setInterval(() => require("node:fs").appendFileSync(process.argv[1] + "/log", "line\\n"), 5)`;

restartable("what stands in the way of data is named, and nothing is touched", { timeout: 150_000 }, () =>
  together("data-refused", async (rig) => {
    const tree = rig.path("tree");
    mkdirSync(join(tree, "below"), { recursive: true });
    const pid = await rig.run("writer", process.execPath, "-e", WRITER, tree);
    await until("it has begun", () => existsSync(join(tree, "log")));
    await rig.json("checkpoint", rig.app);
    expect(await rig.json("data", rig.app, "writer", "--data", tree)).toMatchObject({ roots: [tree] });
    rig.cgroup("writer").kill();
    await until("it is dead", () => !rig.cgroup("writer").populated);
    const refused = async (...args: string[]): Promise<string> => {
      const { code, out, err } = await rig.cli(...args);
      expect([args.join(" "), code, out]).toEqual([args.join(" "), 4, expect.any(String)]);
      return err;
    };
    expect(await refused("restart", rig.app)).toContain(
      `checkpoint 1 of writer does not hold its data in ${tree}, which was named later`,
    );
    expect((await rig.cli("data", rig.app, "writer", "--none")).code).toBe(0);
    await rig.json("restart", rig.app);
    expect(rig.cgroup("writer").pids()).toContain(pid);
    expect((await rig.cli("data", rig.app, "writer", "--data", tree, "--data-limit", "100000")).code).toBe(0);

    const second = ["run", rig.app, "second", "--data", join(tree, "below"), "--", "true"];
    expect(await refused(...second)).toContain(`${join(tree, "below")} of second lies in ${tree} of writer`);
    for (const wrong of [rig.home, rig.path("nowhere"), join(tree, "log")])
      expect(await rig.cli("run", rig.app, "third", "--data", wrong, "--", "true")).toMatchObject({
        code: 2,
      });

    const stranger = spawn("sh", ["-c", 'exec sleep 1000 >>"$0/strange"', tree]);
    const comm = (): string => readFileSync(`/proc/${stranger.pid}/comm`, "utf8");
    await until("it writes there", () => existsSync(join(tree, "strange")) && comm() === "sleep\n");
    expect(await refused("checkpoint", rig.app)).toContain(
      `process ${stranger.pid} (sleep) has ${join(tree, "strange")} open for writing`,
    );
    stranger.kill("SIGKILL");
    await once(stranger, "close");

    await rig.json("checkpoint", rig.app);
    expect((await rig.cli("data", rig.app, "writer", "--data", tree, "--data-limit", "0")).code).toBe(0);
    expect(await refused("checkpoint", rig.app)).toMatch(
      /more than 0 bytes below .* would be copied while the process stands still: 1 files with \d+ bytes/,
    );
    expect(rig.cgroup("writer").pids()).toContain(pid);

    const store = join(rig.home, rig.app, "images/writer");
    const newest = readdirSync(store)
      .filter((name) => /^\d+$/.test(name))
      .sort()
      .at(-1)!;
    const status = await rig.json<{ processes: { process: string; data: string[]; images: object[] }[] }>(
      "status",
      rig.app,
    );
    expect(status.processes[0]).toMatchObject({
      data: [tree],
      images: [{ checkpoint: 1, dataBytes: 0 }, {}],
    });
    expect((await rig.cli("verify", rig.app)).out).toContain("2 images");
    const files = join(store, newest, "data/0/files");
    const stored = readdirSync(files).map((name) => join(files, name));
    expect(stored.every((path) => statSync(path).nlink === 1)).toBe(true);
    writeFileSync(stored[0]!, "X", { flag: "r+" });
    expect(await rig.cli("verify", rig.app)).toMatchObject({
      code: 5,
      out: expect.stringMatching(
        new RegExp(`checkpoint ${newest} of writer: data damaged: .*differs from its checksum`),
      ),
    });
    rig.cgroup("writer").kill();
    await until("it is dead", () => !rig.cgroup("writer").populated);
    appendFileSync(join(tree, "log"), "as it was\n");
    expect(await refused("restart", rig.app, "--dry-run")).toContain("data damaged");
    expect(await refused("restart", rig.app)).toContain("data damaged");
    expect(readFileSync(join(tree, "log"), "utf8")).toContain("as it was\n");
  }),
);
