/** Links of a witness chain as sentences: why one process's undoing undoes what another did. */

import { printable } from "./printable.ts";
import type { WitnessLink } from "./recovery-line.ts";

export function sentenceOf(link: WitnessLink): string {
  const who = printable(link.process);
  const from = link.from === undefined ? "" : printable(link.from);
  const what = `[${link.begin}, ${link.end}) of channel ${printable(link.channel ?? "")}`;
  const at = link.position === undefined ? "" : ` at its position ${link.position}`;
  const [did, act] = link.looked === true ? ["looked at", "look"] : ["received", "receive"];
  switch (link.rule) {
    case "failed":
      return `${who} failed: what it did after its last restore point is lost.`;
    case "gap":
      return `Events of ${who} are missing${at}: nothing after them is certain.`;
    case "orphan":
      return `${who} ${did} ${what}${at}; the send is among what ${from} undoes, so ${who} undoes the ${act} and all after it.`;
    case "never-sent":
      return `${who} ${did} ${what}${at}, which nobody sent as far as the evidence goes: it can't keep the ${act}.`;
    case "unreplayable":
      return from === ""
        ? `${who} sent ${what}${at}; no log can replay it and no receiver is known: it can't keep the send.`
        : `${who} sent ${what}${at}; the receive is among what ${from} undoes and no log can replay it, so ${who} undoes the send and all after it.`;
  }
}

/** Numbered, one a line. Chains longer than `most` lose their middle. */
export function chainText(chain: readonly WitnessLink[], most = 40): string {
  const lines = chain.map((link, i) => `  ${i + 1}. ${sentenceOf(link)}\n`);
  const hidden = lines.length - most;
  if (hidden > 0) lines.splice(most / 2, hidden, `  ... ${hidden} more ...\n`);
  return lines.join("");
}
