/** Each kind of thing that two real processes can use together, found by what the kernel says of them. */
import { type ChildProcess, execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { cgroupOf, ProcessCgroup } from "../../src/host/cgroups.ts";
import { channelsAmong, lookAt } from "../../src/host/look-at-things.ts";
import { unseenChannels } from "../../src/host/shared-things.ts";
import type { UnseenChannel } from "../../src/model/unseen-channel.ts";
import { missing } from "../daemon/rig.ts";
import { compile } from "../native/c-build.ts";

let program: string;
let folder: string;
beforeAll(() => {
  program = compile("unseen", ["test/native/c/unseen_helper.c"]);
  folder = mkdtempSync(join(tmpdir(), "things-"));
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

interface Helper {
  readonly child: ChildProcess;
  readonly pid: number;
  /** What it has. */
  readonly descriptor: string;
}

/** Its output is a socket of this program's, as Node's pipes are. */
async function start(...args: string[]): Promise<Helper> {
  const child = spawn(program, args, { stdio: ["pipe", "pipe", "inherit"] });
  const text = once(child.stdout, "data");
  const [line] = (await Promise.race([text, once(child, "exit")])) as [Buffer | number];
  if (typeof line === "number") throw new Error(`${args.join(" ")} ended with ${line}`);
  return { child, pid: child.pid as number, descriptor: line.toString().trim() };
}

async function channelsOf(a: number, b: number): Promise<UnseenChannel[]> {
  const { holders, hidden } = await lookAt([
    { process: "a", pids: [a, 2 ** 30] }, // one of them has just ended
    { process: "b", pids: [b] },
  ]);
  expect(hidden).toBe(false);
  return unseenChannels(holders);
}

/** What is found of two that use one thing, the second of which is told what the first has. */
async function between(
  kind: string,
  args: (first: Helper) => string[],
  firstArgs = args({} as Helper),
): Promise<UnseenChannel[]> {
  const begun = start(kind, "first", ...firstArgs);
  // A FIFO opens once both are there.
  const [a, b] =
    kind === "file"
      ? await Promise.all([begun, start(kind, "second", ...firstArgs)])
      : await begun.then(async (first) => [first, await start(kind, "second", ...args(first))] as const);
  try {
    return await channelsOf(a.pid, b.pid);
  } finally {
    for (const { child } of [a, b]) child.kill("SIGKILL");
    await Promise.all([a, b].map(({ child }) => (child.exitCode ?? child.signalCode) || once(child, "exit")));
  }
}

const passed = ({ pid, descriptor }: Helper): string[] => [`${pid}`, `${descriptor}`];
const brief = (channels: readonly UnseenChannel[]): string[] =>
  channels.map(({ process, reason, what }) => `${process} ${reason} ${what.replaceAll(/\d{3,}/g, "N")}`);
const key = (): string => String(1 + Math.floor(Math.random() * 2 ** 30));

test("memory: without a name, of System V, and a file that both have mapped", async () => {
  expect(brief(await between("memfd", passed, ["-"]))).toEqual([
    expect.stringMatching(/^a shared-memory \/memfd:ours \(deleted\), inode /),
    expect.stringMatching(/^b shared-memory \/memfd:ours \(deleted\), inode /),
  ]);
  const number = key();
  const [segment] = await between("sysv-memory", () => [number]);
  expect(segment).toMatchObject({ reason: "shared-memory", what: expect.stringMatching(/^\/SYSV/) });
  const file = join(folder, "mapped");
  writeFileSync(file, Buffer.alloc(4096));
  expect(brief(await between("map", () => [file]))).toEqual([
    `a shared-memory ${file}`,
    `b shared-memory ${file}`,
  ]);
});

test("queues, and an eventfd that was passed on", async () => {
  const name = `/things-${process.pid}`;
  expect(brief(await between("mqueue", () => [name]))).toEqual([
    expect.stringMatching(/^a message-queue POSIX queue \/things/),
    expect.stringMatching(/^b message-queue POSIX queue \/things/),
  ]);
  const number = key();
  const [queue] = await between("sysv-queue", () => [number]);
  expect(queue).toMatchObject({ reason: "message-queue", what: expect.stringMatching(/^System V queue/) });
  execFileSync("ipcrm", ["-Q", number]);
  expect((await between("eventfd", passed, ["-"])).map(({ reason }) => reason)).toEqual([
    "eventfd",
    "eventfd",
  ]);
});

test("a FIFO, and a file that one writes while another reads it; not one that both append to", async () => {
  const [fifo, file] = [join(folder, "fifo"), join(folder, "file")];
  execFileSync("mkfifo", [fifo]);
  expect(brief(await between("file", () => [fifo]))).toEqual([`a pipe ${fifo}`, `b pipe ${fifo}`]);
  writeFileSync(file, "contents");
  expect(brief(await between("file", () => [file]))).toEqual([
    `a shared-file ${file}`,
    `b shared-file ${file}`,
  ]);
  expect(await between("append", () => [file])).toEqual([]);
});

const LOOKS = 40;

test.skipIf(missing !== undefined)(
  "a pipeline whose tasks fork while they are looked at is nobody else's at any look",
  async () => {
    const app = `things-${process.pid}`;
    const cgroups = ["w", "r"].map((name) => new ProcessCgroup(app, name));
    for (const one of cgroups) one.create();
    const [w, r] = cgroups.map(({ path }) => `echo $$ >${path}/cgroup.procs; exec`);
    const forks = `sh -c '${w} sh -c "while :; do (echo x); done"' | sh -c '${r} sh -c "while read x; do (:); done"'`;
    const shell = spawn("sh", ["-c", `${forks} & exec sleep 600`], { stdio: "ignore" });
    try {
      await expect.poll(() => cgroups.every(({ populated }) => populated)).toBe(true);
      const processes = ["w", "r"].map((name) => ({ process: name, incarnation: 1 }));
      const tiedBy = async (placeOf?: (pid: number) => string | undefined) =>
        (await channelsAmong(app, processes, placeOf)).channels.map(({ reason, tied }) => [reason, tied]);
      const both = (tied?: true) => Array(2).fill(["pipe", tied]);
      await expect.poll(async () => (await channelsAmong(app, processes)).channels.length).toBe(2);
      for (let look = 0; look < LOOKS; look += 1) expect(await tiedBy()).toEqual(both(true));
      // Until the kernel has moved a child into its parent's cgroup it says the root.
      const forked = new Set<number>();
      const late = (pid: number) => (forked.has(pid) ? cgroupOf(pid) : forked.add(pid) && "/");
      expect(await tiedBy(late)).toEqual(both(true));
      expect(await tiedBy(() => "/")).toEqual(both());
    } finally {
      shell.kill("SIGKILL");
      for (const one of cgroups) one.kill();
      await expect.poll(() => cgroups.some(({ populated }) => populated)).toBe(false);
      for (const one of cgroups) one.remove();
    }
  },
);
