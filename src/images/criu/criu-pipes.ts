/** What stood in the pipes of a CRIU image: `pipes-data.img`, an entry and its bytes for each pipe that the process may read. */
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { checkImage, entryAt, foreign, IMAGE_HEADER_BYTES, parseMessage, u32Field } from "./criu-image.ts";

const NAME = "pipes-data.img";
export const PIPES_DATA_MAGIC = 0x56453709;
/** Field numbers of CRIU's message pipe_data_entry. */
const PIPE_DATA = { id: 1, bytes: 2, size: 3 };

export interface PipeContents {
  readonly inode: number;
  /** Room, bytes (F_GETPIPE_SZ). */
  readonly size: number;
  readonly contents: Buffer;
}

/** Throws RL_REFUSED for a file that this version does not know. */
export function imagePipes(folder: string): PipeContents[] {
  const path = join(folder, NAME);
  if (!existsSync(path)) return [];
  const image = readFileSync(path);
  checkImage(image, PIPES_DATA_MAGIC, NAME);
  const found: PipeContents[] = [];
  for (let at = IMAGE_HEADER_BYTES; at < image.length; ) {
    const { entry, end } = entryAt(image, at, NAME);
    const fields = parseMessage(entry, NAME);
    at = end + u32Field(fields, PIPE_DATA.bytes);
    if (at > image.length) throw foreign(NAME, "cut off inside a pipe's bytes");
    const contents = image.subarray(end, at);
    found.push({ inode: u32Field(fields, PIPE_DATA.id), size: u32Field(fields, PIPE_DATA.size), contents });
  }
  return found;
}
