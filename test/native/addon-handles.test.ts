import { spawnSync } from "node:child_process";
import { readdirSync } from "node:fs";
import { afterEach, beforeEach, expect, test } from "vitest";
import { KernelSource } from "../../src/capture/kernel-source.ts";
import { kernelSupport } from "../../src/capture/kernel-support.ts";
import { decodeRecords, makeRecordColumns } from "../../src/format/ring-record.ts";
import { native, packageRoot } from "../../src/native/binding.ts";
import { TestCgroups } from "./cgroups.ts";
import { ensureBpffs } from "./ring-rig.ts";

const lacking = kernelSupport().find((one) => ["addon", "permission"].includes(one.name) && !one.supported);
const live = test.skipIf(lacking !== undefined);
const options = { pinDir: `/sys/fs/bpf/rl-handles-${process.pid}`, ringBytes: 1 << 16, cgroupLevel: 2 };
let cgroups: TestCgroups;

beforeEach(() => {
  ensureBpffs();
  cgroups = new TestCgroups("rl-handles");
});
afterEach(async () => {
  KernelSource.unpin(options.pinDir);
  await cgroups.remove();
});

const descriptors = () => readdirSync("/proc/self/fd").length;
const mappings = () =>
  spawnSync("grep", ["-c", "bpf-map", `/proc/${process.pid}/maps`], { encoding: "utf8" }).stdout;

live("a hundred openings leave neither a descriptor nor a mapping behind", () => {
  KernelSource.open(options).close();
  const before = [descriptors(), mappings()];
  for (let turn = 0; turn < 100; turn += 1) {
    const source = KernelSource.open(options);
    expect(source.created).toBe(false);
    if (turn === 0) expect(Number(mappings())).toBe(Number(before[1]) + 2);
    if (turn % 2 === 0) source.onWake(() => {});
    source.close();
    source.close();
  }
  return expect.poll(() => [descriptors(), mappings()]).toEqual(before);
});

live("misuse is a TypeError, refusal is coded, and neither leaks", () => {
  const addon = native();
  const handle = addon.open(options.pinDir, options.ringBytes, options.cgroupLevel, "");
  const before = descriptors();
  const anything = addon as unknown as Record<string, (...args: unknown[]) => unknown>;
  const id = cgroups.make("p");
  const wrong: [string, ...unknown[]][] = [
    ["select", handle, id, true],
    ["select", handle, id, "yes", 1],
    ["select", handle, -1, true, 1],
    ["select", handle, id, true, -1],
    ["select", {}, id, true, 1],
    ["flush", handle, 1],
    ["flush", handle, ["x"]],
    ["verdicts", {}],
    ["parts", {}],
    ["cut", handle, 1.5],
    ["expectRestore", handle, [null]],
    ["expectRestore", handle, [{ flags: 0, live: 0, local: "x" }]],
    ["drain", handle, new Uint16Array(64), new Float64Array(3)],
    ["commit", handle, Number.NaN],
    ["open", "a\0b", 4096, 2, ""],
  ];
  for (const [name, ...args] of wrong)
    expect(() => anything[name]!(...args), `${name} ${args.length}`).toThrow(TypeError);
  const source = KernelSource.open(options);
  expect(() => source.cut(id)).toThrow(
    expect.objectContaining({ message: expect.stringContaining("not recorded") }),
  );
  expect(() => source.select(id + 1_000_000, true, 1)).toThrow(
    expect.objectContaining({ name: "RecoveryLineError" }),
  );
  expect(() => source.commit(64)).toThrow();
  source.close();
  expect(descriptors()).toBe(before);
  addon.close(handle);
  expect(() => addon.fill(handle)).toThrow(/closed/);
});

live("what has ended stands in records and in no cut; what exists can be announced again", async () => {
  const source = KernelSource.open(options);
  const id = cgroups.make("p");
  source.select(id, true, 7);
  const script = `const net = require("net"); const server = net.createServer((one) => one.on("data", () => one.end("you too")));
    server.listen(0, "127.0.0.1", () => net.connect(server.address().port, "127.0.0.1").resume().on("close", () => process.exit(0)).end("hello"));`;
  const child = cgroups.spawn("p", process.execPath, ["-e", script]);
  child.stdout?.resume();
  await new Promise((resolve) => child.on("close", resolve));
  expect(source.flush([id])).toBe(false);
  const { complete, pending, entries } = source.cut(id);
  expect([complete, pending, entries.filter(({ flags }) => flags === 0)]).toEqual([true, false, []]);
  const slots = new Uint8Array(64 * 4096);
  const { records } = source.drain(slots);
  const columns = makeRecordColumns(4096);
  decodeRecords(new Uint32Array(slots.buffer), 0, records, columns);
  const incarnations = new Set(columns.thread.subarray(0, records));
  expect([...incarnations]).toEqual([7]);
  expect(source.verdicts()).toEqual([]);
  const entry = { flags: 0, live: 1, told: 1, local: 1, remote: 2, sent: 5, received: 7, seen: 7 };
  source.expectRestore([{ ...entry, unacknowledged: 0, queued: 0 }]);
  expect(source.parts().some(({ inUse, usable }) => inUse && usable)).toBe(true);
  source.close();
});

/** A worker that dies in the middle of its work, or is simply forgotten, must not take the process along. */
live("a worker thread may end with its handle open and watched", () => {
  const worker = `
    const { workerData, parentPort } = require("node:worker_threads");
    const addon = require("node-gyp-build")(${JSON.stringify(packageRoot())});
    const handle = addon.open(...workerData);
    addon.onWake(handle, () => {});
    parentPort.postMessage("open");
    if (workerData[4] % 2) setInterval(() => addon.fill(handle), 1);`;
  const main = `
    const { Worker } = require("node:worker_threads");
    (async () => {
      for (let turn = 0; turn < 20; turn += 1) {
        const one = new Worker(${JSON.stringify(worker)}, { eval: true, workerData: [...${JSON.stringify([options.pinDir, options.ringBytes, options.cgroupLevel, ""])}, turn] });
        await new Promise((resolve, reject) => one.on("message", resolve).on("error", reject));
        await one.terminate();
      }
      globalThis.gc();
      console.log(require("node:fs").readdirSync("/proc/self/fd").length < 60 ? "alive" : "leaking");
    })();`;
  const { status, stdout, stderr } = spawnSync(process.execPath, ["--expose-gc", "-e", main], {
    cwd: packageRoot(),
    encoding: "utf8",
  });
  expect([status, stdout, stderr]).toEqual([0, "alive\n", ""]);
});
