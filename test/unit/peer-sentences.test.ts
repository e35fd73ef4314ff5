/** What `status` says of who is at the other end: in doubt with the option that decides it, and both sides of a contradiction. */
import { expect, test } from "vitest";
import { notCapturedText } from "../../src/cli/not-captured.ts";
import type { PeerNote } from "../../src/model/stored-process.ts";

const said = (...peers: PeerNote[]): string =>
  notCapturedText([{ app: "shop", process: "web", uncaptured: [], peers }]);

test.each([
  ["an address", { peer: "10.1.2.3" }, "10.1.2.3"],
  ["an address and port", { peer: "10.1.2.3:5432" }, "10.1.2.3"],
  ["IPv6", { peer: "[fd00::1]:5432" }, "fd00::1"],
  ["with a reason", { peer: "10.1.2.3:5432", rule: "this host translates addresses" }, "10.1.2.3"],
])("in doubt it is not outside, and both options that decide it are named: %s", (_, note, address) => {
  const text = said({ what: "doubted", ...note });
  expect(text).toContain(`web talks with ${note.peer}, and nobody was found there`);
  expect(text).toContain(
    `it counts as of the application. For new connections say which it is: run --outside ${address}, or run --inside ${address}.`,
  );
  if ("rule" in note)
    expect(text).toContain(`there; ${note.rule}, so that it may lead to a process here: it`);
  expect(text).not.toContain("Until then checkpoints"); // no verdict
});

test.each<[NonNullable<PeerNote["found"]>, string, string, string]>([
  [{ is: "recorded", who: "db" }, "--outside 10.1.2.3:5432", "says is outside, but db is there", "db counts"],
  [
    { is: "foreign", who: "bank/db" },
    "--inside 10.0.0.0/8",
    "says is of the application, but bank/db is there, a process of another application",
    "the option counts",
  ],
  [
    { is: "stranger", who: "process 7 (nc)" },
    "--inside 10.0.0.0/8",
    "says is of the application, but process 7 (nc) is there, and nobody records it",
    "the option counts",
  ],
])(
  "an option that contradicts what was found: both are named, and which counts: %j",
  (found, rule, is, counts) => {
    const text = said({ what: "contradicted", peer: "10.1.2.3:5432", rule, found });
    expect(text).toContain(`web talks with 10.1.2.3:5432, which ${rule} ${is}`);
    expect(text).toContain(counts);
  },
);

test("whoever may carry messages, is another application, or goes out unheld is named with what to do", () => {
  expect(said({ what: "relay", peer: "10.1.2.3" })).toMatch(
    /10\.1\.2\.3, another machine.*run --outside 10\.1\.2\.3/,
  );
  expect(said({ what: "foreign", peer: "bank/db" })).toContain(
    "web talks with bank/db: another application is outside",
  );
  const log = { what: "contradicted", peer: "10.1.2.3", rule: "--inside 10.0.0.0/8" } as const; // of an older version
  expect(said(log)).toMatch(
    /--inside 10\.0\.0\.0\/8 says is of the application, but who was found there is not/,
  );
});
