/**
 * A second reading of interchange.md, straight from parsed JSON lines, for true executions whose losses are declared: what was sent or
 * received at position n is what the first n lines say, cuts included. The line is found by lowering, one restore point at a time,
 * whoever breaks a rule (the channel-count fixpoint of theory.md). Shares no code with src or with test/reference.
 */

/** A parsed line; what its fields are is the contract's business, not the compiler's. */
// biome-ignore lint/suspicious/noExplicitAny: the judge reads JSON as the contract writes it
export type Line = Record<string, any>;

export interface Verdict {
  readonly outcome: string;
  readonly line: { process: string; checkpoint: number | null; position: number; action: string }[];
  readonly inTransit: { channel: string; from: string; to: string | null; begin: number; end: number }[];
  readonly lostInputs: { channel: string; process: string; begin: number; end: number }[];
  readonly unsayable: { channel: string; process: string; begin: number; end: number }[];
  readonly evidence: { gaps: number; lost: number; healed: number };
}

interface Process {
  readonly name: string;
  readonly lines: Line[];
  readonly failed: boolean;
  /** Bytes of a channel that are no messages under `transfers`: what invalidations name. Cuts count them, too. */
  readonly ignored: ReadonlyMap<string, ReadonlySet<number>>;
  /** Position now. */
  at: number;
}

export function verdict(
  file: readonly Line[],
  failed: readonly string[] | undefined,
  dsm: string,
  inTransit: string,
): Verdict {
  const processes = histories(file, failed, dsm);
  const all = channelEnds(file);
  /** Who says that a channel is outside, wherever the line stands, undone or not. */
  const outside = new Map<string, string>();
  for (const line of file) if (line["type"] === "outside") outside.set(line["channel"], line["process"]);
  const ends = new Map([...all].filter(([channel]) => !outside.has(channel)));
  const move = (process: Process): void => {
    do process.at -= 1;
    while (!isPoint(process, process.at));
  };
  for (const process of processes) if (!isPoint(process, process.at)) move(process);
  const of = (name: string | undefined) => processes.find((process) => process.name === name);
  for (let again = true; again; ) {
    again = false;
    for (const [channel, { sender, receiver }] of ends) {
      const [from, to] = [of(sender), of(receiver)];
      const sent = from === undefined ? new Set<number>() : offsets(from, from.at, "sent", channel, dsm);
      const received = to === undefined ? new Set<number>() : offsets(to, to.at, "received", channel, dsm);
      const known = to === undefined ? received : new Set([...received, ...looked(to, to.at, channel)]);
      if ([...known].some((n) => !sent.has(n)) && to !== undefined) {
        move(to);
        again = true;
      } else if (inTransit === "logged" && from !== undefined && !(to !== undefined && goesOn(to))) {
        const logged = loggedOffsets(from, channel, dsm);
        if ([...sent].some((n) => !received.has(n) && !logged.has(n))) {
          move(from);
          again = true;
        }
      }
    }
  }
  return {
    ...summary(processes),
    line: processes.map(entry),
    inTransit: transit(processes, ends, dsm),
    lostInputs: behind(processes, outside, "received", dsm),
    unsayable: behind(processes, outside, "sent", dsm),
  };
}

/** Looked at by position n, by events and cuts. */
function looked(process: Process, n: number, channel: string): Set<number> {
  const found = new Set<number>();
  for (const line of process.lines.slice(0, n)) {
    if (line["type"] === "peek" && line["channel"] === channel)
      for (let k = line["begin"]; k < line["end"]; k += 1) found.add(k);
    for (let k = 0; k < (line["cut"]?.["seen"]?.[channel] ?? 0); k += 1)
      if (!process.ignored.get(channel)?.has(k)) found.add(k);
  }
  return found;
}

/** What went over outside channels behind the positions. */
function behind(
  processes: readonly Process[],
  outside: ReadonlyMap<string, string>,
  which: "sent" | "received",
  dsm: string,
): Verdict["lostInputs"] {
  const found: Verdict["lostInputs"] = [];
  for (const [channel, name] of [...outside].sort(([a], [b]) => (a < b ? -1 : 1))) {
    const process = processes.find((one) => one.name === name) as Process;
    const kept = offsets(process, process.at, which, channel, dsm);
    const left = [...offsets(process, process.lines.length, which, channel, dsm)].filter((n) => !kept.has(n));
    for (const n of left.sort((a, b) => a - b)) {
      const last = found.at(-1);
      if (last?.channel === channel && last.end === n) last.end = n + 1;
      else found.push({ channel, process: name, begin: n, end: n + 1 });
    }
  }
  return found;
}

/** Lines up to the checkpoint, or up to the first gap behind all lower ones if its own line is missing. */
function keptBy(lines: readonly Line[], checkpoint: number): number {
  const exact = lines.findLastIndex((l) => l["type"] === "checkpoint" && l["checkpoint"] === checkpoint);
  if (exact >= 0 || checkpoint === 0) return exact + 1;
  const lower = lines.findLastIndex((l) => l["type"] === "checkpoint" && l["checkpoint"] < checkpoint);
  return lines.findIndex((l, at) => at > lower && l["type"] === "gap") + 1;
}

/** What is not undone; the rollback line stays. */
function histories(file: readonly Line[], failed: readonly string[] | undefined, dsm: string): Process[] {
  const found = new Map<string, Line[]>();
  for (const line of file) {
    const name = line["process"];
    const lines = found.get(name) ?? [];
    found.set(name, lines);
    if (line["type"] === "rollback") lines.length = keptBy(lines, line["checkpoint"]);
    lines.push(line);
  }
  const ignored = new Map<string, Set<number>>();
  for (const line of [...found.values()].flat())
    if (line["type"] === "page-invalidate" && dsm === "transfers") {
      const bytes = ignored.get(line["channel"]) ?? new Set();
      ignored.set(line["channel"], bytes);
      for (let k = line["begin"]; k < line["end"]; k += 1) bytes.add(k);
    }
  return [...found]
    .sort(([a], [b]) => (a < b ? -1 : 1))
    .map(([name, lines]) => ({
      name,
      lines,
      failed: failed === undefined || failed.includes(name),
      ignored,
      at: lines.length,
    }));
}

function gapOpen(lines: readonly Line[], n: number): boolean {
  const gap = lines.slice(0, n).findLastIndex((line) => line["type"] === "gap");
  return (
    gap >= 0 &&
    !lines.slice(gap, n).some((line) => line["type"] === "checkpoint" && line["cut"] !== undefined)
  );
}

function isCheckpoint({ lines }: Process, n: number): boolean {
  const line = lines[n - 1];
  return line?.["type"] === "checkpoint" && line["usable"] !== false;
}

/** The newest checkpoint to start from, 0 = the initial state. */
function base(process: Process, n: number): number {
  let m = n;
  while (m > 0 && !(isCheckpoint(process, m) && !gapOpen(process.lines, m))) m -= 1;
  return m;
}

function goesOn(process: Process): boolean {
  return !process.failed && process.at === process.lines.length && !gapOpen(process.lines, process.at);
}

function isPoint(process: Process, n: number): boolean {
  const { lines, failed } = process;
  if (n === 0) return true;
  if (!failed && n === lines.length && !gapOpen(lines, n)) return true;
  if (isCheckpoint(process, n) && !gapOpen(lines, n)) return true;
  const stable = lines.findLastIndex((line) => line["type"] === "stable") + 1;
  return n <= stable && !lines.slice(base(process, n), n).some((line) => line["type"] === "gap");
}

function isMessage(line: Line, dsm: string): boolean {
  return (
    ["send", "receive", "page-copy"].includes(line["type"]) ||
    (line["type"] === "page-invalidate" && dsm !== "transfers")
  );
}

function side(line: Line): "sent" | "received" {
  return line["type"] === "send" || line["role"] === "source" ? "sent" : "received";
}

/** Bytes sent or received by position n. A cut's bytes are those of its channel that are messages at all. */
function offsets(
  process: Process,
  n: number,
  which: "sent" | "received",
  channel: string,
  dsm: string,
): Set<number> {
  const found = new Set<number>();
  for (const line of process.lines.slice(0, n)) {
    if (isMessage(line, dsm) && line["channel"] === channel && side(line) === which)
      for (let k = line["begin"]; k < line["end"]; k += 1) found.add(k);
    for (let k = 0; k < (line["cut"]?.[which]?.[channel] ?? 0); k += 1)
      if (!process.ignored.get(channel)?.has(k)) found.add(k);
  }
  return found;
}

/** What the sender's stable lines cover: all it sent before the last one. */
function loggedOffsets(process: Process, channel: string, dsm: string): Set<number> {
  const stable = process.lines.findLastIndex((line) => line["type"] === "stable");
  return offsets(process, Math.max(0, stable), "sent", channel, dsm);
}

function channelEnds(file: readonly Line[]): Map<string, { sender?: string; receiver?: string }> {
  const ends = new Map<string, { sender?: string; receiver?: string }>();
  const put = (channel: string, which: "sent" | "received", process: string, sure: boolean): void => {
    const end = ends.get(channel) ?? {};
    ends.set(channel, end);
    const key = which === "sent" ? "sender" : "receiver";
    if (sure || end[key] === undefined) end[key] = process;
  };
  for (const line of file) {
    if (line["begin"] < line["end"]) put(line["channel"], side(line), line["process"], true);
    for (const which of ["sent", "received", "seen"] as const)
      for (const [channel, end] of Object.entries(line["cut"]?.[which] ?? {}))
        put(channel, which === "sent" ? "sent" : "received", line["process"], (end as number) > 0);
  }
  return new Map([...ends].sort(([a], [b]) => (a < b ? -1 : 1)));
}

function entry(process: Process): Verdict["line"][number] {
  const { name, lines, at } = process;
  if (goesOn(process)) return { process: name, checkpoint: null, position: at, action: "continue" };
  if (at === 0) return { process: name, checkpoint: 0, position: 0, action: "initial" };
  const from = base(process, at);
  const checkpoint = from === 0 ? 0 : lines[from - 1]?.["checkpoint"];
  return {
    process: name,
    checkpoint,
    position: at,
    action: isCheckpoint(process, at) ? "restore" : "replay",
  };
}

function transit(
  processes: readonly Process[],
  ends: ReadonlyMap<string, { sender?: string; receiver?: string }>,
  dsm: string,
): Verdict["inTransit"] {
  const found: Verdict["inTransit"] = [];
  for (const [channel, { sender, receiver }] of ends) {
    const from = processes.find(({ name }) => name === sender);
    const to = processes.find(({ name }) => name === receiver);
    if (from === undefined) continue;
    const received = to === undefined ? new Set() : offsets(to, to.at, "received", channel, dsm);
    const left = [...offsets(from, from.at, "sent", channel, dsm)]
      .filter((n) => !received.has(n))
      .sort((a, b) => a - b);
    for (const n of left) {
      const last = found.at(-1);
      if (last?.channel === channel && last.end === n) last.end = n + 1;
      else found.push({ channel, from: from.name, to: receiver ?? null, begin: n, end: n + 1 });
    }
  }
  return found;
}

function summary(processes: readonly Process[]): Pick<Verdict, "outcome" | "evidence"> {
  let [gaps, healed, lost] = [0, 0, 0];
  for (const { lines } of processes) {
    const lastCut = lines.findLastIndex((line) => line["cut"] !== undefined);
    lines.forEach((line, at) => {
      if (line["type"] !== "gap") return;
      lost += line["lost"] ?? 0;
      if (at < lastCut) healed += 1;
      else gaps += 1;
    });
  }
  return { outcome: gaps > 0 ? "tainted" : "clean", evidence: { gaps, lost, healed } };
}
