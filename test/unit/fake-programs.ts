/** Programs that answer what they are told to, in place of others on the search path. */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { onTestFinished } from "vitest";

/** The folder of these scripts for a shell, by name; gone with the test. */
export function fakePrograms(scripts: (folder: string) => Readonly<Record<string, string>>): string {
  const folder = mkdtempSync(join(tmpdir(), "rl-fake-programs-"));
  onTestFinished(() => rmSync(folder, { recursive: true, force: true }));
  for (const [name, body] of Object.entries(scripts(folder)))
    writeFileSync(join(folder, name), `#!/bin/sh\n${body}\n`, { mode: 0o755 });
  return folder;
}

/** With these variables, which are as before afterwards; undefined: without it. */
export async function withVariables<T>(
  variables: Readonly<Record<string, string | undefined>>,
  work: () => T | Promise<T>,
): Promise<T> {
  const before = Object.keys(variables).map((name) => [name, process.env[name]] as const);
  const set = (all: readonly (readonly [string, string | undefined])[]): void => {
    for (const [name, value] of all)
      if (value === undefined) delete process.env[name];
      else process.env[name] = value;
  };
  set(Object.entries(variables));
  try {
    return await work();
  } finally {
    set(before);
  }
}
