/** Terminals of processes that go on opening and closing files while they are looked at. */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { closeSync, constants, openSync } from "node:fs";
import { expect, test } from "vitest";
import { terminalOf } from "../../src/host/terminals.ts";

test("a descriptor that is closed while it is looked at hides no terminal", async () => {
  const held = spawn("script", ["-qfc", "tty; exec sleep 600", "/dev/null"], {
    stdio: ["pipe", "pipe", "inherit"],
  });
  const ended = once(held, "exit");
  try {
    const [said] = (await once(held.stdout, "data")) as [Buffer];
    const terminal = openSync(said.toString().trim(), constants.O_RDWR | constants.O_NOCTTY);
    // Whoever lists its own descriptors finds the one of the list among them, which is closed when it is looked at.
    expect(terminalOf([process.pid])).toMatch(/^\/dev\/pts\/\d+$/);
    closeSync(terminal);
  } finally {
    held.kill("SIGKILL"); // its end of the terminal goes, and what runs in it hears that
    await ended;
  }
});
