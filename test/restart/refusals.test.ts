/** What no image can hold is told for each process while it runs, keeps none of the others from its checkpoint, and options help where they can. */
import { execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { criuArguments, criuOptions } from "../../src/images/criu/criu-options.ts";
import { meaningOf } from "../../src/images/criu/criu-words.ts";
import { restartFolder } from "../../src/restart/restart-journal.ts";
import { type Rig, until, withRig } from "../daemon/rig.ts";
import { fakePrograms, withVariables } from "../unit/fake-programs.ts";
import { restartable } from "./restartable.ts";

test("options of CRIU: a short list, anything else is named", () => {
  expect(criuArguments(criuOptions([]))).toEqual([]);
  expect(criuArguments(criuOptions(["ghost-limit=64M"]))).toEqual(["--ghost-limit", `${64 << 20}`]);
  for (const word of ["ghost-limit", "ghost-limit=0", "ghost-limit=2G", "ghost-limit=1T", "link-remap"])
    expect(() => criuOptions([word])).toThrow(`--criu-options: "${word}" is not an option that can be given`);
});

test("CRIU's lines get a sentence of ours where they are known", () => {
  const said = (line: string): string | undefined => meaningOf(line)?.means;
  expect(said("Error (criu/sk-unix.c:1): unix: External socket is used. Consider using")).toMatch(
    /unix socket/,
  );
  expect(said("Error (criu/files.c:2): Can't dump ghost file /x of 2097152 size, increase limit")).toMatch(
    /removed/,
  );
  expect(said("Error (criu/files-reg.c:3): File usr/lib/x.so has bad size 3 (expect 4)")).toMatch(
    /another one/,
  );
  expect(said("Error (criu/something.c:3): of no known kind")).toBeUndefined();
});

const HOLD = `const fs=require("fs"),[,path,bytes,other]=process.argv;fs.writeFileSync(path,Buffer.alloc(+bytes,"x"));const f=fs.openSync(path,other?"r":"r+");
if(other)fs.linkSync(path,other);fs.unlinkSync(path);console.log("ready");
setInterval(()=>{const b=Buffer.alloc(4);console.log(fs.fstatSync(f).size,fs.readSync(f,b,0,4,0),b.toString())},50)`;
const RING = `
#include <stdio.h>
#include <unistd.h>
int main(void) {
    char parameters[256] = {0};
    printf("%s\\n", syscall(425, 8, parameters) < 0 ? "none" : "ready");
    fflush(stdout);
    pause();
}`;
const TRACE = `import ctypes,sys,time
ctypes.CDLL(None).ptrace(0x4206, int(sys.argv[1]), 0, 0)
print("ready", flush=True)
time.sleep(1000)`;

interface Answer {
  readonly checkpoints: { readonly process: string }[];
  readonly failed: { readonly process: string; readonly message: string; readonly advice: string }[];
}

async function runWith(rig: Rig, name: string, options: string[], ...command: string[]): Promise<void> {
  const output = ["--detach", "--output", rig.path(`${name}.out`)];
  const { code, err } = await rig.cli("run", rig.app, name, ...options, ...output, "--", ...command);
  expect([name, code, err]).toEqual([name, 0, ""]);
  await until(`${name} is ready`, () => rig.output(name).includes("ready"));
}

restartable(
  "each of several processes is tried, and told with what stands in its way",
  { timeout: 120_000 },
  () =>
    withRig("refusals", async (rig) => {
      await rig.collect();
      const ring = rig.path("ring");
      writeFileSync(`${ring}.c`, RING);
      execFileSync("cc", ["-D_GNU_SOURCE", "-o", ring, `${ring}.c`]);
      const hold = (name: string, options: string[], ...words: string[]) =>
        runWith(rig, name, options, process.execPath, "-e", HOLD, rig.path(name), ...words);
      await hold("ghost", [], `${2 << 20}`);
      await hold("ghost-free", ["--criu-options", "ghost-limit=4M"], `${2 << 20}`);
      await hold("link", [], "4", rig.path("other"));
      await runWith(rig, "ring", ["--allow-io-uring"], ring);
      await rig.run("traced", "sleep", "1000");
      await rig.run("short", "true");
      const [traced] = rig.cgroup("traced").pids();
      const tracer = spawn("python3", ["-c", TRACE, `${traced}`], { stdio: ["ignore", "pipe", "inherit"] });
      await once(tracer.stdout, "data");
      await until("it has ended", () => !rig.cgroup("short").populated);
      const names = ["short", "ghost", "ghost-free", "link", "ring", "traced"];
      const { code, out } = await rig.cli("checkpoint", rig.app, ...names, "--json");
      tracer.kill("SIGKILL");
      await once(tracer, "close");
      expect(out).toContain('"checkpoints"');
      const { checkpoints, failed } = JSON.parse(out) as Answer;
      expect([code, checkpoints.map(({ process }) => process)]).toEqual([1, ["ghost-free"]]);
      const told = new Map(failed.map(({ process, message, advice }) => [process, `${message}. ${advice}`]));
      expect(told.get("short")).toContain("process short of");
      expect(told.get("ghost")).toMatch(
        /\(node\) uses \S+\/ghost, which was removed and holds 2097152 bytes; .*ghost-limit=4M/,
      );
      expect(told.get("link")).toMatch(
        /uses \S+\/link, whose name is gone while another name of the file is there/,
      );
      expect(told.get("ring")).toMatch(/\(ring\) has a ring of io_uring open.*without --allow-io-uring/);
      expect(told.get("traced")).toContain(`(sleep) is traced by process ${tracer.pid} (python3)`);
      expect(await rig.cli("checkpoint", rig.app, "nobody")).toMatchObject({ code: 2 });

      rig.cgroup("ghost-free").kill();
      await rig.json("restart", rig.app, "--failed", "ghost-free");
      const before = rig.output("ghost-free").length;
      await until("it goes on", () => rig.output("ghost-free").length > before + 40);
      expect(rig.output("ghost-free").split("\n").at(-2)).toBe(`${2 << 20} 4 xxxx`);
    }),
);

/** In place of nft, which a restart calls between killing and restoring: the first such call starts a program in a cgroup. */
const startsMeanwhile = (journal: string, cgroup: string, mark: string): string => `
if [ -e ${journal} ] && [ ! -e ${mark} ]; then
  mkdir -p ${cgroup}
  sleep 1000 </dev/null >/dev/null 2>&1 &
  echo $! >${cgroup}/cgroup.procs
  touch ${mark}
fi
PATH=\${PATH#*:} exec nft "$@"`;

restartable("what was started in its cgroup meanwhile: nothing is restored beside it", () =>
  withRig("beside", async (rig) => {
    await rig.collect();
    await rig.run("p", "sleep", "1001");
    await rig.json("checkpoint", rig.app, "--driver", "criu");
    rig.cgroup("p").kill();
    await rig.hearsEnd("p");
    const journal = join(restartFolder(rig.home, rig.app), "journal.json");
    const folder = fakePrograms((at) => ({
      nft: startsMeanwhile(journal, rig.cgroup("p").path, join(at, "started")),
    }));
    const { code, err } = await withVariables({ PATH: `${folder}:${process.env["PATH"]}` }, () =>
      rig.spawned("restart", rig.app),
    );
    expect([code, err]).toEqual([1, expect.stringMatching(/p holds process \d+/)]);
    expect(rig.cgroup("p").populated).toBe(false);
    expect(await rig.cli("restart", rig.app)).toMatchObject({ code: 0 });
  }),
);
