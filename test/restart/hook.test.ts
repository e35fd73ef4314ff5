/** Driver hook: programs with their own checkpoint command, redis first of all. */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { copyFileSync, existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import type { CheckpointResult } from "../../src/checkpoint/checkpoint.ts";
import { readHooks } from "../../src/checkpoint/hook-checkpoint.ts";
import { imagesFolder } from "../../src/images/image-store.ts";
import { packageRoot } from "../../src/native/binding.ts";
import { freePort, missing, type Rig, until, withRig } from "../daemon/rig.ts";
import { LONG, sized } from "../size.ts";
import type { Answer } from "./answer.ts";
import { restartable } from "./restartable.ts";

const live = test.skipIf(missing !== undefined);
const SAVE = join(packageRoot(), "packaging/hooks/redis-checkpoint.sh");

/** One connection an INCR, as many as the number in a file says; the answers go to the output. */
const CLIENT = `
const net = require("net"), fs = require("fs");
const [port, file] = [+process.argv[1], process.argv[2]];
let done = 0;
const next = () => {
  const limit = fs.existsSync(file) ? +fs.readFileSync(file, "utf8") : 0;
  if (done >= limit) return setTimeout(next, 10);
  let answer = "";
  const c = net.connect(port, "127.0.0.1", () => c.write("INCR n\\r\\n"));
  c.on("error", () => setTimeout(next, 50));
  c.on("data", (d) => { answer += d; if (answer.endsWith("\\n")) c.end(); });
  c.on("end", () => { done += 1; fs.appendFileSync(1, answer.slice(1, -2) + "\\n"); setTimeout(next, 3); });
};
next();`;

class RedisApp {
  readonly rig: Rig;
  readonly port: number;
  readonly hooks: string;
  readonly data: string;

  constructor(rig: Rig, port: number) {
    this.rig = rig;
    this.port = port;
    this.data = rig.path("data");
    this.hooks = rig.path("hooks.json");
    mkdirSync(this.data);
    const server = ["redis-server", ...this.#flags(port, this.data)].map((word) => `'${word}'`).join(" ");
    const hook = {
      checkpoint: `'${SAVE}' ${port}`,
      // Slow: the restart is over before it looks for the image, as on a busy machine.
      restore: `sleep 0.5; cp "$RECOVERY_LINE_IMAGE/dump.rdb" . && exec ${server}`,
      cwd: this.data,
    };
    writeFileSync(this.hooks, JSON.stringify({ db: hook }));
  }

  #flags(port: number, folder: string): string[] {
    const log = this.rig.path("redis.log");
    return ["--port", `${port}`, "--bind", "127.0.0.1", "--dir", folder, "--save", "", "--logfile", log];
  }

  async start(): Promise<void> {
    await this.rig.run("db", "redis-server", ...this.#flags(this.port, this.data));
    await until(
      "redis is ready",
      () =>
        existsSync(this.rig.path("redis.log")) &&
        /Ready to accept/.test(readFileSync(this.rig.path("redis.log"), "utf8")),
    );
    await this.rig.run("client", process.execPath, "-e", CLIENT, `${this.port}`, this.rig.path("limit"));
  }

  allow(count: number): void {
    writeFileSync(this.rig.path("limit"), `${count}`);
  }

  get answers(): number[] {
    return this.rig.output("client").split("\n").filter(Boolean).map(Number);
  }

  async checkpoint(): Promise<CheckpointResult> {
    const { checkpoints } = await this.rig.json<{ checkpoints: CheckpointResult[] }>(
      "checkpoint",
      this.rig.app,
      "db",
      "--driver",
      "hook",
      "--hooks",
      this.hooks,
    );
    return checkpoints[0]!;
  }

  /** What n is in an image, told by another server that loads it. */
  async inImage(checkpoint: number): Promise<number> {
    const folder = this.rig.path(`look-${checkpoint}`);
    mkdirSync(folder);
    copyFileSync(
      join(imagesFolder(this.rig.home, this.rig.app, "db"), `${checkpoint}`, "files", "dump.rdb"),
      join(folder, "dump.rdb"),
    );
    const port = await freePort();
    const server = spawn(
      "redis-server",
      ["--port", `${port}`, "--bind", "127.0.0.1", "--dir", folder, "--save", ""],
      { stdio: "ignore" },
    );
    try {
      let value = "";
      await until("the image is loaded", async () => {
        value = await output("redis-cli", "-p", `${port}`, "--raw", "GET", "n");
        return /^\d+$/.test(value);
      });
      return Number(value);
    } finally {
      server.kill("SIGKILL");
      await once(server, "exit");
    }
  }
}

async function output(command: string, ...words: string[]): Promise<string> {
  const child = spawn(command, words, { stdio: ["ignore", "pipe", "ignore"] });
  let text = "";
  child.stdout.on("data", (bytes: Buffer) => {
    text += bytes.toString();
  });
  await once(child, "close");
  return text.trim();
}

/** INCRs that the process had answered at its checkpoint, by what it had sent to others: ":1\r\n" has 4 bytes, ":10\r\n" 5. */
async function answeredAt(rig: Rig, checkpoint: number): Promise<number> {
  const event = (await rig.events()).find(
    (one) => one.type === "checkpoint" && one.process === "db" && one.checkpoint === checkpoint,
  );
  if (event?.type !== "checkpoint" || event.cut === undefined) throw new Error("no cut");
  const { sent, received } = event.cut;
  const foreign = [...sent].filter(([channel]) => !received.has(channel));
  return foreign.filter(([, bytes]) => bytes > 3).length;
}

live("redis under load: image and cut are of one instant, in every one of several checkpoints", LONG, () =>
  withRig("hook-load", async (rig) => {
    await rig.collect();
    const app = new RedisApp(rig, await freePort());
    await app.start();
    app.allow(100_000);
    let before = 0;
    for (const round of [1, 2, 3]) {
      await until("the client is served", () => app.answers.length > before + 20);
      const result = await app.checkpoint();
      expect(result).toMatchObject({ usable: true, cut: true });
      expect(result.checkpoint).toBeGreaterThanOrEqual(round); // moments that were given up have used numbers up
      const value = await app.inImage(result.checkpoint);
      expect(value).toBe(await answeredAt(rig, result.checkpoint));
      expect(value).toBeGreaterThan(before);
      before = app.answers.length;
    }
  }),
);

live(
  "an open connection, a failing command, one that stores nothing: no checkpoint, and the program goes on",
  () =>
    withRig("hook-refused", async (rig) => {
      await rig.collect();
      const app = new RedisApp(rig, await freePort());
      await app.start();
      const attempt = async (checkpoint: string): Promise<string> => {
        writeFileSync(app.hooks, JSON.stringify({ db: { checkpoint, restore: "exec true" } }));
        const { code, err } = await rig.cli(
          "checkpoint",
          rig.app,
          "db",
          "--driver",
          "hook",
          "--hooks",
          app.hooks,
        );
        expect(code).toBe(1);
        return err;
      };
      const tries = rig.path("tries");
      const third = `echo >>'${tries}'; [ $(wc -l <'${tries}') -ge 3 ] || exit 75; echo no luck; exit 3`;
      expect(await attempt(third)).toContain("exit code 3: no luck");
      expect(readFileSync(tries, "utf8")).toBe("\n\n\n"); // "not now" is asked again
      expect(await attempt("true")).toContain("stored nothing");
      if (sized(true, false)) expect(await attempt("exit 75")).toContain("not now"); // as with open connections
      await rig.run(
        "holder",
        process.execPath,
        "-e",
        `require("net").connect(${app.port}, "127.0.0.1"); setInterval(() => {}, 1000)`,
      );
      await until(
        "it is connected",
        async () =>
          (await output("sh", "-c", `ss -tn state established 'sport = :${app.port}' | wc -l`)) !== "1",
      );
      expect(await attempt(`touch "$RECOVERY_LINE_IMAGE/x"`)).toContain("open connections");
      app.allow(5);
      await until("the client is served", () => app.answers.length === 5);
      expect((await rig.events()).filter(({ type }) => type === "checkpoint" || type === "gap")).toEqual([]);
    }),
);

restartable("redis comes back from its own image, its client from CRIU's: not one INCR lost or doubled", () =>
  withRig("hook-restart", async (rig) => {
    await rig.collect();
    const app = new RedisApp(rig, await freePort());
    await app.start();
    app.allow(50);
    await until("the first answers are there", () => app.answers.length === 50);
    const { checkpoint } = await app.checkpoint();
    await rig.json("checkpoint", rig.app, "client", "--driver", "criu");
    app.allow(80);
    await until("it goes on", () => app.answers.length > 60);
    for (const name of ["db", "client"]) rig.cgroup(name).kill();
    const answer = await rig.json<Answer>("restart", rig.app);
    expect(answer.restarted.map(({ process, checkpoint }) => [process, checkpoint])).toEqual([
      ["client", 1],
      ["db", checkpoint],
    ]);
    await until("all are answered", () => app.answers.length === 80);
    expect(app.answers).toEqual(Array.from({ length: 80 }, (_, index) => index + 1));
    await rig.events();
  }),
);

test("hooks files: every mistake is told with file and field", () =>
  withRig("hook-files", async (rig) => {
    const file = rig.path("hooks.json");
    const mistakes: [string, string][] = [
      ["", "JSON"],
      ["[]", "no JSON object"],
      ['{"db": 1}', '"db" is no object'],
      ['{"db": {"checkpoint": "x"}}', '"restore" is no command'],
      ['{"db": {"checkpoint": "x", "restore": "y", "cwd": "here"}}', "no absolute path"],
      ['{"db": {"checkpoint": "x", "restore": "y", "extra": 1}}', 'unknown field "extra"'],
    ];
    for (const [content, why] of mistakes) {
      writeFileSync(file, content);
      expect(() => readHooks(file)).toThrow(why);
    }
    writeFileSync(file, '{"db": {"checkpoint": "x", "restore": "y"}}');
    expect([...readHooks(file)]).toEqual([["db", { checkpoint: "x", restore: "y" }]]);
  }));
