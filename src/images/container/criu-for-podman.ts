/**
 * The CRIU that podman's runtime finds while it does our work: a folder that comes first in its search path, with a `criu` that adds our
 * options to whatever it is asked for, and a `conmon` that hands the path on (podman starts that one with a path of its own). Nothing of
 * the machine's or the container's configuration is changed, and nobody else's images are touched.
 */
import { join } from "node:path";
import type { CriuCommand } from "../criu/driver-criu-find.ts";
import { CriuHooks, quoted, writeScript } from "./criu-hooks.ts";

export interface PodmanTools {
  readonly criu: CriuCommand;
  /** podman's own. */
  readonly conmon: string;
  /** Of podman. */
  readonly version: string;
}

export class CriuForPodman extends CriuHooks {
  /** What podman takes for its conmon. */
  readonly conmon: string;

  constructor(folder: string, { criu, conmon }: PodmanTools, hook: string) {
    super(folder, hook);
    this.conmon = join(folder, "conmon");
    const own = ["--action-script", this.script, "--network-lock", "nftables"];
    const command = [criu.command, ...criu.prefix, ...own].map(quoted).join(" ");
    writeScript(join(folder, "criu"), `exec ${command} "$@"\n`);
    writeScript(this.conmon, `PATH=${quoted(folder)}:"$PATH"; export PATH\nexec ${quoted(conmon)} "$@"\n`);
  }

  /** For podman itself: its runtime looks for `criu` there. */
  get environment(): NodeJS.ProcessEnv {
    return { ...process.env, PATH: `${this.folder}:${process.env["PATH"] ?? ""}` };
  }
}
