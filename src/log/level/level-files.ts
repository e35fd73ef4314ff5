/** The files of one LevelDB folder, to be read only. Who reads them holds the log's lock: nobody writes meanwhile. */
import { closeSync, constants, fstatSync, openSync, readdirSync, readSync } from "node:fs";
import { join } from "node:path";

export interface LevelFiles {
  names(): readonly string[];
  /** In bytes; undefined where there is no such file. */
  size(name: string): number | undefined;
  /** Bytes [offset, offset + length), fewer only at the end of the file; not to be written to. Throws errors of the file system. */
  read(name: string, offset: number, length: number): Uint8Array;
  close(): void;
}

/** All bytes of a file, or undefined where there is none. */
export function wholeFile(files: LevelFiles, name: string): Buffer | undefined {
  const size = files.size(name);
  return size === undefined ? undefined : asBuffer(files.read(name, 0, size));
}

/** The same memory. */
export function asBuffer(bytes: Uint8Array): Buffer {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

/** A folder on disk. At most one file is open at a time: tables are read one after the other. */
export class FolderFiles implements LevelFiles {
  readonly #folder: string;
  #open: { readonly name: string; readonly fd: number; readonly size: number } | undefined;

  constructor(folder: string) {
    this.#folder = folder;
  }

  names(): readonly string[] {
    return readdirSync(this.#folder);
  }

  size(name: string): number | undefined {
    try {
      return this.#file(name).size;
    } catch (error) {
      if ((error as { code?: unknown }).code === "ENOENT") return undefined;
      throw error;
    }
  }

  read(name: string, offset: number, length: number): Uint8Array {
    const { fd } = this.#file(name);
    const bytes = new Uint8Array(length);
    let got = 0;
    while (got < length) {
      const count = readSync(fd, bytes, got, length - got, offset + got);
      if (count === 0) break;
      got += count;
    }
    return got === length ? bytes : bytes.subarray(0, got);
  }

  #file(name: string): { readonly fd: number; readonly size: number } {
    if (this.#open?.name === name) return this.#open;
    this.close();
    const fd = openSync(join(this.#folder, name), constants.O_RDONLY | constants.O_NOFOLLOW);
    this.#open = { name, fd, size: fstatSync(fd).size };
    return this.#open;
  }

  close(): void {
    if (this.#open !== undefined) closeSync(this.#open.fd);
    this.#open = undefined;
  }
}
