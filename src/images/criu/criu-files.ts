/** What else than connections stands in an image's `files.img` and in the names of its files, as far as it can stand in a restart's way. */
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import {
  checkImage,
  entryAt,
  IMAGE_HEADER_BYTES,
  parseMessage,
  u32Field,
  u32List,
  type WireField,
} from "./criu-image.ts";
import { addressText, FILES_MAGIC } from "./criu-sockets.ts";

/** Field numbers of CRIU's messages file_entry, reg_file_entry, remap_file_path_entry, inet_sk_entry, sk_opts_entry. */
const FILE = { type: 1, regular: 3, inetSocket: 4 };
const REGULAR = { id: 1, name: 6, size: 8, mode: 10, buildId: 11 };
const REMAP = { original: 1 };
const SOCKET = {
  family: 3,
  type: 4,
  protocol: 5,
  state: 6,
  sourcePort: 7,
  source: 11,
  options: 14,
  v6Only: 15,
};
const OPTIONS = { reusePort: 17 };
const TYPE_TTY = 11;
const AF_INET6 = 10;
const SOCK_STREAM = 1;
const IPPROTO_TCP = 6;
const TCP_LISTEN = 10;

/** A file that the program has open, mapped, as its program or as its folder. */
export interface ImagePath {
  readonly path: string;
  /** Type and permissions, as stat tells them; undefined: CRIU does not look. */
  readonly mode: number | undefined;
  readonly sizeBytes: number | undefined;
  /** Hexadecimal; "": it has none, or CRIU does not look. */
  readonly buildId: string;
}

export interface ImageListener {
  readonly address: string;
  readonly port: number;
  readonly v6: boolean;
  /** It takes no IPv4 connection (IPV6_V6ONLY). */
  readonly v6Only: boolean;
  /** Others may listen there as well. */
  readonly shared: boolean;
}

export interface ImageParts {
  readonly paths: readonly ImagePath[];
  readonly listeners: readonly ImageListener[];
  /** It has a terminal open whose other end is not in the image. */
  readonly terminal: boolean;
  /** Processes and threads. */
  readonly ids: readonly number[];
  /** They mean in it what they mean here: it is no container with a first process of its own. */
  readonly ourIds: boolean;
  /** Paths, and addresses, mean in it what they mean here. */
  readonly ourMounts: boolean;
  readonly ourNetwork: boolean;
}

/** Throws RL_REFUSED for files that this version does not know. */
export function imageParts(folder: string): ImageParts {
  const names = readdirSync(folder);
  const files = messagesOf(join(folder, "files.img"), FILES_MAGIC);
  const replaced = new Set(remaps(folder).map((fields) => u32Field(fields, REMAP.original)));
  const regular = files.flatMap((fields) => partOf(fields, FILE.regular));
  const isPty = regular.some((fields) => textField(fields, REGULAR.name).endsWith("ptmx"));
  const ids = names.flatMap((name) => {
    const id = /^core-(\d+)\.img$/.exec(name)?.[1];
    return id === undefined ? [] : [Number(id)];
  });
  return {
    paths: regular.filter((fields) => !replaced.has(u32Field(fields, REGULAR.id))).map(pathOf),
    listeners: files.flatMap((fields) => partOf(fields, FILE.inetSocket)).flatMap(listenerOf),
    terminal: !isPty && files.some((fields) => u32Field(fields, FILE.type) === TYPE_TTY),
    ids,
    ourIds: !ids.includes(1),
    ourMounts: !names.some((name) => name.startsWith("mountpoints-")),
    ourNetwork: !names.some((name) => /^(netns|netdev)-/.test(name)),
  };
}

function messagesOf(path: string, magic: number | undefined): WireField[][] {
  const image = readFileSync(path);
  if (magic !== undefined) checkImage(image, magic, path);
  const messages: WireField[][] = [];
  for (let offset = IMAGE_HEADER_BYTES; offset < image.length; ) {
    const { entry, end } = entryAt(image, offset, path);
    messages.push(parseMessage(entry, path));
    offset = end;
  }
  return messages;
}

/** Files that were deleted, or whose names CRIU makes up: it brings them itself. */
function remaps(folder: string): WireField[][] {
  const path = join(folder, "remap-fpath.img");
  return existsSync(path) ? messagesOf(path, undefined) : [];
}

function partOf(fields: readonly WireField[], number: number): WireField[][] {
  return fields.filter((one) => one.number === number).map(({ bytes }) => parseMessage(bytes, "files.img"));
}

function textField(fields: readonly WireField[], number: number): string {
  return Buffer.from(fields.find((one) => one.number === number)?.bytes ?? []).toString("utf8");
}

function numberField(fields: readonly WireField[], number: number): number | undefined {
  const field = fields.find((one) => one.number === number);
  return field === undefined ? undefined : Number(field.value);
}

function pathOf(fields: readonly WireField[]): ImagePath {
  const [mode, sizeBytes] = [numberField(fields, REGULAR.mode), numberField(fields, REGULAR.size)];
  const words = Uint32Array.from(u32List(fields, REGULAR.buildId, "files.img"));
  const buildId = Buffer.from(words.buffer).toString("hex");
  return { path: textField(fields, REGULAR.name), mode, sizeBytes, buildId };
}

function listenerOf(fields: readonly WireField[]): ImageListener[] {
  const isListener =
    u32Field(fields, SOCKET.type) === SOCK_STREAM &&
    u32Field(fields, SOCKET.protocol) === IPPROTO_TCP &&
    u32Field(fields, SOCKET.state) === TCP_LISTEN;
  if (!isListener) return [];
  const v6 = u32Field(fields, SOCKET.family) === AF_INET6;
  const [options = []] = partOf(fields, SOCKET.options);
  return [
    {
      address: addressText(u32List(fields, SOCKET.source, "files.img"), v6),
      port: u32Field(fields, SOCKET.sourcePort),
      v6,
      v6Only: numberField(fields, SOCKET.v6Only) === 1,
      shared: u32Field(options, OPTIONS.reusePort) !== 0,
    },
  ];
}
