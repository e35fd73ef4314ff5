/** Lines of docs/threat-model.md that need a real collector. */
import { execFileSync } from "node:child_process";
import { chmodSync, chownSync, lstatSync, mkdirSync, readdirSync, symlinkSync } from "node:fs";
import { createServer } from "node:http";
import { join } from "node:path";
import { expect, test } from "vitest";
import { connectCollector } from "../../src/client/client.ts";
import { ASK, ECHO, freePort, missing, until, withRig } from "./rig.ts";

const NOBODY = 65534;
const live = test.skipIf(missing !== undefined);
const root = test.skipIf(missing !== undefined || process.getuid!() !== 0);

/** Connects as nobody and sends a request; what comes back. */
function askAsNobody(socket: string): string {
  const program = `const s=require("net").connect(process.argv[1],()=>s.write("GET /v1/ping HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n"));
    let t="";s.on("data",d=>{t+=d;console.log(t);process.exit()});s.on("error",e=>console.log(e.code));s.on("close",()=>console.log("closed "+t.length))`;
  const command = [
    `--reuid=${NOBODY}`,
    `--regid=${NOBODY}`,
    "--clear-groups",
    process.execPath,
    "-e",
    program,
    socket,
  ];
  return execFileSync("setpriv", command, { stdio: "pipe", timeout: 20_000 }).toString().trim();
}

root(
  "a stranger gets no connection; not even where somebody opened the socket's mode, as the kernel says who it is",
  () =>
    withRig("stranger", async (rig) => {
      await rig.collect();
      const socket = join(rig.home, "collector.sock");
      chmodSync(rig.folder, 0o711);
      chmodSync(rig.home, 0o711);
      expect(askAsNobody(socket)).toMatch(/^EACCES/);
      chmodSync(socket, 0o666);
      expect(askAsNobody(socket)).toMatch(/^(closed 0|ECONNRESET|EPIPE)/);
      expect(await (await rig.client()).ping()).toMatchObject({ home: rig.home });
      chmodSync(rig.home, 0o700);
    }),
);

live("whatever the umask, nothing in the home can be read by others", () =>
  withRig("modes", async (rig) => {
    const before = process.umask(0);
    try {
      await rig.collect();
      const port = await freePort();
      await rig.run("server", process.execPath, "-e", ECHO, String(port));
      await until("it listens", () => rig.output("server").includes("listening"));
      await rig.run("client", process.execPath, "-e", ASK, String(port));
      await until("they talk", async () => (await rig.events()).length > 20);
      expect((await rig.cli("checkpoint", rig.app, "--driver", "none")).code).toBe(0);
    } finally {
      process.umask(before);
    }
    const open: string[] = [];
    const look = (folder: string): void => {
      for (const entry of readdirSync(folder, { withFileTypes: true })) {
        const path = join(folder, entry.name);
        const inSegment = folder.includes("/segments/"); // LevelDB makes its files 0644, in a folder for us alone
        const mode = lstatSync(path, { throwIfNoEntry: false })?.mode ?? 0; // a commit may put it in another's place
        if (!inSegment && (mode & 0o077) !== 0) open.push(path.slice(rig.home.length));
        if (entry.isDirectory()) look(path);
      }
    };
    look(rig.home);
    expect(open).toEqual([]);
  }),
);

live("an application's folder that is a link is neither opened nor written through", () =>
  withRig("link", async (rig) => {
    const target = rig.path("elsewhere");
    mkdirSync(target, { mode: 0o700 });
    symlinkSync(target, join(rig.home, rig.app));
    await rig.collect();
    const { code, err } = await rig.cli("run", rig.app, "p", "--", "true");
    expect([code, err]).toEqual([1, expect.stringContaining("symbolic link")]);
    expect(readdirSync(target)).toEqual([]);
  }),
);

root("a client does not talk to a socket that somebody else put there", () =>
  withRig("impostor", async (rig) => {
    const socket = join(rig.home, "collector.sock");
    const server = createServer((_, response) => response.end("{}"));
    await new Promise<void>((resolve) => server.listen(socket, resolve));
    try {
      expect(await connectCollector(rig.home)).toBeDefined();
      chownSync(socket, NOBODY, NOBODY);
      expect(await connectCollector(rig.home)).toBeUndefined();
    } finally {
      server.closeAllConnections();
      server.close();
    }
  }),
);
