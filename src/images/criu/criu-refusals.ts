/** What CRIU refuses, as far as /proc tells it while the program still runs: nothing is stopped for an image that can't be. */

import { readdirSync, readFileSync, readlinkSync, statSync } from "node:fs";
import { isCriu, tracerOf } from "../../host/criu-processes.ts";
import { namespaceOf } from "../../host/mounts.ts";
import { programName } from "../../host/process-tree.ts";
import { RecoveryLineError } from "../../model/errors.ts";
import { OTHER_CRIU_LIMIT_MS } from "../../model/limits.ts";
import { NotNow } from "../driver.ts";
import type { CriuOptions } from "./criu-options.ts";

/** Throws RL_DRIVER, naming process and thing. What has ended or was closed meanwhile is passed over. */
export function refuseWhatCriuRefuses(pids: readonly number[], options: CriuOptions): void {
  refuseContainer(pids);
  refuseTracers(pids);
  for (const pid of pids) {
    refuseNetwork(pid);
    for (const descriptor of namesIn(`/proc/${pid}/fd`)) refuseDescriptor(pid, descriptor, options);
    for (const range of rangesOfDeleted(pid)) refuseGhost(pid, `/proc/${pid}/map_files/${range}`, options);
  }
}

function refused(pid: number, what: string, advice: string): RecoveryLineError {
  return new RecoveryLineError("RL_DRIVER", `criu: process ${pid} (${programName(pid)}) ${what}`, advice);
}

/** All of it is in a namespace of process ids that it did not make: so are its root, its mounts and its network. */
function refuseContainer(pids: readonly number[]): void {
  const ours = namespaceOf("self", "pid");
  const first = pids[0];
  if (first === undefined || pids.some((pid) => (namespaceOf(pid, "pid") ?? ours) === ours)) return;
  throw refused(
    first,
    "runs in a container: an image of it is for its runtime to take, which knows its mounts and networks",
    "Leave --driver out for a container of podman or docker that is attached; for others take checkpoints with --driver none: they record cuts. What it keeps in volumes its runtime brings back.",
  );
}

/** Two can't trace one thread. Throws NotNow where the other one is a CRIU. */
function refuseTracers(pids: readonly number[]): void {
  for (const pid of pids) {
    const tracer = tracerOf(pid);
    if (tracer === undefined) continue;
    if (isCriu(tracer))
      throw new NotNow(
        `criu: another CRIU (process ${tracer}) is at work on process ${pid} (${programName(pid)})`,
        OTHER_CRIU_LIMIT_MS,
      );
    if (tracerOf(pid) !== tracer) continue; // it was a CRIU, and has just ended
    throw refused(
      pid,
      `is traced by process ${tracer} (${programName(tracer)}), and CRIU has to trace it itself`,
      "Detach it (a debugger, strace), then call again.",
    );
  }
}

/**
 * An image brings a namespace's own loopback back. Other interfaces have an end outside of the process, and connections over them would be
 * blocked, reset and named in the wrong namespace.
 */
function refuseNetwork(pid: number): void {
  const [own, ours] = [namespaceOf(pid, "net"), namespaceOf("self", "net")];
  if (own === undefined || own === ours) return;
  const interfaces = readOrNothing(() => readFileSync(`/proc/${pid}/net/dev`, "utf8")) ?? "";
  const others = [...interfaces.matchAll(/^ *([^ :|]+):/gm)]
    .map(([, name]) => name!)
    .filter((name) => name !== "lo");
  if (others.length === 0) return;
  throw refused(
    pid,
    `is in a network namespace of its own (${own}) with ${others.join(", ")}: no image brings that back with its addresses`,
    "Run it in the host's network, or take checkpoints with --driver none: they record cuts, and the program brings its own state back.",
  );
}

function refuseDescriptor(pid: number, descriptor: string, options: CriuOptions): void {
  const place = `/proc/${pid}/fd/${descriptor}`;
  const link = readOrNothing(() => readlinkSync(place));
  if (link === "anon_inode:[io_uring]")
    throw refused(
      pid,
      "has a ring of io_uring open, and no image holds one",
      "Start it without --allow-io-uring: most programs then take another way by themselves.",
    );
  if (link?.startsWith("/") && link.endsWith(" (deleted)") && !link.startsWith("/memfd:"))
    refuseGhost(pid, place, options);
}

/** Of mappings of files whose names are gone, as in map_files. */
export function rangesOfDeleted(pid: number): string[] {
  const maps = readOrNothing(() => readFileSync(`/proc/${pid}/maps`, "latin1")) ?? "";
  const lines = /^0*([0-9a-f]+)-0*([0-9a-f]+) \S+ \S+ \S+ \d+ +\/(?!memfd:|SYSV|dev\/zero ).* \(deleted\)$/gm;
  return [...maps.matchAll(lines)].map(([, from, to]) => `${from}-${to}`);
}

/** A file whose name is gone: with no other name it goes into the image, up to a size. */
function refuseGhost(pid: number, place: string, { ghostLimitBytes }: CriuOptions): void {
  const [stat, link] = [readOrNothing(() => statSync(place)), readOrNothing(() => readlinkSync(place))];
  if (stat === undefined || link === undefined || !stat.isFile()) return;
  const name = link.replace(/ \(deleted\)$/, "");
  if (stat.nlink > 0)
    throw refused(
      pid,
      `uses ${name}, whose name is gone while another name of the file is there: no image says which`,
      "Have the program open it by a name that stays.",
    );
  const bytes = stat.blocks * 512;
  if (bytes > ghostLimitBytes)
    throw refused(
      pid,
      `uses ${name}, which was removed and holds ${bytes} bytes; images take ${ghostLimitBytes} of such a file`,
      `Start it with run --criu-options ghost-limit=${Math.ceil(bytes / (1 << 20)) * 2}M.`,
    );
}

function namesIn(folder: string): string[] {
  return readOrNothing(() => readdirSync(folder)) ?? [];
}

function readOrNothing<T>(read: () => T): T | undefined {
  try {
    return read();
  } catch {
    return undefined; // it has ended, or was closed
  }
}
