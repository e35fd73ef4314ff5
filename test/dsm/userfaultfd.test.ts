/** A userfaultfd DSM that knows nothing of us, under the real collector. */
import { expect, test } from "vitest";
import { systemCallCost } from "../../src/capture/system-call-cost.ts";
import type { Event } from "../../src/model/event.ts";
import type { RecoveryLine } from "../../src/model/recovery-line.ts";
import { native } from "../../src/native/binding.ts";
import { freePort, missing, type Rig, until, withRig } from "../daemon/rig.ts";
import { compile } from "../native/c-build.ts";

/** Only what the machine can't do skips: a typed refusal of the capture or of the hook. */
function unsupported(): string | undefined {
  if (missing !== undefined) return missing.reason;
  try {
    systemCallCost(1, 1);
    return undefined;
  } catch (error) {
    return (error as Error).message;
  }
}
const live = test.skipIf(unsupported() !== undefined);
const PAGES = 300;
const ROUNDS = 4;

interface Counted {
  readonly base: number;
  readonly readFaults: number;
  readonly writeFaults: number;
  readonly copies: number;
  readonly drops: number;
  readonly droppedBytes: number;
}

const program = () => compile("uffd_program", ["test/dsm/c/uffd_program.c"], ["-pthread"]);

async function counted(rig: Rig, name: string): Promise<Counted> {
  await until(`${name} reports`, () => rig.output(name).includes("\n"));
  return JSON.parse(rig.output(name)) as Counted;
}

const faultsOf = (events: readonly Event[], process: string) =>
  events.flatMap((event) => (event.type === "page-fault" && event.process === process ? [event] : []));

async function served(rig: Rig): Promise<Counted> {
  const path = program();
  const port = String(await freePort());
  await rig.run("server", path, "server", port, String(PAGES));
  await until("the server listens", () => rig.output("server") !== "");
  await rig.run("client", path, "client", port, String(PAGES), String(ROUNDS));
  return counted(rig, "client");
}

live(
  "every fault that the program's handler read stands in the log, with its page and access; compute takes it",
  () =>
    withRig("uffd", async (rig) => {
      const collector = await rig.collect("--dsm", "userfaultfd");
      const told = await served(rig);
      expect(told.copies).toBeGreaterThanOrEqual(PAGES * ROUNDS);
      const events = await rig.events();
      const faults = faultsOf(events, "client");
      expect(faults.filter(({ access }) => access === "read").length).toBe(told.readFaults);
      expect(faults.filter(({ access }) => access === "write").length).toBe(told.writeFaults);
      const names = new Set(
        Array.from({ length: PAGES }, (_, n) => `0x${(told.base + n * 4096).toString(16)}`),
      );
      expect(new Set(faults.map(({ page }) => page))).toEqual(names);
      expect(faultsOf(events, "server")).toEqual([]);
      expect(events.filter(({ type }) => type === "gap")).toEqual([]);
      expect(await metrics(rig)).toEqual({
        fault: told.readFaults + told.writeFaults,
        register: 1,
        copy: told.copies,
        drop: told.drops,
        bytes: { register: PAGES * 4096, copy: told.copies * 4096, drop: told.droppedBytes },
      });
      await rig.json("checkpoint", rig.app, "client", "--driver", "none");
      const line = await rig.json<RecoveryLine>("compute", rig.app, "--failed", "server");
      // The pages that it holds came from a server that will not have sent them: the messages say so, no page event does.
      expect(line.line).toMatchObject([
        { process: "client", action: "initial" },
        { process: "server", action: "initial" },
      ]);
      expect(line.witnesses.length).toBeGreaterThan(0);
      collector.child.kill("SIGTERM");
      expect(await collector.ended).toMatchObject({ code: 0, err: "" });
    }),
);

live("without --dsm nothing of it is recorded", () =>
  withRig("uffd-off", async (rig) => {
    await rig.collect();
    const told = await served(rig);
    expect(told.copies).toBeGreaterThanOrEqual(PAGES * ROUNDS);
    expect(faultsOf(await rig.events(), "client")).toEqual([]);
    expect(await (await rig.client()).metrics()).not.toContain("userfault");
  }),
);

live("who fills another process's memory has a channel that nobody sees: a gap at both ends", () =>
  withRig("uffd-lent", async (rig) => {
    await rig.collect("--dsm", "userfaultfd");
    const path = program();
    await rig.run("pager", path, "fill", rig.path("s"), "40");
    await until("the pager listens", () => rig.output("pager") !== "");
    await rig.run("borrower", path, "lend", rig.path("s"), "40");
    await counted(rig, "borrower");
    const gaps = (await rig.events()).filter(({ type }) => type === "gap");
    expect(gaps.map(({ process }) => process).sort()).toEqual(["borrower", "pager"]);
    await rig.json("checkpoint", rig.app, "borrower", "--driver", "none");
    const [checkpoint] = (await rig.events()).filter(({ type }) => type === "checkpoint");
    expect(checkpoint).not.toHaveProperty("cut");
  }),
);

test("the hook's handle: wrong ones are TypeErrors, a closed one too", () => {
  const addon = native();
  expect(() => addon.userfaultCounts({} as never)).toThrow(TypeError);
  expect(() => addon.userfaultOpen({} as never)).toThrow(TypeError);
  expect(() => addon.timeSystemCall(0)).toThrow(/out of range/);
  if (unsupported() !== undefined) return;
  const handle = addon.userfaultOpen(undefined);
  expect(addon.userfaultCounts(handle).fault).toEqual({ calls: 0, bytes: 0 });
  addon.userfaultClose(handle);
  expect(() => addon.userfaultCounts(handle)).toThrow(TypeError);
  expect(() => addon.userfaultClose(handle)).toThrow(TypeError);
});

/** The operations that happened, from the collector's metrics. */
async function metrics(rig: Rig): Promise<Record<string, unknown>> {
  const client = await rig.client();
  const text = await client.metrics();
  client.close();
  const read = (name: string) =>
    Object.fromEntries(
      [
        ...text.matchAll(
          new RegExp(`^recovery_line_userfault_${name}_total{operation="(\\w+)"} (\\d+)$`, "gm"),
        ),
      ]
        .map(([, operation, value]) => [operation!, Number(value)] as const)
        .filter(([, value]) => value > 0),
    );
  return { ...read("operations"), bytes: read("bytes") };
}
