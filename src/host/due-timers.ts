/**
 * Periodic timers (timerfd) that are due when an image is taken. The kernel starts one anew when its ticks are read, and until then shows
 * nothing of what is left; CRIU takes that for a timer that is off, and brings it back off.
 */
import { readdirSync, readFileSync } from "node:fs";
import { native } from "../native/binding.ts";

/** Of one descriptor; the interval in ns. */
export interface DueTimer {
  readonly pid: number;
  readonly fd: number;
  readonly interval: string;
  /** Times it was due and was not read. */
  readonly ticks: string;
}

/** The processes stand still. */
export function dueTimers(pids: readonly number[]): DueTimer[] {
  return pids.flatMap((pid) =>
    readdirSync(`/proc/${pid}/fdinfo`).flatMap((fd) => {
      const due = dueTimer(textOf(`/proc/${pid}/fdinfo/${fd}`));
      return due === undefined ? [] : [{ pid, fd: Number(fd), ...due }];
    }),
  );
}

function textOf(path: string): string {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return ""; // a kernel thread of io_uring, closed
  }
}

/** From /proc/PID/fdinfo/FD: on by its interval, due by its ticks, and nothing left. Undefined for all others. */
export function dueTimer(text: string): Pick<DueTimer, "interval" | "ticks"> | undefined {
  const ticks = /^ticks:\s*(\d+)$/m.exec(text)?.[1];
  const left = /^it_value:\s*\((\d+), (\d+)\)$/m.exec(text);
  const every = /^it_interval:\s*\((\d+), (\d+)\)$/m.exec(text);
  if (ticks === undefined || left === null || every === null) return undefined;
  const interval = nanoseconds(every);
  if (BigInt(ticks) === 0n || nanoseconds(left) > 0n || interval === 0n) return undefined;
  return { interval: String(interval), ticks };
}

function nanoseconds([, seconds, rest]: readonly string[]): bigint {
  return BigInt(seconds ?? 0) * 1_000_000_000n + BigInt(rest ?? 0);
}

/** They are on again, with the ticks that were not read; due next after one interval. Throws what the kernel answers. */
export function setAgain(timers: readonly DueTimer[]): void {
  for (const { pid, fd, interval, ticks } of timers)
    native().setTimer(pid, fd, BigInt(interval), BigInt(ticks));
}
