import { expect } from "vitest";
import { listenersOf } from "../../src/host/open-connections.ts";
import { freePort, type Rig, until } from "../daemon/rig.ts";

/** Starts programs for Node.js by name, one after the other; the argument of each is one free port for all, at which the first listens. */
export async function startNodePrograms(
  rig: Rig,
  programs: Readonly<Record<string, string>>,
  flags: readonly string[],
): Promise<void> {
  const port = await freePort();
  for (const [name, program] of Object.entries(programs)) {
    const output = ["--output", rig.path(`${name}.out`)];
    const command = [process.execPath, "-e", program, `${port}`];
    const { code, err } = await rig.cli(
      ...["run", rig.app, name, "--detach", ...flags, ...output, "--", ...command],
    );
    expect([code, err]).toEqual([0, ""]);
    const first = rig.cgroup(Object.keys(programs)[0]!);
    await until("it listens", () => listenersOf(first.pids()).length > 0);
  }
}
