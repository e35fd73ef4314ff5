/** AF_UNIX sockets inside a restored process bear new names, and what waited in them is received under those: the log stays one history. */
import { execFileSync } from "node:child_process";
import { writeFileSync } from "node:fs";
import { expect } from "vitest";
import type { Event } from "../../src/model/event.ts";
import { type Rig, until, withRig } from "../daemon/rig.ts";
import { restartable } from "./restartable.ts";

/** At each SIGUSR1 the child sends 100 bytes to its parent, the parent takes 70 of what there is. */
const PAIR = `
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
static volatile sig_atomic_t go;
static void on_signal(int number) { (void)number; go = 1; }
static void wait_signal(void) { while (!go) usleep(2000); go = 0; }
int main(void) {
    int ends[2];
    char bytes[100];
    long count = 0;
    memset(bytes, 'x', sizeof(bytes));
    signal(SIGUSR1, on_signal);
    socketpair(AF_UNIX, SOCK_STREAM, 0, ends);
    const int child = fork() == 0;
    for (;;) {
        wait_signal();
        count += child ? write(ends[0], bytes, sizeof(bytes)) : read(ends[1], bytes, 70);
        printf("%s %ld\\n", child ? "sent" : "took", count);
        fflush(stdout);
    }
}`;

async function step(rig: Rig, who: "parent" | "child"): Promise<void> {
  const before = rig.output("p");
  const [parent, child] = rig
    .cgroup("p")
    .pids()
    .sort((a, b) => a - b);
  process.kill((who === "parent" ? parent : child)!, "SIGUSR1");
  await until(`${who} did it`, () => rig.output("p") !== before);
}

/** At each moment of the log nobody has received what is not sent. */
function expectHistory(events: readonly Event[]): void {
  const sent = new Map<string, number>();
  for (const event of events) {
    if (event.type === "send") sent.set(event.channel, Math.max(sent.get(event.channel) ?? 0, event.end));
    if (event.type === "receive")
      expect([event.channel, event.end <= (sent.get(event.channel) ?? 0)]).toEqual([event.channel, true]);
  }
}

restartable(
  "what waits in a restored socket pair was sent before it is received, after any number of restarts",
  () =>
    withRig("own-sockets", async (rig) => {
      writeFileSync(rig.path("pair.c"), PAIR);
      execFileSync("cc", ["-o", rig.path("pair"), rig.path("pair.c")]);
      await rig.collect();
      await rig.run("p", rig.path("pair"));
      await until("both run", () => rig.cgroup("p").pids().length === 2);
      await step(rig, "child");
      for (let restarts = 0; restarts < 2; restarts += 1) {
        await step(rig, "parent"); // some of it stays in the queue
        await rig.json("checkpoint", rig.app);
        await step(rig, "child");
        rig.cgroup("p").kill();
        await until("it is dead", () => !rig.cgroup("p").populated);
        await rig.json("restart", rig.app);
        await step(rig, "parent");
        await step(rig, "child");
      }
      expect(rig.output("p").trim().split("\n").at(-1)).toBe("sent 300");
      expectHistory(await rig.events());
      await rig.json("checkpoint", rig.app);
      const { outcome, inTransit, payloads } = await rig.json<{
        outcome: string;
        inTransit: unknown[];
        payloads: { place: string }[];
      }>("compute", rig.app, "--failed", "p");
      expect(outcome).toBe("clean");
      expect(payloads.length).toBe(inTransit.length);
      expect(new Set(payloads.map(({ place }) => place))).toEqual(new Set(["own state"]));
      expect((await rig.cli("compute", rig.app, "--failed", "p")).out).toContain(
        "Nothing is in transit between processes.",
      );
    }),
);
