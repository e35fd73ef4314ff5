/** PostgreSQL 15 of Debian, another user's, with System V and POSIX shared memory: it comes back exactly, by its client's and its own count. */
import { execFile } from "node:child_process";
import {
  chmodSync,
  chownSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { promisify } from "node:util";
import { expect, test } from "vitest";
import { freePort, type Rig, until, withRig } from "../daemon/rig.ts";
import { sized } from "../size.ts";
import { restartable } from "./restartable.ts";

const run = promisify(execFile);
const BIN = "/usr/lib/postgresql/15/bin";
const SHM = "/dev/shm";
const there = existsSync(join(BIN, "postgres"));
class Postgres {
  readonly #rig: Rig;
  readonly #port: number;
  readonly data: string;

  constructor(rig: Rig, port: number) {
    this.#rig = rig;
    this.#port = port;
    this.data = rig.path("data");
  }

  async start(): Promise<void> {
    const { stdout } = await run("id", ["-u", "postgres"]);
    const uid = Number(stdout);
    chmodSync(this.#rig.folder, 0o755);
    mkdirSync(this.data);
    chownSync(this.data, uid, uid);
    const initdb = [join(BIN, "initdb"), "-D", this.data, "--data-checksums", "-A", "trust", "--no-sync"];
    await run("setpriv", [...AS_POSTGRES, ...initdb], { cwd: "/" });
    // Its workers come and go by themselves.
    const settings = ["-c", "fsync=off", "-c", "unix_socket_directories=", "-c", "autovacuum=off"];
    const command = [join(BIN, "postgres"), "-D", this.data, "-p", `${this.#port}`, ...settings];
    const options = ["--own-ipc", "--detach", "--data", this.data, "--output", this.#rig.path("db.out")];
    const { code, err } = await this.#rig.cli(
      "run",
      this.#rig.app,
      "db",
      ...options,
      "--",
      "setpriv",
      ...AS_POSTGRES,
      ...command,
    );
    expect([code, err]).toEqual([0, ""]);
    await until("it answers", () => this.ask("select 1").then(...AS_TRUTH));
  }

  /** Each answer in a line. */
  async ask(...statements: string[]): Promise<string[]> {
    const place = ["-h", "127.0.0.1", "-p", `${this.#port}`, "-U", "postgres", "-d", "postgres"];
    const words = statements.flatMap((one) => ["-c", one]);
    const { stdout } = await run(join(BIN, "psql"), [...place, "-XqtA", ...words]);
    return stdout.trim().split("\n");
  }

  /** A client's backend ends a moment after the client. */
  alone(): Promise<void> {
    return until("no backend of a client is left", () =>
      this.#rig
        .cgroup("db")
        .pids()
        .every((pid) => !titleOf(pid).startsWith("postgres: postgres postgres ")),
    );
  }
}

/** "": it has ended. */
function titleOf(pid: number): string {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, "latin1");
  } catch {
    return "";
  }
}

const AS_POSTGRES = ["--reuid=postgres", "--regid=postgres", "--clear-groups"];
const AS_TRUTH = [() => true, () => false] as const;

(there ? restartable : test.skip)(
  "PostgreSQL: what was committed inside the line is there once, nothing else; indexes and checksums pass",
  { timeout: 120_000 },
  () =>
    withRig("postgres", async (rig) => {
      await rig.collect();
      const db = new Postgres(rig, await freePort());
      await db.start();
      const [root] = rig.cgroup("db").pids();
      const shared = readdirSync(`/proc/${root}/root${SHM}`);
      expect(shared).not.toEqual([]);
      for (const name of shared) expect(existsSync(join(SHM, name))).toBe(false);
      // As a dynamic segment between two backends: nobody has it mapped or open.
      const memory = (pid: number): string => join(`/proc/${pid}/root`, SHM, "of nobody");
      writeFileSync(memory(root!), "as it was");
      await db.ask(
        "create extension amcheck",
        "create table t (id int primary key, v int)",
        "insert into t select g, g from generate_series(1, 20000) g",
      );
      await db.alone();
      const taken = await rig.json<{ checkpoints: { cut: boolean }[] }>("checkpoint", rig.app);
      expect(taken.checkpoints).toMatchObject([{ cut: true }]);
      const pids = [...rig.cgroup("db").pids()];
      writeFileSync(memory(root!), "written since");
      for (let round = 0; round < sized(2, 1); round += 1) {
        await db.ask(
          "update t set v = v + 1 where id <= 5000",
          "create table later as select generate_series(1, 10000)",
          "insert into t select g, g from generate_series(20001, 21000) g",
        );
        rig.cgroup("db").kill();
        await until("it is dead", () => !rig.cgroup("db").populated);
        await rig.json("restart", rig.app);
        expect(new Set(rig.cgroup("db").pids())).toEqual(new Set(pids));
        expect(readFileSync(memory(pids[0]!), "utf8")).toBe("as it was");
        const answer = await db.ask(
          "select count(*), sum(v) from t",
          "select coalesce(to_regclass('later')::text, 'none')",
          "select count(bt_index_check('t_pkey', true))",
        );
        expect(answer).toEqual(["20000|200010000", "none", "1"]);
      }
      rig.cgroup("db").kill();
      await until("it is dead", () => !rig.cgroup("db").populated);
      await rig.json("restart", rig.app);
      await db.ask("checkpoint");
      process.kill(pids[0]!, "SIGINT"); // an orderly end, as pg_checksums wants
      await until("it has ended", () => !rig.cgroup("db").populated);
      const { stdout } = await run("setpriv", [...AS_POSTGRES, join(BIN, "pg_checksums"), "-D", db.data], {
        cwd: "/",
      });
      expect(stdout).toMatch(/Bad checksums: +0/);
    }),
);
