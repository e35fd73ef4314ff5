/** The BPF file system that pinned programs live in. */
import { execFileSync } from "node:child_process";
import { statfsSync } from "node:fs";
import { dirname, resolve } from "node:path";
import { RecoveryLineError } from "../model/errors.ts";

const BPFFS = "/sys/fs/bpf";
const BPFFS_MAGIC = 0xcafe4a11;

/** True if what is made at `path` lies on one, or this user may not look. */
export function isOnBpffs(path: string): boolean {
  for (let at = resolve(path); ; at = dirname(at))
    try {
      return statfsSync(at).type === BPFFS_MAGIC;
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException;
      if (code !== "ENOENT" && code !== "ENOTDIR") return true;
    }
}

/** Throws RL_USAGE for a folder in which no program can be pinned. */
export function requirePinPlace(pinDir: string): void {
  if (pinDir.startsWith(`${BPFFS}/`) || isOnBpffs(pinDir)) return;
  throw new RecoveryLineError(
    "RL_USAGE",
    `--pin-dir ${pinDir} is not on a BPF file system`,
    `Name a folder below ${BPFFS}.`,
  );
}

/** Mounts it where root finds none and `pinDir` lies there. Throws RL_NO_RIGHTS. */
export function ensureBpffs(pinDir: string): void {
  if (!pinDir.startsWith(`${BPFFS}/`) || statfsSync(BPFFS).type === BPFFS_MAGIC) return;
  try {
    execFileSync("mount", ["-t", "bpf", "bpf", BPFFS], { stdio: ["ignore", "ignore", "pipe"] });
  } catch (cause) {
    const { stderr } = cause as { stderr?: Buffer };
    throw new RecoveryLineError(
      "RL_NO_RIGHTS",
      `no BPF file system is mounted on ${BPFFS}, and it cannot be mounted: ${stderr?.toString().trim() || (cause as Error).message}`,
      `As root: mount -t bpf bpf ${BPFFS}`,
      cause,
    );
  }
}
