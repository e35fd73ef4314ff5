/**
 * podman's exported checkpoint as files: CRIU's images lie on top, where all who read and edit images look for them, and what podman adds
 * (the container's configuration, addresses, changed files of its root, log) in the folder `container`.
 */
import { execFile } from "node:child_process";
import { mkdir, readdir, rename, rm } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";
import { RecoveryLineError } from "../../model/errors.ts";

const run = promisify(execFile);
const CONTAINER = "container";
/** podman's name for CRIU's folder. */
const CHECKPOINT = "checkpoint";

/** Throws RL_DRIVER. */
export async function unpackExport(archive: string, folder: string): Promise<void> {
  const container = join(folder, CONTAINER);
  await mkdir(container, { mode: 0o700 });
  await tar(["-xf", archive, "-C", container, "--no-same-owner"]);
  const images = join(container, CHECKPOINT);
  for (const name of await readdir(images)) await rename(join(images, name), join(folder, name));
  await rm(images, { recursive: true });
}

/** The reverse. Throws RL_DRIVER. */
export async function packExport(folder: string, archive: string): Promise<void> {
  const own = ["--owner=0", "--group=0", "--numeric-owner"];
  await tar(["-cf", archive, ...own, "-C", join(folder, CONTAINER), "."]);
  const place = [`--exclude=./${CONTAINER}`, `--transform=flags=r;s,^\\.,${CHECKPOINT},`];
  await tar(["-rf", archive, ...own, ...place, "-C", folder, "."]);
}

export async function tar(args: readonly string[]): Promise<void> {
  try {
    await run("tar", args);
  } catch (cause) {
    const { stderr = "", message } = cause as Error & { readonly stderr?: string };
    throw new RecoveryLineError(
      "RL_DRIVER",
      `the image of a container could not be packed or unpacked: ${stderr.trim() || message}`,
      "It takes tar, and room on the disk for the image once more.",
      cause,
    );
  }
}
