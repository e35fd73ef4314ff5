/** Files that are mapped shared and writable: part of the state of the one process that maps them, refused where there are two. */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import {
  chmodSync,
  createWriteStream,
  existsSync,
  linkSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, test } from "vitest";
import { CriuDriver } from "../../src/images/criu/driver-criu.ts";
import {
  keepReplaced,
  putMapped,
  saveMapped,
  stageMapped,
  takeMappedBack,
} from "../../src/images/data/mapped-contents.ts";
import { refuseHostSegments, sharedFiles } from "../../src/images/data/shared-maps.ts";
import { until, withRig } from "../daemon/rig.ts";
import { compile } from "../native/c-build.ts";
import { restartable } from "./restartable.ts";

async function inFolder(work: (folder: string, map: (file: string) => Promise<Mapper>) => Promise<void>) {
  const folder = mkdtempSync(join(tmpdir(), "shared-maps-"));
  const program = compile("shared_map", ["test/native/c/shared_map_helper.c"]);
  const children: ChildProcess[] = [];
  const start = async (file: string): Promise<Mapper> => {
    const child = spawn(program, [file], { stdio: ["pipe", "pipe", "inherit"] });
    children.push(child);
    await once(child.stdout, "data");
    const map = async (): Promise<void> => {
      child.stdin.write("\n");
      await once(child.stdout, "data");
    };
    return { pid: child.pid!, map };
  };
  try {
    await work(folder, start);
  } finally {
    for (const child of children) {
      child.kill("SIGKILL");
      await once(child, "close");
    }
    rmSync(folder, { recursive: true, force: true });
  }
}

interface Mapper {
  readonly pid: number;
  map(): Promise<void>;
}

test("two that map one file: no image of the first, and the answer names both; one alone is no obstacle", () =>
  inFolder(async (folder, start) => {
    const file = join(folder, "a file");
    writeFileSync(file, Buffer.alloc(4096));
    // Refused before anything is started: no CRIU is needed to see it.
    const driver = new CriuDriver({ command: "/nonexistent", prefix: [], version: "4.2.1" });
    const guard = createWriteStream("/dev/null");
    await once(guard, "open");
    const image = (pid: number) =>
      driver.dump({
        folder: mkdtempSync(join(folder, "image-")),
        rootPid: pid,
        pids: [pid],
        cgroupPath: folder,
        limitMs: 1000,
        guard,
      });
    const first = await start(file);
    expect(sharedFiles([first.pid])).toEqual([]);
    await first.map();
    expect(sharedFiles([first.pid, first.pid])).toMatchObject([{ pid: first.pid, path: file }]);
    await expect(image(first.pid)).rejects.toThrow("criu does not start");
    const second = await start(file);
    await second.map();
    await expect(image(first.pid)).rejects.toThrow(
      `process ${first.pid} (shared_map) has mapped ${file} shared and writable, and so has process ${second.pid} (shared_map)`,
    );
    linkSync(file, join(folder, "other name"));
    await expect(image(first.pid)).rejects.toThrow("can't be put back: it has another name as well");
    refuseHostSegments([first.pid, 2 ** 30]);
    expect(sharedFiles([2 ** 30])).toEqual([]);
  }));

test("what was mapped is put back with its holes and folders, and taken back as it was before, also twice", () =>
  inFolder(async (folder) => {
    const [image, restart, deep] = ["image", "restart", "deep/er"].map((name) => join(folder, name));
    for (const path of [image!, restart!, deep!]) mkdirSync(path, { recursive: true });
    chmodSync(join(folder, "deep"), 0o711);
    const [one, two] = [join(deep!, "one"), join(folder, "two")];
    writeFileSync(one, "state of then");
    truncateSync(one, 1 << 24);
    writeFileSync(two, "2");
    chmodSync(two, 0o640);
    const files = [one, two].map((path) => ({ pid: 1, path, key: "" }));
    const saved = saveMapped(files, image!);
    rmSync(join(folder, "deep"), { recursive: true });
    writeFileSync(two, "changed");
    const replaced = stageMapped(saved, restart!);
    for (let again = 0; again < 2; again += 1) {
      putMapped(saved, image!);
      const { size, blocks } = statSync(one);
      expect([size, blocks < 64, readFileSync(one, "latin1").slice(0, 13)]).toEqual([
        1 << 24,
        true,
        "state of then",
      ]);
      expect(statSync(join(folder, "deep")).mode & 0o777).toBe(0o711);
      expect([readFileSync(two, "utf8"), statSync(two).mode & 0o777]).toEqual(["2", 0o640]);
    }
    for (let again = 0; again < 2; again += 1) {
      takeMappedBack(replaced, restart!);
      expect(existsSync(join(folder, "deep"))).toBe(false);
      expect(readFileSync(two, "utf8")).toBe("changed");
    }
    const kept = keepReplaced(replaced, restart!, folder)!;
    expect(readdirSync(kept)).toEqual(["1-two"]); // the first was not there
    expect(readFileSync(join(kept, "1-two"), "utf8")).toBe("changed");
    expect(keepReplaced(replaced, restart!, folder)).toBeUndefined();
  }));

restartable(
  "--keep-replaced keeps what a restart overwrites of a mapped file, and the answer says where",
  () =>
    withRig("mapped", async (rig) => {
      await rig.collect();
      const file = rig.path("a file");
      writeFileSync(file, Buffer.alloc(4096, "then"));
      const program = compile("shared_map", ["test/native/c/shared_map_helper.c"]);
      await rig.run("p", "sh", "-c", `(echo; exec sleep 1000) | exec "$0" "$1"`, program, file);
      await until("it is mapped", () => rig.output("p").includes("shared"));
      await rig.json("checkpoint", rig.app);
      writeFileSync(file, Buffer.alloc(4096, "now."));
      rig.cgroup("p").kill();
      await until("it is dead", () => !rig.cgroup("p").populated);
      const { kept } = await rig.json<{ kept: string[] }>("restart", rig.app, "--keep-replaced");
      expect(readFileSync(file)).toEqual(Buffer.alloc(4096, "then"));
      expect(kept).toEqual([expect.stringContaining(join(rig.home, rig.app, "replaced-"))]);
      expect(readFileSync(join(kept[0]!, "0-a file"))).toEqual(Buffer.alloc(4096, "now."));
    }),
);
