/**
 * POSIX shared memory of a process's own (`run --own-ipc`): a /dev/shm that nobody else sees, in a mount namespace of its own (become.c).
 * What lies there is part of its state even while nobody has mapped it (PostgreSQL's dynamic segments between two backends), and nobody
 * else's. CRIU runs inside that namespace, so that it takes the mounts for its own, and needs no image of them.
 *
 *     <image's files>/shm/       the tree as it was (../data)
 */

import type { ChildProcess } from "node:child_process";
import { once } from "node:events";
import { readFileSync, statfsSync } from "node:fs";
import { join } from "node:path";
import { namespaceOf } from "../../host/mounts.ts";
import { programName } from "../../host/process-tree.ts";
import { spawn } from "../../host/spawn.ts";
import { RecoveryLineError } from "../../model/errors.ts";
import { buildTree, setFacts } from "../data/build-tree.ts";
import { DATA_LIMIT_BYTES, TreeSave } from "../data/save-tree.ts";
import { openTree } from "../data/stored-tree.ts";

export const OWN_MEMORY = "/dev/shm";
const STORED = "shm";
/** Its source, by which it is told from everybody's (native/wait/become.c). */
const MARK = "recovery-line";
const MOUNT = `mount -t tmpfs -o nosuid,nodev,mode=1777 ${MARK} ${OWN_MEMORY} && echo there && exec cat`;

/** A task of those whose mounts theirs are; undefined: they see everybody's. Throws RL_DRIVER where they are in several such namespaces. */
export function ownMemory(pids: readonly number[]): number | undefined {
  const own = pids.find(hasOwn);
  if (own === undefined) return undefined;
  const stranger = pids.find(
    (pid) => ![namespaceOf(own, "mnt"), undefined].includes(namespaceOf(pid, "mnt")),
  );
  if (stranger === undefined) return own;
  throw new RecoveryLineError(
    "RL_DRIVER",
    `criu: process ${stranger} (${programName(stranger)}) is in another mount namespace than process ${own} (${programName(own)})`,
    "With --own-ipc all of them have to stay in one: start it without its own sandbox.",
  );
}

function hasOwn(pid: number): boolean {
  const lines = readOrNothing(() => readFileSync(`/proc/${pid}/mountinfo`, "utf8")) ?? "";
  return lines
    .split("\n")
    .some((line) => line.includes(` ${OWN_MEMORY} `) && line.includes(` tmpfs ${MARK} `));
}

function readOrNothing<T>(read: () => T): T | undefined {
  try {
    return read();
  } catch {
    return undefined; // it has ended
  }
}

/** The folder as others can reach it. */
function placeOf(pid: number): string {
  return join(`/proc/${pid}/root`, OWN_MEMORY);
}

/** While it stands still. Returns the checksum of what was saved. Throws RL_REFUSED where it is too much. */
export async function saveOwnMemory(pid: number, folder: string): Promise<string> {
  const { blocks, bfree, bsize } = statfsSync(placeOf(pid));
  const bytes = (blocks - bfree) * bsize;
  if (bytes > DATA_LIMIT_BYTES)
    throw new RecoveryLineError(
      "RL_REFUSED",
      `${OWN_MEMORY} of process ${pid} (${programName(pid)}) holds ${bytes} bytes, and at most ${DATA_LIMIT_BYTES} are copied while it stands still`,
      "Have it use less shared memory, or private memory.",
    );
  const save = await TreeSave.prepare(placeOf(pid), join(folder, STORED));
  return (await save.finish()).sha256;
}

/** Does the work while a namespace is there with all of it; `work` gets a task of that. */
export async function withOwnMemory<T>(
  folder: string,
  sha256: string,
  work: (pid: number) => Promise<T>,
): Promise<T> {
  const tree = openTree(join(folder, STORED), sha256);
  const holder = spawn("unshare", ["--mount", "--propagation", "slave", "/bin/sh", "-c", MOUNT], {
    stdio: ["pipe", "pipe", "pipe"],
  });
  try {
    const pid = await mounted(holder);
    await buildTree(tree, placeOf(pid));
    setFacts(placeOf(pid), tree.entries[0]!);
    return await work(pid);
  } finally {
    holder.kill("SIGKILL");
  }
}

async function mounted(holder: ChildProcess): Promise<number> {
  const ended = once(holder, "exit").catch(() => undefined);
  const there = await Promise.race([once(holder.stdout!, "data"), ended.then(() => undefined)]);
  if (there !== undefined) return holder.pid!;
  throw new RecoveryLineError(
    "RL_DRIVER",
    `a ${OWN_MEMORY} of its own can't be made: ${String(holder.stderr?.read() ?? "unshare does not start")}`,
    "It takes unshare and mount of util-linux, and root.",
  );
}

/** What goes before a command's words, so that it sees those mounts. */
export function amongMounts(pid: number | undefined): string[] {
  return pid === undefined ? [] : ["nsenter", `--mount=/proc/${pid}/ns/mnt`, "--"];
}
