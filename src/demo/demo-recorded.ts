/** The demo where nothing can be captured: the line of a log that the live demo recorded, shipped with the project. */
import { mkdtempSync, readFileSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { gunzipSync } from "node:zlib";
import { KernelSource } from "../capture/kernel-source.ts";
import { requireSupport } from "../capture/kernel-support.ts";
import { ensureBpffs } from "../host/bpffs.ts";
import { processCgroupLevel } from "../host/cgroups.ts";
import { RecoveryLineError } from "../model/errors.ts";
import { printableSentence } from "../model/printable.ts";
import { packageRoot } from "../native/binding.ts";
import { write } from "../terminal/print.ts";
import { runCommand } from "../terminal/run-command.ts";

const RECORDED = join("test", "golden", "nats-demo.jsonl.gz");
/** The process that was killed when it was recorded. */
const KILLED = "nats-2";

/** Why nothing can be captured here, in one sentence; undefined where it can. Loads and unloads the programs to know. */
export function captureTrouble(): string | undefined {
  const pinDir = `/sys/fs/bpf/recovery-line-probe-${process.pid}`;
  try {
    requireSupport("ring-buffer", "cgroup2");
    ensureBpffs(pinDir);
    KernelSource.open({ pinDir, ringBytes: 1 << 20, cgroupLevel: processCgroupLevel() }).close();
    KernelSource.unpin(pinDir);
    return undefined;
  } catch (error) {
    if (error instanceof RecoveryLineError) return error.message;
    throw error;
  }
}

/** Prints why it is not live, and the line. */
export async function recordedDemo(trouble: string): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), "recovery-line-demo-"));
  const file = join(folder, "recorded.jsonl");
  writeFileSync(file, gunzipSync(readFileSync(join(packageRoot(), RECORDED))));
  await write(
    `NOT LIVE: nothing can be captured here (${printableSentence(trouble)}).\n` +
      "This is the log of an earlier run: two clustered nats-servers, a publisher and a subscriber, traced in the kernel\n" +
      `and checkpointed independently, until ${KILLED} was killed.\n\n`,
  );
  await runCommand(["compute", "demo", "--from", file, "--failed", KILLED, "--diagram"]);
  await write(`\nThe events are in ${file}.\n`);
}
