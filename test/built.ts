/** What runs in processes and threads of its own runs from `dist`, as users have it; `npm test` compiled it just now. */
import { spawnSync } from "node:child_process";
import { cpSync, existsSync, readdirSync, rmSync, statSync } from "node:fs";
import { join } from "node:path";
import { packageRoot } from "../src/native/binding.ts";

export const dist = join(packageRoot(), "dist");
export const main = join(dist, "cli/main.js");

/** Compiles `src` unless `dist` is newer than all of it. Types are `npm run check`'s business. */
export function build(): void {
  const root = packageRoot();
  const sources = readdirSync(join(root, "src"), { recursive: true, withFileTypes: true });
  const newest = Math.max(
    ...sources.filter((f) => f.isFile()).map((f) => statSync(join(f.parentPath, f.name)).mtimeMs),
  );
  if (existsSync(main) && statSync(main).mtimeMs > newest) return;
  const tsc = ["--no-install", "tsc", "-p", "tsconfig.build.json", "--noCheck"];
  const { stdout } = spawnSync("npx", tsc, { cwd: root, encoding: "utf8" });
  if (!existsSync(main)) throw new Error(`nothing was built:\n${stdout}`);
}

/** A copy below `folder` that nobody compiles anew in the middle of a test; returns its path. */
export function builtCopy(folder: string): string {
  build();
  const copy = join(folder, "dist");
  rmSync(copy, { recursive: true, force: true });
  cpSync(dist, copy, { recursive: true });
  return copy;
}
