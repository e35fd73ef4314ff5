/** A program of another user, in no namespace of its own: its image may not say in which cgroup it was, and it comes back there all the same. */
import { once } from "node:events";
import { connect } from "node:net";
import { expect, test } from "vitest";
import { freePort, type Rig, until, withRig } from "../daemon/rig.ts";
import { restartable } from "./restartable.ts";

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
    withRig("other-user", async (rig) => {
      await rig.collect();
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
