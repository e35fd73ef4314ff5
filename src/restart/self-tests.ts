/**
 * What a restart leans on besides the kernel's capture, tried for real: connections are blocked and let through, a TIME_WAIT is ended, a hook
 * takes and brings back a state, io_uring is kept from a program. Each says in one sentence what it did or why it can't, leaves nothing behind, and never throws.
 */

import { execFile } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { type AddressInfo, connect, createServer, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { promisify } from "node:util";
import { hasCapability } from "../host/capabilities.ts";
import { ProcessCgroup } from "../host/cgroups.ts";
import { standsStill, whileFrozen } from "../host/freeze.ts";
import {
  blockForRestart,
  type ConnectionAddresses,
  unblockRestart,
  whileBlocked,
} from "../host/port-block.ts";
import { spawn } from "../host/spawn.ts";
import { NO_IO_URING, startHelper } from "../host/start-helper.ts";
import { endsConnections, endTimeWait } from "../host/time-wait.ts";
import type { DriverCheck } from "../images/driver.ts";
import { HookDriver } from "../images/hook/driver-hook.ts";

const LIMIT_MS = 10_000;
/** What is blocked must not arrive within this time, in ms; over the loopback device anything else takes less than one. */
const SILENCE_MS = 100;

/** Both ways of blocking: the table that outlives its maker, and the one that goes with it. */
export function testBlocking(): Promise<DriverCheck> {
  return tried("nft blocks a connection over the loopback device, and lets it go on.", async () => {
    const app = `doctor-${process.pid}`;
    await overLoopback(async ({ near, far, addresses }) => {
      let heard = 0;
      far.on("data", (bytes: Buffer) => {
        heard += bytes.length;
      });
      const silent = async (): Promise<void> => {
        const before = heard;
        near.write("x");
        await sleep(SILENCE_MS);
        if (heard !== before) throw new Error("nft accepts rules, and what they block arrives all the same.");
      };
      try {
        await whileBlocked(app, [addresses], [], silent);
        await until(() => heard === 1, "what whileBlocked kept back never arrives");
        await blockForRestart(app, [addresses], []);
        await silent();
      } finally {
        await unblockRestart(app);
      }
      await until(() => heard === 2, "what nft kept back never arrives");
    });
  });
}

export function testTimeWait(): Promise<DriverCheck> {
  return tried("ss ends a connection in TIME_WAIT (ss -K).", async () => {
    let used: ConnectionAddresses | undefined;
    await overLoopback(async ({ near, far, addresses }) => {
      far.on("end", () => far.end());
      far.resume();
      near.resume();
      near.end();
      await once(near, "close");
      used = addresses;
    });
    await until(() => waits(used!), "a closed connection does not come into TIME_WAIT");
    await endTimeWait([used!]);
    if (waits(used!))
      throw new Error(`${await whyNoEnd()}: listeners without SO_REUSEADDR come back after a minute.`);
  });
}

async function whyNoEnd(): Promise<string> {
  if (!(await endsConnections())) return "ss is missing (Debian: iproute2)";
  if (!hasCapability("CAP_NET_ADMIN")) return "ss ends connections for root alone (CAP_NET_ADMIN)";
  return "the kernel can't (CONFIG_INET_DIAG_DESTROY)";
}

/** The kernel's own word of the filter, in a program that the helper became. */
export function testWithoutIoUring(): Promise<DriverCheck> {
  return tried(
    "run answers io_uring_setup with ENOSYS (seccomp), unless --allow-io-uring: no image holds a ring.",
    async () => {
      const words = [NO_IO_URING, "/dev/null", "cat", "/proc/self/status"];
      const { stdout } = await promisify(execFile)(startHelper("enter"), words, { timeout: LIMIT_MS });
      if (/^Seccomp:\s*2$/m.test(stdout)) return;
      throw new Error(
        "seccomp takes CAP_SYS_ADMIN and a kernel with it: programs may use io_uring, and no image holds a ring.",
      );
    },
  );
}

const HOOK = {
  checkpoint: 'echo state >"$RECOVERY_LINE_IMAGE/state"',
  restore:
    'read -r state <"$RECOVERY_LINE_IMAGE/state" && echo "$state" >"$RECOVERY_LINE_IMAGE/../back" && exec sleep 60',
};

export function testHook(): Promise<DriverCheck> {
  return tried("A hook took a state inside a process cgroup and brought it back there.", async () => {
    const folder = mkdtempSync(join(tmpdir(), "recovery-line-doctor-"));
    const cgroup = new ProcessCgroup(`doctor-${process.pid}`, "hook");
    try {
      cgroup.create();
      const image = join(folder, "image");
      mkdirSync(image);
      const procs = join(cgroup.path, "cgroup.procs");
      spawn("/bin/sh", ["-c", 'echo $$ >"$0" && exec sleep 60', procs], { stdio: "ignore" });
      await until(() => cgroup.populated, `nothing can be brought into ${cgroup.path}`);
      const driver = new HookDriver({ ...HOOK, cwd: folder });
      const notes = await whileFrozen([cgroup], (guard) =>
        driver.dump({
          folder: image,
          rootPid: cgroup.pids()[0]!,
          pids: cgroup.pids(),
          cgroupPath: cgroup.path,
          limitMs: LIMIT_MS,
          guard,
        }),
      );
      await end(cgroup);
      cgroup.create();
      await driver.restore({ folder: image, notes, limitMs: LIMIT_MS, freezeCgroup: cgroup.path });
      await standsStill(cgroup, performance.now() + LIMIT_MS);
      cgroup.setFreeze(false);
      const back = (): boolean =>
        existsSync(join(folder, "back")) && readFileSync(join(folder, "back"), "utf8") === "state\n";
      await until(back, "the restore command does not run");
    } finally {
      await end(cgroup);
      rmSync(folder, { recursive: true, force: true });
    }
  });
}

async function end(cgroup: ProcessCgroup): Promise<void> {
  await until(() => {
    if (cgroup.populated) cgroup.kill();
    return cgroup.remove();
  }, `${cgroup.path} does not become empty`);
}

interface Connection {
  /** Asked for the connection. */
  readonly near: Socket;
  readonly far: Socket;
  readonly addresses: ConnectionAddresses;
}

async function overLoopback(work: (connection: Connection) => Promise<void>): Promise<void> {
  const server = createServer({ allowHalfOpen: true }).listen(0, "127.0.0.1");
  await once(server, "listening");
  const accepted = once(server, "connection") as Promise<[Socket]>;
  const near = connect({ port: (server.address() as AddressInfo).port, host: "127.0.0.1" });
  const [[far]] = await Promise.all([accepted, once(near, "connect")]);
  const end = (port: number | undefined) => ({ address: "127.0.0.1", port: port!, v6: false });
  try {
    for (const socket of [near, far]) socket.on("error", () => undefined);
    await work({ near, far, addresses: { local: end(near.localPort), remote: end(near.remotePort) } });
  } finally {
    near.destroy();
    far.destroy();
    server.close();
  }
}

const TIME_WAIT = "06";

function waits({ local, remote }: ConnectionAddresses): boolean {
  const hex = (port: number): string => `:${port.toString(16).toUpperCase().padStart(4, "0")}`;
  return readFileSync("/proc/net/tcp", "utf8")
    .split("\n")
    .map((line) => line.trim().split(/\s+/))
    .some(
      ([, from, to, state]) =>
        state === TIME_WAIT && from!.endsWith(hex(local.port)) && to!.endsWith(hex(remote.port)),
    );
}

async function tried(reason: string, work: () => Promise<void>): Promise<DriverCheck> {
  try {
    await work();
    return { works: true, reason };
  } catch (error) {
    return { works: false, reason: (error as Error).message };
  }
}

async function until(condition: () => boolean, otherwise: string): Promise<void> {
  const deadlineMs = performance.now() + LIMIT_MS;
  while (!condition()) {
    if (performance.now() > deadlineMs) throw new Error(`${otherwise}.`);
    await sleep(5);
  }
}
