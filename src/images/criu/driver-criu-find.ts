/**
 * Finds a CRIU that is new enough: $RECOVERY_LINE_CRIU (a program, or a folder as scripts/get-criu.sh makes), the PATH, then the
 * private folders. A private one runs through its own dynamic loader with its own libraries.
 */
import { execFile } from "node:child_process";
import { existsSync, readdirSync, statSync } from "node:fs";
import { delimiter, join } from "node:path";
import { promisify } from "node:util";
import { packageRoot } from "../../native/binding.ts";

const run = promisify(execFile);

/** facts.md: 3.17 fails on new kernels, 4.1 can't dump TCP sockets there. */
const FLOOR = [4, 2] as const;
const VERSION_LIMIT_MS = 10_000;

export interface CriuCommand {
  readonly command: string;
  /** Arguments before CRIU's own. */
  readonly prefix: readonly string[];
  readonly version: string;
}

export type CriuSearch =
  | { readonly found: CriuCommand }
  /** What was looked at and why it does not do, one sentence. */
  | { readonly found: undefined; readonly reason: string };

interface Candidate {
  readonly command: string;
  readonly prefix: readonly string[];
  readonly where: string;
}

/** `stateFolder`: the home of the logs; its `.criu` is looked at, too. */
export async function findCriu(stateFolder?: string): Promise<CriuSearch> {
  const reasons: string[] = [];
  for (const candidate of candidates(stateFolder)) {
    const version = await versionOf(candidate);
    if (version !== undefined && newEnough(version))
      return { found: { command: candidate.command, prefix: candidate.prefix, version } };
    reasons.push(`${candidate.where} ${version === undefined ? "does not start" : `is ${version}`}`);
  }
  const seen = reasons.length === 0 ? "none is installed" : reasons.join("; ");
  return { found: undefined, reason: `CRIU ${FLOOR.join(".")} or newer is needed: ${seen}.` };
}

function candidates(stateFolder: string | undefined): Candidate[] {
  const told = process.env["RECOVERY_LINE_CRIU"];
  if (told) return [isFolder(told) ? inFolder(told) : plain(told)].filter((one) => one !== undefined);
  const folders = [
    join(packageRoot(), ".criu"),
    ...(stateFolder === undefined ? [] : [join(stateFolder, ".criu")]),
  ];
  const onPath = [...(process.env["PATH"] ?? "").split(delimiter), "/usr/sbin", "/usr/local/sbin"]
    .map((folder) => join(folder, "criu"))
    .filter((path) => existsSync(path));
  return [...[...new Set(onPath)].map(plain), ...folders.map(inFolder)].filter((one) => one !== undefined);
}

function plain(path: string): Candidate {
  return { command: path, prefix: [], where: path };
}

/** `<folder>/root` holds unpacked packages; its loader stands beside its libraries. */
function inFolder(folder: string): Candidate | undefined {
  const libraries = join(folder, "root", "usr", "lib");
  if (!existsSync(libraries)) return undefined;
  for (const triplet of readdirSync(libraries)) {
    const libraryFolder = join(libraries, triplet);
    if (!triplet.includes("-linux-") || !isFolder(libraryFolder)) continue;
    const loader = readdirSync(libraryFolder).find((name) => /^ld-linux.*\.so\.\d+$/.test(name));
    if (loader === undefined) continue;
    const program = join(folder, "root", "usr", "sbin", "criu");
    return {
      command: join(libraryFolder, loader),
      prefix: ["--library-path", libraryFolder, program],
      where: program,
    };
  }
  return undefined;
}

function isFolder(path: string): boolean {
  return statSync(path, { throwIfNoEntry: false })?.isDirectory() ?? false;
}

async function versionOf({ command, prefix }: Candidate): Promise<string | undefined> {
  try {
    const { stdout } = await run(command, [...prefix, "--version"], { timeout: VERSION_LIMIT_MS });
    return /^Version:\s*(\S+)/m.exec(stdout)?.[1];
  } catch {
    return undefined;
  }
}

function newEnough(version: string): boolean {
  const [major = 0, minor = 0] = version.split(".").map((part) => Number.parseInt(part, 10));
  return major > FLOOR[0] || (major === FLOOR[0] && minor >= FLOOR[1]);
}
