/** Segments made by the logger's own writer (native/payload/segment.c, under the sanitizers), without a kernel. */
import { execFileSync } from "node:child_process";
import { compile } from "../native/c-build.ts";

export interface Chunk {
  readonly channel?: number;
  readonly begin: number;
  readonly end: number;
  /** Whose pattern the bytes follow. */
  readonly stream?: number;
  /** Index + 1 of an urgent byte. */
  readonly urgent?: number;
}

const RECEIVER = 0xabcd;
let helper: string | undefined;

export const channelName = (channel: number): string =>
  `tcp:${(channel + 1).toString(16).padStart(8, "0")}-0000abcd`;

/** One life of a logger. */
export function writeSegments(
  folder: string,
  chunks: readonly Chunk[],
  segmentBytes = 1 << 20,
  limitBytes = 1 << 30,
): void {
  helper ??= compile(
    `payload_segments_${process.pid}`,
    ["test/payload/c/segment_helper.c", "native/payload/segment.c"],
    ["-D_GNU_SOURCE", "-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-pthread", "-lz"],
  );
  const lines = chunks.map(
    ({ channel = 0, begin, end, stream = channel, urgent = 0 }) =>
      `add ${channel + 1} ${RECEIVER} ${begin} ${end - begin} ${urgent} ${stream}\n`,
  );
  execFileSync(helper, [folder, String(segmentBytes), String(limitBytes)], { input: lines.join("") });
}
