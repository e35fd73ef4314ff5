/** The SDK's node, log and replay under every fault that a test can make by hand; crashes at random moments are in ring.test.ts. */
import { execFileSync } from "node:child_process";
import {
  appendFileSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join as path } from "node:path";
import fc from "fast-check";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { SDK_REPLAY_STALL_MS } from "../../src/model/limits.ts";
import type { RecoveryLine } from "../../src/model/recovery-line.ts";
import type { JsonValue } from "../../src/sdk/checkpoint-files.ts";
import { type JoinOptions, join, type RecoverableNode, sdkTrace } from "../../src/sdk/index.ts";
import { decodeBody, encodeRecord, type LogRecord, RECORD_HEADER_BYTES } from "../../src/sdk/log-format.ts";
import type { MessageHook } from "../../src/sdk/message-hook.ts";
import { Replay } from "../../src/sdk/replay.ts";
import { FrameReader } from "../../src/sdk/wire.ts";
import { freePort } from "../daemon/rig.ts";

let home: string;
const open = new Set<RecoverableNode>();

beforeEach(() => {
  home = mkdtempSync(path(tmpdir(), "rl-sdk-unit-"));
});
afterEach(async () => {
  for (const node of open) await node.close();
  open.clear();
  rmSync(home, { recursive: true, force: true });
});

async function start(process: string, more: Partial<JoinOptions> = {}): Promise<RecoverableNode> {
  const node = await join({ app: "app", process, home, ...more });
  open.add(node);
  return node;
}

async function stop(node: RecoverableNode): Promise<void> {
  open.delete(node);
  await node.close();
}

function file(process: string, name: string): string {
  return path(home, "app", "sdk", process, name);
}

const text = ({ payload }: { payload: Buffer }): string => payload.toString();

test("a receiver that starts again does its deliveries again, then goes on", async () => {
  const a = await start("a");
  a.connect("b");
  for (let index = 0; index < 5; index += 1) await a.send("b", `m${index}`);
  let b = await start("b");
  const order = [await b.receive(), await b.receive(), await b.receive()].map(text);
  await stop(b);
  b = await start("b");
  expect(b.incarnation).toBe(2);
  expect(b.replaying).toBe(true);
  expect([await b.receive(), await b.receive(), await b.receive()].map(text)).toEqual(order);
  expect(b.replaying).toBe(false);
  await a.send("b", "after");
  expect([await b.receive(), await b.receive(), await b.receive()].map(text)).toEqual(["m3", "m4", "after"]);
});

test("a sender that starts again sends nothing twice, and what it had sent is not lost", async () => {
  let a = await start("a");
  a.connect("b");
  await a.send("b", "one");
  await a.send("b", "two");
  await stop(a);
  const b = await start("b");
  a = await start("a");
  a.connect("b");
  const repeated = [a.send("b", "one"), a.send("b", "two")];
  expect(a.replaying).toBe(false);
  await Promise.all([...repeated, a.send("b", "three")]);
  expect([await b.receive(), await b.receive(), await b.receive()].map(text)).toEqual([
    "one",
    "two",
    "three",
  ]);
});

test("from a checkpoint only what came after it is replayed; record() gives the logged values", async () => {
  const a = await start("a");
  a.connect("b");
  for (const word of ["one", "two", "three"]) await a.send("b", word);
  let b = await start("b");
  await b.receive();
  expect(await b.checkpoint({ got: 1 })).toBe(1);
  expect(b.record(() => 0.25)).toBe(0.25);
  await b.receive();
  await stop(b);
  b = await start("b");
  expect(b.restored).toEqual({ got: 1 });
  expect(b.record(() => 0.75)).toBe(0.25);
  expect(text(await b.receive())).toBe("two");
  expect(b.record(() => 0.75)).toBe(0.75);
  expect(text(await b.receive())).toBe("three");
});

test("a damaged newest state: the older checkpoint and a longer replay give the same", async () => {
  const a = await start("a");
  a.connect("b");
  for (const word of ["one", "two", "three"]) await a.send("b", word);
  let b = await start("b");
  await b.receive();
  await b.checkpoint(Buffer.from("first"));
  await b.receive();
  expect(await b.checkpoint(Buffer.from("second"))).toBe(2);
  await stop(b);
  writeFileSync(file("b", "checkpoint-2"), "broken");
  b = await start("b");
  expect(b.restored).toEqual(Buffer.from("first"));
  expect(text(await b.receive())).toBe("two");
  expect(await b.checkpoint(Buffer.from("second"))).toBe(2);
  expect(b.replaying).toBe(false);
  expect(await b.checkpoint(Buffer.from("third"))).toBe(3);
  expect(text(await b.receive())).toBe("three");
  expect(readdirSync(path(file("b", "log"), "..")).filter((name) => name.startsWith("checkpoint"))).toEqual([
    "checkpoint-2",
    "checkpoint-3",
  ]);
});

test("a checkpoint that a hook had decided and a crash prevented is taken at the next start, once", async () => {
  const counted: number[] = [];
  const hook = (state: () => JsonValue): MessageHook => ({
    outgoing: () => Buffer.alloc(0),
    receiving: () => (counted.length === 0 ? 7 : undefined),
    delivered: (_, bytes) => bytes,
    beat: () => undefined,
    state,
    checkpointed: (why) => counted.push(why),
    durable: () => undefined,
    stored: () => [...counted],
    restore: (stored) => counted.splice(0, counted.length, ...(stored as number[])),
  });
  const a = await start("a");
  a.connect("b");
  await a.send("b", "one");
  const crashes = hook(() => {
    throw new Error("power failed");
  });
  let b = await start("b", { hook: crashes });
  await expect(b.receive()).rejects.toThrow("power failed");
  await stop(b);
  for (const expected of ["one", "one"]) {
    counted.length = 0;
    b = await start("b", { hook: hook(() => "here") });
    expect(text(await b.receive())).toBe(expected);
    expect(counted).toEqual([7]);
    await stop(b);
  }
  const taken = sdkTrace(home, "app").flatMap(({ events }) =>
    events.filter(({ type }) => type === "checkpoint"),
  );
  expect(taken).toMatchObject([{ process: "b", checkpoint: 1, usable: true }]);
});

test("released() waits for the checkpoints of the peers", async () => {
  const a = await start("a");
  a.connect("b");
  await a.send("b", "x");
  let released = false;
  const waiting = a.released().then(() => {
    released = true;
  });
  const b = await start("b");
  await b.receive();
  await a.stable();
  expect(released).toBe(false);
  await b.checkpoint(null);
  await waiting;
  expect(released).toBe(true);
});

test("over TCP, with messages of megabytes, and a receiver that does not keep up", async () => {
  const [port, other] = [await freePort(), await freePort()];
  const a = await start("a", { listen: { host: "127.0.0.1", port: other } });
  const b = await start("b", { listen: { host: "127.0.0.1", port } });
  a.connect("b", { host: "127.0.0.1", port });
  const big = Buffer.alloc(3_000_000, "x");
  const sends = [a.send("b", big), a.send("b", ""), a.send("b", big)];
  for (let index = 0; index < 10_000; index += 1) sends.push(a.send("b", String(index)));
  await Promise.all(sends);
  expect((await b.receive()).payload.equals(big)).toBe(true);
  expect((await b.receive()).payload.length).toBe(0);
  expect((await b.receive()).payload.equals(big)).toBe(true);
  for (let index = 0; index < 10_000; index += 1) expect(text(await b.receive())).toBe(String(index));
  await expect(async () => a.send("b", Buffer.alloc(17_000_000))).rejects.toMatchObject({ code: "RL_LIMIT" });
});

test("a home whose path is longer than a socket address", async () => {
  home = path(home, "x".repeat(120));
  const [a, b] = [await start("a"), await start("b")];
  a.connect("b");
  await a.send("b", "hello");
  expect(text(await b.receive())).toBe("hello");
});

test("one process of a name at a time, and no other names", async () => {
  await start("a");
  await expect(start("a")).rejects.toMatchObject({ code: "RL_LOCKED" });
  await expect(start("../a")).rejects.toThrow(TypeError);
});

test("a program that does something else in its replay is told so, and no wrong message goes out", async () => {
  let a = await start("a");
  a.connect("b");
  await a.send("b", "one");
  await stop(a);
  const wrong: ((node: RecoverableNode) => unknown)[] = [
    (node) => node.send("b", "other"),
    (node) => node.send("c", "one"),
    (node) => node.record(() => 1),
    (node) => node.checkpoint(1),
  ];
  for (const act of wrong) {
    a = await start("a");
    for (const peer of ["b", "c"]) a.connect(peer);
    await expect(async () => act(a)).rejects.toMatchObject({ code: "RL_CONTRADICTION" });
    await expect(async () => a.send("b", "one")).rejects.toMatchObject({ code: "RL_CONTRADICTION" });
    await stop(a);
  }
});

test("a program that waits for a message where the log has something else is told after a while; one that waits for its peer is not", () => {
  vi.useFakeTimers();
  try {
    const stalled: unknown[] = [];
    let receives = false;
    const steps = (kind: "send" | "deliver") => [{ kind, channel: 0, sequence: 0, sum: 0 }];
    const one = new Replay(
      steps("send"),
      () => receives,
      (error) => stalled.push(error),
    );
    const other = new Replay(
      steps("deliver"),
      () => true,
      (error) => stalled.push(error),
    );
    vi.advanceTimersByTime(10 * SDK_REPLAY_STALL_MS);
    expect(stalled).toEqual([]); // it computes, or the peer is away
    receives = true;
    vi.advanceTimersByTime(SDK_REPLAY_STALL_MS);
    expect(stalled).toMatchObject([{ code: "RL_CONTRADICTION" }]);
    one.close();
    other.close();
  } finally {
    vi.useRealTimers();
  }
});

// ---- damage

async function twoFlushes(): Promise<string> {
  const a = await start("a");
  a.connect("b");
  for (const word of ["one", "two", "three"]) await a.send("b", word);
  await stop(a);
  return file("a", "log");
}

test("every cut of the log's tail is either a shorter log or, at a later start, told by the peer", async () => {
  const log = await twoFlushes();
  const whole = readFileSync(log);
  for (let size = 0; size < whole.length; size += 3) {
    writeFileSync(log, whole.subarray(0, size));
    const a = await start("a"); // never an error, never a wrong record: what is left is a prefix
    await stop(a);
  }
});

test("a flipped bit before synced bytes is damage, whichever it is; behind them it is a torn tail", async () => {
  const log = await twoFlushes();
  const whole = readFileSync(log);
  const lastStable = whole.lastIndexOf("RLSTABLE");
  const synced = Number(whole.readBigUInt64LE(lastStable + 8));
  for (let at = 8; at < whole.length; at += 1) {
    const harmed = Buffer.from(whole);
    harmed[at]! ^= 1 << (at % 8);
    writeFileSync(log, harmed);
    if (at < synced) await expect(start("a"), `byte ${at}`).rejects.toMatchObject({ code: "RL_CORRUPT_LOG" });
    else await stop(await start("a"));
  }
  writeFileSync(log, whole);
  appendFileSync(log, Buffer.alloc(100, 0x41));
  await stop(await start("a"));
  expect(statSync(log).size).toBeLessThan(whole.length + 100);
});

test("a log that lost its end although a peer knows more: the channel stops with an error, on the sender's side", async () => {
  let a = await start("a");
  a.connect("b");
  await a.send("b", "one");
  const short = statSync(file("a", "log")).size;
  await a.send("b", "two");
  const b = await start("b");
  await b.receive();
  await b.receive();
  await stop(a);
  truncateSync(file("a", "log"), short);
  a = await start("a");
  a.connect("b");
  await a.send("b", "one");
  await expect(a.receive()).rejects.toMatchObject({
    code: "RL_CONTRADICTION",
    message: expect.stringContaining("lost its end"),
  });
});

test("a missing log beside checkpoints, or another process's log, is refused", async () => {
  const a = await start("a");
  await a.checkpoint(1);
  await stop(a);
  const bytes = readFileSync(file("a", "log"));
  rmSync(file("a", "log"));
  await expect(start("a")).rejects.toMatchObject({ code: "RL_CORRUPT_LOG" });
  await stop(await start("b"));
  writeFileSync(file("b", "log"), bytes);
  await expect(start("b")).rejects.toMatchObject({ code: "RL_CONTRADICTION" });
});

// ---- the line

test("sdk-events and compute: the killed process replays to its last logged line, the other goes on", async () => {
  const [a, b] = [await start("a"), await start("b")];
  a.connect("b");
  b.connect("a");
  for (let round = 0; round < 3; round += 1) {
    await a.send("b", `ping ${round}`);
    await b.receive();
    await b.send("a", `pong ${round}`);
    await a.receive();
    if (round === 1) await a.checkpoint(round);
  }
  await a.stable();
  expect(sdkTrace(home, "app").map(({ process, live }) => [process, live])).toEqual([
    ["a", true],
    ["b", true],
  ]);
  const cli = path(import.meta.dirname, "../../dist/cli/main.js");
  const events = execFileSync(process.execPath, [cli, "sdk-events", "app", "--log", home]);
  const args = ["compute", "--from", "-", "--failed", "a", "--in-transit", "logged", "--json"];
  const line = JSON.parse(
    execFileSync(process.execPath, [cli, ...args], { input: events }).toString(),
  ) as RecoveryLine;
  expect(line.line).toEqual([
    { process: "a", checkpoint: 1, position: 8, action: "replay" },
    { process: "b", checkpoint: null, position: 7, action: "continue" },
  ]);
  expect(line.inTransit).toEqual([]);
});

// ---- bytes

test("the example of docs/sdk.md is what the log holds", async () => {
  const node = await join({ app: "x", process: "a", home });
  node.connect("b");
  await node.send("b", "hi");
  await node.close();
  const page = readFileSync(path(import.meta.dirname, "../../docs/sdk.md"), "utf8");
  const rows = page.matchAll(/^((?:[0-9a-f]{2} )+) +(?:magic|[A-Z]+ .*)$/gm);
  const hex = [...rows].map(([, bytes]) => bytes!.replaceAll(" ", "")).join("");
  expect(hex.length).toBeGreaterThan(100);
  expect(readFileSync(path(home, "x", "sdk", "a", "log")).toString("hex")).toBe(hex);
});

test("decode(encode(record)) is the record; no bytes make the decoders throw", () => {
  const word = fc.string({ maxLength: 20 });
  const u32 = fc.integer({ min: 0, max: 2 ** 32 - 1 });
  const u64 = fc.maxSafeNat();
  const payload = fc.uint8Array({ maxLength: 50 }).map((bytes) => Buffer.from(bytes));
  const sha256 = fc
    .uint8Array({ minLength: 32, maxLength: 32 })
    .map((bytes) => Buffer.from(bytes).toString("hex"));
  const record: fc.Arbitrary<LogRecord> = fc.oneof(
    fc.record({ kind: fc.constant("begin" as const), application: word, process: word }),
    fc.record({ kind: fc.constant("join" as const), incarnation: u32 }),
    fc.record({
      kind: fc.constant("channel" as const),
      number: u32,
      role: fc.constantFrom("send", "receive"),
      peer: word,
    }),
    fc.record({ kind: fc.constant("send" as const), channel: u32, sequence: u64, sum: u32, payload }),
    fc.record({ kind: fc.constant("deliver" as const), channel: u32, sequence: u64, order: u64, sum: u32 }),
    fc.record({
      kind: fc.constant("checkpoint" as const),
      checkpoint: u32,
      sizeBytes: u64,
      sha256,
      delivered: u64,
      offsets: fc.array(fc.tuple(u32, u64), { maxLength: 5 }),
    }),
    fc.record({ kind: fc.constant("value" as const), payload }),
    fc.record({ kind: fc.constant("stable" as const), offset: u64 }),
  );
  fc.assert(
    fc.property(record, (one) => {
      expect(decodeBody(encodeRecord(one).subarray(RECORD_HEADER_BYTES))).toEqual(one);
    }),
  );
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 80 }), (bytes) => {
      decodeBody(Buffer.from(bytes));
      new FrameReader().push(Buffer.from(bytes));
    }),
    { numRuns: 2000 },
  );
});
