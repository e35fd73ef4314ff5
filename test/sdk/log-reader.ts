/** The SDK's log as docs/sdk.md draws it, read by the slow obvious way: shares no code with src/sdk. */
import { readFileSync } from "node:fs";
import { crc32 } from "node:zlib";

export interface Sent {
  readonly to: string;
  readonly sequence: number;
  readonly payload: string;
}

export interface Delivered {
  readonly from: string;
  readonly sequence: number;
  readonly order: number;
  readonly sum: number;
}

export interface PlainLog {
  readonly sent: Sent[];
  readonly delivered: Delivered[];
  /** Index of a checkpoint and how many deliveries it follows. */
  readonly checkpoints: { readonly checkpoint: number; readonly delivered: number }[];
  readonly values: unknown[];
  readonly joins: number;
}

/** Throws where anything but a torn last record is not as the drawing says. */
export function readPlainLog(path: string): PlainLog {
  const bytes = readFileSync(path);
  const log = { sent: [], delivered: [], checkpoints: [], values: [], joins: 0 } as {
    -readonly [K in keyof PlainLog]: PlainLog[K];
  };
  if (bytes.toString("latin1", 0, 8) !== "RLSDKLG1") throw new Error(`${path}: magic`);
  const peers: string[] = [];
  for (let at = 8; at + 8 <= bytes.length; ) {
    const length = bytes.readUInt32LE(at);
    const body = bytes.subarray(at + 8, at + 8 + length);
    if (body.length < length) break;
    if (crc32(body) !== bytes.readUInt32LE(at + 4)) throw new Error(`${path}: checksum at ${at}`);
    take(body, log, peers);
    at += 8 + length;
  }
  return log;
}

function take(body: Buffer, log: { -readonly [K in keyof PlainLog]: PlainLog[K] }, peers: string[]): void {
  const u64 = (at: number): number => Number(body.readBigUInt64LE(at));
  const kind = body[0];
  if (kind === 1) log.joins += 1;
  if (kind === 2) peers[body.readUInt32LE(1)] = body.toString("utf8", 8, 8 + body.readUInt16LE(6));
  if (kind === 3)
    log.sent.push({ to: peers[body.readUInt32LE(1)]!, sequence: u64(5), payload: body.toString("utf8", 17) });
  if (kind === 4)
    log.delivered.push({
      from: peers[body.readUInt32LE(1)]!,
      sequence: u64(5),
      order: u64(13),
      sum: body.readUInt32LE(21),
    });
  if (kind === 5) log.checkpoints.push({ checkpoint: body.readUInt32LE(1), delivered: u64(45) });
  if (kind === 6) log.values.push(JSON.parse(body.toString("utf8", 1)));
}
