/** Peers of what a line undoes of the outside world, in answers. */
import { expect, test } from "vitest";
import { withPeers } from "../../src/cli/peer-names.ts";
import { outsideText } from "../../src/terminal/outside-report.ts";

const entry = (process: string, action: "continue" | "restore" | "initial") => ({
  process,
  action,
  checkpoint: action === "continue" ? null : 0,
  position: 0,
});
const LISTS = {
  lostInputs: [],
  unsayable: [{ channel: "tcp:1-2", process: "p", begin: 0, end: 9 }],
};
const PEERS = new Map([
  ["tcp:1-2", { channel: "tcp:1-2", name: "process 7 (proxy)", gave: ["p", "q", "r"] }],
]);

test("who keeps what the peer of an unsayable output told it is named with it", () => {
  const line = [entry("p", "restore"), entry("q", "continue"), entry("r", "initial")];
  const named = withPeers(LISTS, line, PEERS);
  expect(named.unsayable).toEqual([
    { channel: "tcp:1-2", process: "p", begin: 0, end: 9, peer: "process 7 (proxy)", passedOnTo: ["q"] },
  ]);
  expect(outsideText(named)).toContain(
    "q may know what p undoes: process 7 (proxy) took its outputs and has given data to q. Where it passes them on, say --failed p,q, or record it.",
  );
});

test("nobody is named where all begin anew, or the peer gave nothing", () => {
  const anew = [entry("p", "restore"), entry("q", "initial"), entry("r", "initial")];
  expect(withPeers(LISTS, anew, PEERS).unsayable[0]).not.toHaveProperty("passedOnTo");
  const silent = new Map([["tcp:1-2", { channel: "tcp:1-2", name: "x", gave: [] }]]);
  expect(outsideText(withPeers(LISTS, anew, silent))).not.toContain("may know");
});
