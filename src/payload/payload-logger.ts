/** The process that keeps the payloads of one application (native/payload/payload_logger.c), and the conversation with it. */
import { type ChildProcessByStdio, execFile } from "node:child_process";
import { existsSync, statSync } from "node:fs";
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import type { Readable, Writable } from "node:stream";
import { spawn } from "../host/spawn.ts";
import { RecoveryLineError } from "../model/errors.ts";
import { PAYLOAD_ANSWER_LIMIT_MS } from "../model/limits.ts";
import type { PayloadRange } from "../model/payload-store.ts";
import { packageRoot } from "../native/binding.ts";
import { PAYLOAD_FOLDER } from "./payload-log.ts";

export interface PayloadLoggerOptions {
  /** `<home>/<app>`; it exists. */
  readonly appDir: string;
  /** The application's cgroup. */
  readonly cgroup: string;
  /** Of the capture, which names the connections. */
  readonly pinDir: string;
  /** All segments together, in MiB: beyond it the oldest are removed, and are holes. */
  readonly limitMib?: number;
  /** Size of the kernel's ring, in MiB, a power of two, and of a segment. */
  readonly ringMib?: number;
  readonly segmentMib?: number;
  /**
   * What finds no room in the ring: `hold` (default) is not sent before it does, so the application is slowed and nothing is lost; `lose`
   * is sent and is a hole.
   */
  readonly whenFull?: "hold" | "lose";
  /** Called once where it ended without being asked to; one sentence. */
  readonly onEnd: (why: string) => void;
  /** For tests: another program, and its longest time to answer, in ms. */
  readonly program?: string;
  readonly answerLimitMs?: number;
}

/** Since the logger's start. */
export interface PayloadFlush {
  /** Bytes of payload written, lost because the ring was full, lost because the disk failed. */
  readonly writtenBytes: number;
  readonly lostBytes: number;
  readonly failedBytes: number;
  /** Packets that TCP was told to send later, since the ring was full; count. */
  readonly heldPackets: number;
}

export class PayloadLogger {
  readonly #child: ChildProcessByStdio<Writable, Readable, Readable>;
  readonly #waiting: { resolve: (line: string) => void; reject: (error: Error) => void }[] = [];
  readonly #ended: Promise<void>;
  readonly #answerLimitMs: number;
  /** The kernel's number of the cgroup that it is attached to: one of the same name that is made later is another. */
  readonly cgroupId: number | undefined;
  #said = "";
  #over = false;
  #closing = false;

  private constructor(
    child: ChildProcessByStdio<Writable, Readable, Readable>,
    cgroupId: number | undefined,
    { onEnd, answerLimitMs }: Pick<PayloadLoggerOptions, "onEnd" | "answerLimitMs">,
  ) {
    this.cgroupId = cgroupId;
    this.#answerLimitMs = answerLimitMs ?? PAYLOAD_ANSWER_LIMIT_MS;
    this.#child = child;
    child.stdin.on("error", () => undefined); // its end tells
    createInterface({ input: child.stdout }).on("line", (line) => this.#waiting.shift()?.resolve(line));
    child.stderr.on("data", (text: Buffer) => {
      this.#said = (this.#said + text.toString()).slice(-1000);
    });
    this.#ended = new Promise((resolve) => {
      child.on("error", (error) => {
        this.#said = error.message;
        resolve();
      });
      child.on("close", () => resolve());
    });
    void this.#ended.then(() => {
      this.#over = true;
      for (const { reject } of this.#waiting.splice(0)) reject(this.#failure());
      if (!this.#closing) onEnd(this.#failure().message);
    });
  }

  /** It is attached on return; nothing is left behind where it throws: RL_NOT_SUPPORTED, RL_NO_RIGHTS. */
  static async start(options: PayloadLoggerOptions): Promise<PayloadLogger> {
    const folder = join(options.appDir, PAYLOAD_FOLDER);
    await mkdir(folder, { recursive: true, mode: 0o700 });
    const cgroupId = statSync(options.cgroup, { throwIfNoEntry: false })?.ino;
    const child = spawn(options.program ?? loggerProgram(), loggerArguments(options, folder), {
      stdio: ["pipe", "pipe", "pipe"],
    });
    let started = false;
    const logger = new PayloadLogger(child, cgroupId, {
      ...options,
      onEnd: (why) => started && options.onEnd(why),
    });
    try {
      await logger.#answer();
    } catch (error) {
      child.kill("SIGKILL"); // nobody would ever end it, and beside the next one it would write everything twice
      throw error;
    }
    started = true;
    return logger;
  }

  get pid(): number {
    return this.#child.pid!;
  }

  get running(): boolean {
    return !this.#over && !this.#closing;
  }

  /** All payload that was sent before the call is durable on return, or counted as lost. */
  async flush(): Promise<PayloadFlush> {
    const [word, ...numbers] = (await this.#ask("flush")).split(" ");
    if (word !== "flushed") throw this.#failure();
    const [, , writtenBytes = 0, lostBytes = 0, failedBytes = 0, heldPackets = 0] = numbers.map(Number);
    return { writtenBytes, lostBytes, failedBytes, heldPackets };
  }

  /** Writes what is there, detaches and ends; one that hangs is killed. */
  async close(): Promise<void> {
    this.#closing = true;
    this.#child.stdin.end();
    const timer = setTimeout(() => this.#child.kill("SIGKILL"), this.#answerLimitMs);
    await this.#ended;
    clearTimeout(timer);
  }

  #ask(command: string): Promise<string> {
    if (this.#over || this.#closing) return Promise.reject(this.#failure());
    this.#child.stdin.write(`${command}\n`);
    return this.#answer();
  }

  #answer(): Promise<string> {
    return new Promise((resolve, reject) => {
      const timer = setTimeout(
        () => reject(this.#failure(`no answer within ${this.#answerLimitMs} ms`)),
        this.#answerLimitMs,
      );
      const settle =
        <T>(then: (value: T) => void) =>
        (value: T): void => {
          clearTimeout(timer);
          then(value);
        };
      if (this.#over) settle(reject)(this.#failure());
      else this.#waiting.push({ resolve: settle(resolve), reject: settle(reject) });
    });
  }

  #failure(what = this.#said.trim() || "it ended"): RecoveryLineError {
    return new RecoveryLineError(
      "RL_NOT_SUPPORTED",
      `payloads are not kept: ${what}`,
      "The payload logger needs CAP_BPF and CAP_NET_ADMIN (root), Linux 5.17 and libbpf.",
    );
  }
}

function loggerArguments(options: PayloadLoggerOptions, folder: string): string[] {
  const { pinDir, cgroup, limitMib, ringMib, segmentMib, whenFull } = options;
  const sizes = {
    "--limit-mib": limitMib,
    "--ring-mib": ringMib,
    "--segment-mib": segmentMib,
    "--when-full": whenFull,
  };
  return [
    ...["log", "--pin-dir", pinDir, "--cgroup", cgroup, "--dir", folder],
    ...Object.entries(sizes).flatMap(([name, value]) => (value === undefined ? [] : [name, String(value)])),
  ];
}

function loggerProgram(): string {
  const program = join(packageRoot(), "build/payload/recovery-line-payload");
  if (existsSync(program)) return program;
  throw new RecoveryLineError(
    "RL_NOT_SUPPORTED",
    "the payload logger has not been built",
    "make -C native/payload (it needs libbpf-dev)",
  );
}

/** Starts the logger for the smallest thing it does: it is built, its libraries are there, and the disk takes room back. */
export async function testPayloadLogger(): Promise<{ works: boolean; reason: string }> {
  const folder = await mkdtemp(join(tmpdir(), "recovery-line-payload-"));
  try {
    const file = join(folder, "segment");
    await writeFile(file, new Uint8Array(8192));
    await punchHoles(file, [{ begin: 0, end: 4096 }]);
    return { works: true, reason: "It is built, starts, and gives room back to the disk." };
  } catch (error) {
    if (!(error instanceof RecoveryLineError)) throw error;
    return { works: false, reason: [error.message, error.advice].filter((part) => part !== "").join(": ") };
  } finally {
    await rm(folder, { recursive: true });
  }
}

/** What `PayloadStore.prune` gives room back with. */
export function punchHoles(file: string, ranges: readonly PayloadRange[]): Promise<void> {
  return new Promise((resolve, reject) => {
    const child = execFile(loggerProgram(), ["punch", file], (error, _out, said) =>
      error === null
        ? resolve()
        : reject(new RecoveryLineError("RL_LOG_WRITE", `${file}: no room can be given back: ${said.trim()}`)),
    );
    child.stdin?.on("error", () => undefined); // its end tells
    child.stdin?.end(ranges.map(({ begin, end }) => `${begin} ${end - begin}\n`).join(""));
  });
}
