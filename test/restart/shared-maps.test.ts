import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { PassThrough } from "node:stream";
import { expect, test } from "vitest";
import { CriuDriver } from "../../src/restart/driver-criu.ts";
import { sharedFiles } from "../../src/restart/shared-maps.ts";
import { compile } from "../native/c-build.ts";

test("a file that is mapped shared and writable is found, and no image is taken of its process", async () => {
  const folder = mkdtempSync(join(tmpdir(), "shared-maps-"));
  const file = join(folder, "a file");
  writeFileSync(file, Buffer.alloc(4096));
  const program = compile("shared_map", ["test/native/c/shared_map_helper.c"]);
  const child = spawn(program, [file], { stdio: ["pipe", "pipe", "inherit"] });
  try {
    const pid = child.pid as number;
    await once(child.stdout, "data");
    expect(sharedFiles([pid])).toEqual([]);
    child.stdin.write("\n");
    await once(child.stdout, "data");
    expect(sharedFiles([pid, pid])).toEqual([file]);
    // Refused before anything is started: no CRIU is needed to see it.
    const driver = new CriuDriver({ command: "/nonexistent", prefix: [], version: "4.2.1" });
    const request = { folder, rootPid: pid, pids: [pid], cgroupPath: folder, limitMs: 1000 };
    await expect(driver.dump({ ...request, guard: new PassThrough() })).rejects.toThrow(
      `has mapped ${file} shared and writable`,
    );
  } finally {
    child.kill("SIGKILL");
    await once(child, "close");
    rmSync(folder, { recursive: true, force: true });
  }
  expect(sharedFiles([2 ** 30])).toEqual([]);
});
