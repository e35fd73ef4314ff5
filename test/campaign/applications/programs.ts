/** The servers that served.ts plays with, from Debian, as somebody would start them. */
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { chmodSync, chownSync, existsSync, mkdirSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { promisify } from "node:util";
import { freePort, type Rig, until } from "../../daemon/rig.ts";
import { expectedRounds, MpiJob } from "../../restart/mpi-app.ts";
import type { Served } from "./served.ts";

const run = promisify(execFile);
const ANSWER_LIMIT_MS = 20_000;

/** What each needs, from which package. */
export const NEEDS: Readonly<Record<string, readonly [program: string, debian: string][]>> = {
  mariadb: [["/usr/sbin/mariadbd", "mariadb-server"]],
  etcd: [
    ["/usr/bin/etcd", "etcd-server"],
    ["/usr/bin/etcdctl", "etcd-client"],
    ["/usr/bin/curl", "curl"],
  ],
  jvm: [
    ["/usr/bin/java", "default-jre-headless"],
    ["/usr/bin/javac", "default-jdk-headless"],
  ],
  prometheus: [
    ["/usr/bin/prometheus", "prometheus"],
    ["/usr/bin/prometheus-node-exporter", "prometheus-node-exporter"],
  ],
  postgresql: [["/usr/lib/postgresql/15/bin/postgres", "postgresql-15"]],
  mpi: [
    ["/usr/bin/mpirun", "openmpi-bin"],
    ["/usr/bin/mpicc", "libopenmpi-dev"],
  ],
};

/** Throws where a package is missing. */
export function refuseMissing(name: string): void {
  const missing = NEEDS[name]!.find(([program]) => !existsSync(program));
  if (missing !== undefined) throw new Error(`not supported here: ${missing[1]} of Debian is not installed`);
}

async function userId(name: string): Promise<number> {
  return Number((await run("id", ["-u", name])).stdout);
}

async function recorded(rig: Rig, name: string, flags: string[], command: string[]): Promise<void> {
  const output = ["--detach", "--output", rig.path(`${name}.out`)];
  const { code, err } = await rig.cli("run", rig.app, name, ...flags, ...output, "--", ...command);
  assert.deepEqual([code, err], [0, ""]);
}

/** Waits until a question is answered. */
async function answers(what: string, ask: () => Promise<unknown>): Promise<void> {
  await until(what, () =>
    ask().then(
      () => true,
      () => false,
    ),
  );
}

async function http(url: string, body?: string): Promise<string> {
  const request = { signal: AbortSignal.timeout(ANSWER_LIMIT_MS), headers: { connection: "close" } };
  const answer = await fetch(url, body === undefined ? request : { ...request, method: "POST", body });
  const text = await answer.text();
  if (!answer.ok) throw new Error(`${url}: ${answer.status} ${text}`);
  return text;
}

const upTo = (count: number): number[] => Array.from({ length: count }, (_, at) => at + 1);

// ---- MariaDB: a table of four times its buffer pool

const ROWS = 100_000;
const STRIPES = 1000;

export class MariaDb implements Served {
  readonly names = ["db"];
  readonly #rig: Rig;
  #port = 0;

  constructor(rig: Rig) {
    this.#rig = rig;
  }

  async start(): Promise<void> {
    this.#port = await freePort();
    const uid = await userId("mysql");
    const data = this.#rig.path("mariadb");
    chmodSync(this.#rig.folder, 0o755);
    mkdirSync(data);
    chownSync(data, uid, uid);
    const install = ["--no-defaults", "--user=mysql", `--datadir=${data}`, "--skip-test-db"];
    await run("mariadb-install-db", [...install, "--auth-root-authentication-method=normal"]);
    const settings = [`--port=${this.#port}`, "--bind-address=127.0.0.1", `--socket=${data}/socket`];
    const pool = ["--innodb-buffer-pool-size=8M", `--datadir=${data}`, `--tmpdir=${data}`];
    await recorded(
      this.#rig,
      "db",
      ["--data", data],
      ["/usr/sbin/mariadbd", "--no-defaults", "--user=mysql", ...settings, ...pool],
    );
    await answers("MariaDB answers", () => this.#ask("select 1"));
    await this.#ask(
      `create database d; use d; create table told (n int primary key); create table t (id int primary key, v bigint, pad char(250), key (v));
       insert into t select seq, 0, repeat('x', 250) from seq_1_to_${ROWS}`,
    );
  }

  async put(number: number): Promise<void> {
    await this.#ask(
      `use d; begin; insert into told values (${number}); update t set v = v + ${number} where id % ${STRIPES} = ${number % STRIPES}; commit`,
    );
  }

  async numbers(): Promise<number[]> {
    const [sum, ...told] = (await this.#ask("use d; select sum(v) from t; select n from told order by n"))
      .trim()
      .split("\n")
      .map(Number);
    assert.equal(
      sum,
      told.reduce((all, one) => all + one * (ROWS / STRIPES), 0),
      "sum of the updates",
    );
    return told;
  }

  async check(): Promise<void> {
    const said = await this.#ask("use d; check table t, told extended");
    assert.deepEqual(
      said
        .trim()
        .split("\n")
        .map((line) => line.split("\t").at(-1)),
      ["OK", "OK"],
    );
  }

  async #ask(statements: string): Promise<string> {
    const place = ["--no-defaults", "-h", "127.0.0.1", "-P", String(this.#port), "-u", "root"];
    return (await run("mariadb", [...place, "-N", "-B", "-e", statements])).stdout;
  }
}

// ---- etcd of three: a client that talks with two of them would be a relay between them, so that each request is of a program of its own

async function asked(url: string, body: string): Promise<string> {
  const limit = String(ANSWER_LIMIT_MS / 1000);
  return (await run("curl", ["-sS", "--fail", "--max-time", limit, "--data", body, url])).stdout;
}

const base64 = (text: string): string => Buffer.from(text).toString("base64");

export class Etcd implements Served {
  readonly names = ["etcd0", "etcd1", "etcd2"];
  readonly #rig: Rig;
  readonly #clients: string[] = [];

  constructor(rig: Rig) {
    this.#rig = rig;
  }

  async start(): Promise<void> {
    const peers: string[] = [];
    for (const _ of this.names) {
      this.#clients.push(`http://127.0.0.1:${await freePort()}`);
      peers.push(`http://127.0.0.1:${await freePort()}`);
    }
    const cluster = this.names.map((name, at) => `${name}=${peers[at]}`).join(",");
    for (const [at, name] of this.names.entries()) {
      const data = this.#rig.path(name);
      mkdirSync(data, { mode: 0o700 });
      const [client, peer] = [this.#clients[at]!, peers[at]!];
      const urls = ["--listen-client-urls", client, "--advertise-client-urls", client];
      const peerUrls = ["--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer];
      const command = ["etcd", "--name", name, "--data-dir", data, "--initial-cluster", cluster];
      await recorded(this.#rig, name, ["--data", data], [...command, ...urls, ...peerUrls]);
    }
    await answers("etcd has a leader", () => this.#numbersAt(0));
  }

  async put(number: number): Promise<void> {
    const key = `told/${String(number).padStart(8, "0")}`;
    const body = JSON.stringify({ key: base64(key), value: base64(String(number)) });
    await asked(`${this.#clients[number % 3]}/v3/kv/put`, body);
  }

  async numbers(): Promise<number[]> {
    const [first, ...others] = await Promise.all(this.#clients.map((_, at) => this.#numbersAt(at)));
    for (const other of others) assert.deepEqual(other, first, "what another member tells");
    return first!;
  }

  async #numbersAt(at: number): Promise<number[]> {
    const body = JSON.stringify({ key: base64("told/"), range_end: base64("told0") });
    const { kvs = [] } = JSON.parse(await asked(`${this.#clients[at]}/v3/kv/range`, body)) as {
      kvs?: { value: string; version: string }[];
    };
    for (const { version } of kvs) assert.equal(version, "1", "times that a key was put");
    return kvs.map(({ value }) => Number(Buffer.from(value, "base64").toString()));
  }

  async check(): Promise<void> {
    const env = { ...process.env, ETCDCTL_API: "3" };
    const hashes: number[] = [];
    for (const client of this.#clients) {
      const words = ["--endpoints", client, "endpoint", "hashkv", "-w", "json"];
      const [one] = JSON.parse((await run("etcdctl", words, { env })).stdout) as {
        HashKV: { hash: number };
      }[];
      hashes.push(one!.HashKV.hash);
    }
    assert.equal(new Set(hashes).size, 1, "hashes of the members");
  }
}

// ---- a server of a JVM: a list in its heap, the same in a file

const SERVER = `
import com.sun.net.httpserver.HttpServer;
import java.io.RandomAccessFile;
import java.net.InetSocketAddress;
import java.util.ArrayList;
import java.util.concurrent.Executors;

public class Server {
    static final ArrayList<String> told = new ArrayList<>();
    static byte[][] garbage = new byte[512][];

    public static void main(String[] args) throws Exception {
        var file = new RandomAccessFile(args[1], "rw");
        var server = HttpServer.create(new InetSocketAddress("127.0.0.1", Integer.parseInt(args[0])), 16);
        server.createContext("/", exchange -> {
            String answer;
            synchronized (told) {
                String query = exchange.getRequestURI().getQuery();
                if (query != null) {
                    told.add(query);
                    garbage[told.size() % garbage.length] = new byte[65536];
                    file.seek(file.length());
                    file.writeBytes(query + "\\n");
                    file.getFD().sync();
                }
                byte[] bytes = new byte[(int) file.length()];
                file.seek(0);
                file.readFully(bytes);
                answer = String.join("\\n", told) + "\\n-\\n" + new String(bytes);
            }
            byte[] body = answer.getBytes();
            exchange.sendResponseHeaders(200, body.length);
            exchange.getResponseBody().write(body);
            exchange.close();
        });
        server.setExecutor(Executors.newFixedThreadPool(4));
        server.start();
    }
}`;

export class Jvm implements Served {
  readonly names = ["server"];
  readonly #rig: Rig;
  #url = "";

  constructor(rig: Rig) {
    this.#rig = rig;
  }

  async start(): Promise<void> {
    const port = await freePort();
    this.#url = `http://127.0.0.1:${port}/`;
    const data = this.#rig.path("java");
    mkdirSync(data);
    const source = this.#rig.path("Server.java");
    writeFileSync(source, SERVER);
    await recorded(this.#rig, "server", ["--data", data], ["java", source, String(port), join(data, "told")]);
    await answers("the server answers", () => this.numbers());
  }

  async put(number: number): Promise<void> {
    await http(`${this.#url}?${number}`);
  }

  async numbers(): Promise<number[]> {
    const [heap, file] = (await http(this.#url)).split("-\n").map((text) => text.trim());
    assert.equal(file, heap, "what its file holds beside its heap");
    return heap === "" ? [] : heap!.split("\n").map(Number);
  }

  /**
   * Of its heap, by itself: the state of the collector is asked for through its own tool. The socket for that was renamed after its bind, so
   * that its name is no part of an image: what lies there is of the dead, and the machine makes another where none lies.
   */
  async check(): Promise<void> {
    const [pid] = this.#rig.cgroup("server").pids();
    rmSync(`/tmp/.java_pid${pid}`, { force: true });
    const { stdout } = await run("jcmd", [String(pid), "GC.heap_info"], { timeout: ANSWER_LIMIT_MS });
    assert.match(stdout, /heap|total/);
  }
}

// ---- Prometheus with a node-exporter: numbers are the samples that a client saw

const SCRAPE_MS = 200;

export class Prometheus implements Served {
  readonly names = ["prometheus", "exporter"];
  readonly #rig: Rig;
  #url = "";
  /** Times of the samples, in order, that a client has seen and that count. */
  #seen: number[] = [];

  constructor(rig: Rig) {
    this.#rig = rig;
  }

  async start(): Promise<void> {
    const [port, exporter] = [await freePort(), await freePort()];
    this.#url = `http://127.0.0.1:${port}`;
    const data = this.#rig.path("tsdb");
    mkdirSync(data);
    const config = this.#rig.path("prometheus.yml");
    const timing = `global: {scrape_interval: ${SCRAPE_MS}ms, scrape_timeout: ${SCRAPE_MS}ms}`;
    const job = `scrape_configs: [{job_name: node, static_configs: [{targets: ["127.0.0.1:${exporter}"]}]}]`;
    writeFileSync(config, `${timing}\n${job}\n`);
    await recorded(
      this.#rig,
      "exporter",
      [],
      [
        "prometheus-node-exporter",
        `--web.listen-address=127.0.0.1:${exporter}`,
        "--collector.disable-defaults",
        "--collector.loadavg",
      ],
    );
    await recorded(
      this.#rig,
      "prometheus",
      ["--data", data],
      [
        "prometheus",
        `--config.file=${config}`,
        `--storage.tsdb.path=${data}`,
        `--web.listen-address=127.0.0.1:${port}`,
        "--web.enable-admin-api",
      ],
    );
    await answers("Prometheus has samples", async () => assert.notEqual((await this.#samples()).length, 0));
  }

  /** The next sample is waited for. */
  async put(number: number): Promise<void> {
    await until("a sample more", async () => {
      const now = await this.#samples();
      if (now.length < number) return false;
      this.#seen = now.slice(0, number);
      return true;
    });
  }

  async reached(): Promise<number> {
    return (await this.#samples()).length;
  }

  /** Those seen that are still there count; one that was seen by nobody and is older than the newest of those would be from nowhere. */
  async numbers(): Promise<number[]> {
    const then = Date.now();
    const now = await this.#samples();
    const last = this.#seen.at(-1) ?? 0;
    const old = now.filter((ms) => ms <= last);
    assert.deepEqual(old, this.#seen.slice(0, old.length), "samples of before the restart");
    assert.ok(
      now.every((ms) => ms <= then + 1000),
      "samples of the future",
    );
    return upTo(old.length);
  }

  async check(): Promise<void> {
    const { data } = JSON.parse(await http(`${this.#url}/api/v1/admin/tsdb/snapshot`, "")) as {
      data: { name: string };
    };
    const folder = join(this.#rig.path("tsdb"), "snapshots", data.name);
    mkdirSync(join(folder, "wal")); // a snapshot has none, and promtool's dump wants one
    const { stdout } = await run("promtool", ["tsdb", "list", folder]);
    assert.ok(stdout.trim().split("\n").length >= 2, stdout);
    await run("promtool", ["tsdb", "analyze", folder]);
    const verified = await run("promtool", ["tsdb", "dump", folder], { maxBuffer: 1 << 28 });
    assert.match(verified.stdout, /node_load1/);
    rmSync(folder, { recursive: true });
  }

  async #samples(): Promise<number[]> {
    const query = encodeURIComponent('up{job="node"}[1h]');
    const { data } = JSON.parse(await http(`${this.#url}/api/v1/query?query=${query}`)) as {
      data: { result: { values: [number, string][] }[] };
    };
    return (data.result[0]?.values ?? []).map(([seconds]) => Math.round(seconds * 1000));
  }
}

// ---- PostgreSQL with a standby

const BIN = "/usr/lib/postgresql/15/bin";
const AS_POSTGRES = ["--reuid=postgres", "--regid=postgres", "--clear-groups"];

export class Postgresql implements Served {
  readonly names = ["primary", "standby"];
  readonly #rig: Rig;
  #ports: number[] = [];

  constructor(rig: Rig) {
    this.#rig = rig;
  }

  async start(): Promise<void> {
    this.#ports = [await freePort(), await freePort()];
    const uid = await userId("postgres");
    chmodSync(this.#rig.folder, 0o755);
    for (const name of this.names) {
      mkdirSync(this.#rig.path(name), { mode: 0o700 });
      chownSync(this.#rig.path(name), uid, uid);
    }
    const data = this.#rig.path("primary");
    await this.#as(join(BIN, "initdb"), "-D", data, "--data-checksums", "-A", "trust", "--no-sync");
    await this.#server(0);
    const from = ["-h", "127.0.0.1", "-p", String(this.#ports[0]), "-U", "postgres"];
    await this.#as(
      join(BIN, "pg_basebackup"),
      "-D",
      this.#rig.path("standby"),
      ...from,
      "-R",
      "-X",
      "stream",
    );
    await this.#server(1);
    await this.#ask(
      0,
      "create extension amcheck",
      "create table told (n int primary key)",
      "create table t (id int primary key, v bigint)",
      `insert into t select g, 0 from generate_series(1, ${ROWS / 10}) g`,
    );
    await answers("the standby follows", () => this.#ask(1, "select 1 from told"));
  }

  async put(number: number): Promise<void> {
    await this.#ask(
      0,
      `begin; insert into told values (${number}); update t set v = v + ${number} where id % ${STRIPES} = ${number % STRIPES}; commit`,
    );
  }

  async numbers(): Promise<number[]> {
    const questions = ["select sum(v) from t", "select n from told order by n"];
    const lines = await this.#ask(0, ...questions);
    const primary = JSON.stringify(lines);
    await until(
      "the standby has it, too",
      async () => JSON.stringify(await this.#ask(1, ...questions)) === primary,
    );
    const [sum, ...told] = lines.map(Number);
    assert.equal(
      sum,
      told.reduce((all, one) => all + (one * ROWS) / 10 / STRIPES, 0),
      "sum of the updates",
    );
    return told;
  }

  async check(): Promise<void> {
    for (const at of [0, 1]) {
      const check = `select count(bt_index_check(i, true)) from unnest(array['t_pkey', 'told_pkey']::regclass[]) i`;
      assert.deepEqual(await this.#ask(at, check), ["2"]);
    }
  }

  async end(): Promise<void> {
    for (const name of [...this.names].reverse()) {
      const [first] = this.#rig.cgroup(name).pids();
      process.kill(first!, "SIGINT");
      await until(`${name} has ended`, () => !this.#rig.cgroup(name).populated);
      const { stdout } = await this.#as(join(BIN, "pg_checksums"), "-D", this.#rig.path(name));
      assert.match(stdout, /Bad checksums: +0/);
    }
  }

  #as(...command: string[]): Promise<{ stdout: string }> {
    return run("setpriv", [...AS_POSTGRES, ...command], { cwd: "/" });
  }

  async #server(at: number): Promise<void> {
    const data = this.#rig.path(this.names[at]!);
    const command = [join(BIN, "postgres"), "-D", data, "-p", String(this.#ports[at])];
    const settings = ["-c", "unix_socket_directories=", "-c", "fsync=off"];
    await recorded(
      this.#rig,
      this.names[at]!,
      ["--own-ipc", "--data", data],
      ["setpriv", ...AS_POSTGRES, ...command, ...settings],
    );
    await answers(`${this.names[at]} answers`, () => this.#ask(at, "select 1"));
  }

  async #ask(at: number, ...statements: string[]): Promise<string[]> {
    const place = ["-h", "127.0.0.1", "-p", String(this.#ports[at]), "-U", "postgres", "-d", "postgres"];
    const words = statements.flatMap((one) => ["-c", one]);
    const { stdout } = await run(join(BIN, "psql"), [...place, "-XqtA", "-v", "ON_ERROR_STOP=1", ...words]);
    return stdout.trim().split("\n");
  }
}

// ---- a job of Open MPI: its numbers are the rounds that have come out

export class Mpi implements Served {
  readonly names = ["job"];
  readonly goesOn = true;
  readonly #rig: Rig;
  readonly #job: MpiJob;

  constructor(rig: Rig) {
    this.#rig = rig;
    this.#job = new MpiJob(rig, "job");
  }

  async start(): Promise<void> {
    await this.#job.start();
    await this.#job.reaches(1);
  }

  /** The next round is waited for. */
  async put(number: number): Promise<void> {
    await until("a round more", () => this.#job.lines().length >= number);
  }

  async numbers(): Promise<number[]> {
    await this.check();
    return upTo(this.#job.lines().length);
  }

  async check(): Promise<void> {
    const lines = this.#job.lines();
    assert.deepEqual(lines, expectedRounds(lines.length));
    assert.ok(this.#rig.cgroup("job").populated, "the job runs");
  }
}
