/** A collector of its own, in a folder that is its alone, for applications that its maker starts; gone with everything of them. */
import type { ChildProcess } from "node:child_process";
import { once } from "node:events";
import { mkdirSync, mkdtempSync, readdirSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { KernelSource } from "../capture/kernel-source.ts";
import { ProcessCgroup } from "../host/cgroups.ts";
import { spawn } from "../host/spawn.ts";
import { commandFailed, MAIN } from "./run-command.ts";

/** Where an application of its own has its files and its processes. */
export interface OwnApp {
  readonly app: string;
  readonly home: string;
  readonly folder: string;
  cgroup(process: string): ProcessCgroup;
}

export class OwnCollector implements OwnApp {
  readonly folder = mkdtempSync(join(tmpdir(), "recovery-line-own-"));
  readonly home = join(this.folder, "home");
  readonly app: string;
  readonly #pinDir: string;
  readonly #others: OwnApp[] = [];
  #child: ChildProcess | undefined;

  /** `app`: a name of its own: cgroups are shared by the whole machine. */
  constructor(app: string) {
    this.app = app;
    this.#pinDir = `/sys/fs/bpf/recovery-line-${app}`;
  }

  /** Another application, gone with the first. */
  beside(name: string): OwnApp {
    const app = `${this.app}-${name}`;
    const folder = join(this.folder, name);
    mkdirSync(folder);
    const made = {
      app,
      home: this.home,
      folder,
      cgroup: (process: string) => new ProcessCgroup(app, process),
    };
    this.#others.push(made);
    return made;
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

  readonly cgroup = (process: string): ProcessCgroup => new ProcessCgroup(this.app, process);

  /** Ends whatever runs in the application's cgroups and the collector, and takes the capture out of the kernel. The log stays. */
  async stop(): Promise<void> {
    for (const app of [this, ...this.#others])
      for (const name of processesOf(app)) await gone(app.cgroup(name));
    const child = this.#child;
    this.#child = undefined;
    if (child !== undefined && child.exitCode === null && child.kill("SIGTERM")) await once(child, "exit");
    KernelSource.unpin(this.#pinDir);
  }
}

function processesOf({ cgroup }: OwnApp): string[] {
  try {
    const all = readdirSync(join(cgroup("x").path, ".."), { withFileTypes: true });
    return all.flatMap((one) => (one.isDirectory() ? [one.name] : []));
  } catch {
    return [];
  }
}

async function gone(cgroup: ProcessCgroup): Promise<void> {
  if (cgroup.freezing) cgroup.setFreeze(false);
  for (let tries = 0; tries < 200 && !cgroup.remove(); tries += 1) {
    if (cgroup.populated) cgroup.kill();
    await sleep(20);
  }
}
