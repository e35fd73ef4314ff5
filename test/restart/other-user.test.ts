/** A program of another user, in no namespace of its own: its image may not say in which cgroup it was, and it comes back there all the same. */
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { connect } from "node:net";
import { expect, test } from "vitest";
import { freePort, type Rig, until, withSharedCollector } from "../daemon/rig.ts";
import { restartable } from "./restartable.ts";

const together = withSharedCollector("other-user");

const AS_NOBODY = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"];
/** Answers every byte; in a language whose programs every user may read. */
const SERVER =
  '$|=1;use Socket;socket(my $l,PF_INET,SOCK_STREAM,0);bind($l,pack_sockaddr_in($ARGV[0],INADDR_LOOPBACK)) or die;listen($l,9);print "up\\n";for(;;){accept(my $c,$l) or next;while(sysread($c,my $q,1)){syswrite($c,$q)}}';

async function answer(port: number): Promise<string> {
  const socket = connect(port, "127.0.0.1");
  socket.write("?");
  const [bytes] = await once(socket, "data");
  socket.destroy();
  return String(bytes);
}

async function events(rig: Rig): Promise<number> {
  return (await rig.events()).filter(({ process }) => process === "server").length;
}

(process.geteuid?.() === 0 ? restartable : test.skip)(
  "it comes back in its cgroup, again and again, and what it does there is recorded",
  () =>
    together("other-user", async (rig) => {
      const port = await freePort();
      await rig.run("server", ...AS_NOBODY, "perl", "-e", SERVER, String(port));
      await until("it listens", () => rig.output("server") === "up\n");
      const pids = [...rig.cgroup("server").pids()];
      for (let round = 1; round <= 2; round += 1) {
        const taken = await rig.json<object>("checkpoint", rig.app, "server", "--driver", "criu");
        expect(taken).toMatchObject({ checkpoints: [{ cut: true }] });
        rig.cgroup("server").kill();
        await until("it is dead", () => !rig.cgroup("server").populated);
        const { code, err } = await rig.cli("restart", rig.app);
        expect([code, err]).toEqual([0, ""]);
        expect([...rig.cgroup("server").pids()]).toEqual(pids);
        const before = await events(rig);
        expect(await answer(port)).toBe("?");
        expect(await events(rig)).toBeGreaterThan(before);
      }
    }),
);

/** A server as nginx is: root's, and a worker of another user. */
const BOTH = `${AS_NOBODY.join(" ")} sleep 1000 & echo up; exec sleep 1000`;
const RIGHT = 1n << 24n;

(process.geteuid?.() === 0 ? restartable : test.skip)(
  "a program of several users: without CAP_SYS_RESOURCE its checkpoint is refused by name while it runs, with it it comes back",
  () =>
    together("users", async (rig) => {
      await rig.run("server", "sh", "-c", BOTH);
      await until("both are there", () => rig.cgroup("server").pids().length === 2);
      await until("the worker is nobody's", () => userOf(rig.cgroup("server").pids()[1]!) === "65534");
      const pids = [...rig.cgroup("server").pids()];
      const status = readFileSync("/proc/self/status", "utf8");
      const rights = BigInt(`0x${/^CapEff:\s*(\S+)/m.exec(status)![1]}`);
      const { code, err } = await rig.cli("checkpoint", rig.app, "server", "--driver", "criu");
      if ((rights & RIGHT) !== 0n) expect([code, err]).toEqual([0, ""]);
      else
        expect([code, err]).toEqual([
          1,
          expect.stringMatching(
            new RegExp(
              `not supported here: process ${pids[0]} \\(sleep\\) and those it started are of several users \\(0, 65534\\)`,
            ),
          ),
        ]);
      expect([rig.cgroup("server").pids(), rig.cgroup("server").freezing]).toEqual([pids, false]);
    }),
);

function userOf(pid: number): string | undefined {
  return /^Uid:\s*(\d+)/m.exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1];
}
