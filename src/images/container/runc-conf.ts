/**
 * What CRIU is told below a runc that somebody else starts: `/etc/criu/runc.conf`, which runc hands to every CRIU. It is the machine's: ours
 * stands there for a moment, behind what it held before, and one of us at a time. What a crash leaves there goes with the next use, or by
 * `doctor --sweep`; until then others' containers have the options, too, and a script that leaves them alone.
 */
import {
  existsSync,
  linkSync,
  mkdirSync,
  readFileSync,
  renameSync,
  rmdirSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { dirname } from "node:path";
import { lockedBy } from "../../host/wait-for-lock.ts";
import { hasCode, RecoveryLineError } from "../../model/errors.ts";
import { call, native } from "../../native/binding.ts";

export const RUNC_CONF = "/etc/criu/runc.conf";
const LOCK = "/run/recovery-line-runc-conf.lock";
const MARK = "# Of recovery-line, while it takes or restores one image.\n";
/** What the machine had there. */
const KEPT = `${RUNC_CONF}.before-recovery-line`;
const NEW = `${RUNC_CONF}.of-recovery-line`;

/** `lines`: options of CRIU. Returns what takes them away again. Throws RL_TIMEOUT. */
export async function placeRuncConf(lines: readonly string[], limitMs: number): Promise<() => void> {
  const lock = await locked(performance.now() + limitMs);
  try {
    takeAway();
    mkdirSync(dirname(RUNC_CONF), { recursive: true });
    const before = existsSync(RUNC_CONF) ? readFileSync(RUNC_CONF, "utf8") : "";
    rmSync(KEPT, { force: true });
    if (before !== "") linkSync(RUNC_CONF, KEPT); // the file itself, or the link that it is
    const all = [MARK, before, before === "" || before.endsWith("\n") ? "" : "\n"];
    writeFileSync(NEW, [...all, ...lines.map((line) => `${line}\n`)].join(""), { mode: 0o600 });
    renameSync(NEW, RUNC_CONF);
  } catch (error) {
    native().unlock(lock);
    throw error;
  }
  let placed = true;
  return () => {
    if (!placed) return;
    placed = false;
    try {
      takeAway();
    } finally {
      native().unlock(lock);
    }
  };
}

/** Nobody uses it, and it is ours. */
export function isRuncConfLeft(): boolean {
  try {
    if (!readFileSync(RUNC_CONF, "utf8").startsWith(MARK)) return false;
    native().unlock(lockIt());
    return true;
  } catch {
    return false; // there is none, somebody is at it, or it is root's to say
  }
}

/** Throws RL_LOCKED where somebody uses it. */
export function takeRuncConfAway(): void {
  const lock = lockIt();
  try {
    takeAway();
  } finally {
    native().unlock(lock);
  }
}

function lockIt(): number {
  writeFileSync(LOCK, "", { flag: "a", mode: 0o600 });
  return call(LOCK, () => native().lock(LOCK));
}

/** Behind the lock: ours goes, what was there before is there again. */
function takeAway(): void {
  if (!existsSync(RUNC_CONF) || !readFileSync(RUNC_CONF, "utf8").startsWith(MARK)) return;
  if (existsSync(KEPT)) {
    renameSync(KEPT, RUNC_CONF);
    return;
  }
  rmSync(RUNC_CONF);
  try {
    rmdirSync(dirname(RUNC_CONF));
  } catch {} // it holds something else
}

async function locked(deadlineMs: number): Promise<number> {
  try {
    return await lockedBy(deadlineMs, lockIt);
  } catch (error) {
    if (!hasCode(error, "RL_LOCKED")) throw error;
    throw new RecoveryLineError(
      "RL_TIMEOUT",
      `${RUNC_CONF} is in another restart's or checkpoint's use`,
      "Wait for that one.",
      error,
    );
  }
}
