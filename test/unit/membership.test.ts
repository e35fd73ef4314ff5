/** Noticing that processes have ended, over a collector that is played: no capture, and no cgroup of theirs is there. */
import { expect, test } from "vitest";
import type { ProcessInfo } from "../../src/client/protocol.ts";
import type { Collector } from "../../src/collect/collect.ts";
import { Membership } from "../../src/daemon/membership.ts";
import { forgetEnd, leaveEnd } from "../../src/host/process-end.ts";
import { missing } from "../daemon/rig.ts";

const live = test.skipIf(missing !== undefined);
const APP = "membership-test";
/** No such task can be there. */
const task = { pid: 2 ** 30, startTicks: process.pid };

class PlayedCollector {
  readonly ended: unknown[] = [];
  incarnation = 1;
  live = true;
  readonly facts = {
    commandEnded: async (_app: string, _process: string, end: unknown) => void this.ended.push(end),
    left: async () => undefined,
  };
  readonly registrations = {
    unregister: async () => {
      this.live = false;
    },
  };

  processes(): ProcessInfo[] {
    const one: Partial<ProcessInfo> = {
      app: APP,
      process: "a",
      cgroupId: 1,
      live: this.live,
      incarnation: this.incarnation,
      left: [],
      task,
    };
    return [one as ProcessInfo];
  }
}

function played(): { collector: PlayedCollector; membership: Membership } {
  const collector = new PlayedCollector();
  return { collector, membership: new Membership(collector as unknown as Collector) };
}

live(
  "the word how a process ended is awaited no longer once it has come: the collector looks seldom again",
  async () => {
    const { collector, membership } = played();
    try {
      await membership.reap();
      expect({ live: collector.live, isTold: membership.isTold }).toEqual({ live: true, isTold: false });
      leaveEnd(task, { code: 3 });
      await membership.reap();
      expect(collector.ended).toEqual([{ code: 3 }]);
      expect({ live: collector.live, isTold: membership.isTold }).toEqual({ live: false, isTold: true });
    } finally {
      forgetEnd(task);
    }
  },
);

live("nor where it is looked at for the last time", async () => {
  const { collector, membership } = played();
  await membership.reap();
  await membership.reap(true);
  expect({ live: collector.live, isTold: membership.isTold }).toEqual({ live: false, isTold: true });
});
