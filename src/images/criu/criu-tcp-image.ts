/**
 * One TCP connection inside a CRIU image (`tcp-stream-<socket>.img`): sequence numbers and both queues.
 *
 * As CRIU stores it: `inq_seq` is the sequence number behind the receive queue, `outq_seq` the one behind the send queue, so the
 * queues are [inq_seq - inq_len, inq_seq) and [outq_seq - outq_len, outq_seq). A FIN takes one number behind the data.
 * All sequence arithmetic is modulo 2^32.
 */
import {
  checkImage,
  entryAt,
  foreign,
  IMAGE_HEADER_BYTES,
  parseMessage,
  u32Field,
  type WireField,
  withU32,
  writeMessage,
} from "./criu-image.ts";

const TCP_STREAM_MAGIC = 0x51465506;

/** Field numbers of CRIU's message tcp_stream_entry. */
const FIELD = {
  inqLength: 1,
  inqSequence: 2,
  outqLength: 3,
  outqSequence: 4,
  unsentLength: 12,
  windowUpdate: 13,
  sendWindow: 14,
  maxWindow: 15,
  receiveWindow: 16,
  windowBase: 17,
} as const;

export interface TcpStream {
  /** Sequence number of the first byte in the receive queue: what the process takes next. */
  readonly takes: number;
  readonly received: Uint8Array;
  /** Sequence number behind the send queue: what the process sends next. */
  readonly sends: number;
  readonly unacknowledged: Uint8Array;
  /** A FIN stands behind the receive queue and takes one number. */
  readonly finReceived: boolean;
  readonly fields: readonly WireField[];
}

/** `finReceived`, `finSent`: the connection's state says that a FIN stands behind that queue. Throws RL_REFUSED. */
export function parseTcpStream(
  image: Uint8Array,
  name: string,
  finReceived = false,
  finSent = false,
): TcpStream {
  checkImage(image, TCP_STREAM_MAGIC, name);
  const { entry, end } = entryAt(image, IMAGE_HEADER_BYTES, name);
  const fields = parseMessage(entry, name);
  const [inq, outq] = [u32Field(fields, FIELD.inqLength), u32Field(fields, FIELD.outqLength)];
  if (end + inq + outq !== image.length) throw foreign(name, "its queues are not as long as it says");
  return {
    takes: (u32Field(fields, FIELD.inqSequence) - inq - Number(finReceived)) >>> 0,
    received: image.subarray(end, end + inq),
    sends: (u32Field(fields, FIELD.outqSequence) - Number(finSent)) >>> 0,
    unacknowledged: image.subarray(end + inq, end + inq + outq),
    finReceived,
    fields,
  };
}

/** True if a comes after b: less than half of all numbers apart. */
function after(a: number, b: number): boolean {
  return ((b - a) | 0) < 0;
}

export interface NewQueues {
  /** What has been received and not taken yet, from `takes` on. */
  readonly received: Uint8Array;
  /** What the other end has not received yet, up to `sends`. */
  readonly unacknowledged: Uint8Array;
}

/**
 * The connection with other queues around the same two positions of the process. A FIN that was received stays behind its queue, which must
 * be as it was then; one that was sent must be acknowledged.
 *
 * Everything in the send queue counts as sent once: the kernel sends it again when its timer ends. The right edge of the window
 * that was offered stays, so that nothing promised is taken back.
 */
export function withQueues(stream: TcpStream, { received, unacknowledged }: NewQueues): Uint8Array {
  const next = (stream.takes + received.length + Number(stream.finReceived)) >>> 0;
  let fields = stream.fields as WireField[];
  const set = (number: number, value: number): void => {
    fields = withU32(fields, number, value);
  };
  set(FIELD.inqLength, received.length);
  set(FIELD.inqSequence, next);
  set(FIELD.outqLength, unacknowledged.length);
  set(FIELD.unsentLength, 0);
  const base = u32Field(fields, FIELD.windowBase, next);
  if (after(base, next)) {
    set(FIELD.windowBase, next);
    set(FIELD.receiveWindow, base + u32Field(fields, FIELD.receiveWindow) - next);
  }
  if (after(u32Field(fields, FIELD.windowUpdate, next), next)) set(FIELD.windowUpdate, next);
  return encode(fields, received, unacknowledged);
}

function encode(fields: readonly WireField[], received: Uint8Array, unacknowledged: Uint8Array): Uint8Array {
  const message = writeMessage(fields);
  const header = new DataView(new ArrayBuffer(IMAGE_HEADER_BYTES + 4));
  header.setUint32(0, 0x54564319, true);
  header.setUint32(4, TCP_STREAM_MAGIC, true);
  header.setUint32(8, message.length, true);
  return Buffer.concat([new Uint8Array(header.buffer), message, received, unacknowledged]);
}
