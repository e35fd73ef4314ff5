/** Where a process listens: a unix socket beside its log, or a TCP port. */
import { closeSync, openSync } from "node:fs";
import { join } from "node:path";

/** TCP carries no proof of who speaks: loopback, or a network that you trust. */
export interface TcpAddress {
  readonly host: string;
  readonly port: number;
}

/** A file of a process, or a TCP address. */
export type Address = string | TcpAddress;

const SOCKET = "socket";
const MAX_ADDRESS_BYTES = 107;

export function socketPath(folder: string): string {
  return join(folder, SOCKET);
}

/** What `net` is given; a long path is reached through a descriptor of its directory. `close` it when the call has been made. */
export function netAddress(address: Address): { options: { path: string } | TcpAddress; close(): void } {
  if (typeof address !== "string") return { options: address, close: () => undefined };
  if (Buffer.byteLength(address) <= MAX_ADDRESS_BYTES)
    return { options: { path: address }, close: () => undefined };
  const fd = openSync(join(address, ".."), "r");
  return { options: { path: `/proc/self/fd/${fd}/${SOCKET}` }, close: () => closeSync(fd) };
}
