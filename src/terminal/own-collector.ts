/** A collector of its own, in a folder that is its alone, for one application that its maker starts; gone with everything of it. */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdirSync, mkdtempSync, readdirSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { KernelSource } from "../capture/kernel-source.ts";
import { ProcessCgroup } from "../host/cgroups.ts";
import { commandFailed, MAIN } from "./run-command.ts";

export class OwnCollector {
  readonly folder = mkdtempSync(join(tmpdir(), "recovery-line-own-"));
  readonly home = join(this.folder, "home");
  readonly app: string;
  readonly #pinDir: string;
  #child: ChildProcess | undefined;

  /** `app`: a name of its own: cgroups are shared by the whole machine. */
  constructor(app: string) {
    this.app = app;
    this.#pinDir = `/sys/fs/bpf/recovery-line-${app}`;
  }

  get args(): string[] {
    return ["collect", "--log", this.home, "--pin-dir", this.#pinDir];
  }

  /** Resolves once it records. Throws RL_DRIVER where it ends instead. */
  async start(): Promise<void> {
    mkdirSync(this.home, { recursive: true, mode: 0o700 });
    const child = spawn(process.execPath, [MAIN, ...this.args], { stdio: ["ignore", "pipe", "ignore"] });
    this.#child = child;
    const ended = once(child, "exit").then(([code]) =>
      Promise.reject(commandFailed("collect", code as number)),
    );
    ended.catch(() => undefined);
    await Promise.race([once(child.stdout!, "data"), ended]);
  }

  get pid(): number {
    return this.#child?.pid ?? 0;
  }

  cgroup(process: string): ProcessCgroup {
    return new ProcessCgroup(this.app, process);
  }

  /** Ends whatever runs in the application's cgroups and the collector, and takes the capture out of the kernel. The log stays. */
  async stop(): Promise<void> {
    for (const name of this.#processes()) {
      const cgroup = this.cgroup(name);
      if (cgroup.freezing) cgroup.setFreeze(false);
      for (let tries = 0; tries < 200 && !cgroup.remove(); tries += 1) {
        if (cgroup.populated) cgroup.kill();
        await sleep(20);
      }
    }
    const child = this.#child;
    this.#child = undefined;
    if (child !== undefined && child.exitCode === null && child.kill("SIGTERM")) await once(child, "exit");
    KernelSource.unpin(this.#pinDir);
  }

  #processes(): string[] {
    try {
      const all = readdirSync(join(this.cgroup("x").path, ".."), { withFileTypes: true });
      return all.flatMap((one) => (one.isDirectory() ? [one.name] : []));
    } catch {
      return [];
    }
  }
}
