/**
 * When a program that starts from its command can take connections (`run --ready`), and in which order several of them start.
 *
 *     port:7001        something in its cgroup listens on that TCP port
 *     file:/run/db.pid the file is there, and was not when the program was let go, or is another one now
 *     exec:"CMD"       a shell's command ends with status 0; it runs outside of the process, each time anew
 */

import { once } from "node:events";
import { statSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { RecoveryLineError } from "../model/errors.ts";
import type { ProcessCgroup } from "./cgroups.ts";
import { listenersOf } from "./open-connections.ts";
import { spawn } from "./spawn.ts";

/** Longest wait for one of them, and time between two looks, in ms. */
const READY_LIMIT_MS = 30_000;
const LOOK_MS = 20;

export type ReadyRule =
  | { readonly kind: "port"; readonly port: number }
  | { readonly kind: "file"; readonly path: string }
  | { readonly kind: "exec"; readonly command: string };

/** Throws RL_USAGE for what is none. */
export function readyRule(text: string): ReadyRule {
  const [, kind, what = ""] = /^(port|file|exec):(.+)$/s.exec(text) ?? [];
  if (kind === "port" && /^\d{1,5}$/.test(what) && Number(what) > 0 && Number(what) < 65_536)
    return { kind, port: Number(what) };
  if (kind === "file" && what.startsWith("/")) return { kind, path: what };
  if (kind === "exec") return { kind, command: what };
  throw new RecoveryLineError(
    "RL_USAGE",
    `--ready ${JSON.stringify(text)} is no rule`,
    "It is port:PORT, file:/ABSOLUTE/PATH or exec:COMMAND.",
  );
}

/** One process that waits before its first instruction. */
export interface Waiting {
  readonly process: string;
  readonly cgroup: ProcessCgroup;
  /** Absent: nobody waits for it. */
  readonly ready?: string;
}

/** Lets one go and waits until it is ready. False: it ended before, or did not become ready in time. */
export async function letGoUntilReady({ cgroup, ready }: Waiting): Promise<boolean> {
  const rule = ready === undefined ? undefined : readyRule(ready);
  const before = rule?.kind === "file" ? identityOf(rule.path) : undefined;
  if (cgroup.freezing) cgroup.thaw();
  if (rule === undefined) return true;
  const deadlineMs = performance.now() + READY_LIMIT_MS;
  while (cgroup.populated && performance.now() < deadlineMs) {
    if (await isReady(rule, cgroup, before)) return true;
    await sleep(LOOK_MS);
  }
  return false;
}

async function isReady(rule: ReadyRule, cgroup: ProcessCgroup, before: string | undefined): Promise<boolean> {
  if (rule.kind === "port") return listenersOf(cgroup.pids()).some(({ port }) => port === rule.port);
  if (rule.kind === "file") {
    const now = identityOf(rule.path);
    return now !== undefined && now !== before;
  }
  const child = spawn("/bin/sh", ["-c", rule.command], { stdio: "ignore" });
  const [code] = (await once(child, "exit")) as [number | null];
  return code === 0;
}

function identityOf(path: string): string | undefined {
  const stat = statSync(path, { throwIfNoEntry: false });
  return stat === undefined ? undefined : `${stat.dev}:${stat.ino}:${stat.mtimeMs}`;
}

/**
 * Those with a rule first, each after those of them that it connects to; then all others. What connects in a ring starts in the order given.
 * `connects`: [who connected, to whom].
 */
export function startOrder<T extends Pick<Waiting, "process" | "ready">>(
  waiting: readonly T[],
  connects: readonly (readonly [string, string])[],
): T[] {
  const first = waiting.filter(({ ready }) => ready !== undefined);
  const ordered: T[] = [];
  const begun = new Set<string>();
  const add = (one: T): void => {
    if (begun.has(one.process)) return;
    begun.add(one.process);
    for (const other of first)
      if (connects.some(([from, to]) => from === one.process && to === other.process)) add(other);
    ordered.push(one);
  };
  for (const one of first) add(one);
  return [...ordered, ...waiting.filter(({ ready }) => ready === undefined)];
}
