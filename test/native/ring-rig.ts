/** A kernel ring of its own with a program that fills it at any speed; for tests and benches, without the capture programs. */
import { execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdirSync, rmSync } from "node:fs";
import { compile, compileBpf } from "./c-build.ts";
import { leftovers } from "./cgroups.ts";

const BPFFS = "/sys/fs/bpf";

export interface Produced {
  readonly emitted: number;
  readonly lost: number;
  readonly seconds: number;
}

/** Mounts the bpffs where no one has, and unpins what killed tests left recording. Throws without the rights. */
export function ensureBpffs(): void {
  const type = execFileSync("stat", ["-f", "-c", "%T", BPFFS], { encoding: "utf8" }).trim();
  if (type !== "bpf_fs") execFileSync("mount", ["-t", "bpf", "bpf", BPFFS]);
  for (const path of leftovers(BPFFS))
    if (!path.includes("/rl-leftover-")) rmSync(path, { recursive: true, force: true }); // doctor-leftovers.test.ts makes those
}

export class RingRig {
  readonly ringPath: string;
  readonly ringBytes: number;
  readonly #folder: string;
  readonly #producer: string;
  readonly #object: string;

  constructor(name: string, ringBytes: number) {
    ensureBpffs();
    this.#producer = compile("ring_producer", ["test/native/c/ring_producer_helper.c"], ["-O2", "-lbpf"]);
    this.#object = compileBpf("ring_producer.bpf.o", "test/native/c/ring_producer.bpf_helper.c");
    this.#folder = `${BPFFS}/${name}-${process.pid}`;
    this.ringPath = `${this.#folder}/ring`;
    this.ringBytes = ringBytes;
    mkdirSync(this.#folder);
    execFileSync(this.#producer, ["create", this.ringPath, String(ringBytes)]);
  }

  /** Emits `count` records of the process, half sends, half receives, at full speed or `perSecond`. */
  async produce(count: number, cgroupId: number, connections: number, perSecond?: number): Promise<Produced> {
    const numbers = [this.ringBytes, count, cgroupId, connections, ...(perSecond ? [perSecond] : [])].map(
      String,
    );
    const [bytes, ...rest] = numbers;
    const child = spawn(this.#producer, [this.#object, this.ringPath, bytes!, ...rest]);
    let printed = "";
    child.stdout.on("data", (text: Buffer) => {
      printed += text.toString();
    });
    child.stderr.pipe(process.stderr);
    await once(child, "close");
    const [emitted, lost, seconds] = printed.split(" ").map(Number);
    if (seconds === undefined) throw new Error("the producer failed");
    return { emitted: emitted!, lost: lost!, seconds };
  }

  remove(): void {
    rmSync(this.#folder, { recursive: true, force: true });
  }
}
