import { readFileSync } from "node:fs";

/** Random identifier of this boot, 36 characters. */
export function bootId(): string {
  return readFileSync("/proc/sys/kernel/random/boot_id", "utf8").trim();
}
