/**
 * Pipes between processes that come back together: each is laid anew before the images are restored, with its size and with what stood in it,
 * and all its processes inherit that one. The reader's image holds the bytes: CRIU takes them without consuming, and puts them only into
 * pipes that it makes itself.
 */
import { closeSync } from "node:fs";
import { imagePipes, type PipeContents } from "../images/criu/criu-pipes.ts";
import { RecoveryLineError } from "../model/errors.ts";
import { call, native } from "../native/binding.ts";
import type { Target } from "./plan.ts";

type Restored = Extract<Target, { action: "restore" }>;

/** Kernel's default where an image says none. */
const PIPE_BYTES = 65_536;

export class SharedPipes {
  /** By inode in the images: both ends of the new one. */
  readonly #ends = new Map<number, readonly [number, number]>();

  /** Throws RL_REFUSED where one has come back without the other, or what the kernel refuses. */
  constructor(targets: readonly Target[]) {
    const restored = targets.filter((target) => target.action === "restore");
    refuseApart(restored);
    const inodes = new Set(restored.flatMap(pipesOf).map(({ inode }) => inode));
    if (inodes.size === 0) return;
    const stood = restored.flatMap(({ image }) => imagePipes(image.files));
    try {
      for (const inode of inodes) this.#ends.set(inode, layAnew(inode, stood));
    } catch (error) {
      this.close();
      throw error;
    }
  }

  /** Descriptors for the driver: either end does, as each of the process's own is opened anew from it. */
  of(target: Restored): ReadonlyMap<number, number> {
    return new Map(pipesOf(target).map(({ inode }) => [inode, this.#ends.get(inode)![1]]));
  }

  /** Ours: a pipe that somebody else holds never ends. */
  close(): void {
    for (const ends of this.#ends.values()) for (const end of ends) closeSync(end);
    this.#ends.clear();
  }
}

function pipesOf({ image }: Restored): NonNullable<Restored["image"]["manifest"]["pipes"]> {
  return image.manifest.pipes ?? [];
}

/** A second look at what the line promises: the two images are of one moment. Throws RL_REFUSED. */
export function refuseApart(targets: readonly Target[]): void {
  for (const target of targets) {
    if (target.action !== "restore") continue;
    for (const { others } of pipesOf(target))
      for (const { process, checkpoint } of others)
        if (!targets.some((one) => one.process === process && one.checkpoint === checkpoint))
          throw new RecoveryLineError(
            "RL_REFUSED",
            `checkpoint ${target.checkpoint} of ${target.process} shares a pipe with checkpoint ${checkpoint} of ${process}, which the line does not go back to`,
            "Nothing was killed or restored. recovery-line verify tells whether the log is whole.",
          );
  }
}

/** `stood`: of all images; one of several names the bytes. */
function layAnew(inode: number, stood: readonly PipeContents[]): readonly [number, number] {
  const [most] = stood
    .filter((pipe) => pipe.inode === inode)
    .sort((a, b) => b.contents.length - a.contents.length);
  const { size = PIPE_BYTES, contents = Buffer.alloc(0) } = most ?? {};
  return call(`pipe ${inode}`, () => native().makePipe(size || PIPE_BYTES, contents));
}
