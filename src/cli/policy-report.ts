/** A comparison for people: a block a metric, a line a policy, a column a way of counting delays. */

import { counted, printable } from "../model/printable.ts";
import type { Comparison, Spread } from "../policy/compare.ts";
import { METRICS, type Metric } from "../policy/measures.ts";
import { table } from "../terminal/print.ts";

const SHARES: ReadonlySet<Metric> = new Set(["frozen", "unbounded", "available"]);
/** Pairs listed below a metric; --json has all. */
const MAX_PAIRS = 4;

export function comparisonText(application: string, comparison: Comparison): string {
  const metrics = Object.keys(METRICS) as Metric[];
  const rows = metrics.flatMap((metric) => metricRows(comparison, metric));
  return (
    `${headText(application, comparison)}\n` +
    table(["METRIC", "POLICY", "FROZEN PATTERN", "DELAYS PUSHED ALONG", ""], rows) +
    `\n${undecidedText(comparison)}${silentText(comparison)}${footText(comparison)}`
  );
}

function headText(application: string, { events, processes, policies, instants, seeds }: Comparison): string {
  return (
    `${printable(application)}: ${counted(events, "event")} of ${counted(processes, "process", "processes")}, ` +
    `${counted(policies.length, "policy", "policies")}, every single failure at ${counted(instants, "instant")}, ` +
    `${counted(seeds, "order")} of concurrent events\n`
  );
}

function metricRows({ policies, undecided }: Comparison, metric: Metric): string[][] {
  const pairs = undecided.filter((one) => one.metric === metric);
  return policies.map(({ label, frozen, pushed }, index) => {
    const open = pairs.some((pair) => pair.policies.includes(label));
    return [
      index === 0 ? METRICS[metric] : "",
      printable(label),
      spreadText(metric, frozen[metric]),
      spreadText(metric, pushed[metric]),
      open ? "?" : "",
    ];
  });
}

/** A line a metric: pairs that the two columns, or the drawn orders, rank differently. */
function undecidedText({ undecided }: Comparison): string {
  if (undecided.length === 0) return "";
  const lines = (Object.keys(METRICS) as Metric[]).map((metric) => {
    const pairs = undecided.filter((one) => one.metric === metric);
    return pairs.length === 0 ? "" : `  ${METRICS[metric]}: ${pairsText(pairs)}\n`;
  });
  return `Undecided (?): the columns (delays) or the orders drawn (orders) rank the two differently.\n${lines.join("")}\n`;
}

function pairsText(pairs: Comparison["undecided"]): string {
  const shown = pairs
    .slice(0, MAX_PAIRS)
    .map(({ policies, why }) => `${policies.map(printable).join(" / ")} (${why})`);
  const more = pairs.length - shown.length;
  return shown.join(", ") + (more > 0 ? `, ${more} more` : "");
}

function spreadText(metric: Metric, { mean, least, most }: Spread): string {
  const one = (value: number): string => valueText(metric, value);
  return one(least) === one(most) ? one(mean) : `${one(mean)} (${one(least)} .. ${one(most)})`;
}

function valueText(metric: Metric, value: number): string {
  if (SHARES.has(metric)) return `${(100 * value).toFixed(metric === "available" ? 4 : 2)} %`;
  if (metric === "stored") return `${(value / 2 ** 20).toFixed(0)} MiB`;
  return Number.isInteger(value) ? String(value) : value.toFixed(2);
}

/** What a policy would do about events that no log tells of. */
function silentText({ policies }: Comparison): string {
  return policies
    .filter(({ silent }) => silent.length > 0)
    .map(
      ({ label, silent }) =>
        `Not compared, as no log tells of it: what ${printable(label)} does on ${silent.join(", ")}.\n`,
    )
    .join("");
}

function footText({ model, timed }: Comparison): string {
  const clock = timed
    ? "Times are those of each process's own clock; no two clocks are compared."
    : `The log has no time stamps: an event takes ${model.event} s (model).`;
  return (
    `Model: a checkpoint holds its process still ${model.checkpoint} s, a restart takes ${model.restart} s, an image has ` +
    `${model.imageBytes} bytes, a process fails every ${model.mtbf} s.\n` +
    `${clock} Drains, budgets of the host and what the outside world does are not in it.\n` +
    `Lines, useless checkpoints, depth and breadth hold for the recorded pattern under any placement.\n`
  );
}
