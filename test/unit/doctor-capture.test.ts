import { expect, test } from "vitest";
import { captureRow } from "../../src/cli/doctor.ts";

const variant = (name: string, usable: boolean, reason: string) => ({
  part: "sockets",
  variant: name,
  inUse: false,
  usable,
  reason,
});
const refused = "this kernel refuses the program cut_stored_tcp: Operation not permitted";

test("the best variant that runs, and the kernel's own answer to each better one", () => {
  const tables = variant("tables", true, "In the tables.");
  const row = captureRow("sockets", [variant("storage", false, refused), tables]);
  expect(row).toMatchObject({ name: "capture: sockets", supported: true });
  expect(row.reason).toBe(`tables: In the tables. Better, but not here: storage: ${refused}.`);
  expect(captureRow("sockets", [variant("storage", true, "Best."), tables]).reason).toBe("storage: Best.");
});

test("a part that nothing can do names what was refused", () => {
  const row = captureRow("sockets", [
    variant("storage", false, refused),
    variant("tables", false, "no iter/tcp"),
  ]);
  expect(row.supported).toBe(false);
  expect(row.reason).toBe(`Nothing works. storage: ${refused}. tables: no iter/tcp.`);
});
