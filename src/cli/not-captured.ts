/** Why processes can't be followed any more, in words and with what to do: what `status`, `checkpoint` and `explain` say of verdicts. */

import { onceInReach, openClosedLog } from "../logs/closed-log.ts";
import { appDirectory, resolveHome } from "../logs/home.ts";
import { hasCode } from "../model/errors.ts";
import { gapReason } from "../model/gap-reasons.ts";
import { printable } from "../model/printable.ts";
import type { PeerNote, SharedSocket, StoredProcess } from "../model/stored-process.ts";
import { type UnseenChannel, unseenText } from "../model/unseen-channel.ts";

/** One process of an application and the reasons of its present life. */
export interface NotCaptured {
  readonly app: string;
  readonly process: string;
  readonly uncaptured: readonly string[];
  readonly shared?: SharedSocket;
  readonly peers?: readonly PeerNote[];
  readonly unseen?: readonly UnseenChannel[];
}

/** One sentence a process and reason; what two use together is told once. */
export function notCapturedText(processes: readonly NotCaptured[]): string {
  const told = new Set<string>();
  const lines = processes.flatMap((one) =>
    one.uncaptured.flatMap((reason) => {
      const channels = one.unseen?.filter((channel) => channel.reason === reason && !channel.tied) ?? [];
      if (channels.length > 0) return channels.flatMap((channel) => unseenSentence(channel, told));
      const sentence = reason === "shared-socket" ? sharedSentence(one, told) : sentenceOf(one, reason);
      return sentence === undefined ? [] : [sentence];
    }),
  );
  const peers = processes.flatMap(({ process, peers = [] }) =>
    peers.map((one) => peerSentence(process, one)),
  );
  const tied = processes.flatMap((one) => tiedSentences(one, told));
  const until =
    "Until then checkpoints of these processes carry no cut, and no line keeps what they did after the last one before.";
  return [...lines, ...(lines.length === 0 ? [] : [until]), ...tied, ...peers]
    .map((line) => `${line}\n`)
    .join("");
}

function peerSentence(process: string, { what, peer, rule = "", found }: PeerNote): string {
  const [name, other] = [printable(process), printable(peer)];
  const address = printable(addressOf(peer));
  switch (what) {
    case "foreign":
      return `${name} talks with ${other}: another application is outside, and does not go back with this one.`;
    case "doubted":
      return `${name} talks with ${other}, and nobody was found there${rule === "" ? "" : `; ${printable(rule)}, so that it may lead to a process here`}: it counts as of the application. For new connections say which it is: run --outside ${address}, or run --inside ${address}.`;
    case "relay":
      return `${name} exchanges data with ${other}, another machine, which does so with another process, too, and may carry it between them. If it does not, say so for new connections: run --outside ${address}.`;
    case "datagrams":
      return `${name} has exchanged datagrams with ${other} (${printable(rule)}), or may have: nobody knows which of them have arrived.`;
    case "unheld":
      return `${name} has sent by ${other}: --hold-output does not hold that, so that it may know more than any line keeps.`;
    case "stuck":
      return `${name} sends by ${other}: that waits for good, as nobody can tell what covers it.`;
    case "contradicted":
      return `${name} talks with ${other}, ${contradiction(printable(rule), found)}.`;
  }
}

/** What the option says, who was found, and which of the two counts. `found` is absent in logs of older versions. */
function contradiction(rule: string, found: PeerNote["found"]): string {
  const who = printable(found?.who ?? "");
  switch (found?.is) {
    case "recorded":
      return `which ${rule} says is outside, but ${who} is there, a recorded process of this application: ${who} counts, not the option`;
    case "foreign":
      return `which ${rule} says is of the application, but ${who} is there, a process of another application: the option counts`;
    case "stranger":
      return `which ${rule} says is of the application, but ${who} is there, and nobody records it: the option counts, so that no line keeps what came from it; record it, too`;
    case undefined:
      return `which ${rule} says is of the application, but who was found there is not: the option counts`;
  }
}

/** Without a port. */
function addressOf(peer: string): string {
  return /^\[(.*)\]:\d+$/.exec(peer)?.[1] ?? /^([^:]*):\d+$/.exec(peer)?.[1] ?? peer;
}

function sentenceOf({ process }: NotCaptured, reason: string): string {
  const { what, advice } = gapReason(reason);
  return `${printable(process)} ${what}: ${advice}.`;
}

/** Undefined: the other process's sentence says it. */
function sharedSentence({ process, shared }: NotCaptured, told: Set<string>): string | undefined {
  const { what, advice } = gapReason("shared-socket");
  if (shared?.other === undefined) {
    const socket = shared === undefined ? "" : ` (${printable(shared.channel)})`;
    return `${printable(process)} ${what}${socket}: ${advice}.`;
  }
  const pair = [process, shared.other].sort().join("\0");
  if (told.has(pair)) return undefined;
  told.add(pair);
  return `${printable(process)} and ${printable(shared.other)} use one socket together (${printable(shared.channel)}): ${advice}.`;
}

/** None: the other process's sentence says it. */
function unseenSentence(channel: UnseenChannel, told: Set<string>): string[] {
  const { process, other, reason, what } = channel;
  const thing = [...[process, other].sort(), reason, what].join("\0");
  if (told.has(thing)) return [];
  told.add(thing);
  return [
    `${printable(unseenText(channel))}; what they exchange so is not recorded: ${gapReason(reason).advice}.`,
  ];
}

/** Nothing is wrong with them; but who goes back with whom should be known. */
function tiedSentences({ uncaptured, unseen = [] }: NotCaptured, told: Set<string>): string[] {
  return unseen.flatMap((channel) => {
    if (channel.tied !== true || uncaptured.includes(channel.reason)) return [];
    const thing = [...[channel.process, channel.other].sort(), channel.what].join("\0");
    if (told.has(thing)) return [];
    told.add(thing);
    return [
      `${printable(unseenText(channel))}: they go back together, and a checkpoint of one is taken with the other.`,
    ];
  });
}

/** Of the application in all these homes (`--log`), those that can't be followed now. */
export async function notCapturedIn(log: readonly string[] | undefined, app: string): Promise<NotCaptured[]> {
  const known = await Promise.all(
    (log ?? [undefined]).map((one) => onceInReach(() => notCapturedOf(resolveHome(one), app))),
  );
  return known.flat().flatMap(({ app: name, process, uncaptured, shared, unseen }) => {
    if (uncaptured.length === 0) return [];
    const details = {
      ...(shared === undefined ? {} : { shared }),
      ...(unseen === undefined ? {} : { unseen }),
    };
    return [{ app: name, process, uncaptured, ...details }];
  });
}

/** Of an application, from the collector of the home or the log that nobody holds; none where neither knows it. */
async function notCapturedOf(home: string, app: string): Promise<NotCaptured[]> {
  const { connectCollector } = await import("../client/client.ts");
  const collector = await connectCollector(home);
  if (collector === undefined) return inLog(home, app);
  try {
    const known = (await collector.processes()).filter((one) => one.app === app);
    return known.length > 0 ? known : await inLog(home, app);
  } finally {
    collector.close();
  }
}

async function inLog(home: string, app: string): Promise<NotCaptured[]> {
  try {
    const reader = await openClosedLog(appDirectory(home, app));
    try {
      const names = (reader.getState("processes") ?? []) as readonly string[];
      return names.flatMap((process) => {
        const stored = reader.getState(`process/${process}`) as StoredProcess | undefined;
        if (stored === undefined) return [];
        const { uncaptured, shared, unseen, peers = [] } = stored;
        return [
          {
            app,
            process,
            uncaptured,
            peers,
            ...(shared === undefined ? {} : { shared }),
            ...(unseen === undefined ? {} : { unseen }),
          },
        ];
      });
    } finally {
      await reader.close();
    }
  } catch (error) {
    if (hasCode(error, "RL_UNKNOWN_APP") || hasCode(error, "RL_LOCKED")) return [];
    throw error;
  }
}
