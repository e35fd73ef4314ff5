/** Output that waits in the kernel for the line (`run --hold-output`): whose it is, and how far it may go. Who raises the marks: daemon/hold-watch.ts. */

import { isIPv6 } from "node:net";
import type { NodeNames, WaitingOutput } from "../model/collector-answers.ts";
import { RecoveryLineError } from "../model/errors.ts";
import type { EventSource, Release, UnheldOutput } from "../model/event-source.ts";
import type { PeerNote } from "../model/stored-process.ts";
import type { CollectPump } from "./collect-pump.ts";

export class HeldOutputs {
  readonly #pump: CollectPump;
  readonly #source: EventSource;
  readonly #node: NodeNames | undefined;
  /** Count of what was held when nothing waited at the last look; undefined: something did. */
  #heldBefore: number | undefined;

  constructor(pump: CollectPump, node: NodeNames | undefined) {
    this.#pump = pump;
    this.#source = pump.source;
    this.#node = node;
  }

  /** What the cgroup sends to outside waits from now on, for good. Throws RL_NOT_SUPPORTED. */
  hold(cgroupId: number): void {
    if (this.#node !== undefined && this.#node.all.length > 1)
      throw new RecoveryLineError(
        "RL_NOT_SUPPORTED",
        "output can't be held by this collector: the lines of several nodes are not known on one",
        "Start the process without --hold-output.",
      );
    this.#source.holdOutput(cgroupId);
  }

  /** Is there anybody whose output is held? */
  get any(): boolean {
    for (const { processes } of this.#pump.apps.values())
      for (const { state } of processes.values()) if (state.live && state.holdLimitMs > 0) return true;
    return false;
  }

  /** Connections of recorded processes whose output waits, longest first. */
  waiting(): WaitingOutput[] {
    const held = this.#source.heldCount();
    if (held === this.#heldBefore) return []; // nothing waited then
    const waiting = this.#source
      .outputs()
      .filter(({ free, wanted, released }) => !free && wanted > released)
      .sort((a, b) => a.since - b.since);
    this.#heldBefore = waiting.length === 0 ? held : undefined;
    return waiting.flatMap((output) => {
      const found = this.#pump.byCgroup(output.cgroupId);
      if (found === undefined) return [];
      const said = found.app.peers.rules.says(output.host, output.port);
      const place = { app: found.app.name, process: found.name, limitMs: found.state.holdLimitMs };
      return [{ ...output, ...place, inside: said?.side === "inside" }];
    });
  }

  /** Marks rise; whoever waits tries to send at once. */
  release(outputs: readonly Release[]): void {
    this.#source.release(outputs);
  }

  /** What goes out although its process's output is held, or never will, stands with the process from now on; what is news. */
  noteUnheld(): { readonly app: string; readonly process: string; readonly note: PeerNote }[] {
    return this.#source.takeUnheld().flatMap((one) => {
      const found = this.#pump.byCgroup(one.cgroupId);
      if (found === undefined) return [];
      const [app, process, note] = [found.app.name, found.name, unheldNote(one)];
      return this.note(app, process, note) ? [{ app, process, note }] : [];
    });
  }

  /** Something that people should know of a process whose log is open; false: it is known. */
  note(appName: string, name: string, note: PeerNote): boolean {
    const app = this.#pump.apps.get(appName);
    const state = app?.processes.get(name)?.state;
    const before = state?.peers;
    state?.meet(note);
    if (state?.peers === before) return false;
    app?.touch();
    return true;
  }

  /** Milliseconds since a time of the records' clock. */
  msSince(ns: number): number {
    return Math.max(0, (this.#source.now() - ns) / 1e6);
  }
}

function unheldNote({ kind, host, port }: UnheldOutput): PeerNote {
  const peer = isIPv6(host) ? `[${host}]:${port}` : `${host}:${port}`;
  switch (kind) {
    case "datagram":
      return { what: "unheld", peer: "datagrams (UDP and all that is not TCP)" };
    case "socket":
      return { what: "unheld", peer: `a socket that was made in another cgroup, to ${peer}` };
    case "nameless":
      return { what: "stuck", peer: "a connection that the capture has no name for" };
    case "overflow":
      return { what: "stuck", peer: "connections beyond the number that may wait" };
  }
}
