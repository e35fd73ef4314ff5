/**
 * Space-time drawings as events: a row a process, its history from left to right.
 *
 *     p  --a>--[1]---------?--{b>}--[2+]      a> sends message a, >a receives it; [1] checkpoint, [2+] with its cut, (1) unusable
 *     q  ------->a--S-->b--R1--c#>--d!>       S stable, ? a gap, {..} happened but is not in the evidence, R1 rolled back to 1
 *                                             c#> copies a page (>#c arrives), d!> invalidates one (>!d arrives)
 *     r  --^a--~x-->x                         ^a looks at message a, ~x says that channel x is outside
 *
 * Every message is a channel of its own and one byte long. Columns mean nothing: only the order within a row does.
 */
import type { Event } from "../../src/model/event.ts";

const ROW = /^([a-z]\w*) {2,}-/;
const TOKEN = /\{[^}]*\}|\[\d+\+?\]|\(\d+\+?\)|R\d+|[a-z]\d*[#!]?>|>[#!]?[a-z]\d*|[\^~][a-z]\d*|S|\?/g;

export function isRow(line: string): boolean {
  return ROW.test(line);
}

/** Events of all rows, one process after another. Throws at a character that says nothing. */
export function eventsOf(rows: readonly string[]): Event[] {
  return rows.flatMap((row) => {
    const [head = "", process = ""] = ROW.exec(row) ?? [];
    const drawn = row.slice(head.length - 1);
    const unread = drawn.replace(TOKEN, "").replaceAll("-", "").trim();
    if (unread !== "") throw new Error(`"${unread}" in row ${process} means nothing`);
    return new Row(process).events(drawn.match(TOKEN) ?? []);
  });
}

class Row {
  readonly #process: string;
  /** What has truly happened, lost or not: what a cut reads from the process. */
  readonly #sent = new Set<string>();
  readonly #received = new Set<string>();
  readonly #looked = new Set<string>();
  /** Both sets as they were at each checkpoint in effect. */
  readonly #saved = new Map<number, [string[], string[]]>([[0, [[], []]]]);

  constructor(process: string) {
    this.#process = process;
  }

  events(tokens: readonly string[]): Event[] {
    return tokens.flatMap((token) => {
      if (!token.startsWith("{")) return [this.#event(token)];
      for (const lost of token.slice(1, -1).match(TOKEN) ?? []) this.#event(lost);
      return [];
    });
  }

  #event(token: string): Event {
    const process = this.#process;
    if (token === "S") return { type: "stable", process };
    if (token === "?") return { type: "gap", process };
    const number = Number(/\d+/.exec(token)?.[0]);
    if (token.startsWith("R")) return this.#rollback(number);
    if (/^[[(]/.test(token)) return this.#checkpoint(number, token);
    const channel = /[a-z]\d*/.exec(token)?.[0] as string;
    if (token.startsWith("~")) return { type: "outside", process, channel };
    if (token.startsWith("^")) {
      this.#looked.add(channel);
      return { type: "peek", process, channel, begin: 0, end: 1 };
    }
    const sends = token.endsWith(">");
    (sends ? this.#sent : this.#received).add(channel);
    const range = { process, channel, begin: 0, end: 1 };
    const page = { page: channel, role: sends ? ("source" as const) : ("destination" as const) };
    if (token.includes("#")) return { type: "page-copy", ...range, ...page };
    if (token.includes("!")) return { type: "page-invalidate", ...range, ...page };
    return { type: sends ? "send" : "receive", ...range };
  }

  #checkpoint(checkpoint: number, token: string): Event {
    this.#saved.set(checkpoint, [[...this.#sent], [...this.#received]]);
    const offsets = (channels: Set<string>) => new Map([...channels].map((channel) => [channel, 1]));
    const seen = offsets(this.#looked);
    const cut = {
      sent: offsets(this.#sent),
      received: offsets(this.#received),
      ...(seen.size > 0 ? { seen } : {}),
    };
    const plain = {
      type: "checkpoint",
      process: this.#process,
      checkpoint,
      usable: token.startsWith("["),
    } as const;
    return token.includes("+") ? { ...plain, cut } : plain;
  }

  #rollback(checkpoint: number): Event {
    const [sent = [], received = []] = this.#saved.get(checkpoint) ?? [];
    for (const [set, kept] of [
      [this.#sent, sent],
      [this.#received, received],
    ] as const) {
      set.clear();
      for (const channel of kept) set.add(channel);
    }
    return { type: "rollback", process: this.#process, checkpoint };
  }
}
