/** The build id of a program or library: a note that linkers put into ELF files, and CRIU compares. */
import { closeSync, openSync, readSync } from "node:fs";

const MAGIC = Buffer.from([0x7f, 0x45, 0x4c, 0x46, 2, 1]); // 64 bits, little-endian
const PROGRAM_HEADER_BYTES = 56;
const PT_NOTE = 4;
const NT_GNU_BUILD_ID = 3;
const OWNER = Buffer.from("GNU\0");
/** Of one file's program headers and notes together. */
const MAX_BYTES = 1 << 20;

/** In hexadecimal; undefined: it has none, or is no 64-bit ELF file. */
export function buildIdOf(path: string): string | undefined {
  const file = openSync(path, "r");
  try {
    const header = bytesAt(file, 0, 64);
    if (header.length < 64 || !header.subarray(0, MAGIC.length).equals(MAGIC)) return undefined;
    const [start, count] = [Number(header.readBigUInt64LE(32)), header.readUInt16LE(56)];
    const programs = bytesAt(file, start, count * PROGRAM_HEADER_BYTES);
    for (let at = 0; at + PROGRAM_HEADER_BYTES <= programs.length; at += PROGRAM_HEADER_BYTES) {
      if (programs.readUInt32LE(at) !== PT_NOTE) continue;
      const [offset, bytes] = [programs.readBigUInt64LE(at + 8), programs.readBigUInt64LE(at + 32)];
      const id = idAmong(bytesAt(file, Number(offset), Number(bytes)));
      if (id !== undefined) return id;
    }
    return undefined;
  } finally {
    closeSync(file);
  }
}

/** What the file has of it. */
function bytesAt(file: number, offset: number, count: number): Buffer {
  const bytes = Buffer.alloc(Math.min(count, MAX_BYTES));
  return bytes.subarray(0, readSync(file, bytes, 0, bytes.length, offset));
}

function idAmong(notes: Buffer): string | undefined {
  for (let at = 0; at + 12 <= notes.length; ) {
    const [nameBytes, idBytes, type] = [0, 4, 8].map((field) => notes.readUInt32LE(at + field)) as [
      number,
      number,
      number,
    ];
    const name = at + 12;
    const id = name + aligned(nameBytes);
    if (type === NT_GNU_BUILD_ID && notes.subarray(name, name + nameBytes).equals(OWNER))
      return notes.subarray(id, id + idBytes).toString("hex");
    at = id + aligned(idBytes);
  }
  return undefined;
}

function aligned(bytes: number): number {
  return (bytes + 3) & ~3;
}
