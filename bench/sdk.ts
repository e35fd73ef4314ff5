// bench: the SDK's pessimistic logging, beside the same frames on a bare unix socket; replay
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { createServer, connect as dial } from "node:net";
import { join as path } from "node:path";
import { crc32 } from "node:zlib";
import { join, type RecoverableNode } from "../src/sdk/index.ts";
import { Frame, FrameReader, messageFrame, readMessage } from "../src/sdk/wire.ts";
import { type Figure, medianOf, report } from "./report.ts";

const PAYLOAD = Buffer.alloc(100, "x");
const STREAM_MESSAGES = 50_000;
const ROUND_TRIPS = 300;
const ROUNDS = 5;
/** On the disk the logs live on, not in memory. */
const scratch = mkdtempSync(path(process.cwd(), "build", "bench-sdk-"));
process.on("exit", () => rmSync(scratch, { recursive: true, force: true }));

let runs = 0;

async function pair(): Promise<{ a: RecoverableNode; b: RecoverableNode; home: string }> {
  const home = path(scratch, `run-${runs++}`);
  const [a, b] = [
    await join({ app: "bench", process: "a", home }),
    await join({ app: "bench", process: "b", home }),
  ];
  a.connect("b");
  b.connect("a");
  await a.send("b", "hello");
  await b.receive();
  return { a, b, home };
}

/** Messages per second one way; all of them stable and received. Then b starts again: replayed deliveries per second. */
async function stream(): Promise<{ live: number; replay: number }> {
  const { a, b, home } = await pair();
  const start = performance.now();
  for (let index = 0; index < STREAM_MESSAGES; index += 1) void a.send("b", PAYLOAD);
  for (let index = 0; index < STREAM_MESSAGES; index += 1) await b.receive();
  const live = STREAM_MESSAGES / ((performance.now() - start) / 1000);
  await b.close();
  const again = performance.now();
  const c = await join({ app: "bench", process: "b", home });
  for (let index = 0; index <= STREAM_MESSAGES; index += 1) await c.receive();
  const replay = STREAM_MESSAGES / ((performance.now() - again) / 1000);
  for (const node of [a, c]) await node.close();
  return { live, replay };
}

/** A question and its answer, each stable before it goes out: milliseconds a round. */
async function roundTrip(): Promise<number> {
  const { a, b } = await pair();
  const answers = (async () => {
    for (let index = 0; index < ROUND_TRIPS; index += 1) {
      await b.receive();
      void b.send("a", PAYLOAD);
    }
  })();
  const start = performance.now();
  for (let index = 0; index < ROUND_TRIPS; index += 1) {
    void a.send("b", PAYLOAD);
    await a.receive();
  }
  const ms = (performance.now() - start) / ROUND_TRIPS;
  await answers;
  for (const node of [a, b]) await node.close();
  return ms;
}

/** The floor: the same frames, checked, without log and order. */
async function bare(): Promise<{ stream: number; roundTripMs: number }> {
  const address = path(scratch, `bare-${runs++}`);
  let got = 0;
  let echo = false;
  let wake: () => void = () => undefined;
  const take = (chunk: Buffer, reader: FrameReader): number => {
    const frames = reader.push(chunk) ?? [];
    for (const { type, body } of frames) {
      const message = type === Frame.MESSAGE ? readMessage(body) : undefined;
      if (message === undefined || crc32(message.payload) !== message.sum) throw new Error("frame");
    }
    return frames.length;
  };
  const server = createServer((socket) => {
    const reader = new FrameReader();
    socket.on("data", (chunk) => {
      const count = take(chunk, reader);
      got += count;
      if (echo)
        for (let index = 0; index < count; index += 1)
          socket.write(messageFrame(index, crc32(PAYLOAD), PAYLOAD));
      else if (got === STREAM_MESSAGES) wake();
    });
  }).listen(address);
  await once(server, "listening");
  const socket = dial(address);
  const reader = new FrameReader();
  socket.on("data", (chunk) => {
    if (take(chunk, reader) > 0) wake();
  });
  const start = performance.now();
  const all = new Promise<void>((resolve) => {
    wake = resolve;
  });
  for (let index = 0; index < STREAM_MESSAGES; index += 1)
    if (!socket.write(messageFrame(index, crc32(PAYLOAD), PAYLOAD))) await once(socket, "drain");
  await all;
  const rate = STREAM_MESSAGES / ((performance.now() - start) / 1000);
  echo = true;
  const from = performance.now();
  for (let index = 0; index < ROUND_TRIPS; index += 1) {
    const answered = new Promise<void>((resolve) => {
      wake = resolve;
    });
    socket.write(messageFrame(index, crc32(PAYLOAD), PAYLOAD));
    await answered;
  }
  const roundTripMs = (performance.now() - from) / ROUND_TRIPS;
  socket.destroy();
  server.close();
  return { stream: rate, roundTripMs };
}

const figures: Record<string, number[]> = { live: [], replay: [], bare: [], trip: [], bareTrip: [] };
for (let round = 0; round < ROUNDS; round += 1) {
  const floor = await bare();
  const { live, replay } = await stream();
  figures["bare"]!.push(floor.stream);
  figures["bareTrip"]!.push(floor.roundTripMs * 1000);
  figures["live"]!.push(live);
  figures["replay"]!.push(replay);
  figures["trip"]!.push((await roundTrip()) * 1000);
}
const of = (name: string): number => medianOf(figures[name]!);
const list: Figure[] = [
  {
    name: "one way, 100 bytes a message, logged and received",
    value: of("live"),
    unit: "messages/s",
    floor: { name: "the same frames on a bare socket", value: of("bare") },
  },
  {
    name: "replay after a restart, sent again from the sender's log",
    value: of("replay"),
    unit: "messages/s",
    floor: { name: "the same frames on a bare socket", value: of("bare") },
  },
  {
    name: "question and answer, each synced before it goes out",
    value: of("trip"),
    unit: "µs",
    floor: { name: "on a bare socket", value: of("bareTrip") },
  },
];
report("sdk: pessimistic message logging", list);
