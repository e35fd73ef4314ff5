/**
 * What dead programs of ours, or a CRIU that was killed, have left: captures under a dead process's name, empty cgroups, tables of
 * nftables, a file for docker's runtime. Nothing that a live program uses, or that the next call of a command takes up, is a leftover.
 */
import { existsSync, readdirSync, statSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import { KernelSource } from "../capture/kernel-source.ts";
import { cgroup2Root, ProcessCgroup } from "../host/cgroups.ts";
import { criuRuns } from "../host/criu-processes.ts";
import { removeEnded } from "../host/freeze.ts";
import { linkOf, portsInUse } from "../host/open-connections.ts";
import { deleteTable, restartTableApp, tablePorts, tables } from "../host/port-block.ts";
import { lockHolder, readerFolder } from "../host/reader-lock.ts";
import { isRuncConfLeft, RUNC_CONF, takeRuncConfAway } from "../images/container/runc-conf.ts";
import { isCriuTable, unlessUnsupported } from "../images/criu/killed-lock.ts";
import { lockCollection } from "../log/log-lock.ts";
import { RecoveryLineError } from "../model/errors.ts";
import { HOME_FILES } from "../model/names.ts";
import { shellWord } from "../model/printable.ts";
import { readJournal, restartFolder } from "../restart/restart-journal.ts";

export interface Leftover {
  readonly kind: "capture" | "cgroup" | "nft table" | "file";
  readonly name: string;
  /** One sentence. */
  readonly why: string;
  /** Absent: it is told, but somebody has to decide. Throws what removing throws. */
  readonly remove?: () => Promise<void>;
}

const BPFFS = "/sys/fs/bpf";
/** A cgroup is empty for a moment before its first process enters, in ms. */
const EMPTY_MS = 60_000;

/** `home`: whose restarts are known here. */
export async function leftovers(home: string): Promise<Leftover[]> {
  return [...captures(), ...emptyCgroups(), ...(await nftTables(home)), ...runcConf()];
}

/** What CRIU is told while docker's runtime starts it for us: a second or two. */
function runcConf(): Leftover[] {
  if (!isRuncConfLeft()) return [];
  const why =
    "It stood there for one image, whoever took that is dead, and other checkpoints by runc get its options.";
  return [{ kind: "file", name: RUNC_CONF, why, remove: async () => takeRuncConfAway() }];
}

/** Folders of pinned programs that nobody reads. One that is named by a process is that process's own; others go on recording by design. */
function captures(): Leftover[] {
  return names(BPFFS).flatMap((name): Leftover[] => {
    const path = join(BPFFS, name);
    if (!existsSync(join(path, "ring")) || read(path)) return [];
    const pid = /-(\d+)$/.exec(name)?.[1];
    if (pid === undefined) {
      const unpin = `recovery-line collect --unpin --pin-dir ${shellWord(path)}`;
      const why = `No collector reads it; it records for the next one, or: ${unpin}.`;
      return [{ kind: "capture", name: path, why }];
    }
    if (existsSync(`/proc/${pid}`)) return [];
    const why = `Process ${pid} loaded it for itself and is dead.`;
    return [{ kind: "capture", name: path, why, remove: async () => KernelSource.unpin(path) }];
  });
}

function read(pinDir: string): boolean {
  return readerOf(pinDir) !== undefined;
}

function readerOf(pinDir: string): number | undefined {
  return lockHolder(readerFolder(pinDir));
}

/** Other captures of this machine that a collector reads now, and its process. */
export function otherCollectors(pinDir: string): { readonly pinDir: string; readonly pid: number }[] {
  return names(BPFFS).flatMap((name) => {
    const path = join(BPFFS, name);
    if (path === pinDir || !existsSync(join(path, "ring"))) return [];
    const pid = readerOf(path);
    return pid === undefined || pid === process.pid ? [] : [{ pinDir: path, pid }];
  });
}

/** The log directory of another collector of this machine; undefined where it has ended, or is not for us to look at. */
export function homeOfCollector(pid: number): string | undefined {
  const files = join("/proc", String(pid), "fd");
  const lock = names(files)
    .map((name) => linkOf(join(files, name)))
    .find((path) => basename(path) === HOME_FILES.collectorLock);
  return lock === undefined ? undefined : dirname(lock);
}

/** Process cgroups that nothing is in any more. */
function emptyCgroups(): Leftover[] {
  const root = join(cgroup2Root(), "recovery-line");
  return folders(root).flatMap((app) =>
    folders(join(root, app)).flatMap((process): Leftover[] => {
      const cgroup = new ProcessCgroup(app, process);
      if (cgroup.populated || youngerThan(cgroup.path, EMPTY_MS)) return [];
      const remove = async (): Promise<void> => {
        if (!removeEnded(cgroup)) throw new Error("Somebody has it in hand meanwhile");
      };
      return [{ kind: "cgroup", name: cgroup.path, why: "Nothing runs in it any more.", remove }];
    }),
  );
}

/** CRIU's own locks, and those of restarts that are over. */
async function nftTables(home: string): Promise<Leftover[]> {
  const found: Leftover[] = [];
  const all = await tables().catch(() => []);
  const anyCriu = criuRuns(); // looked for behind the list: nobody who is at work now has made one of it
  for (const table of all) {
    const common = { kind: "nft table", name: table } as const;
    const remove = (): Promise<void> => deleteTable(table);
    const left =
      isCriuTable(table) && !anyCriu ? await criuTable(table, remove).catch(unlessUnsupported) : undefined;
    if (left !== undefined) found.push({ ...common, ...left });
    const app = restartTableApp(table);
    if (app === undefined) continue;
    if (!existsSync(join(home, app)))
      found.push({ ...common, why: `It blocks connections of ${app}, which ${home} does not know.` });
    else if ((await readJournal(restartFolder(home, app))) === undefined)
      found.push({
        ...common,
        why: `No restart of ${app} is under way.`,
        remove: () => removeRestartTable(home, app, remove),
      });
  }
  return found;
}

/** A restart that has begun meanwhile has a table of the same name. Throws RL_LOCKED. */
async function removeRestartTable(home: string, app: string, remove: () => Promise<void>): Promise<void> {
  const unlock = await lockCollection(join(home, app));
  try {
    if ((await readJournal(restartFolder(home, app))) === undefined) return await remove();
  } finally {
    unlock();
  }
  throw new RecoveryLineError("RL_LOCKED", `a restart of ${app} has begun meanwhile, and is not done`);
}

/**
 * CRIU lets go of connections at the end of its work, unless it was killed, or has dumped a program that is to come back later: then the kernel knows
 * none of its connections. (Never one of ours: they run on.)
 */
async function criuTable(
  table: string,
  remove: () => Promise<void>,
): Promise<Pick<Leftover, "why" | "remove">> {
  const ports = await tablePorts(table);
  if (ports.length === 0) return { why: "No CRIU runs; it blocks nothing any more.", remove };
  if (portsInUse(ports)) return { why: "No CRIU runs, and it keeps live connections blocked.", remove };
  return {
    why: `A CRIU that was killed left it, or a program that was dumped is to come back. If not: nft delete table inet ${table}`,
  };
}

function youngerThan(path: string, ms: number): boolean {
  const stat = statSync(path, { throwIfNoEntry: false });
  return stat === undefined || Date.now() - stat.ctimeMs < ms;
}

function names(folder: string): string[] {
  try {
    return readdirSync(folder);
  } catch {
    return []; // it is not there, or not for us
  }
}

function folders(folder: string): string[] {
  return names(folder).filter((name) =>
    statSync(join(folder, name), { throwIfNoEntry: false })?.isDirectory(),
  );
}
