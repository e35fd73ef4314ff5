/**
 * Segments of the payload log (logs-format.md, "Payload log"; native/payload/payload_record.h): finds the records, trusts no byte that
 * its checksums do not cover. Behind damage it goes on at the next whole record; what lies between is a hole.
 */
import type { FileHandle } from "node:fs/promises";
import { crc32 } from "node:zlib";
import { tcpChannel } from "../model/channel-names.ts";
import { MAX_OFFSET } from "../model/limits.ts";

export const SEGMENT_HEADER_BYTES = 64;
export const RECORD_HEADER_BYTES = 48;
const SEGMENT_MAGIC = "RLPAYLD1";
const SEGMENT_VERSION = 1;
const RECORD_MAGIC = 0x52504c52;
const DATA = 1;
const LOSS = 2;
const ALIGNMENT = 8;
/** As much as the logger writes into one record. */
const MAX_RECORD_BYTES = 65_536;
/** Read at a time. */
const PIECE_BYTES = 4 * 1024 * 1024;

/** Bytes [begin, end) of a channel as a segment holds them. */
export interface PayloadRecord {
  readonly channel: string;
  readonly begin: number;
  readonly end: number;
  readonly segment: number;
  /** Of the record's header in the file; the bytes follow it. */
  readonly position: number;
  /** CRC-32 of the bytes. */
  readonly checksum: number;
  /** Offset of a byte that TCP's urgent pointer names; undefined where none is. */
  readonly urgent?: number;
}

export interface SegmentScan {
  /** Where the next scan goes on. */
  readonly position: number;
  readonly records: readonly PayloadRecord[];
  /** Bytes that found no room in the kernel's ring, as the logger told. */
  readonly lostBytes: number;
  /** Bytes passed over since no whole record is there. A logger that is writing just now leaves some behind `position`, not here. */
  readonly damagedBytes: number;
}

/** Undefined where the file is no whole header of this segment. Pass the key to `scanSegment`. */
export async function readSegmentKey(file: FileHandle, segment: number): Promise<Uint8Array | undefined> {
  const header = Buffer.alloc(SEGMENT_HEADER_BYTES);
  const { bytesRead } = await file.read(header, 0, SEGMENT_HEADER_BYTES, 0);
  if (bytesRead < SEGMENT_HEADER_BYTES || header.toString("latin1", 0, 8) !== SEGMENT_MAGIC) return undefined;
  if (header.readUInt32LE(60) !== crc32(header.subarray(0, 60))) return undefined;
  if (header.readUInt32LE(8) !== SEGMENT_VERSION || header.readUInt32LE(12) !== segment) return undefined;
  return header.subarray(16, 24);
}

/** Records from `from` (a place between records) to the end of what is whole. */
export async function scanSegment(
  file: FileHandle,
  segment: number,
  key: Uint8Array,
  from: number,
): Promise<SegmentScan> {
  const { size } = await file.stat();
  const scan = new Scan(segment, crc32(key), from);
  while (scan.next < size) {
    const piece = Buffer.alloc(Math.min(PIECE_BYTES, size - scan.next));
    const at = scan.next;
    const { bytesRead } = await file.read(piece, 0, piece.length, at);
    scan.take(piece.subarray(0, bytesRead), at, size);
    if (scan.next === at) break; // a torn end
  }
  return scan.result();
}

class Scan {
  /** Position of the next header to look at. */
  next: number;
  readonly #segment: number;
  readonly #seed: number;
  readonly #records: PayloadRecord[] = [];
  #wholeUpTo: number;
  #lostBytes = 0;
  #damagedBytes = 0;

  constructor(segment: number, seed: number, from: number) {
    this.#segment = segment;
    this.#seed = seed;
    this.next = from;
    this.#wholeUpTo = from;
  }

  /** `piece` lies at `at` in a file of `size` bytes; a header cut by its end waits for the next piece. */
  take(piece: Buffer, at: number, size: number): void {
    while (this.next - at + RECORD_HEADER_BYTES <= piece.length) {
      const header = piece.subarray(this.next - at, this.next - at + RECORD_HEADER_BYTES);
      const bytes = this.#header(header, size);
      if (bytes === undefined) {
        this.next += ALIGNMENT;
        continue;
      }
      this.#damagedBytes += this.next - this.#wholeUpTo;
      this.next += RECORD_HEADER_BYTES + align(bytes);
      this.#wholeUpTo = this.next;
    }
  }

  /** Length of the record's payload; undefined: no whole record stands here. */
  #header(header: Buffer, size: number): number | undefined {
    if (header.readUInt32LE(0) !== RECORD_MAGIC) return undefined;
    if (header.readUInt32LE(4) !== crc32(header.subarray(8), this.#seed)) return undefined;
    if (Number(header.readBigUInt64LE(8)) !== this.next) return undefined;
    const length = header.readUInt32LE(32);
    const kind = header.readUInt32LE(44);
    const offset = Number(header.readBigUInt64LE(24));
    if (length > MAX_RECORD_BYTES || this.next + RECORD_HEADER_BYTES + align(length) > size) return undefined;
    if (kind === LOSS) this.#lostBytes += offset;
    else if (kind === DATA && offset + length <= MAX_OFFSET) this.#data(header, offset, length);
    return length;
  }

  #data(header: Buffer, begin: number, length: number): void {
    const urgent = header.readUInt32LE(40);
    this.#records.push({
      channel: tcpChannel(header.readUInt32LE(16), header.readUInt32LE(20)),
      begin,
      end: begin + length,
      segment: this.#segment,
      position: this.next,
      checksum: header.readUInt32LE(36),
      ...(urgent === 0 ? {} : { urgent: begin + urgent - 1 }),
    });
  }

  result(): SegmentScan {
    return {
      position: this.#wholeUpTo,
      records: this.#records,
      lostBytes: this.#lostBytes,
      damagedBytes: this.#damagedBytes,
    };
  }
}

const align = (bytes: number): number => Math.ceil(bytes / ALIGNMENT) * ALIGNMENT;

/** The record's bytes; undefined where they are not what was written. */
export async function readPayload(file: FileHandle, record: PayloadRecord): Promise<Uint8Array | undefined> {
  const bytes = Buffer.alloc(record.end - record.begin);
  const { bytesRead } = await file.read(bytes, 0, bytes.length, record.position + RECORD_HEADER_BYTES);
  return bytesRead === bytes.length && crc32(bytes) === record.checksum ? bytes : undefined;
}
