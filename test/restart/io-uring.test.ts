/** io_uring is kept from programs (run --allow-io-uring), before and after a restart, and CRIU brings the filter back. */
import { execFileSync } from "node:child_process";
import { readFileSync, writeFileSync } from "node:fs";
import { expect } from "vitest";
import { type Rig, until, withRig } from "../daemon/rig.ts";
import { restartable } from "./restartable.ts";

/** Asks for a ring again and again; a child of it each second time. */
const ASKS = `
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
int main(void) {
    char parameters[256];
    for (int round = 0;; round++) {
        pid_t child = round % 2 ? fork() : 0;
        if (child == 0) {
            memset(parameters, 0, sizeof(parameters));
            long ring = syscall(425, 8, parameters);
            printf("%d %s\\n", round, ring < 0 ? strerror(errno) : "a ring");
            fflush(stdout);
            if (ring >= 0)
                close((int)ring);
            if (round % 2)
                _exit(0);
        } else {
            waitpid(child, NULL, 0);
        }
        usleep(20000);
    }
}`;
const NODE = `setInterval(()=>require("fs").readFile("/etc/passwd",()=>{const fs=require("fs");
console.log(fs.readdirSync("/proc/self/fd").filter(f=>{try{return fs.readlinkSync("/proc/self/fd/"+f).includes("uring")}catch{return false}}).length)}),20)`;

const filters = (pid: number): string | undefined =>
  /^Seccomp:\s*(\d)/m.exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1];

async function lines(rig: Rig, name: string, more: number): Promise<string[]> {
  const before = rig.output(name).split("\n").length - 1;
  await until(`${name} goes on`, () => rig.output(name).split("\n").length > before + more);
  return rig.output(name).split("\n").slice(before, -1);
}

restartable("io_uring_setup answers ENOSYS in a program and its children, from start and from image", () =>
  withRig("io-uring", async (rig) => {
    await rig.collect();
    const program = rig.path("asks");
    writeFileSync(`${program}.c`, ASKS);
    execFileSync("cc", ["-D_GNU_SOURCE", "-o", program, `${program}.c`]);
    await rig.run("c", program);
    await rig.run("node", "env", "UV_USE_IO_URING=1", process.execPath, "-e", NODE);
    await rig.run("scratch", program);
    const output = ["--detach", "--output", rig.path("free.out")];
    await rig.cli("run", rig.app, "free", "--allow-io-uring", ...output, "--", program);
    const refused = async (name: string): Promise<void> => {
      for (const line of await lines(rig, name, 4)) expect(line).toMatch(/^\d+ Function not implemented$/);
    };
    const all = async (): Promise<void> => {
      await refused("c");
      await refused("scratch");
      expect(new Set(await lines(rig, "node", 3))).toEqual(new Set(["0"]));
    };
    await all();
    expect(new Set((await lines(rig, "free", 3)).map((line) => line.replace(/^\d+ /, "")))).toEqual(
      new Set(["a ring"]),
    );
    await rig.json("checkpoint", rig.app, "c", "node");
    for (const name of ["c", "node", "scratch"]) rig.cgroup(name).kill();
    await until("all are dead", () => ["c", "node", "scratch"].every((name) => !rig.cgroup(name).populated));
    await rig.json("restart", rig.app);
    await all();
    for (const name of ["c", "node", "scratch"])
      expect([name, filters(rig.cgroup(name).pids()[0]!)]).toEqual([name, "2"]);
    expect(filters(rig.cgroup("free").pids()[0]!)).toBe("0");
  }),
);
