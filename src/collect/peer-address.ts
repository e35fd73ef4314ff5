/** The address in a PEER or DATAGRAM record. */
import { SocketAddress } from "node:net";
import type { RecordColumns } from "../format/ring-record.ts";

/** As the record has it, 48 bits and 48 bits and 32. To read it as text takes longer than all else that is done for a connection. */
export interface PackedAddress {
  readonly low: number;
  readonly high: number;
  readonly last: number;
}

export function packedAddress(records: RecordColumns, row: number): PackedAddress {
  return { low: records.begin[row]!, high: records.time[row]!, last: records.length[row]! };
}

const MAPPED_MIDDLE = 0xffff0000;
const HALF = 2 ** 16;
const WORD = 2 ** 32;

/** recovery_ring.h: four words in network order, IPv4 mapped. */
export function addressOf({ low, high, last }: PackedAddress): string {
  const words = [low % WORD, (high % HALF) * HALF + Math.floor(low / WORD), Math.floor(high / HALF), last];
  const bytes = new Uint8Array(new Uint32Array(words).buffer);
  if (words[0] === 0 && words[1] === 0 && words[2] === MAPPED_MIDDLE) return bytes.subarray(12).join(".");
  const groups = Array.from({ length: 8 }, (_, at) =>
    (bytes[2 * at]! * 256 + bytes[2 * at + 1]!).toString(16),
  );
  return new SocketAddress({ address: groups.join(":"), family: "ipv6" }).address;
}
