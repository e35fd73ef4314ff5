/**
 * `collect --user`: a collector without rights, beside a small helper that holds the two it takes to capture.
 *
 *   root, before anything is opened   this process makes the home and the BPF file system, and becomes native/attach
 *   recovery-line-attach              forks the helper, gives all rights away, executes the same command again
 *   the same command, as the user     finds the helper's socket in its environment; it has no right to anything
 *
 * Not a `setuid` of this process: what its threads and libuv's io_uring got as root, they would keep. Its number stays.
 */
import {
  closeSync,
  constants,
  existsSync,
  fchownSync,
  fstatSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
} from "node:fs";
import { dirname, join } from "node:path";
import { ensureBpffs } from "../host/bpffs.ts";
import { processCgroupLevel } from "../host/cgroups.ts";
import { makeFolders, removeFolders } from "../host/make-folders.ts";
import { isPlacedByRoot } from "../host/placed-by-root.ts";
import { lockReader, readerFolder } from "../host/reader-lock.ts";
import { SMALL_HEAP_FLAGS, SMALL_HEAP_VARIABLES } from "../host/small-heap.ts";
import { assert } from "../model/assert.ts";
import { hasCode, RecoveryLineError } from "../model/errors.ts";
import { call, native, packageRoot } from "../native/binding.ts";

/** Number of the socket; native/attach/attach.c sets it. */
const SOCKET_VARIABLE = "RECOVERY_LINE_ATTACHED";
const HOME_VARIABLE = "RECOVERY_LINE_HOME";

export interface AttachOptions {
  readonly user: string;
  /** Absolute. */
  readonly home: string;
  readonly pinDir: string;
  readonly ringBytes: number;
  readonly userfaults: boolean;
  /** Parts of the capture that are forced; "": none. */
  readonly variant: string;
}

interface User {
  readonly name: string;
  readonly uid: number;
  readonly gid: number;
}

/** What the second run of the command finds. */
export interface Attached {
  readonly helper: number;
  readonly home: string;
}

/**
 * The helper of this process; undefined where it was not started by one, and `attach` comes first. What it says in the environment is
 * gone after the call. Throws RL_USAGE.
 */
export function attached(): Attached | undefined {
  const { [SOCKET_VARIABLE]: socket, [HOME_VARIABLE]: home } = process.env;
  if (socket === undefined) return undefined;
  delete process.env[SOCKET_VARIABLE]; // its children have no part in it
  if (!/^\d{1,6}$/.test(socket) || home === undefined)
    throw new RecoveryLineError(
      "RL_USAGE",
      `$${SOCKET_VARIABLE} is for recovery-line-attach alone`,
      "Unset it.",
    );
  assertWithoutRights();
  return { helper: Number(socket), home };
}

/** This process becomes the helper's parent and then, as the user, this very command again. Throws RL_USAGE, RL_NO_RIGHTS, RL_LOCKED, RL_NOT_SUPPORTED. */
export function attach(options: AttachOptions): never {
  const { home, pinDir, ringBytes, userfaults, variant } = options;
  if (process.geteuid!() !== 0)
    throw new RecoveryLineError(
      "RL_NO_RIGHTS",
      "--user takes root: it starts the helper that holds the rights, and gives all others away",
      "Run as root, or without --user as a user who has CAP_BPF and CAP_PERFMON.",
    );
  const user = findUser(options.user);
  const made = giveHome(home, user);
  try {
    ensureBpffs(pinDir);
    refuseSecondReader(pinDir);
  } catch (error) {
    removeFolders(made);
    throw error;
  }
  const [, script = ""] = process.argv;
  const program = join(packageRoot(), "build/Release/recovery-line-attach");
  const words = [
    program,
    ...["--user", user.name, "--pin-dir", pinDir, "--ring-bytes", String(ringBytes)],
    ...["--level", String(processCgroupLevel()), ...(userfaults ? ["--userfaults"] : []), "--reads", script],
    ...(variant === "" ? [] : ["--capture", variant]),
    ...["--", process.execPath, ...SMALL_HEAP_FLAGS, ...process.execArgv, ...process.argv.slice(1)],
  ];
  const environment = Object.entries({ ...SMALL_HEAP_VARIABLES, ...process.env, [HOME_VARIABLE]: home });
  return call(program, () =>
    native().execute(
      program,
      words,
      environment.map(([name, value]) => `${name}=${value}`),
    ),
  );
}

function findUser(name: string): User {
  const found = native().user(name);
  if (found === undefined) throw new RecoveryLineError("RL_USAGE", `--user ${name}: there is no such user`);
  if (found.uid !== 0) return { name, ...found };
  throw new RecoveryLineError(
    "RL_USAGE",
    `--user ${name}: that user is root`,
    "Name a user that serves this purpose alone.",
  );
}

/** The home becomes the user's if it is that already, or if it is empty and root's. Returns the folders that were made. */
function giveHome(home: string, { name, uid, gid }: User): string[] {
  const made = makeFolders(dirname(home), 0o755);
  if (!isPlacedByRoot(home)) {
    removeFolders(made);
    throw new RecoveryLineError(
      "RL_NO_RIGHTS",
      `the log directory ${home} can be exchanged by others: with --user all folders above it belong to root, and nobody else can write in the one it stands in`,
      "Name another one with --log.",
    );
  }
  try {
    mkdirSync(home, { mode: 0o700 });
    made.push(home);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "EEXIST") throw error;
  }
  const fd = openSync(home, constants.O_RDONLY | constants.O_DIRECTORY | constants.O_NOFOLLOW);
  try {
    const owner = fstatSync(fd).uid;
    if (owner === uid) return made;
    if (owner !== 0 || readdirSync(home).length > 0)
      throw new RecoveryLineError(
        "RL_NO_RIGHTS",
        `the log directory ${home} belongs to user ${owner}, and is not empty`,
        `Name another one with --log, or give it away yourself: chown -R ${name} ${home}`,
      );
    fchownSync(fd, uid, gid);
    return made;
  } finally {
    closeSync(fd);
  }
}

/** The helper would refuse, too, but could not say who reads. */
function refuseSecondReader(pinDir: string): void {
  if (!existsSync(readerFolder(pinDir))) return;
  try {
    lockReader(pinDir)();
  } catch (error) {
    if (hasCode(error, "RL_LOCKED")) throw error; // else: the helper tells
  }
}

/** Every thread: nothing effective, permitted, inheritable, ambient, and nothing to be had by executing. */
function assertWithoutRights(): void {
  for (const thread of readdirSync("/proc/self/task")) {
    const status = readFileSync(`/proc/self/task/${thread}/status`, "utf8");
    const field = (name: string): string => new RegExp(`^${name}:\\s*(.*)$`, "m").exec(status)?.[1] ?? "?";
    for (const set of ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"])
      assert(/^0+$/.test(field(set)), `a collector without rights has ${set} ${field(set)}`);
    assert(field("NoNewPrivs") === "1", "a collector without rights can get new ones");
    assert(!field("Uid").split("\t").includes("0"), "a collector without rights is root");
  }
}
