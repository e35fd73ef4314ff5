/** A log as a collector leaves it, with images as checkpoints seal them, where nothing can be captured. */
import { mkdtempSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { EventColumns } from "../../src/format/event-columns.ts";
import { MANIFEST_FORMAT, NewImage } from "../../src/images/image-store.ts";
import { EventLog } from "../../src/log/event-log.ts";
import type { Event } from "../../src/model/event.ts";

export const APP = "app";

/** An image whose checkpoint is not recorded yet, and what the log will call it. */
export async function sealedImage(
  home: string,
  process: string,
  checkpoint: number,
): Promise<{ image: NewImage; reference: string }> {
  const image = await NewImage.begin(home, APP, process, async () => checkpoint);
  writeFileSync(join(image.files, "pages"), `${process} ${checkpoint}`);
  const { reference } = await image.seal({
    format: MANIFEST_FORMAT,
    application: APP,
    process,
    checkpoint,
    incarnation: 1,
    driver: { name: "criu", version: "4", notes: {} },
    time: new Date(0).toISOString(),
    kernel: "",
    pids: [],
    cgroup: "",
    connections: [],
    cutComplete: true,
    uncaptured: [],
  });
  return { image, reference };
}

/** A checkpoint of the process; its image is in the home. */
export async function taken(home: string, process: string, checkpoint: number): Promise<Event> {
  const { image, reference } = await sealedImage(home, process, checkpoint);
  image.release();
  return { type: "checkpoint", process, checkpoint, usable: true, image: reference };
}

export function emptyHome(): string {
  return mkdtempSync(join(tmpdir(), "rl-recorded-"));
}

/** Appends to the log; its processes are ones that a collector has recorded. */
export async function append(home: string, events: readonly Event[]): Promise<void> {
  const log = await EventLog.open(join(home, APP), { create: true });
  const names = new Set([
    ...((log.getState("processes") ?? []) as string[]),
    ...events.map(({ process }) => process),
  ]);
  log.putState("processes", [...names]);
  for (const name of names) log.putState(`process/${name}`, { cgroupId: 7, live: false, lines: 0 });
  for (const event of events) {
    const columns = new EventColumns(event.process);
    columns.push(event);
    await log.append(columns);
  }
  await log.commit();
  await log.close();
}
