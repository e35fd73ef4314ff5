// bench: what keeping payloads costs, beside the same traffic without it and beside a memcpy
import { execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { join } from "node:path";
import { compile } from "../test/native/c-build.ts";
import { PayloadRig } from "../test/payload/rig.ts";
import { median, medianOf, report } from "./report.ts";

/** Of one run, each way. */
const BYTES = 256 << 20;
const ROUNDS = 5;
const rig = new PayloadRig("bench");
const stream = compile("payload_stream", ["bench/payload_stream.c"], ["-O2", "-pthread"]);
const packets = compile("payload_packets", ["bench/payload_packets.c"], ["-O2"]);

/** Seconds for BYTES over one loopback connection inside the application's cgroup, in writes of this size. */
async function send(writeBytes: number, bytes = BYTES): Promise<number> {
  const script = 'echo $$ > "$0" && exec "$@"';
  const procs = join(rig.cgroups.path("p"), "cgroup.procs");
  const words = [stream, String(bytes), String(writeBytes)];
  return Number(execFileSync("sh", ["-c", script, procs, ...words], { encoding: "utf8" }));
}

/** Seconds of the same copied from memory to memory, in pieces of the same size. */
function copy(writeBytes: number, bytes = BYTES): number {
  const from = new Uint8Array(Math.max(writeBytes, 32 << 20)).fill(1);
  const to = new Uint8Array(32 << 20);
  const start = performance.now();
  for (let at = 0; at < bytes; at += writeBytes) {
    const place = at % ((32 << 20) - writeBytes + 1);
    to.set(from.subarray(place, place + writeBytes), place);
  }
  return (performance.now() - start) / 1000;
}

/** An AF_PACKET ring on the loopback device that copies the same bytes and writes them nowhere; prints "bytes drops". */
async function withPackets(
  work: () => Promise<number>,
): Promise<{ seconds: number; kept: number; drops: number }> {
  const child = spawn(packets, ["lo", "32"], { stdio: ["pipe", "pipe", "inherit"] });
  let said = "";
  child.stdout.on("data", (text: Buffer) => {
    said += text.toString();
  });
  await once(child.stdout, "data");
  const seconds = await work();
  child.stdin.end();
  await once(child, "close");
  const [kept = 0, drops = 0] = said.trim().split("\n").at(-1)!.split(" ").map(Number);
  return { seconds, kept, drops };
}

for (const [writeBytes, bytes] of [
  [65_536, BYTES],
  [1000, BYTES / 8],
] as const) {
  const [plain, kept, sniffed]: number[][] = [[], [], []];
  let [lost, written, held, sniffedDrops, sniffedBytes] = [0, 0, 0, 0, 0];
  for (let round = 0; round < ROUNDS; round += 1) {
    plain!.push(await send(writeBytes, bytes));
    const logger = await rig.log({ segmentMib: 64, limitMib: 256 });
    kept!.push(await send(writeBytes, bytes));
    const flushed = await logger.flush();
    lost += flushed.lostBytes;
    written += flushed.writtenBytes;
    held += flushed.heldPackets;
    await logger.close();
    const packet = await withPackets(() => send(writeBytes, bytes));
    sniffed!.push(packet.seconds);
    sniffedDrops += packet.drops;
    sniffedBytes += packet.kept;
  }
  const rate = (seconds: readonly number[]): number => bytes / medianOf(seconds) / 1e6;
  const without = { name: "without", value: rate(plain!) };
  report(`payload log, one connection, writes of ${writeBytes} bytes`, [
    { name: "memcpy", value: bytes / (await median(5, () => copy(writeBytes, bytes))) / 1e6, unit: "MB/s" },
    {
      name: "traffic kept (cgroup_skb into a BPF ring, segments on disk)",
      value: rate(kept!),
      unit: "MB/s",
      floor: without,
      goal: `nothing lost (${lost} of ${lost + written} bytes lost, ${held} packets held back)`,
      met: lost === 0,
    },
    {
      name: `traffic sniffed (AF_PACKET TPACKET_V3, copied in memory only; ${sniffedBytes} bytes, ${sniffedDrops} packets dropped)`,
      value: rate(sniffed!),
      unit: "MB/s",
      floor: without,
    },
    {
      name: "cost of keeping a byte",
      value: ((medianOf(kept!) - medianOf(plain!)) / bytes) * 1e9,
      unit: "ns",
    },
  ]);
}
await rig.remove();
