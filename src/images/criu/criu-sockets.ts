/** The TCP connections of a CRIU image: addresses and states from `files.img`, queues from the `tcp-stream` files. */
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import type { EndAddress } from "../../host/open-connections.ts";
import {
  checkImage,
  entryAt,
  IMAGE_HEADER_BYTES,
  parseMessage,
  u32Field,
  u32List,
  type WireField,
} from "./criu-image.ts";
import { parseTcpStream, type TcpStream } from "./criu-tcp-image.ts";

export const FILES_MAGIC = 0x56303138;
/** Field numbers of CRIU's messages file_entry and inet_sk_entry. */
const FILE_INET_SOCKET = 4;
const SOCKET = {
  inode: 2,
  family: 3,
  type: 4,
  protocol: 5,
  state: 6,
  sourcePort: 7,
  targetPort: 8,
  source: 11,
  target: 12,
};
const SOCK_STREAM = 1;
const IPPROTO_TCP = 6;
const AF_INET6 = 10;

/** Numbers of the kernel's TCP states. */
const TCP_ESTABLISHED = 1;
const [FIN_WAIT1, FIN_WAIT2, CLOSE, CLOSE_WAIT, LAST_ACK, CLOSING] = [4, 5, 7, 8, 9, 11];
/** CRIU keeps queues of connections in these states. */
const WITH_STREAM = new Set([TCP_ESTABLISHED, FIN_WAIT1, FIN_WAIT2, CLOSE, CLOSE_WAIT, LAST_ACK, CLOSING]);
const FIN_RECEIVED = new Set([CLOSE_WAIT, LAST_ACK, CLOSE, CLOSING]);
const FIN_SENT = new Set([FIN_WAIT1, FIN_WAIT2, CLOSING, LAST_ACK, CLOSE]);

export interface ImageSocket {
  /** File with its queues, below the image's folder. */
  readonly file: string;
  readonly state: number;
  /** As the state says: the other end's FIN has come; ours is sent; ours has been acknowledged. */
  readonly finReceived: boolean;
  readonly finSent: boolean;
  readonly finAcknowledged: boolean;
  readonly local: EndAddress;
  readonly remote: EndAddress;
  readonly stream: TcpStream;
}

export function isEstablished({ state }: ImageSocket): boolean {
  return state === TCP_ESTABLISHED;
}

/** Every connected TCP socket of the image in `folder`. Throws RL_REFUSED for files that this version does not know. */
export async function imageSockets(folder: string): Promise<ImageSocket[]> {
  const path = join(folder, "files.img");
  const image = await readFile(path);
  checkImage(image, FILES_MAGIC, path);
  const sockets: ImageSocket[] = [];
  for (let offset = IMAGE_HEADER_BYTES; offset < image.length; ) {
    const { entry, end } = entryAt(image, offset, path);
    offset = end;
    const socket = parseMessage(entry, path).find(({ number }) => number === FILE_INET_SOCKET);
    const fields = socket === undefined ? [] : parseMessage(socket.bytes, path);
    if (isConnection(fields)) sockets.push(await readSocket(folder, fields, path));
  }
  return sockets;
}

function isConnection(fields: readonly WireField[]): boolean {
  return (
    u32Field(fields, SOCKET.type) === SOCK_STREAM &&
    u32Field(fields, SOCKET.protocol) === IPPROTO_TCP &&
    u32Field(fields, SOCKET.targetPort) !== 0 &&
    WITH_STREAM.has(u32Field(fields, SOCKET.state))
  );
}

async function readSocket(folder: string, fields: readonly WireField[], path: string): Promise<ImageSocket> {
  const file = `tcp-stream-${u32Field(fields, SOCKET.inode).toString(16)}.img`;
  const state = u32Field(fields, SOCKET.state);
  const v6 = u32Field(fields, SOCKET.family) === AF_INET6;
  const name = join(folder, file);
  const [finReceived, finSent] = [FIN_RECEIVED.has(state), FIN_SENT.has(state)];
  return {
    file,
    state,
    finReceived,
    finSent,
    finAcknowledged: state === FIN_WAIT2,
    local: {
      address: addressText(u32List(fields, SOCKET.source, path), v6),
      port: u32Field(fields, SOCKET.sourcePort),
      v6,
    },
    remote: {
      address: addressText(u32List(fields, SOCKET.target, path), v6),
      port: u32Field(fields, SOCKET.targetPort),
      v6,
    },
    stream: parseTcpStream(await readFile(name), name, finReceived, finSent),
  };
}

/** Words are as they stand in memory: the address's bytes in order. */
export function addressText(words: readonly number[], v6: boolean): string {
  const bytes = words.flatMap((word) => [word & 255, (word >>> 8) & 255, (word >>> 16) & 255, word >>> 24]);
  if (!v6) return bytes.slice(0, 4).join(".");
  const groups = Array.from({ length: 8 }, (_, at) =>
    (((bytes[2 * at] ?? 0) << 8) | (bytes[2 * at + 1] ?? 0)).toString(16),
  );
  return groups.join(":");
}
