/** The collector keeps payloads of an application that asked for it: from the first byte, past deaths of logger and collector. */
import { execFileSync } from "node:child_process";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { packageRoot } from "../../src/native/binding.ts";
import { openPayloadStore } from "../../src/payload/payload-log.ts";
import { ASK, ECHO, freePort, missing, type Rig, until, withRig } from "../daemon/rig.ts";

execFileSync("make", ["-s", "-C", join(packageRoot(), "native/payload")], { stdio: "inherit" });

/** Process ids of the payload loggers that write below the rig's home. */
function loggers(rig: Rig): number[] {
  return readdirSync("/proc").flatMap((pid) => {
    if (!/^\d+$/.test(pid)) return [];
    try {
      const words = readFileSync(`/proc/${pid}/cmdline`, "utf8").split("\0");
      return words[1] === "log" && words.some((word) => word.startsWith(rig.home)) ? [Number(pid)] : [];
    } catch {
      return [];
    }
  });
}

/** Longest range of any channel that begins at 0, bytes, after all that was sent is there; what it holds. */
async function conversation(rig: Rig): Promise<string> {
  const client = await rig.client();
  await client.drain();
  client.close();
  const store = openPayloadStore(join(rig.home, rig.app))!;
  let longest = "";
  for (const channel of await store.channels()) {
    const [first] = await store.ranges(channel);
    if (first?.begin !== 0) continue;
    const bytes = await store.read(channel, 0, first.end);
    if (bytes !== undefined && bytes.length > longest.length) longest = Buffer.from(bytes).toString();
  }
  await store.close();
  return longest;
}

async function talk(rig: Rig, ...options: string[]): Promise<void> {
  const port = String(await freePort());
  const start = async (name: string, ...words: string[]): Promise<void> => {
    const flags = ["--detach", "--output", rig.path(`${name}.out`), ...options];
    const { code, err } = await rig.cli(
      "run",
      rig.app,
      name,
      ...flags,
      "--",
      process.execPath,
      "-e",
      ...words,
    );
    if (code !== 0) throw new Error(err);
  };
  await start("echo", ECHO, port);
  await until("it listens", () => rig.output("echo").includes("listening"));
  await start("ask", ASK, port);
}

describe.skipIf(missing !== undefined)(`run --payload (${missing?.reason ?? "supported"})`, () => {
  test("from the first byte; a killed logger and a new collector go on", async () => {
    await withRig("payload", async (rig) => {
      let collector = await rig.collect();
      await talk(rig, "--payload");
      await until("some talk", async () => (await conversation(rig)).length > 200);
      expect(await conversation(rig)).toMatch(/^question 0\n(question \d+\n)+/);
      const [pid, more] = loggers(rig);
      expect(more).toBeUndefined();
      process.kill(pid!, "SIGKILL");
      await until("a new logger", () => loggers(rig).length === 1 && loggers(rig)[0] !== pid);
      collector.child.kill("SIGTERM");
      expect(await collector.ended).toMatchObject({ code: 0 });
      expect(loggers(rig)).toEqual([]);
      const files = readdirSync(join(rig.home, rig.app, "payload")).length;
      collector = await rig.collect();
      await until("a logger of the new collector", () => loggers(rig).length === 1);
      await until("its segment", () => readdirSync(join(rig.home, rig.app, "payload")).length > files);
      for (const name of ["ask", "echo"]) rig.cgroup(name).kill();
      await until("the logger of an application that has ended is gone", () => loggers(rig).length === 0);
    });
  });

  test("an application whose cgroup was made anew is listened to again, without asking again", async () => {
    await withRig("anew", async (rig) => {
      await rig.collect();
      await talk(rig, "--payload");
      await until("some talk", async () => (await conversation(rig)).length > 50);
      const [first] = loggers(rig);
      for (const name of ["ask", "echo"]) {
        rig.cgroup(name).kill();
        await until(`${name} is gone`, () => rig.cgroup(name).remove());
      }
      await rig.run(
        "other",
        process.execPath,
        "-e",
        `${ECHO};setTimeout(()=>n.connect(+process.argv[1],"127.0.0.1").write("from the new cgroup ".repeat(1000)),200)`,
        String(await freePort()),
      );
      await until("the new talk", async () => (await conversation(rig)).startsWith("from the new cgroup"));
      expect(loggers(rig)).toHaveLength(1);
      expect(loggers(rig)).not.toEqual([first]);
    });
  });

  test("nobody who did not ask is listened to", async () => {
    await withRig("silent", async (rig) => {
      await rig.collect();
      await talk(rig);
      await until("some talk", async () => (await rig.events()).length > 20);
      expect(existsSync(join(rig.home, rig.app, "payload"))).toBe(false);
      expect(loggers(rig)).toEqual([]);
    });
  });
});
