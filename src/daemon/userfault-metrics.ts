/** What recorded processes did by userfaultfd, for Prometheus; only where the collector was asked to look. */
import { Counter, type Registry } from "prom-client";
import type { UserfaultCounts } from "../model/event-source.ts";

/** `read` is called while the text is made. */
export function defineUserfaultMetrics(registry: Registry, read: () => UserfaultCounts): void {
  const define = (
    name: string,
    help: string,
    of: (one: { calls: number; bytes: number }) => number,
  ): void => {
    new Counter({
      name: `recovery_line_userfault_${name}_total`,
      help,
      labelNames: ["operation"],
      registers: [registry],
      collect() {
        this.reset();
        for (const [operation, one] of Object.entries(read())) this.inc({ operation }, of(one));
      },
    });
  };
  define(
    "operations",
    "Faults that handlers read, and userfaultfd calls that succeeded.",
    (one) => one.calls,
  );
  define("bytes", "Bytes of the ranges of those calls.", (one) => one.bytes);
}
