/** The path of a home's socket, also where it is longer than the 107 bytes that a socket address holds. */
import { closeSync, openSync } from "node:fs";
import { join } from "node:path";
import { HOME_FILES } from "../model/names.ts";

const MAX_ADDRESS_BYTES = 107;

export function socketFile(home: string): string {
  return join(home, HOME_FILES.collectorSocket);
}

export interface SocketAddress {
  readonly path: string;
  /** Call it when the address is not used any more. */
  close(): void;
}

/** A long path is reached through a descriptor of its directory. Throws what opening the directory throws. */
export function socketAddress(home: string): SocketAddress {
  const path = socketFile(home);
  if (Buffer.byteLength(path) <= MAX_ADDRESS_BYTES) return { path, close: () => undefined };
  const fd = openSync(home, "r");
  return { path: `/proc/self/fd/${fd}/${HOME_FILES.collectorSocket}`, close: () => closeSync(fd) };
}
