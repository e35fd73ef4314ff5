/** What this process may do beside its user's rights: capabilities(7), by their bits. */
import { readFileSync } from "node:fs";

const BITS = {
  CAP_NET_ADMIN: 12,
  CAP_SYS_ADMIN: 21,
  CAP_SYS_RESOURCE: 24,
  CAP_PERFMON: 38,
  CAP_BPF: 39,
} as const;

/** Bits of all that are effective. */
export function capabilities(): number[] {
  const status = readFileSync("/proc/self/status", "utf8");
  const effective = BigInt(`0x${/^CapEff:\s*([0-9a-f]+)/m.exec(status)?.[1] ?? "0"}`);
  return [...Array(64).keys()].filter((bit) => ((effective >> BigInt(bit)) & 1n) === 1n);
}

export function hasCapability(name: keyof typeof BITS): boolean {
  return capabilities().includes(BITS[name]);
}
