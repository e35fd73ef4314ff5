/** What comes over a connection of the SDK from who means harm, is damaged or old: the same answers from Node.js and from C. */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { connect, createServer, type Server, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join as path } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { afterEach, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { join, type RecoverableNode } from "../../src/sdk/index.ts";
import {
  checkpointedFrame,
  Frame,
  FrameReader,
  helloFrame,
  messageFrame,
  PROTOCOL,
  Refusal,
  readHello,
  readRefused,
  readWelcome,
  refusedFrame,
  type WireFrame,
  welcomeFrame,
} from "../../src/sdk/wire.ts";
import { buildSdkProgram } from "./sdk-build.ts";

const HELLO = { protocol: PROTOCOL, incarnation: 1, app: "ring", from: "b", to: "a" };
const OLD_HELLO = raw(
  Frame.HELLO,
  Buffer.from('{"protocol":"rl-sdk-1","app":"ring","from":"b","to":"a","incarnation":1}'),
);

function raw(type: number, body: Buffer, length = body.length + 1): Buffer {
  const head = Buffer.alloc(5);
  head.writeUInt32LE(length);
  head[4] = type;
  return Buffer.concat([head, body]);
}

/** A frame with another body. */
function changed(frame: Buffer, change: (body: Buffer) => Buffer): Buffer {
  return raw(frame[4]!, change(Buffer.from(frame.subarray(5))));
}

let home: string;
beforeEach(() => {
  home = mkdtempSync(path(tmpdir(), "rl-sdk-wire-"));
});
afterEach(() => rmSync(home, { recursive: true, force: true }));

const socketOf = (process: string): string => path(home, "ring", "sdk", process, "socket");

/** Says the bytes to process `a`, then, once answered, `more`; the frames that come back until it closes, or until all was answered. */
async function say(bytes: Buffer, more?: Buffer): Promise<WireFrame[]> {
  const socket = connect(socketOf("a"));
  const reader = new FrameReader();
  const frames: WireFrame[] = [];
  const done = new Promise<void>((resolve) => {
    socket.on("data", (chunk) => {
      for (const { type, body } of reader.push(chunk) ?? []) frames.push({ type, body: Buffer.from(body) });
      if (more === undefined || frames.length > 1) resolve();
      else socket.write(more);
    });
    socket.on("close", () => resolve());
    socket.on("error", () => resolve());
  });
  socket.write(bytes);
  await done;
  socket.destroy();
  return frames;
}

const refused = async (bytes: Buffer): Promise<number | undefined> => {
  const [frame] = await say(bytes);
  return frame?.type === Frame.REFUSED ? readRefused(frame.body).reason : undefined;
};

async function hostile(): Promise<void> {
  const good = helloFrame(HELLO);
  const { MALFORMED, OTHER_PROCESS } = Refusal;
  // lengths that can't be: the connection ends without a word
  for (const length of [0, 2 ** 25, 2 ** 32 - 1])
    expect(await say(raw(Frame.HELLO, Buffer.alloc(9), length)), `length ${length}`).toEqual([]);
  // kinds
  for (const kind of [0, Frame.WELCOME, Frame.MESSAGE, 9, 255])
    expect(await refused(raw(kind, Buffer.alloc(20))), `kind ${kind}`).toBe(MALFORMED);
  // every body that is cut off, one that is too long, a name that reaches beyond it
  for (let size = 0; size < good.length - 5; size += 1)
    expect(await refused(changed(good, (body) => body.subarray(0, size))), `cut at ${size}`).toBe(MALFORMED);
  expect(await refused(changed(good, (body) => Buffer.concat([body, Buffer.of(0)])))).toBe(MALFORMED);
  expect(await refused(changed(good, (body) => body.fill(0xff, 8, 10)))).toBe(MALFORMED);
  expect(await refused(helloFrame({ ...HELLO, from: "../b" }))).toBe(MALFORMED);
  expect(await refused(helloFrame({ ...HELLO, to: "c" }))).toBe(OTHER_PROCESS);
  expect(await refused(helloFrame({ ...HELLO, app: "another" }))).toBe(OTHER_PROCESS);
  // versions: a newer one, and the old one in the words that it reads
  expect(await refused(helloFrame({ ...HELLO, protocol: PROTOCOL + 1 }))).toBe(Refusal.PROTOCOL);
  const [old] = await say(OLD_HELLO);
  expect(old!.type).toBe(Frame.REFUSED);
  expect(JSON.parse(old!.body.toString())).toEqual({
    message: "a speaks protocol 2: start this process with its version, too",
  });
  // behind a good HELLO: WELCOME, then the end where nothing that may come here comes
  const wrong = [
    raw(Frame.MESSAGE, Buffer.alloc(11)),
    raw(9, Buffer.alloc(20)),
    messageFrame(0, 1, Buffer.from("not of this sum")),
    messageFrame(7, 0, Buffer.alloc(0)),
  ];
  for (const bytes of wrong) {
    const frames = await say(good, bytes);
    expect(frames.map(({ type }) => type)).toEqual([Frame.WELCOME]);
    expect(readWelcome(frames[0]!.body)).toEqual({ next: 0, checkpointed: 0 });
  }
}

/** A receiver `b` that answers the dialler with these, one a connection, the last ever again. */
async function answering(
  answers: readonly Buffer[],
): Promise<{ server: Server; dials: Socket[]; hellos: unknown[] }> {
  mkdirSync(path(home, "ring", "sdk", "b"), { recursive: true });
  const dials: Socket[] = [];
  const hellos: unknown[] = [];
  const server = createServer((socket) => {
    socket.on("error", () => undefined);
    socket.once("data", (chunk) => {
      hellos.push(readHello(chunk.subarray(5)));
      socket.write(answers[Math.min(dials.push(socket), answers.length) - 1]!);
    });
  });
  server.listen(socketOf("b"));
  await once(server, "listening");
  return { server, dials, hellos };
}

const OLD_REFUSAL = raw(Frame.REFUSED, Buffer.from('{"message":"this is no rl-sdk-1"}'));
const REFUSALS = [OLD_REFUSAL, refusedFrame(Refusal.PROTOCOL, "b speaks protocol 3")];
/** Answers that end the connection and nothing else. */
const ODD = [
  changed(welcomeFrame({ next: 0, checkpointed: 0 }), (body) => body.subarray(0, 15)),
  raw(Frame.WELCOME, Buffer.from('{"next":0,"checkpointed":0}')),
  raw(9, Buffer.alloc(3)),
  raw(Frame.CHECKPOINTED, Buffer.alloc(8), 2 ** 31),
];

async function until(holds: () => boolean): Promise<void> {
  while (!holds()) await sleep(5);
}

describe("Node.js", () => {
  const join_ = (): Promise<RecoverableNode> => join({ app: "ring", process: "a", home });

  test("refuses what is malformed, old or for another, and goes on", async () => {
    const node = await join_();
    await hostile();
    const socket = connect(socketOf("a"));
    socket.write(Buffer.concat([helloFrame(HELLO), messageFrame(0, 0, Buffer.alloc(0))]));
    expect(await node.receive()).toMatchObject({ from: "b", sequence: 0 });
    socket.destroy();
    await node.close();
  });

  test("who dials one that speaks another protocol gets RL_VERSION; odd answers are dialled again", async () => {
    for (const refusal of REFUSALS) {
      const { server } = await answering([refusal]);
      const node = await join_();
      node.connect("b");
      const failed = node.receive();
      await expect(failed).rejects.toMatchObject({
        code: "RL_VERSION",
        advice: expect.stringContaining("the same version"),
      });
      await node.close();
      server.close();
      await once(server, "close");
    }
    const { server, dials } = await answering([...ODD, welcomeFrame({ next: 0, checkpointed: 0 })]);
    const node = await join_();
    node.connect("b");
    await until(() => dials.length > ODD.length);
    await node.send("b", "x");
    dials.at(-1)!.write(checkpointedFrame(1));
    await node.released();
    await node.close();
    server.close();
  });
});

describe("C", () => {
  let child: ChildProcess | undefined;
  let said = "";
  let program: string;
  beforeAll(() => {
    program = buildSdkProgram("ring_program");
  });
  afterEach(() => child?.kill("SIGKILL"));

  async function start(): Promise<void> {
    child = spawn(program, [home, "a", "a,b", "3", "1", "5"]);
    said = "";
    child.stdout!.on("data", (chunk) => (said += chunk));
    child.stderr!.on("data", (chunk) => (said += chunk));
    await until(() => said.includes("joined") || said.includes("failed"));
  }

  test("refuses what is malformed, old or for another, and goes on", async () => {
    await start();
    await hostile();
    const [frame] = await say(helloFrame(HELLO));
    expect(frame!.type).toBe(Frame.WELCOME);
    expect(said).not.toContain("failed");
  });

  test("who dials one that speaks another protocol is told; odd answers are dialled again", async () => {
    for (const refusal of REFUSALS) {
      const { server } = await answering([refusal]);
      await start();
      await until(() => said.includes("failed"));
      expect(said).toContain("a speaks protocol 2 and b does not");
      expect(said).toContain("the same version");
      server.close();
    }
    const { server, dials, hellos } = await answering([...ODD, welcomeFrame({ next: 0, checkpointed: 0 })]);
    await start();
    await until(() => dials.length > ODD.length);
    expect(hellos[0]).toMatchObject({ protocol: PROTOCOL, app: "ring", from: "a", to: "b" });
    expect(said).not.toContain("failed");
    server.close();
  });
});
