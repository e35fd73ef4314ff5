import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, expect, test } from "vitest";
import { insertCheckpoints } from "../../src/import/insert-checkpoints.ts";
import { readSmpiTrace } from "../../src/import/smpi.ts";
import type { Event } from "../../src/model/event.ts";

const directories: string[] = [];
afterEach(() => {
  for (const directory of directories.splice(0)) rmSync(directory, { recursive: true });
});

function trace(...ranks: string[]): string {
  const directory = mkdtempSync(join(tmpdir(), "smpi-"));
  directories.push(directory);
  ranks.forEach((text, rank) => {
    writeFileSync(join(directory, `rank-${rank}.txt`), text);
  });
  return directory;
}

/** Short form of an event: `0:send 0-1#7 [0,1)`. */
function brief(event: Event): string {
  if (!("begin" in event)) return `${event.process.slice(4)}:${event.type}`;
  return `${event.process.slice(4)}:${event.type} ${event.channel.slice(4)} [${event.begin},${event.end})`;
}

async function read(directory: string): Promise<string[]> {
  const events: string[] = [];
  for await (const event of readSmpiTrace(directory)) events.push(brief(event));
  return events;
}

/** Every message that is received was sent, range by range: what an expansion of a collective must keep. */
function unmatched(events: string[]): string[] {
  const pick = (type: string) =>
    events.filter((e) => e.includes(type)).map((e) => e.replace(/^\d+:\w+ /, ""));
  const sent = new Set(pick(":send"));
  const received = new Set(pick(":receive"));
  return [...received]
    .filter((range) => !sent.has(range))
    .concat([...sent].filter((range) => !received.has(range)));
}

test("point-to-point actions become messages counted per (source, destination, tag)", async () => {
  const directory = trace(
    "0 init\n0 compute 1e9\n0 send 1 7 1e6\n0 isend 1 7 100\n0 finalize\n",
    "1 init\n1 recv 0 7 1e6\n1 recv 0 7 100\n",
  );
  expect(await read(directory)).toEqual([
    "0:send 0-1#7 [0,1)",
    "0:send 0-1#7 [1,2)",
    "1:receive 0-1#7 [0,1)",
    "1:receive 0-1#7 [1,2)",
  ]);
});

test("an irecv is received where its wait stands, not where it was posted", async () => {
  const directory = trace(
    "0 irecv 1 3 10\n0 irecv 1 4 10\n0 send 1 9 1\n0 wait 1 0 4\n0 waitall\n",
    "1 send 0 3 10\n1 send 0 4 10\n1 recv 0 9 1\n",
  );
  expect((await read(directory)).slice(0, 3)).toEqual([
    "0:send 0-1#9 [0,1)",
    "0:receive 1-0#4 [0,1)",
    "0:receive 1-0#3 [0,1)",
  ]);
});

test("a test counts as the receive, because the trace does not say whether it succeeded, and the later wait adds nothing", async () => {
  const directory = trace("0 irecv 1 3 10\n0 test 1 0 3\n0 wait 1 0 3\n", "1 send 0 3 10\n");
  expect(await read(directory)).toEqual(["0:receive 1-0#3 [0,1)", "1:send 1-0#3 [0,1)"]);
});

test("the oldest form, with p0 names and without tags, is read", async () => {
  const directory = trace("p0 send p1 1e6\n", "p1 Irecv p0 1e6\np1 wait\n");
  expect(await read(directory)).toEqual(["0:send 0-1#0 [0,1)", "1:receive 0-1#0 [0,1)"]);
});

test.each([
  "barrier",
  "bcast 100 1",
  "reduce 100 5 2",
  "allreduce 100 5",
  "alltoall 10 10",
  "gather 68 68 1 0 0",
  "allgather 10 10",
  "scatter 68 68 2 0 0",
  "gatherv 68 10 10 10 1",
  "scatterv 10 10 10 68 2",
  "reducescatter 1 2 3 100",
  "scan 10 5",
  "alltoallv 9 1 2 3 9 1 2 3",
])("the collective '%s' is sent and received in full by three ranks", async (collective) => {
  const events = await read(
    trace(...[0, 1, 2].map((rank) => `${rank} ${collective}\n${rank} ${collective}\n`)),
  );
  expect(events.length).toBeGreaterThan(0);
  expect(unmatched(events)).toEqual([]);
});

test.each([
  ["0 comm_split 0 1\n", /rank-0\.txt:1: field 'action': 'comm_split' is not supported/],
  ["0 frobnicate\n", /field 'action': 'frobnicate' is not supported/],
  ["0 send 5 0 10\n", /field 'partner': rank 5 has no file/],
  ["0 recv -1 0 10\n", /field 'partner': '-1' is no rank/],
  ["0 init\n1 init\n", /rank-0\.txt:2: field 'rank'/],
  ["hello\n", /field 'rank'/],
])("bad trace %j is refused by name", async (text, message) => {
  await expect(read(trace(text))).rejects.toThrow(message);
});

test("checkpoints come after every N events of a process, and a seeded rate repeats itself", async () => {
  const directory = trace(
    "0 send 1 0 1\n0 send 1 0 1\n0 send 1 0 1\n",
    "1 recv 0 0 1\n1 recv 0 0 1\n1 recv 0 0 1\n",
  );
  const collect = async (schedule: Parameters<typeof insertCheckpoints>[1]) => {
    const all: string[] = [];
    for await (const event of insertCheckpoints(readSmpiTrace(directory), schedule)) all.push(brief(event));
    return all;
  };
  const every = await collect({ every: 2 });
  expect(every.map((e) => e.split(" ")[0])).toEqual([
    "0:send",
    "0:send",
    "0:checkpoint",
    "0:send",
    "1:receive",
    "1:receive",
    "1:checkpoint",
    "1:receive",
  ]);
  const seeded = { rate: 0.5, seed: 42 };
  expect(await collect(seeded)).toEqual(await collect(seeded));
});
