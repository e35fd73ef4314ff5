/** A slow second opinion on what a tree holds: Node's own lstat and reads, getfattr, no code of the module. */
import { execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import { closeSync, constants, lstatSync, openSync, readdirSync, readlinkSync, readSync } from "node:fs";

/** One line a name, by path: all that a tree put back must share with the tree that was saved. */
export function describeTree(root: string): Map<string, string> {
  const paths = pathsBelow(Buffer.from(root)).map((path) => path.toString("latin1"));
  const groups = new Map<string, string>();
  const attributes = attributesBelow(root);
  return new Map(
    paths.sort().map((path) => {
      const place = Buffer.from(path, "latin1");
      const stat = lstatSync(place, { bigint: true });
      const isFolder = stat.isDirectory();
      const inode = String(stat.ino);
      if (!groups.has(inode)) groups.set(inode, path);
      const facts = {
        mode: stat.mode.toString(8),
        owner: `${stat.uid}:${stat.gid}`,
        mtime: String(stat.mtimeNs),
        ...(stat.isFile()
          ? { atime: String(stat.atimeNs), size: Number(stat.size), ...contentOf(place) }
          : {}),
        ...(isFolder ? {} : { links: Number(stat.nlink), first: groups.get(inode)?.slice(root.length) }),
        ...(stat.isSymbolicLink() ? { target: readlinkSync(place, { encoding: "latin1" }) } : {}),
        device: String(stat.rdev),
        attributes: attributes.get(path.slice(root.length + 1)) ?? "",
      };
      return [path.slice(root.length), JSON.stringify(facts)];
    }),
  );
}

function pathsBelow(folder: Buffer): Buffer[] {
  const names = readdirSync(folder, { encoding: "buffer" }) as unknown as Buffer[];
  const paths = names.map((name) => Buffer.concat([folder, Buffer.from("/"), name]));
  return [folder, ...paths.flatMap((path) => (lstatSync(path).isDirectory() ? pathsBelow(path) : [path]))];
}

const BLOCK = 4096;

/** Checksum, and how many blocks the file system has given: holes that were filled show there. */
function contentOf(path: Buffer): { sha256: string; filled: number } {
  const file = openSync(path, constants.O_RDONLY | constants.O_NOATIME);
  const { size, blocks } = lstatSync(path);
  const bytes = Buffer.alloc(size);
  readSync(file, bytes, 0, size, 0);
  closeSync(file);
  const given = Math.min(Math.floor((blocks * 512) / BLOCK), Math.ceil(size / BLOCK));
  return { sha256: createHash("sha256").update(bytes).digest("hex"), filled: given };
}

/** The text of getfattr for each path below the root. */
function attributesBelow(root: string): Map<string, string> {
  const text = execFileSync("getfattr", ["-R", "-P", "-h", "-d", "-m", "-", "-e", "hex", "."], {
    cwd: root,
    encoding: "latin1",
    maxBuffer: 1 << 26,
  });
  const found = text.split("\n\n").filter((block) => block.trim() !== "");
  return new Map(
    found.map((block) => {
      const [first = "", ...rest] = block.split("\n");
      const name = first
        .replace(/^# file: (\.\/)?/, "")
        .replace(/\\(\d{3})/g, (_, octal) => String.fromCharCode(Number.parseInt(octal, 8)));
      return [name === "." ? "" : name, rest.sort().join(" ")];
    }),
  );
}

/**
 * The first difference in words, undefined where there is none. `reserves`: the file system gives a file that grows more than it needs
 * (xfs), so only what was a hole and is none any more shows.
 */
export function differs(
  is: Map<string, string>,
  shall: Map<string, string>,
  reserves = false,
): string | undefined {
  for (const [path, facts] of shall) {
    if (!is.has(path)) return `${path} is missing`;
    if (!isSame(is.get(path)!, facts, reserves)) return `${path} is\n ${is.get(path)}, shall be\n ${facts}`;
  }
  const other = [...is.keys()].find((path) => !shall.has(path));
  return other === undefined ? undefined : `${other} should not be there`;
}

/** A file system takes a block of its own for the map of a file in many pieces, one time so, one time otherwise. */
function isSame(is: string, shall: string, reserves: boolean): boolean {
  const [a, b] = [JSON.parse(is), JSON.parse(shall)];
  const more = (a.filled ?? 0) - (b.filled ?? 0);
  if (more > 1 || (more < -1 && !reserves)) return false;
  return JSON.stringify({ ...a, filled: 0 }) === JSON.stringify({ ...b, filled: 0 });
}
