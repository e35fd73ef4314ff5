/** Processes that exchange what no record tells of: seen, said, and never brought back as if nothing were (case 03-shared-memory). */
import { execFileSync, spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { chmodSync, existsSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { beforeAll, expect, test } from "vitest";
import type { UnseenChannel } from "../../src/model/unseen-channel.ts";
import { compile } from "../native/c-build.ts";
import { restartable } from "../restart/restartable.ts";
import { LONG } from "../size.ts";
import { missing, type Rig, until, withRig, withSharedCollector } from "./rig.ts";

const live = test.skipIf(missing !== undefined);
const together = withSharedCollector("unseen");
const CLI = join(import.meta.dirname, "../../dist/cli/main.js");
let program: string;
beforeAll(() => {
  program = compile("unseen", ["test/native/c/unseen_helper.c"]);
});

/** Rounds that the first of the two counted, and that the second answered. */
function counts(rig: Rig, name: string): [number, number] {
  const last = rig.output(name).trimEnd().split("\n").at(-1);
  const found = /wrote (\d+), answered (\d+)/.exec(last ?? "");
  return [Number(found?.[1] ?? 0), Number(found?.[2] ?? 0)];
}

async function exchange(rig: Rig, name: string): Promise<void> {
  const [from] = counts(rig, name);
  await until(`${name} is answered`, () => counts(rig, name)[1] > from + 2);
}

function end(rig: Rig): Promise<void> {
  for (const name of rig.processNames()) if (rig.cgroup(name).populated) rig.cgroup(name).kill();
  return until("all are dead", () => rig.processNames().every((name) => !rig.cgroup(name).populated));
}

/** The collector looks now and then, and when it is asked: it has found so many things that `name` shares. */
async function looked(rig: Rig, name: string, things: number): Promise<void> {
  const client = await rig.client();
  await until(`the collector sees what ${name} shares`, async () => {
    await client.unseen(rig.app);
    return ((await rig.known(name))?.unseen ?? []).length >= things;
  });
  client.close();
}

interface Status {
  readonly processes: { readonly uncaptured: string[]; readonly unseen?: UnseenChannel[] }[];
}

restartable("case 03: two that share memory without a name are never called clean, nor imaged apart", () =>
  together("shm", async (rig) => {
    const name = `/${rig.app}`;
    const a = await rig.run("a", program, "count", "first", name);
    const b = await rig.run("b", program, "count", "second", name);
    await exchange(rig, "a");
    await looked(rig, "b", 1);
    const line = await rig.cli("compute", rig.app, "--failed", "a");
    expect([line.code, line.out]).toEqual([3, expect.stringMatching(/^b +initial +0/m)]);
    expect(line.out).toContain(`b (process ${b}) share memory: /dev/shm${name} (deleted)`);
    const { processes } = await rig.json<Status>("status", rig.app);
    expect(processes.map(({ uncaptured }) => uncaptured)).toEqual([["shared-memory"], ["shared-memory"]]);
    expect(processes[1]!.unseen).toMatchObject([{ process: "b", pid: b, other: "a", otherPid: a }]);
    for (const args of [["--coordinated"], ["a"]]) {
      const refused = await rig.cli("checkpoint", rig.app, ...args);
      expect(refused.code, refused.err).toBe(4);
      expect(refused.err).toMatch(
        /a \(process \d+\) and b \(process \d+\) share memory.*start both under one name/s,
      );
    }
    expect((await rig.events()).filter(({ type }) => type === "checkpoint")).toEqual([]);
    await end(rig);
    const restart = await rig.cli("restart", rig.app);
    expect(restart.out, restart.err).toMatch(/tainted, 2 processes of 2 come back/);
    await exchange(rig, "a"); // from their start: they make it anew
    expect((await rig.cli("compute", rig.app, "--failed", "b")).code, "the new lives, too").toBe(3);
    await end(rig);
  }),
);

restartable("case 03, as the refusal advises: both under one name are imaged and come back", () =>
  together("shm-one", async (rig) => {
    const name = `/${rig.app}`;
    const [first, second] = ["first", "second"].map((which) => `${program} count ${which} ${name}`);
    await rig.run("both", "sh", "-c", `${second} & exec ${first}`);
    await exchange(rig, "both");
    expect((await rig.cli("checkpoint", rig.app, "both")).code).toBe(0);
    await exchange(rig, "both");
    rig.cgroup("both").kill();
    const again = await rig.cli("restart", rig.app, "--failed", "both");
    expect(again.out, again.err).toMatch(/^both +restore/m);
    await exchange(rig, "both");
    // Its output was cut back with it, and it counts on from there: nothing twice, nothing left out.
    const wrote = [...rig.output("both").matchAll(/wrote (\d+)/g)].map(([, count]) => Number(count));
    expect(wrote).toEqual(wrote.map((_, at) => at + 1));
  }),
);

/** What each kind of thing is told by; a second argument is the first one's process and descriptor. */
const KINDS: readonly (readonly [kind: string, reason: string, shared?: string])[] = [
  ["memfd", "shared-memory"],
  ["eventfd", "eventfd"],
  ["mqueue", "message-queue", "name"],
  ["sysv-memory", "shared-memory", "number"],
  ["sysv-queue", "message-queue", "number"],
  ["map", "shared-memory", "file"],
  ["fifo", "pipe", "file"],
  ["file", "shared-file", "file"],
];

restartable(
  "each kind of thing that two processes share: both are named, no image, no line keeps what they did",
  () =>
    together("kinds", async (rig) => {
      const place = (kind: string): string => rig.path(`${kind}.thing`);
      writeFileSync(place("map"), Buffer.alloc(4096));
      writeFileSync(place("file"), "contents");
      execFileSync("mkfifo", [place("fifo")]);
      const number = 1 + (process.pid % 2 ** 24);
      const named: Readonly<Record<string, (kind: string) => string>> = {
        name: () => `/${rig.app}`,
        number: (kind) => `${number + kind.length}`,
        file: place,
      };
      // Their input stays open; a FIFO opens once both are there.
      const helper = (kind: string, which: string, args: string): string =>
        `sleep 600 | ${program} ${kind === "fifo" ? "file" : kind} ${which} ${args} >${rig.path(`${kind}.${which}`)} & echo $! >${rig.path(`${kind}.pid`)}`;
      const shell = (which: string, argsOf: (kind: string) => string): string =>
        `${KINDS.map(([kind, , shared]) => helper(kind, which, shared === undefined ? argsOf(kind) : named[shared]!(kind))).join("\n")}\nwait`;
      const said = (name: string): string => {
        const file = rig.path(name);
        return existsSync(file) ? readFileSync(file, "utf8").trim() : "";
      };
      const has = (which: string, kinds = KINDS) =>
        until(`the ${which} has all`, () => kinds.every(([kind]) => said(`${kind}.${which}`) !== ""));
      await rig.run(
        "a",
        "sh",
        "-c",
        shell("first", () => "-"),
      );
      await has(
        "first",
        KINDS.filter(([kind]) => kind !== "fifo"),
      );
      const passed = (kind: string): string => `${said(`${kind}.pid`)} ${said(`${kind}.first`)}`;
      await rig.run("b", "sh", "-c", shell("second", passed));
      await has("second");
      for (const name of ["a", "b"]) await looked(rig, name, KINDS.length);

      const refused = await rig.cli("checkpoint", rig.app, "a");
      // System V segments of everybody are refused before the others are looked at.
      expect([refused.code, refused.err]).toEqual([
        1,
        expect.stringMatching(/System V segment .* no image holds/),
      ]);
      const { processes } = await rig.json<Status>("status", rig.app);
      for (const { unseen = [], uncaptured } of processes) {
        expect(unseen.map(({ reason }) => reason).sort()).toEqual(KINDS.map(([, reason]) => reason).sort());
        expect(new Set(uncaptured)).toEqual(new Set(KINDS.map(([, reason]) => reason)));
      }
      const line = await rig.cli("compute", rig.app, "--failed", "a");
      expect([line.code, line.out]).toEqual([3, expect.stringMatching(/^b +initial +0/m)]);
      await end(rig);
      const again = await rig.cli("restart", rig.app, "--dry-run");
      expect(again.out, again.err).toMatch(/tainted, 2 processes of 2/);
    }),
);

live(
  "a pipe between two recorded processes is told before they run; one that others hold, too, is no tie",
  LONG,
  () =>
    together("pipe", async (rig) => {
      const run = (name: string, command: string): string =>
        `"${process.execPath}" "${CLI}" run ${rig.app} ${name} -- ${command}`;
      const [writes, reads] = ["sh -c 'while sleep 0.05; do echo x; done'", "cat"];
      const pipelines = [
        `${run("w", writes)} | ${run("r", reads)} | cat >${rig.path("out")}`,
        // Somebody who is not recorded has the reading end, too.
        `${run("w2", writes)} | { exec 3<&0; sleep 600 <&3 3<&- & echo $! >${rig.path("holder")}; exec 3<&-; exec ${run("r2", reads)} >/dev/null; }`,
      ].map((line) =>
        spawn("sh", ["-c", line], {
          env: { ...process.env, RECOVERY_LINE_HOME: rig.home },
          stdio: ["ignore", "ignore", "pipe"],
        }),
      );
      let said = "";
      for (const { stderr } of pipelines)
        stderr.on("data", (text: Buffer) => {
          said += text.toString();
        });
      const ended = pipelines.map((one) => once(one, "close"));
      await until("all run", () => ["w", "r", "w2", "r2"].every((name) => rig.cgroup(name).populated));
      await until(
        "somebody says both",
        () => /they go back together/.test(said) && said.includes("ONE | OTHER"),
      );
      const { out } = await rig.cli("status", rig.app);
      expect(out).toMatch(
        /[rw] \(process \d+\) and [rw] \(process \d+\) talk through a pipe: pipe:\[\d+\]: they go/,
      );
      expect(out).toMatch(
        /[rw]2 \(process \d+\) and [rw]2 \(process \d+\) talk through a pipe: pipe:\[\d+\]; what/,
      );
      const { processes } = await rig.json<Status>("status", rig.app);
      // The outer pipe leads to nobody who is recorded.
      expect(processes.map(({ unseen, uncaptured }) => [unseen?.length, ...uncaptured])).toEqual([
        [1],
        [1, "pipe"],
        [1],
        [1, "pipe"],
      ]);
      const line = await rig.cli("compute", rig.app, "--failed", "w");
      expect(line.out).toMatch(/^r +initial +0/m); // without a checkpoint of one moment
      const none = await rig.cli("checkpoint", rig.app, "--driver", "none");
      expect([none.code, none.out]).toEqual([1, expect.stringMatching(/^r2 +\d+ +none \(pipe\)/m)]);
      expect(none.err).toMatch(/no checkpoint of r:.*driver none takes no image of what stands in it/);
      const held = await rig.cli("checkpoint", rig.app, "r2");
      expect([held.code, held.err]).toEqual([
        4,
        expect.stringMatching(
          /would not reach each other.*recovery-line run APP NAME -- sh -c 'ONE \| OTHER'/s,
        ),
      ]);
      process.kill(Number(readFileSync(rig.path("holder"), "utf8")));
      await end(rig);
      await Promise.all(ended);
      const restart = await rig.cli("restart", rig.app);
      expect([restart.code, restart.err]).toEqual([4, expect.stringContaining("nobody can lay the pipe")]);
    }),
);

live("a file that one writes and another has open counts unless somebody vouches for it", LONG, () =>
  together("file", async (rig) => {
    const loop = "while sleep 0.1; do echo y; done";
    const file = rig.path("file");
    await rig.run("w", "sh", "-c", `exec 3>${file}; echo x >&3; ${loop}`);
    await until("it is there", () => rig.output("w").includes("y"));
    const { code } = await rig.cli(
      "run",
      rig.app,
      "vouched",
      "--trust",
      "shared-file",
      "--detach",
      "--",
      "tail",
      "-f",
      file,
    );
    expect(code).toBe(0);
    const seen = async (): Promise<string[]> => {
      const { processes } = await rig.json<Status>("status", rig.app);
      return processes.map(({ uncaptured }) => uncaptured.join());
    };
    await until("its writer is named", async () => (await seen()).join(" ").includes("shared-file"));
    expect(await seen(), "vouched, w").toEqual(["", "shared-file"]);
  }),
);

const nobodyReads =
  process.getuid!() === 0 &&
  spawnSync("setpriv", ["--reuid=65534", "--regid=65534", "--clear-groups", "test", "-r", CLI]).status === 0;

test.skipIf(missing !== undefined || !nobodyReads)(
  "a collector without rights is told by run, which has them, what root's processes share",
  () =>
    withRig("apart", async (rig) => {
      chmodSync(rig.folder, 0o711); // the home's own mode keeps others out
      await rig.collect("--user", "nobody");
      const name = `/${rig.app}`;
      await rig.run("a", program, "count", "first", name);
      await rig.run("b", program, "count", "second", name);
      await exchange(rig, "a");
      await rig.run("c", "sleep", "60"); // root's command looks
      const line = await rig.cli("compute", rig.app, "--failed", "a");
      expect([line.code, line.out]).toEqual([3, expect.stringMatching(/^b +initial +0/m)]);
    }),
);
