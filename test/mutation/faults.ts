/**
 * Faults to put into the engine, one at a time: a piece of source text and what stands there instead. Every one of them changes some
 * answer; none only changes speed.
 */
export interface Fault {
  readonly what: string;
  /** Below src. */
  readonly file: string;
  readonly find: string;
  readonly replace: string;
}

export const ENGINE_FAULTS: readonly Fault[] = [
  // What stands in an effective history.
  {
    what: "a rollback leaves undone stable lines in force",
    file: "graph/evidence/evidence-builder.ts",
    find: "raw.segmentStable.data[segment] = hidden ? raw.segmentFirstStable.at(segment) : 0;",
    replace: "",
  },
  {
    what: "a rollback leaves undone gaps in force",
    file: "graph/evidence/evidence-builder.ts",
    find: "    raw.segmentGap.data[segment] = hidden ? kept : 0;",
    replace: "",
  },
  {
    what: "a rollback line has no position of its own",
    file: "graph/evidence/evidence-builder.ts",
    find: "raw.length.data[process] = kept + 1;",
    replace: "raw.length.data[process] = kept;",
  },
  {
    what: "the last gap of a segment counts, not the first",
    file: "graph/evidence/evidence-builder.ts",
    find: "if (raw.segmentGap.at(segment) === 0) {",
    replace: "{",
  },
  {
    what: "page transfers have their ends swapped",
    file: "graph/evidence/evidence-builder.ts",
    find: 'event.role === "source" ? SENT : RECEIVED',
    replace: 'event.role === "source" ? RECEIVED : SENT',
  },
  {
    what: "cuts do not heal",
    file: "graph/evidence/evidence-builder.ts",
    find: "(event.cut === undefined ? 0 : HAS_CUT)",
    replace: "0",
  },
  {
    what: "a rollback undoes its own target's line",
    file: "graph/evidence/assemble-evidence.ts",
    find: "raw.rowLine.at(row) > (kept",
    replace: "raw.rowLine.at(row) > 1 + (kept",
  },
  {
    what: "the first line after a rollback counts as undone",
    file: "graph/evidence/assemble-evidence.ts",
    find: "raw.rollbackRow.at(rollback) > row",
    replace: "raw.rollbackRow.at(rollback) >= row",
  },
  {
    what: "rows that a rollback undid stay",
    file: "graph/evidence/assemble-evidence.ts",
    find: "Math.min(kept[process] as number, raw",
    replace: "Math.max(kept[process] as number, raw",
  },
  // Restore points.
  {
    what: "any checkpoint heals a gap",
    file: "graph/evidence/restore-points.ts",
    find: "if ((flags[s] as number) & HAS_CUT) openGap = 0;",
    replace: "openGap = 0;",
  },
  {
    what: "unusable checkpoints are restored",
    file: "graph/evidence/restore-points.ts",
    find: "if ((flags[s] as number) & USABLE && openGap === 0) {",
    replace: "if (openGap === 0) {",
  },
  {
    what: "checkpoints after an open gap are restored",
    file: "graph/evidence/restore-points.ts",
    find: "if ((flags[s] as number) & USABLE && openGap === 0) {",
    replace: "if ((flags[s] as number) & USABLE) {",
  },
  {
    what: "the position after a gap line can be replayed",
    file: "graph/evidence/restore-points.ts",
    find: "firstGap === 0 ? next - 1 : firstGap - 1",
    replace: "firstGap === 0 ? next - 1 : firstGap",
  },
  {
    what: "replay goes on through a gap",
    file: "graph/evidence/restore-points.ts",
    find: "if (!gapSinceBase && replayable >= at)",
    replace: "if (replayable >= at)",
  },
  {
    what: "the first stable line counts, not the last",
    file: "graph/evidence/restore-points.ts",
    find: "for (let s = (start[process + 1] as number) - 1; s >= (start[process] as number); s -= 1)",
    replace: "for (let s = start[process] as number; s < (start[process + 1] as number); s += 1)",
  },
  {
    what: "an end behind a gap counts as certain",
    file: "graph/evidence/restore-points.ts",
    find: "      openGap = firstGap;",
    replace: "",
  },
  {
    what: "the range of restore points that starts at a position is missed",
    file: "graph/evidence/restore-points.ts",
    find: "return firstAbove(first, (start[process] as number) + 1, start[process + 1] as number, position) - 1;",
    replace:
      "return firstAbove(first, (start[process] as number) + 1, start[process + 1] as number, position - 1) - 1;",
  },
  {
    what: "the base is the newest checkpoint, usable or not",
    file: "graph/evidence/restore-points.ts",
    find: "  while (((flags[segment] as number) & USABLE) === 0) segment -= 1;",
    replace: "",
  },
  {
    what: "the base is the checkpoint before the right one",
    file: "graph/evidence/restore-points.ts",
    find: "firstAbove(line, (start[process] as number) + 1, start[process + 1] as number, position) - 1;",
    replace:
      "firstAbove(line, (start[process] as number) + 1, start[process + 1] as number, position - 1) - 1;",
  },
  {
    what: "an interval lacks the line that ends it",
    file: "graph/evidence/restore-points.ts",
    find: "if (lastPoint >= line) {",
    replace: "if (lastPoint > line) {",
  },
  {
    what: "an interval starts one line early, at the restore point itself",
    file: "graph/evidence/restore-points.ts",
    find: "this.#first = lastPoint + 1;",
    replace: "this.#first = lastPoint;",
  },
  // Lines per byte.
  {
    what: "a send that only a cut knows counts early",
    file: "graph/evidence/first-lines.ts",
    find: "receives ? (this.#windows[segment] as number) : checkpoint",
    replace: "this.#windows[segment] as number",
  },
  {
    what: "a receive that only a cut knows counts late",
    file: "graph/evidence/first-lines.ts",
    find: "receives ? (this.#windows[segment] as number) : checkpoint",
    replace: "checkpoint",
  },
  {
    what: "a receive that only a cut knows counts before the gap it was lost in",
    file: "graph/evidence/first-lines.ts",
    find: "windows[s] = firstGap === 0 ? first : firstGap;",
    replace: "windows[s] = first;",
  },
  {
    what: "a gap before the last cut counts again",
    file: "graph/evidence/first-lines.ts",
    find: "        firstGap = 0;\n",
    replace: "",
  },
  {
    what: "an event after a cut wins over the cut",
    file: "graph/evidence/first-lines.ts",
    find: "eventLine !== 0 && eventLine <= checkpoint",
    replace: "eventLine !== 0",
  },
  {
    what: "of overlapping rows the last line counts",
    file: "graph/evidence/first-lines.ts",
    find: "if ((items[parent] as number) <= value) break;",
    replace: "if ((items[parent] as number) >= value) break;",
  },
  {
    what: "invalidates count with the model `transfers`",
    file: "graph/evidence/match-ranges.ts",
    find: 'dsm === "transfers" ? invalidated(evidence, channel) : null',
    replace: "null",
  },
  {
    what: "invalidates of the receiver are overlooked",
    file: "graph/evidence/match-ranges.ts",
    find: "row < (start[channel * 2 + 2] as number); row += 1)\n    if (inv",
    replace: "row < (start[channel * 2 + 1] as number); row += 1)\n    if (inv",
  },
  // Dependencies.
  {
    what: "dependencies have their ends swapped",
    file: "graph/evidence/dependencies.ts",
    find: "list.push(sender, sentFrom, receiver, knownFrom,",
    replace: "list.push(receiver, knownFrom, sender, sentFrom,",
  },
  {
    what: "what nobody sent may be kept",
    file: "graph/evidence/dependencies.ts",
    find: "if (sent === 0) pushBase(base, receiver, knownFrom, 2 * match + ORPHAN);",
    replace: "if (sent === 0) continue;",
  },
  {
    what: "the reverse rule is missing",
    file: "graph/evidence/dependencies.ts",
    find: 'if (policy === "logged" && sender >= 0)',
    replace: 'if (policy !== "any" && policy !== "logged")',
  },
  {
    what: "the line after the last stable line counts as logged",
    file: "graph/evidence/dependencies.ts",
    find: "sent <= stable)",
    replace: "sent <= stable + 1)",
  },
  {
    what: "an unlogged send to nobody known is kept",
    file: "graph/evidence/dependencies.ts",
    find: "      pushBase(base, sender, sentFrom, cause);\n",
    replace: "",
  },
  {
    what: "what was never received may be lost on its way to a process that failed",
    file: "graph/evidence/dependencies.ts",
    find: "(evidence.length[receiver] as number) + 1 : received",
    replace: "(evidence.length[receiver] as number) : received",
  },
  {
    what: "joined dependencies keep the greatest target",
    file: "graph/evidence/dependencies.ts",
    find: "if (this.targetLine.at(last) <= targetLine) return;",
    replace: "if (this.targetLine.at(last) >= targetLine) return;",
  },
  {
    what: "messages of a process to itself are ignored",
    file: "graph/evidence/dependencies.ts",
    find: "if (sourceProcess === targetProcess && sourceLine <= targetLine) return;",
    replace: "if (sourceProcess === targetProcess) return;",
  },
  // The graph and its propagation.
  {
    what: "a group of dependencies keeps the greatest target",
    file: "graph/evidence/dependency-graph.ts",
    find: "(targetLine[to] as number) <= list.targetLine.at(edge)",
    replace: "(targetLine[to] as number) >= list.targetLine.at(edge)",
  },
  {
    what: "dependencies stay unsorted",
    file: "graph/evidence/dependency-graph.ts",
    find: "if (risen) return;",
    replace: "return;",
  },
  {
    what: "groups of different source lines are joined",
    file: "graph/evidence/dependency-graph.ts",
    find: "        group = size;\n",
    replace: "",
  },
  {
    what: "the first undone line's own dependencies are skipped",
    file: "graph/rollback/propagate-rollback.ts",
    find: ">= (undone[process] as number)) {",
    replace: "> (undone[process] as number)) {",
  },
  {
    what: "of several marks of a process the last one counts",
    file: "graph/rollback/propagate-rollback.ts",
    find: "Math.min(undone[process] as number, marks.line[mark] as number)",
    replace: "marks.line[mark] as number",
  },
  {
    what: "a process is followed once only",
    file: "graph/rollback/propagate-rollback.ts",
    find: "    waiting[process] = 0;\n",
    replace: "",
  },
  {
    what: "survivors continue behind a gap",
    file: "graph/rollback/rollback-model.ts",
    find: "if (openGap[i] !== 0) process.push(i);",
    replace: "if (openGap[i] === 0xffffffff) process.push(i);",
  },
  {
    what: "a failure undoes its last restore point too",
    file: "graph/rollback/rollback-model.ts",
    find: "model.evidence.length[process] as number) + 1;",
    replace: "model.evidence.length[process] as number);",
  },
  {
    what: "the first undone line is kept",
    file: "graph/rollback/rollback-model.ts",
    find: "return line - 1;",
    replace: "return line;",
  },
  // The answer.
  {
    what: "what is received on the last line kept is in transit",
    file: "graph/rollback/in-transit.ts",
    find: "received <= keptReceived",
    replace: "received < keptReceived",
  },
  {
    what: "what is sent on the last line kept is not in transit",
    file: "graph/rollback/in-transit.ts",
    find: "sent > keptSent",
    replace: "sent >= keptSent",
  },
  {
    what: "in-transit ranges are not joined",
    file: "graph/rollback/in-transit.ts",
    find: "if (matches.begin[match] !== end) {",
    replace: "if (matches.begin[match] !== end || end > 0) {",
  },
  {
    what: "in-transit ranges are joined over a hole",
    file: "graph/rollback/in-transit.ts",
    find: "if (matches.begin[match] !== end) {",
    replace: "if (begin < 0) {",
  },
  {
    what: "the last in-transit range of a channel is forgotten",
    file: "graph/rollback/in-transit.ts",
    find: "    }\n    if (begin >= 0) found.push({ ...ends, begin, end });",
    replace: "    }",
  },
  {
    what: "replay is called restore",
    file: "graph/rollback/line-entry.ts",
    find: 'line[base] === position ? "restore" : "replay"',
    replace: '"restore"',
  },
  {
    what: "one gap is clean",
    file: "compute/compute.ts",
    find: "evidence.gaps > 0 ?",
    replace: "evidence.gaps > 1 ?",
  },
  {
    what: "the base is named by its order, not its index",
    file: "graph/rollback/line-entry.ts",
    find: "checkpoint: index[base] as number",
    replace: "checkpoint: base - (evidence.segments.start[process] as number)",
  },
  {
    what: "without a failed set nobody failed",
    file: "compute/compute.ts",
    find: "options.failed ?? evidence.processes",
    replace: "options.failed ?? []",
  },
  // Witnesses.
  {
    what: "a witness names the other end's line",
    file: "graph/rollback/witness.ts",
    find: "(orphan ? matches.known[match] : matches.sent[match])",
    replace: "(orphan ? matches.sent[match] : matches.known[match])",
  },
  {
    what: "a witness names the wrong channel",
    file: "graph/rollback/witness.ts",
    find: "return firstAbove(start, 1, start.length - 1, match) - 1;",
    replace: "return firstAbove(start, 1, start.length - 1, match - 1) - 1;",
  },
  {
    what: "printed chains stand on their heads",
    file: "graph/rollback/witness.ts",
    find: "because: chain.reverse()",
    replace: "because: chain",
  },
  // What was looked at, what is outside, what is healed.
  {
    what: "looking is forgotten",
    file: "graph/evidence/dependencies.ts",
    find: "const known = matches.known[match] as number;",
    replace: "const known = matches.received[match] as number;",
  },
  {
    what: "what was looked at is no longer in transit",
    file: "graph/rollback/in-transit.ts",
    find: "const received = matches.received[match] as number;",
    replace: "const received = matches.known[match] as number;",
  },
  {
    what: "what a cut has seen counts for nothing",
    file: "graph/evidence/evidence-builder.ts",
    find: "if (offset <= received) return;",
    replace: "return;",
  },
  {
    what: "peeks tell nothing of what a cut has seen",
    file: "graph/evidence/first-lines.ts",
    find: "leastLines(received, looked, into);",
    replace: "leastLines(received, received, into);",
  },
  {
    what: "channels outside make dependencies",
    file: "graph/evidence/match-ranges.ts",
    find: "if (evidence.outside[channel] === -1) {",
    replace: "{",
  },
  {
    what: "undone outside lines hold no longer",
    file: "graph/evidence/evidence-builder.ts",
    find: "    raw.rollbackProcess.push(process);",
    replace:
      "    raw.outsideOf.data.forEach((holder, channel) => {\n      if (channel < raw.outsideOf.length && holder === process) raw.outsideOf.data[channel] = NOBODY;\n    });\n    raw.rollbackProcess.push(process);",
  },
  {
    what: "inputs and outputs are lost from the position on, not behind it",
    file: "graph/rollback/outside-world.ts",
    find: "if (all.line.at(at) <= keptOf(process)) continue;",
    replace: "if (all.line.at(at) < keptOf(process)) continue;",
  },
  {
    what: "inputs are taken for outputs",
    file: "graph/rollback/outside-world.ts",
    find: "this.#inputs = exchanges(evidence, dsm, RECEIVER);",
    replace: "this.#inputs = exchanges(evidence, dsm, SENDER);",
  },
  {
    what: "gaps after the last cut are healed, too",
    file: "graph/evidence/assemble-evidence.ts",
    find: "    let open = true;",
    replace: "    let open = false;",
  },
];

/** Faults of the verifier: each makes it accept some wrong answer, or reject some right one. */
export const VERIFIER_FAULTS: readonly Fault[] = [
  {
    what: "what was looked at may be unsent",
    file: "graph/verify/verify-line.ts",
    find: "const orphans = subtract(seen, sent);",
    replace: "const orphans = subtract(received, sent);",
  },
  {
    what: "channels outside are judged like others",
    file: "graph/verify/verify-line.ts",
    find: "    if (evidence.outside[number] !== -1) return;",
    replace: "",
  },
  {
    what: "lost inputs are not counted again",
    file: "graph/verify/verify-line.ts",
    find: "if (!sameRanges(answer.lostInputs, inputs))",
    replace: "if (inputs.length < 0)",
  },
  {
    what: "unsayable outputs are not counted again",
    file: "graph/verify/verify-line.ts",
    find: "if (!sameRanges(answer.unsayable, outputs))",
    replace: "if (outputs.length < 0)",
  },
  {
    what: "orphans are accepted",
    file: "graph/verify/verify-line.ts",
    find: "if (orphans.length > 0)",
    replace: "if (orphans.length < 0)",
  },
  {
    what: "unreplayable bytes in transit are accepted",
    file: "graph/verify/verify-line.ts",
    find: "if (lost.length > 0)",
    replace: "if (lost.length < 0)",
  },
  {
    what: "lines that nothing forces are accepted",
    file: "graph/verify/verify-line.ts",
    find: "if (forced[number] !== expected)",
    replace: "if ((forced[number] as number) < expected)",
  },
  {
    what: "failed processes may continue",
    file: "graph/verify/verify-line.ts",
    find: "if (failed.has(entry.process)) reject",
    replace: "if (entry.process === '') reject",
  },
  {
    what: "survivors may continue anywhere",
    file: "graph/verify/verify-line.ts",
    find: "if (checkpoint !== null || position !== length)",
    replace: "if (checkpoint !== null)",
  },
  {
    what: "any action and base will do",
    file: "graph/verify/verify-line.ts",
    find: "if (action !== expected || checkpoint !== base.index)",
    replace: "if (action === 'continue')",
  },
  {
    what: "in-transit ranges may be missing",
    file: "graph/verify/verify-line.ts",
    find: "if (listed !== answer.inTransit.length)",
    replace: "if (listed > answer.inTransit.length)",
  },
  {
    what: "in-transit ranges may end anywhere",
    file: "graph/verify/verify-line.ts",
    find: "    listed.end === actual.end;",
    replace: "    listed.end >= actual.begin;",
  },
  {
    what: "an orphan step holds whatever its sender keeps",
    file: "graph/verify/verify-line.ts",
    find: "sent !== null && sent > (before as StepBefore).atMost ? known : wrong()",
    replace: "known",
  },
  {
    what: "an unreplayable step holds for logged bytes",
    file: "graph/verify/verify-line.ts",
    find: "if (process !== sender || sent === null || byte.logged) return wrong();",
    replace: "if (process !== sender || sent === null) return wrong();",
  },
  {
    what: "gaps do not count",
    file: "graph/verify/verify-histories.ts",
    find: "        certain = false;\n",
    replace: "",
  },
  {
    what: "gaps and lost events are not counted again",
    file: "graph/verify/verify-line.ts",
    find: "if (told.gaps !== gaps || told.healed !== healed || told.lost !== lost)",
    replace: "if (told.gaps < 0)",
  },
];
