/**
 * A process that stays small although it makes much that lives for a moment. Node and glibc take such bounds when a program starts, not
 * later, so that it executes itself once more; its number stays.
 *
 *   --max-semi-space-size    the young generation: 32 MiB of it are resident by default
 *   --heap-growing-percent   the old one is collected when it has grown by so much, not when it has doubled or more
 *   MALLOC_ARENA_MAX         one heap for all threads: of what one of them frees in its own the others have nothing
 *   MALLOC_MMAP_THRESHOLD_   whole blocks of a log go back to the system, and this bound does not rise by itself
 */
import { call, native } from "../native/binding.ts";

export const SMALL_HEAP_FLAGS = ["--max-semi-space-size=4", "--heap-growing-percent=50"];
export const SMALL_HEAP_VARIABLES = {
  MALLOC_ARENA_MAX: "1",
  MALLOC_MMAP_THRESHOLD_: "131072",
  MALLOC_TRIM_THRESHOLD_: "131072",
};

/** Returns in the process that is small; what it starts is none of this. Whoever asked for bounds of their own has them. */
export function becomeSmall(): void {
  if (process.execArgv.includes(SMALL_HEAP_FLAGS[0]!)) {
    for (const name of Object.keys(SMALL_HEAP_VARIABLES)) delete process.env[name];
    return;
  }
  const words = [process.execPath, ...SMALL_HEAP_FLAGS, ...process.execArgv, ...process.argv.slice(1)];
  const environment = Object.entries({ ...SMALL_HEAP_VARIABLES, ...process.env });
  call(process.execPath, () =>
    native().execute(
      process.execPath,
      words,
      environment.map(([name, value]) => `${name}=${value}`),
    ),
  );
}
