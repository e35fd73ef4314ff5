import { expect, test } from "vitest";
import { BlockWindows } from "../../src/client/block-windows.ts";
import { EventColumns } from "../../src/format/event-columns.ts";
import { MemoryLog } from "./memory-log.ts";

async function logOf(blocks: number): Promise<MemoryLog> {
  const log = new MemoryLog();
  for (let at = 0; at < blocks; at += 1) {
    const columns = new EventColumns("a");
    columns.push({ type: "send", process: "a", channel: "ab", begin: at, end: at + 1 });
    await log.append(columns);
  }
  return log;
}

function windowsOf(log: MemoryLog, firstChain: number, asked: string[]): BlockWindows {
  const one = async (chain: number): Promise<Uint8Array> => {
    asked.push(String(chain));
    return log.bytes.get(chain)!;
  };
  const range = async (first: number, last: number): Promise<Uint8Array[]> => {
    asked.push(`${first}-${last}`);
    return Array.from({ length: last - first + 1 }, (_, at) => log.bytes.get(first + at)!);
  };
  return new BlockWindows({ one, range }, firstChain, log.lastChain);
}

test("a walk back takes two requests a window, single blocks one each, and every block is the one asked for", async () => {
  const log = await logOf(300);
  const asked: string[] = [];
  const windows = windowsOf(log, 10, asked);
  for (let chain = 300; chain >= 10; chain -= 1)
    expect((await windows.block(chain)).header.chain).toBe(chain);
  expect(asked).toEqual([
    "300",
    "257-300",
    "256",
    "193-256",
    "192",
    "129-192",
    "128",
    "65-128",
    "64",
    "10-64",
  ]);

  const few: string[] = [];
  const sparse = windowsOf(log, 1, few);
  for (const chain of [290, 200, 100, 5]) await sparse.block(chain);
  expect(few).toEqual(["290", "200", "100", "5"]);
  expect((await windowsOf(log, 200, few).block(7)).header.chain).toBe(7); // of the log's base
});

test("those who walk beside each other share a window's request", async () => {
  const log = await logOf(64);
  const asked: string[] = [];
  const windows = windowsOf(log, 1, asked);
  const all = Array.from({ length: 64 }, (_, at) => windows.block(64 - at));
  expect((await Promise.all(all)).map(({ header }) => header.chain)).toEqual(
    Array.from({ length: 64 }, (_, at) => 64 - at),
  );
  expect(asked).toEqual(["64", "1-64"]);
});
