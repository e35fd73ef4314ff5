import { execFileSync } from "node:child_process";
import { expect, test } from "vitest";
import * as layout from "../../src/format/ring-layout.ts";
import { compile } from "./c-build.ts";

/** What ring-layout.ts says, under the names of the header. */
function mirrored(): Record<string, number> {
  const entries: [string, number][] = Object.entries(layout.RECORD_FIELDS).map(([k, v]) => [`field.${k}`, v]);
  for (const [name, value] of Object.entries(layout.RingKind)) entries.push([`RECOVERY_${name}`, value]);
  for (const [name, value] of Object.entries(layout.RingFlag)) entries.push([`RECOVERY_FLAG_${name}`, value]);
  for (const [name, value] of Object.entries(layout.RingVerdict))
    entries.push([`RECOVERY_VERDICT_${name}`, value]);
  for (const [name, value] of Object.entries(layout.Told)) entries.push([`CAPTURE_${name}`, value]);
  entries.push(
    ["RECOVERY_KIND_COUNT", layout.RING_KIND_COUNT],
    ["RECOVERY_RING_LAYOUT_VERSION", layout.RING_LAYOUT_VERSION],
    ["RECOVERY_RECORD_BYTES", layout.RECORD_BYTES],
    ["RECOVERY_SLOT_BYTES", layout.SLOT_BYTES],
  );
  return Object.fromEntries(entries);
}

test("ring-layout.ts equals recovery_ring.h, field by field and name by name", () => {
  const program = compile("ring_layout", ["test/native/c/ring_layout.c"]);
  expect(mirrored()).toEqual(JSON.parse(execFileSync(program, { encoding: "utf8" })));
});

test("names stand at their numbers", () => {
  for (const [name, value] of Object.entries(layout.RingVerdict))
    expect(layout.VERDICT_REASONS[value]).toBe(name.toLowerCase().replace("_", "-"));
  for (const [name, value] of Object.entries(layout.RingKind))
    expect(layout.RING_KIND_NAMES[value]).toBe(name.toLowerCase().replace("_", "-"));
});
