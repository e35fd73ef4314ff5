/** One test's own world: a home, a pin directory, application names, real commands from `dist/`; all of it gone at the end. */
import { type ChildProcess, execFile, spawn } from "node:child_process";
import { once } from "node:events";
import { chmodSync, existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, onTestFinished } from "vitest";
import { KernelSource } from "../../src/capture/kernel-source.ts";
import { kernelSupport } from "../../src/capture/kernel-support.ts";
import { type CollectorClient, connectCollector } from "../../src/client/client.ts";
import { decodeBlock } from "../../src/format/block.ts";
import { detachCgroup, ProcessCgroup } from "../../src/host/cgroups.ts";
import { endOf, forgetEnd } from "../../src/host/process-end.ts";
import { startTicksOf } from "../../src/host/process-tree.ts";
import type { CollectedProcess } from "../../src/model/collector-answers.ts";
import type { Event } from "../../src/model/event.ts";
import { main as CLI } from "../built.ts";
import { askIdle } from "../cli/cli.ts";

const LIMIT_MS = 120_000;
/** Before a test's own limit: the error names the command. */
const ASKED_LIMIT_MS = 90_000;
/** A line under load loses inputs of thousands of connections. */
const MAX_OUTPUT_BYTES = 2 ** 28;

/** Why nothing can be captured here; undefined where everything can. */
export const missing = kernelSupport().find(
  (one) => ["addon", "permission", "cgroup2"].includes(one.name) && !one.supported,
);

export interface Ended {
  readonly code: number | null;
  readonly out: string;
  readonly err: string;
}

/** Waits for a condition that a test relies on. */
export async function until(
  what: string,
  condition: () => boolean | Promise<boolean>,
  limitMs = 60_000, // nothing here takes so long; a busy machine may
): Promise<void> {
  const deadlineMs = Date.now() + limitMs;
  while (!(await condition())) {
    if (Date.now() > deadlineMs) throw new Error(`not within ${limitMs} ms: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

/** Below what the kernel gives to outgoing connections, and so is a port 10 000 above, where the bus of a redis cluster listens. */
const PORTS = { from: 12_000, count: 10_000 } as const;
/** Far apart for pids that are near each other: lanes do not meet. */
let portsTried = process.pid * 3819;

/** Each is given once in this process: nobody else gets it before its program listens, or while that is dead. */
export async function freePort(): Promise<number> {
  for (;;) {
    portsTried += 1;
    const port = PORTS.from + (portsTried % PORTS.count);
    const server = createServer();
    try {
      await once(server.listen(port, "127.0.0.1"), "listening");
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== "EADDRINUSE") throw error;
      continue;
    }
    await once(server.close(), "close");
    return port;
  }
}

/** A collector's process and what it printed. */
export interface Running {
  readonly child: ChildProcess;
  readonly ready: string;
  readonly ended: Promise<Ended>;
}

export class Rig {
  readonly folder = mkdtempSync(join(tmpdir(), "rl-daemon-"));
  readonly home: string;
  readonly app: string;
  readonly pinDir: string;
  /** Its collector is another rig's. */
  readonly #guest: boolean;
  readonly #children: ChildProcess[] = [];
  #removed: Promise<void> | undefined;
  /** Number and start of the processes that it has started or seen in its cgroups. */
  readonly #tasks = new Map<number, number>();

  constructor(name: string, host?: Rig) {
    this.app = `${name}-${process.pid}`;
    this.#guest = host !== undefined;
    this.home = host?.home ?? join(this.folder, "home");
    this.pinDir = host?.pinDir ?? `/sys/fs/bpf/rl-${this.app}`;
  }

  path(name: string): string {
    return join(this.folder, name);
  }

  /** Runs a command of ours to its end: where it needs none of its own, in the process of all such questions (cli/cli.ts). */
  async cli(...args: string[]): Promise<Ended> {
    const env = { ...process.env, RECOVERY_LINE_HOME: this.home };
    const asked = askIdle({ args, input: "", env }, ASKED_LIMIT_MS);
    if (asked === undefined) return this.spawned(...args);
    const { code, stdout, stderr } = await asked;
    return { code, out: stdout, err: stderr };
  }

  /** The same in a process of its own. */
  spawned(...args: string[]): Promise<Ended> {
    return new Promise((resolve) => {
      const env = { ...process.env, RECOVERY_LINE_HOME: this.home };
      const options = { env, timeout: LIMIT_MS, maxBuffer: MAX_OUTPUT_BYTES };
      execFile(process.execPath, [CLI, ...args], options, (error, out, err) => {
        resolve({ code: error === null ? 0 : ((error.code as unknown as number) ?? null), out, err });
      });
    });
  }

  async json<T>(...args: string[]): Promise<T> {
    const { code, out, err } = await this.cli(...args, "--json");
    if (code !== 0) throw new Error(`recovery-line ${args.join(" ")}: exit code ${code}: ${out}${err}`);
    return JSON.parse(out) as T;
  }

  /** Starts a command of ours and waits for nothing. */
  background(...args: string[]): Omit<Running, "ready"> {
    const env = { ...process.env, RECOVERY_LINE_HOME: this.home };
    const child = spawn(process.execPath, [CLI, ...args], { env, stdio: ["ignore", "pipe", "pipe"] });
    this.#started(child);
    let [out, err] = ["", ""];
    child.stdout.on("data", (text: Buffer) => {
      out += text.toString();
    });
    child.stderr.on("data", (text: Buffer) => {
      err += text.toString();
    });
    return {
      child,
      ended: once(child, "close").then(([code]) => ({ code: code as number | null, out, err })),
    };
  }

  /** Starts a command of ours that goes on; resolves once it printed a line. */
  async start(...args: string[]): Promise<Running> {
    const env = { ...process.env, RECOVERY_LINE_HOME: this.home };
    const child = spawn(process.execPath, [CLI, ...args], { env, stdio: ["ignore", "pipe", "pipe"] });
    this.#started(child);
    let [out, err] = ["", ""];
    child.stderr.on("data", (text: Buffer) => {
      err += text.toString();
    });
    const ended = once(child, "close").then(([code]) => ({
      code: code as number | null,
      out,
      err: withoutOthers(err),
    }));
    await new Promise<void>((resolve, reject) => {
      child.stdout.on("data", (text: Buffer) => {
        out += text.toString();
        if (out.includes("\n")) resolve();
      });
      void ended.then(() => reject(new Error(`recovery-line ${args.join(" ")} ended: ${out}${err}`)));
    });
    return { child, ready: out, ended };
  }

  collect(...args: string[]): Promise<Running> {
    return this.start("collect", "--pin-dir", this.pinDir, ...args);
  }

  /** Starts a recorded process in the background; its output is in `<process>.out`. */
  async run(name: string, ...command: string[]): Promise<number> {
    const { code, out, err } = await this.cli(
      "run",
      this.app,
      name,
      "--detach",
      "--output",
      this.path(`${name}.out`),
      "--",
      ...command,
    );
    if (code !== 0) throw new Error(`run ${name}: exit code ${code}: ${err}`);
    this.#noteTask(Number(out));
    return Number(out);
  }

  /** Whoever waits for it leaves word of its end in a folder of the machine's. */
  #noteTask(pid: number): void {
    const startTicks = startTicksOf(pid);
    if (startTicks !== undefined) this.#tasks.set(pid, startTicks);
  }

  output(name: string): string {
    return existsSync(this.path(`${name}.out`)) ? readFileSync(this.path(`${name}.out`), "utf8") : "";
  }

  cgroup(name: string): ProcessCgroup {
    return new ProcessCgroup(this.app, name);
  }

  async client(): Promise<CollectorClient> {
    const client = await connectCollector(this.home);
    if (client === undefined) throw new Error("no collector answers");
    return client;
  }

  /** What the collector knows of a process: to wait for, without a command for each look. Undefined: nothing. */
  async known(name: string): Promise<CollectedProcess | undefined> {
    const client = await this.client();
    const all = await client.processes();
    client.close();
    return all.find(({ app, process }) => app === this.app && process === name);
  }

  /** Waits until the collector has heard of a process's end: it is on record. */
  async hearsEnd(name: string): Promise<CollectedProcess> {
    let known: CollectedProcess | undefined;
    await until(`the collector knows that ${name} has ended`, async () => {
      known = await this.known(name);
      return known?.live === false;
    });
    return known!;
  }

  /** Everything committed of the application, through the live collector. */
  async events(app = this.app): Promise<Event[]> {
    const client = await this.client();
    await client.drain();
    const events: Event[] = [];
    for await (const block of client.blocks(app)) events.push(...decodeBlock(block).columns.events());
    client.close();
    return events;
  }

  /** Also while a test that ran into its limit goes on: what it starts from now on fails. */
  remove(): Promise<void> {
    this.#removed ??= this.#remove();
    return this.#removed;
  }

  #started(child: ChildProcess): void {
    this.#children.push(child);
    if (this.#removed === undefined) return;
    child.kill("SIGKILL");
    throw new Error("the test has run into its limit");
  }

  async #remove(): Promise<void> {
    const alive = [...this.#tasks].filter(([pid, startTicks]) => startTicksOf(pid) === startTicks);
    for (const name of this.processNames()) {
      const cgroup = this.cgroup(name);
      for (const pid of cgroup.pids()) this.#noteTask(pid);
      if (cgroup.freezing) cgroup.setFreeze(false);
      await until(`${name} is gone`, () => {
        if (cgroup.populated) cgroup.kill();
        return cgroup.remove();
      });
      if (cgroup.foreign) detachCgroup(this.app, name);
    }
    for (const child of this.#children) {
      if (child.exitCode !== null || child.signalCode !== null) continue;
      child.kill("SIGKILL");
      await once(child, "close");
    }
    await this.#forgetEnds(alive);
    if (!this.#guest) KernelSource.unpin(this.pinDir);
    rmSync(this.folder, { recursive: true, force: true });
  }

  /** `killed`: by us, so that the word of their ends may be under way. */
  async #forgetEnds(killed: readonly (readonly [number, number])[]): Promise<void> {
    const WORD_MS = 500;
    const deadlineMs = Date.now() + WORD_MS;
    for (const [pid, startTicks] of killed)
      while (endOf({ pid, startTicks }) === undefined && Date.now() < deadlineMs)
        await new Promise((resolve) => setTimeout(resolve, 10));
    for (const [pid, startTicks] of this.#tasks) forgetEnd({ pid, startTicks });
  }

  processNames(): string[] {
    const folder = join(this.cgroup("x").path, "..");
    if (!existsSync(folder)) return [];
    return readdirSync(folder, { withFileTypes: true }).flatMap((one) =>
      one.isDirectory() ? [one.name] : [],
    );
  }
}

/** Runs `work` in a world of its own, which goes with it, or with its test where that runs into its limit. */
export function withRig(name: string, work: (rig: Rig) => Promise<void>): Promise<void> {
  const rig = new Rig(name);
  onTestFinished(() => rig.remove());
  return within(rig, work);
}

type WithRig = (name: string, work: (rig: Rig) => Promise<void>) => Promise<void>;

/**
 * For tests of a file that all want the same of a collector, and none of which ends it: one runs for all of them, each has an application
 * of its own.
 */
export function withSharedCollector(file: string, ...args: string[]): WithRig {
  let host: Rig | undefined;
  afterAll(() => host?.remove());
  const begin = async (): Promise<Rig> => {
    const begun = new Rig(file);
    mkdirSync(begun.home, { mode: 0o700 });
    if (args.includes("--user")) chmodSync(begun.folder, 0o711); // the home's own mode keeps others out
    host = begun;
    await begun.collect(...args);
    return begun;
  };
  return async (name, work) => {
    const rig = new Rig(name, host ?? (await begin()));
    onTestFinished(() => rig.remove());
    try {
      await work(rig);
    } finally {
      await rig.remove();
    }
  };
}

/** The same where there is no test: in a bench. */
export function withBenchRig(name: string, work: (rig: Rig) => Promise<void>): Promise<void> {
  return within(new Rig(name), work);
}

async function within(rig: Rig, work: (rig: Rig) => Promise<void>): Promise<void> {
  mkdirSync(rig.home, { mode: 0o700 });
  try {
    await work(rig);
  } finally {
    await rig.remove();
  }
}

/** Other tests' collectors record on this machine meanwhile, and a collector says so. */
function withoutOthers(err: string): string {
  return err.replaceAll(/^recovery-line: process \d+ records on this machine already.*\n/gm, "");
}

/** A line that answers every byte, and one that asks again and again; plain node programs. */
export const ECHO = `const n=require("net");n.createServer(c=>{c.on("error",()=>{});c.on("data",d=>c.write(d))}).listen(+process.argv[1],"127.0.0.1",()=>console.log("listening"))`;
export const ASK = `const n=require("net");const c=n.connect(+process.argv[1],"127.0.0.1");let got=0;c.on("error",()=>process.exit(1));c.on("data",d=>{got+=d.length});setInterval(()=>c.write("question "+got+"\\n"),+process.argv[2]||5)`;

/** The same two, one connection at a time, where images are taken: those of a node are ten times as large. */
const PERL =
  "use Socket;$|=1;sub at{pack_sockaddr_in($_[0],INADDR_LOOPBACK)}socket(S,PF_INET,SOCK_STREAM,0);setsockopt(S,SOL_SOCKET,SO_REUSEADDR,1);";
export const SMALL_ECHO = [
  ...["perl", "-e"],
  `${PERL}bind(S,at($ARGV[0]))or die;listen(S,9);print"listening\\n";for(;;){accept(C,S)or next;while(sysread(C,$_,999)){syswrite(C,$_)}}`,
];
export const SMALL_ASK = [
  ...["perl", "-e"],
  `${PERL}connect(S,at($ARGV[0]))or die;while(syswrite(S,"question\\n")&&sysread(S,$_,999)){select(undef,undef,undef,.005)}`,
];
