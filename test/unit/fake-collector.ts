/** A collector's socket in a home of its own, which answers as a test says. */
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { createServer, type RequestListener } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { onTestFinished } from "vitest";
import { socketFile } from "../../src/host/socket-path.ts";

const PING = { pid: 1, version: "0", home: "", cgroupLevel: 2, pinDir: "", since: "" };

/** Answers `/v1/ping`, and what `answers` has by path; returns its home. `refuses`: asked before each answer, and true cuts the connection. */
export async function fakeCollector(
  answers: Readonly<Record<string, () => unknown>>,
  refuses: () => boolean = () => false,
): Promise<string> {
  const home = mkdtempSync(join(tmpdir(), "recovery-line-fake-"));
  const known: typeof answers = { "/v1/ping": () => PING, ...answers };
  const answer: RequestListener = (request, response) => {
    if (refuses()) request.socket.destroy();
    else response.end(JSON.stringify(known[request.url!]?.() ?? {}));
  };
  const server = createServer(answer).listen(socketFile(home));
  onTestFinished(() => {
    server.close();
    rmSync(home, { recursive: true });
  });
  await once(server, "listening");
  return home;
}
