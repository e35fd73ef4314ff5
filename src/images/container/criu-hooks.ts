/**
 * CRIU's hooks while an engine's runtime does our work.
 *
 * CRIU calls `hook` at its steps. At the dump, `network-lock`: all tasks stand still in CRIU's hands, and nothing of their sockets has been
 * touched; there it waits for us. `network-unlock`: the image is written; the cgroup is frozen before CRIU lets go of the tasks. At the
 * restore, `post-restore`: sockets are there and hear nothing yet; all that comes to the container's network and goes from there is dropped
 * from now on. `pre-resume`: the cgroup is frozen before the first instruction.
 *
 * Whoever waits looks for us: if this process is gone, the dump is given up and the container goes on. Frozen is what we can thaw: a hook
 * that has frozen it looks once more, and our watchdog (host/freeze.ts) stands by from then on.
 */
import { chmodSync, mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { cgroup2Root, ownCgroup } from "../../host/cgroups.ts";

const LOOK_MS = 10;

export class CriuHooks {
  readonly folder: string;
  /** What CRIU is to call. */
  readonly script: string;

  /** `folder` is made; `hook` is the body of the script for one direction. */
  constructor(folder: string, hook: string) {
    this.folder = folder;
    this.script = join(folder, "hook");
    rmSync(folder, { recursive: true, force: true });
    mkdirSync(folder, { recursive: true, mode: 0o700 });
    writeScript(this.script, `dir=${quoted(folder)}; owner=${process.pid}\n${HELPERS}${hook}`);
  }

  tell(word: "go" | "abort"): void {
    writeFileSync(join(this.folder, word), "");
  }

  /** The container's first process, as CRIU names it; undefined before the hook was there. */
  get rootPid(): number | undefined {
    try {
      return Number(readFileSync(join(this.folder, "root"), "utf8"));
    } catch {
      return undefined;
    }
  }

  /** CRIU itself, once it has called; undefined: not yet, or it has ended. */
  get criuPid(): number | undefined {
    try {
      const pid = Number(readFileSync(join(this.folder, "criu"), "utf8"));
      return readFileSync(`/proc/${pid}/cmdline`, "latin1").includes("criu") ? pid : undefined;
    } catch {
      return undefined;
    }
  }

  /** False where `ended` becomes true or the time is up before. */
  async isThere(ended: () => boolean, deadlineMs: number): Promise<boolean> {
    while (this.rootPid === undefined) {
      if (ended() || performance.now() > deadlineMs) return false;
      await sleep(LOOK_MS);
    }
    return true;
  }

  remove(): void {
    rmSync(this.folder, { recursive: true, force: true });
  }
}

export function writeScript(path: string, body: string): void {
  writeFileSync(path, `#!/bin/sh\n${body}`);
  chmodSync(path, 0o700);
}

/** As one word of a shell. */
export function quoted(word: string): string {
  return `'${word.replaceAll("'", `'\\''`)}'`;
}

const HELPERS = `root=$CRTOOLS_INIT_PID; echo "$PPID" >"$dir/criu"
wanted() { [ -d "/proc/$owner" ] && [ ! -e "$dir/abort" ]; }
told() { echo "$root" >"$dir/.root" && mv "$dir/.root" "$dir/root"; }
case "$CRTOOLS_SCRIPT_ACTION" in
`;

/** The container stands still from the first step on: in CRIU's hands, then in its frozen cgroup. */
export function dumpHook(cgroupPath: string): string {
  const freeze = quoted(join(cgroupPath, "cgroup.freeze"));
  return `network-lock) told; until [ -e "$dir/go" ]; do wanted || exit 1; sleep 0.01; done;;
network-unlock) wanted && echo 1 >${freeze} && { wanted || echo 0 >${freeze}; };;
esac
exit 0
`;
}

/**
 * `silence`: what nft is told in the container's network, which is never this machine's own. The runtime has put CRIU into the container's
 * cgroup: it goes out first, with the script, or it would stand still as well.
 */
export function restoreHook(cgroupPath: string, silence: string): string {
  const freeze = quoted(join(cgroupPath, "cgroup.freeze"));
  const out = quoted(join(ownCgroup() ?? cgroup2Root(), "cgroup.procs"));
  return `post-restore) [ "$(readlink "/proc/$root/ns/net")" != "$(readlink /proc/self/ns/net)" ] || exit 1
  printf '%s' ${quoted(silence)} | nsenter --net="/proc/$root/ns/net" nft -f - || exit 1;;
pre-resume) echo "$PPID" >${out} && echo 0 >${out} && echo 1 >${freeze} && told;;
esac
`;
}
