/** Blocks between a collector and its reader, over a socket: a reader that takes nothing holds nobody up for long, and learns of it. */
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { createServer, type IncomingMessage, request } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, test } from "vitest";
import { receiveBlocks, sendBlocks } from "../../src/client/block-stream.ts";

const BLOCK = Buffer.alloc(1 << 16, 7);

test("a reader that neither reads nor leaves is cut off, what it read of is let go, and it gets an error, no shorter log", async () => {
  const folder = mkdtempSync(join(tmpdir(), "rl-block-stream-"));
  const log = { sent: 0, isTaken: false };
  const blocks = async function* (): AsyncGenerator<Uint8Array> {
    log.isTaken = true;
    try {
      for (; ; log.sent += 1) yield BLOCK;
    } finally {
      log.isTaken = false;
    }
  };
  let sent: Promise<void> = Promise.resolve();
  const server = createServer((_, response) => {
    sent = sendBlocks(response, blocks(), 50);
  });
  try {
    const socketPath = join(folder, "socket");
    server.listen(socketPath);
    await once(server, "listening");
    const [response] = (await once(request({ socketPath }).end(), "response")) as [IncomingMessage];
    await sent;
    expect(log.isTaken).toBe(false);
    let received = 0;
    const reading = (async () => {
      for await (const block of receiveBlocks(response)) received += block.length;
    })();
    await expect(reading).rejects.toMatchObject({
      code: "RL_NO_COLLECTOR",
      message: expect.stringContaining("cut off in the middle"),
    });
    expect(received).toBeLessThanOrEqual(log.sent * BLOCK.length);
  } finally {
    server.closeAllConnections();
    server.close();
    rmSync(folder, { recursive: true });
  }
}, 20_000);
