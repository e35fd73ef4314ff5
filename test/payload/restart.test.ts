/** Two unmodified programs, killed; what was in transit between their checkpoints is in no image any more: it comes from the payload log. */
import { execFileSync } from "node:child_process";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { CriuDriver } from "../../src/images/criu/driver-criu.ts";
import { findCriu } from "../../src/images/criu/driver-criu-find.ts";
import { packageRoot } from "../../src/native/binding.ts";
import { openPayloadStore, type PayloadLog } from "../../src/payload/payload-log.ts";
import { freePort, missing, type Rig, until, withRig } from "../daemon/rig.ts";

const criu = await findCriu();
const works = criu.found !== undefined && (await new CriuDriver(criu.found).check()).works;
execFileSync("make", ["-s", "-C", join(packageRoot(), "native/payload")], { stdio: "inherit" });

/** Prints every line that it is sent; never answers. */
const SUBSCRIBER = `const n=require("net"),fs=require("fs");let b="";n.createServer(c=>{c.on("error",()=>{});c.on("data",d=>{b+=d;for(let i;(i=b.indexOf("\\n"))>=0;b=b.slice(i+1))fs.writeSync(1,b.slice(0,i+1))})}).listen(+process.argv[1],"127.0.0.1",()=>fs.writeSync(1,"listening\\n"))`;
const PUBLISHER = `const n=require("net");const c=n.connect(+process.argv[1],"127.0.0.1");let k=0;c.on("error",()=>process.exit(1));setInterval(()=>c.write("line "+(k++)+" "+"x".repeat(100)+"\\n"),5)`;

async function start(rig: Rig, name: string, ...words: string[]): Promise<void> {
  const flags = ["--payload", "--detach", "--output", rig.path(`${name}.out`)];
  const { code, err } = await rig.cli("run", rig.app, name, ...flags, "--", process.execPath, "-e", ...words);
  if (code !== 0) throw new Error(err);
}

/** Numbers of the lines that the subscriber printed. */
const printed = (rig: Rig): number[] =>
  rig
    .output("sub")
    .split("\n")
    .slice(0, -1)
    .flatMap((line) => (line.startsWith("line ") ? [Number(line.split(" ")[1])] : []));

/** What the one channel with payload holds, after everything sent is there. */
async function kept(rig: Rig): Promise<{ channel: string; begin: number; end: number }> {
  const client = await rig.client();
  await client.drain();
  client.close();
  const store: PayloadLog = openPayloadStore(join(rig.home, rig.app))!;
  try {
    const [channel, more] = await store.channels();
    expect(more).toBeUndefined();
    const ranges = await store.ranges(channel!);
    expect(ranges).toHaveLength(1);
    return { channel: channel!, ...ranges[0]! };
  } finally {
    await store.close();
  }
}

describe.skipIf(missing !== undefined)(`restart with payloads (${missing?.reason ?? "supported"})`, () => {
  test.skipIf(!works)(
    "in-transit bytes from the payload log; undone ones are forgotten; restored connections are kept on",
    async () => {
      await withRig("transit", async (rig) => {
        await rig.collect();
        const port = String(await freePort());
        await start(rig, "sub", SUBSCRIBER, port);
        await until("it listens", () => rig.output("sub").includes("listening"));
        await start(rig, "pub", PUBLISHER, port);
        await until("lines", () => printed(rig).length > 50);
        expect(await rig.cli("checkpoint", rig.app, "sub")).toMatchObject({ code: 0 });
        const between = printed(rig).length + 50;
        await until("lines between the checkpoints", () => printed(rig).length > between);
        expect(await rig.cli("checkpoint", rig.app, "pub")).toMatchObject({ code: 0 });
        const after = printed(rig).length + 50;
        await until("lines that will be undone", () => printed(rig).length > after);
        for (const name of ["pub", "sub"]) rig.cgroup(name).kill();
        const before = await kept(rig);
        const restarted = await rig.cli("restart", rig.app);
        expect(restarted).toMatchObject({ code: 0 });
        expect(restarted.out).toMatch(/payload log +tcp:/);
        const undone = printed(rig).length;
        await until("lines of the second life", () => printed(rig).length > undone + 200);
        const now = await kept(rig);
        expect(now.channel).toBe(before.channel);
        expect(now).toMatchObject({ begin: 0 });
        const numbers = printed(rig);
        expect(numbers).toEqual(numbers.map((_, index) => index)); // none lost, none twice, in order
      });
    },
    60_000,
  );
});
