/** `recovery-line collect-rings`: takes memory rings of instrumented runtimes until SIGTERM or SIGINT. Needs no BPF rights. */
import type { Command } from "commander";
import type { MemoryRings } from "../capture/memory-rings.ts";
import { resolveHome } from "../logs/home.ts";
import { counted, printableSentence } from "../model/printable.ts";
import { write } from "../terminal/print.ts";
import { LOG_DEFAULT } from "./log-option.ts";

const HELP = `
A runtime (native/dsm is one) connects to <log directory>/rings.sock, hands its rings over and is recorded in the log of the
application it names. That log is closed, and can be computed from, when the last runtime of the application has ended.
Rings give their room back before what was in them is on disk: a runtime stops when this command does. recovery-line collect takes
rings at the same place, into the same logs as what it records itself; this command is for machines where nothing can be captured.

Example:
  recovery-line collect-rings --log /tmp/logs &
  build/dsm/dsm-kernels sor --collector /tmp/logs/rings.sock --application heat
  recovery-line compute heat --log /tmp/logs`;

export function register(program: Command): void {
  program
    .command("collect-rings")
    .summary("record instrumented runtimes through memory rings until stopped (foreground)")
    .description("Appends what runtimes write into their memory rings to the logs of their applications.")
    .option("--log <dir>", `log directory ${LOG_DEFAULT}`)
    .addHelpText("after", HELP)
    .action(collectRings);
}

async function collectRings(flags: { readonly log?: string }): Promise<void> {
  const { prepareHome } = await import("../host/home-lock.ts");
  const { openMemoryRings } = await import("../capture/memory-rings.ts");
  const { collectMemory } = await import("../collect/collect-memory.ts");
  const home = resolveHome(flags.log);
  prepareHome(home);
  const rings = openMemoryRings(home);
  const stop = stopRequested();
  try {
    await write(`taking memory rings at ${printableSentence(rings.path)}\n`);
    const done = (): boolean => {
      tellRefusals(rings);
      return stop.aborted;
    };
    const { events } = await collectMemory(rings, home, done, stop);
    await write(`${counted(events, "event")} recorded\n`);
  } finally {
    rings.close();
  }
}

function tellRefusals(rings: MemoryRings): void {
  for (const { pid, error } of rings.takeRefusals())
    process.stderr.write(
      printableSentence(`recovery-line: process ${pid} turned away: ${error.message}`).concat("\n"),
    );
}

/** At the first SIGTERM or SIGINT; a second one ends the process as it would without us. */
function stopRequested(): AbortSignal {
  const stop = new AbortController();
  for (const signal of ["SIGTERM", "SIGINT"] as const) process.once(signal, () => stop.abort());
  return stop.signal;
}
