import fc from "fast-check";
import { expect, test } from "vitest";
import { parseMessage, u32Field, type WireField, writeMessage } from "../../src/images/criu/criu-image.ts";
import type { ImageSocket } from "../../src/images/criu/criu-sockets.ts";
import { parseTcpStream, withQueues } from "../../src/images/criu/criu-tcp-image.ts";
import type { CutDetail } from "../../src/model/collector-answers.ts";
import { planTransit, type TransitProcess } from "../../src/restart/transit.ts";

const VARINT = 0;

function image(fields: Record<number, number>, inq: Uint8Array, outq: Uint8Array): Uint8Array {
  const message = writeMessage(
    Object.entries(fields).map(
      ([number, value]): WireField => ({
        number: Number(number),
        type: VARINT,
        value: BigInt(value >>> 0),
        bytes: new Uint8Array(),
      }),
    ),
  );
  const header = Buffer.alloc(12);
  header.writeUInt32LE(0x54564319, 0);
  header.writeUInt32LE(0x51465506, 4);
  header.writeUInt32LE(message.length, 8);
  return Buffer.concat([header, message, inq, outq]);
}

const u32 = fc.integer({ min: 0, max: 2 ** 32 - 1 });

test("a message is written back byte by byte, fields that nobody knows included", () => {
  const field = fc.oneof(
    fc
      .record({
        number: fc.integer({ min: 1, max: 5000 }),
        value: fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }),
      })
      .map((one): WireField => ({ ...one, type: VARINT, bytes: new Uint8Array() })),
    fc
      .record({ number: fc.integer({ min: 1, max: 5000 }), bytes: fc.uint8Array({ maxLength: 300 }) })
      .map((one): WireField => ({ ...one, type: 2, value: 0n })),
    fc
      .record({
        number: fc.integer({ min: 1, max: 99 }),
        bytes: fc.uint8Array({ minLength: 4, maxLength: 4 }),
      })
      .map((one): WireField => ({ ...one, type: 5, value: 0n })),
  );
  fc.assert(
    fc.property(fc.array(field), (fields) => {
      const bytes = writeMessage(fields);
      expect(parseMessage(bytes, "test")).toEqual(fields);
    }),
  );
});

test("any bytes: a message, or refused by name; never anything else", () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 60 }), (bytes) => {
      for (const parse of [() => parseMessage(bytes, "x.img"), () => parseTcpStream(bytes, "x.img")])
        try {
          parse();
        } catch (error) {
          expect(error).toMatchObject({ code: "RL_REFUSED", message: expect.stringContaining("x.img") });
        }
    }),
  );
});

test("new queues keep both positions and the window that was offered, across the wrap of sequence numbers", () => {
  fc.assert(
    fc.property(
      fc.record({ takes: u32, sends: u32, wnd: fc.integer({ min: 0, max: 1 << 24 }) }),
      fc.tuple(...Array.from({ length: 4 }, () => fc.uint8Array({ maxLength: 50 }))),
      fc.integer({ min: 0, max: 50 }),
      ({ takes, sends, wnd }, [inq, outq, received, unacknowledged], back) => {
        const next = takes + inq!.length;
        const base = next - Math.min(back, inq!.length);
        const fields = {
          1: inq!.length,
          2: next,
          3: outq!.length,
          4: sends,
          5: 7,
          6: 7,
          7: 65483,
          12: outq!.length,
        };
        const windows = { 13: next - 1, 14: 1000, 15: 2000, 16: wnd, 17: base };
        const stream = parseTcpStream(image({ ...fields, ...windows }, inq!, outq!), "before");
        const queues = { received: received!, unacknowledged: unacknowledged! };
        const after = parseTcpStream(withQueues(stream, queues), "after");
        expect([after.takes, after.sends]).toEqual([takes, sends]);
        expect([...after.received]).toEqual([...received!]);
        expect([...after.unacknowledged]).toEqual([...unacknowledged!]);
        const value = (number: number) => u32Field(after.fields, number);
        expect((value(16) + value(17)) >>> 0).toBe((wnd + base) >>> 0);
        const end = (takes + received!.length) >>> 0;
        for (const number of [13, 17]) expect((end - value(number)) | 0).toBeGreaterThanOrEqual(0); // or the kernel refuses
        expect(value(12)).toBeLessThanOrEqual(value(3));
        expect([value(5), value(7), value(14), value(15)]).toEqual([7, 65483, 1000, 2000]);
      },
    ),
  );
});

/** The byte at an offset of channel A→B (salt 0) or B→A (salt 1). */
const byteAt = (salt: number, offset: number): number => (offset * 31 + salt * 101 + (offset >> 5)) & 255;
const bytesOf = (salt: number, begin: number, end: number): Uint8Array =>
  Uint8Array.from({ length: Math.max(0, end - begin) }, (_, at) => byteAt(salt, begin + at));

interface Side {
  /** Initial sequence number. */
  readonly isn: number;
  readonly sent: number;
  readonly received: number;
  /** Lengths of the queues in the image. */
  readonly outq: number;
  readonly inq: number;
}

function side(process: string, salt: number, mine: Side, other: Side): TransitProcess {
  const name = (from: number, to: number) => `tcp:${from}-${to}`;
  const entry: CutDetail = {
    flags: 0,
    live: 1,
    told: 0,
    local: mine.isn,
    remote: other.isn,
    sent: mine.sent,
    received: mine.received,
    seen: mine.received,
    unacknowledged: 0, // the image's queue counts
    queued: 0,
    sends: name(mine.isn, other.isn),
    receives: name(other.isn, mine.isn),
  };
  const inq = bytesOf(1 - salt, mine.received, mine.received + mine.inq);
  const outq = bytesOf(salt, mine.sent - mine.outq, mine.sent);
  const sequences = { 2: other.isn + 1 + mine.received + mine.inq, 4: mine.isn + 1 + mine.sent };
  const stream = parseTcpStream(image({ 1: inq.length, 3: outq.length, ...sequences }, inq, outq), process);
  const address = { address: "127.0.0.1", port: 1, v6: false };
  const flags = { finReceived: false, finSent: false, finAcknowledged: false };
  const socket: ImageSocket = {
    file: `${process}.img`,
    state: 1,
    local: address,
    remote: address,
    stream,
    ...flags,
  };
  return { process, connections: [entry], sockets: [socket] };
}

const positions = fc
  .record({
    sent: fc.integer({ min: 0, max: 60 }),
    behind: fc.integer({ min: 0, max: 60 }),
    outq: fc.integer({ min: 0, max: 60 }),
    inq: fc.integer({ min: 0, max: 60 }),
  })
  .map(({ sent, behind, outq, inq }) => ({
    sent,
    received: Math.max(0, sent - behind),
    outq: Math.min(outq, sent),
    inq,
  }));

test("every byte in transit is put into its sender's queue, from wherever it is; what is nowhere is named, exactly", () =>
  fc.assert(
    fc.asyncProperty(
      positions,
      positions,
      u32,
      u32,
      fc.boolean(),
      fc.boolean(),
      async (forth, back, isnA, isnB, log, other) => {
        fc.pre(isnA !== isnB);
        const a: Side = {
          isn: isnA,
          sent: forth.sent,
          received: back.received,
          outq: forth.outq,
          inq: back.inq,
        };
        const b: Side = {
          isn: isnB,
          sent: back.sent,
          received: forth.received,
          outq: back.outq,
          inq: forth.inq,
        };
        const reads: string[] = [];
        const payload = {
          read: async (channel: string, begin: number, end: number) => {
            reads.push(channel);
            return bytesOf(channel === `tcp:${isnA}-${isnB}` ? 0 : 1, begin, end);
          },
        };
        const sides = [side("a", 0, a, b), side("b", 1, b, a)];
        const plan = await planTransit(
          other ? sides.reverse() : sides,
          [],
          new Set(),
          log ? payload : undefined,
        );
        for (const [salt, sender, receiver] of [
          [0, a, b],
          [1, b, a],
        ] as const) {
          const channel = `tcp:${sender.isn}-${receiver.isn}`;
          const ranges = plan.ranges.filter((one) => one.channel === channel);
          const held = (at: number) =>
            at < receiver.received + receiver.inq || at >= sender.sent - sender.outq;
          for (let at = receiver.received; at < sender.sent; at += 1) {
            const range = ranges.filter(({ begin, end }) => begin <= at && at < end);
            expect(range.length).toBe(1);
            expect(range[0]!.place === "nowhere", `byte ${at}`).toBe(!held(at) && !log);
          }
          expect(ranges.reduce((sum, { begin, end }) => sum + end - begin, 0)).toBe(
            Math.max(0, sender.sent - receiver.received),
          );
          const end = plan.ends.find(({ entry }) => entry.sends === channel);
          const lost = ranges.some(({ place }) => place === "nowhere");
          expect(end === undefined).toBe(lost);
          if (end === undefined) continue;
          const after = parseTcpStream(end.image!, "after");
          expect([...after.unacknowledged]).toEqual([...bytesOf(salt, receiver.received, sender.sent)]);
          expect(after.received.length).toBe(0);
          expect(end.announcement.sent - end.announcement.unacknowledged).toBe(receiver.received);
        }
        if (!log) expect(reads).toEqual([]);
      },
    ),
  ));

test("a receiver beyond its sender is a contradiction, not a plan", async () => {
  const a: Side = { isn: 5, sent: 10, received: 0, outq: 0, inq: 0 };
  const b: Side = { isn: 9, sent: 0, received: 11, outq: 0, inq: 0 };
  await expect(planTransit([side("a", 0, a, b), side("b", 1, b, a)], [], new Set())).rejects.toMatchObject({
    code: "RL_REJECTED",
    message: "the line is inconsistent on tcp:5-9: b has received 11 bytes and a has sent 10",
  });
});

test("an end whose other end is closed: its queue must hold what was sent; what it sent nobody will read", async () => {
  const a: Side = { isn: 5, sent: 10, received: 4, outq: 3, inq: 6 };
  const b: Side = { isn: 9, sent: 10, received: 7, outq: 0, inq: 0 };
  const plan = await planTransit([side("a", 0, a, b), standing(side("b", 1, b, a), "closed")], [], new Set());
  expect(plan.ranges).toEqual([
    {
      channel: "tcp:5-9",
      from: "a",
      to: "b",
      begin: 7,
      end: 10,
      place: "not needed",
      why: expect.any(String),
    },
    { channel: "tcp:9-5", from: "b", to: "a", begin: 4, end: 10, place: "receiver's image" },
  ]);
  expect(plan.ends.map(({ process, image: edited }) => [process, edited])).toEqual([["a", undefined]]);
  expect(plan.broken.length).toBe(1);
});

test("the other end was reset before it had sent on what the image lacks: that is nowhere, and what this end sent is not needed", async () => {
  const a: Side = { isn: 5, sent: 10, received: 4, outq: 3, inq: 5 };
  const b: Side = { isn: 9, sent: 10, received: 7, outq: 0, inq: 0 };
  const inTransit = [
    { channel: "tcp:5-9", from: "a", to: null, begin: 7, end: 10 },
    { channel: "tcp:9-5", from: "b", to: "a", begin: 4, end: 10 },
  ];
  for (const how of ["closed", "reset"] as const) {
    const { ranges } = await planTransit(
      [side("a", 0, a, b), standing(side("b", 1, b, a), how)],
      inTransit,
      new Set(),
    );
    expect(ranges.map(({ channel, begin, end, place }) => [channel, begin, end, place])).toEqual([
      ["tcp:5-9", 7, 10, "not needed"],
      ["tcp:9-5", 4, 10, "nowhere"],
    ]);
  }
});

test("one end's image is of after its FIN was heard, the other's of before: they don't fit, and each byte has a place all the same", async () => {
  const a: Side = { isn: 5, sent: 10, received: 4, outq: 0, inq: 0 };
  const b: Side = { isn: 9, sent: 4, received: 7, outq: 0, inq: 3 };
  const done = side("a", 0, a, b);
  const sockets = done.sockets.map((socket) => ({
    ...socket,
    ...{ state: 5, finSent: true, finAcknowledged: true },
  }));
  const inTransit = [{ channel: "tcp:5-9", from: "a", to: "b", begin: 7, end: 10 }];
  const { unfit } = await planTransit([{ ...done, sockets }, side("b", 1, b, a)], inTransit, new Set());
  expect(unfit).toEqual([{ channel: "tcp:5-9", from: "a", to: "b", later: "a" }]);
  const heard = side("b", 1, b, a);
  const ahead = heard.sockets.map((socket) => ({ ...socket, state: 8, finReceived: true }));
  const plan = await planTransit([side("a", 0, a, b), { ...heard, sockets: ahead }], inTransit, new Set());
  expect(plan.unfit).toEqual([{ channel: "tcp:5-9", from: "a", to: "b", later: "b" }]);
});

/** How an end of a connection stands at the point that its process goes back to. */
type Standing = "live" | "closed" | "reset" | "unnamed";

/** `reset`: the descriptor is there still, and the image's socket is closed: its peer has died. */
function standing(process: TransitProcess, how: Standing): TransitProcess {
  if (how === "live") return process;
  const named = how === "closed" || how === "reset";
  const live = how === "reset" ? 1 : 0;
  return {
    process: process.process,
    connections: named ? process.connections.map((entry) => ({ ...entry, live })) : [],
    sockets: [],
  };
}

const ending = fc.constantFrom<Standing>("live", "closed", "reset", "unnamed");
const moved = fc.record({ ahead: fc.nat(20), back: fc.nat(20), outq: fc.nat(25), inq: fc.nat(25) });

test("however the two ends of a connection stand, each byte in transit has one place", () =>
  fc.assert(
    fc.asyncProperty(
      moved,
      moved,
      fc.tuple(ending, ending),
      fc.subarray(["a", "b"]),
      fc.boolean(),
      async (one, other, [ofA, ofB], goOn, known) => {
        const a: Side = {
          isn: 5,
          sent: 40 + one.ahead,
          received: 60 - other.back,
          outq: one.outq,
          inq: one.inq,
        };
        const b: Side = {
          isn: 9,
          sent: 60 + other.ahead,
          received: 40 - one.back,
          outq: other.outq,
          inq: other.inq,
        };
        const inTransit = [
          { channel: "tcp:5-9", from: "a", to: known ? "b" : null, begin: b.received, end: a.sent },
          { channel: "tcp:9-5", from: "b", to: known ? "a" : null, begin: a.received, end: b.sent },
        ].filter(({ begin, end }) => begin < end);
        const continues = new Set(goOn.filter((name) => (name === "a" ? ofA : ofB) !== "live"));
        const processes = [standing(side("a", 0, a, b), ofA), standing(side("b", 1, b, a), ofB)];
        const { ranges } = await planTransit(processes, inTransit, continues);
        for (const { channel, from, begin, end } of inTransit.filter(({ from }) => !continues.has(from)))
          for (let at = begin; at < end; at += 1) {
            const places = ranges.filter(
              (range) => range.channel === channel && range.begin <= at && at < range.end,
            );
            expect(
              places.map((range) => range.from),
              `byte ${at} of ${channel}`,
            ).toEqual([from]);
          }
      },
    ),
  ));

test("a connection of the image that the cut does not name is refused", async () => {
  const a: Side = { isn: 5, sent: 10, received: 4, outq: 3, inq: 6 };
  const b: Side = { isn: 9, sent: 10, received: 7, outq: 0, inq: 0 };
  const one = side("a", 0, a, b);
  await expect(planTransit([{ ...one, connections: [] }], [], new Set())).rejects.toMatchObject({
    code: "RL_REFUSED",
    message: expect.stringContaining("is not in its cut"),
  });
});
