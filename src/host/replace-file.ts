/** Files that are replaced as a whole: a crash at any moment leaves the old one or the new one. */
import { constants } from "node:fs";
import { open, rename } from "node:fs/promises";
import { dirname } from "node:path";

const NEW_FILE = constants.O_WRONLY | constants.O_CREAT | constants.O_TRUNC | constants.O_NOFOLLOW;

/** Durable on return. `partial`: where it is written first, in the same folder; what a crash left there is overwritten. */
export async function replaceFile(
  path: string,
  content: string | Uint8Array,
  partial = `${path}.new`,
): Promise<void> {
  const file = await open(partial, NEW_FILE, 0o600);
  try {
    await file.writeFile(content);
    await file.sync();
  } finally {
    await file.close();
  }
  await rename(partial, path);
  await syncFolder(dirname(path));
}

/** Names that were made or removed in it are durable on return. */
export async function syncFolder(path: string): Promise<void> {
  const folder = await open(path, constants.O_RDONLY | constants.O_DIRECTORY | constants.O_NOFOLLOW);
  await folder.sync().finally(() => folder.close());
}
