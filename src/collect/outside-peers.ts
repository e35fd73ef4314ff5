/**
 * Who is at the other end of a process's connections (native/bpf/peer.bpf.h, unix_peer.bpf.h), and what follows:
 *
 *   a program that nobody records              outside: `outside` rows for the channels of the connection
 *   the same, but it took data of one          a relay: it may carry messages between them. No row for this connection, and a verdict
 *   process of the application and gave        for all that it has exchanged data with. A connection without data, such as a probe whether
 *   data to another                            somebody is there, carries none; nor does who only listens to all, or only talks to them
 *   a process of another application           outside; `status` says which
 *   a process of this application              inside: nothing
 *   nobody was found                           at an address of another machine, where the application has no node: outside, or a relay;
 *                                              else in doubt: nothing, and `status` says so (unfound-peers.ts)
 *
 * What the user says of an address (`run --outside`, `--inside`) comes before all that, but for two processes of the application. Where it
 * is the opposite of what was found, `status` says both.
 *
 * A row holds for the whole channel wherever it stands, so it is appended as the kernel tells. What is told twice is one.
 */
import { isIPv6 } from "node:net";
import { EVENT_KIND } from "../format/event-columns.ts";
import { RingFlag } from "../format/ring-layout.ts";
import type { RecordColumns } from "../format/ring-record.ts";
import type { Surroundings } from "../host/surroundings.ts";
import { channelName } from "../model/channel-names.ts";
import { MAX_PEER_ADDRESSES, MAX_STRANGERS } from "../model/limits.ts";
import type { PeerNote } from "../model/stored-process.ts";
import type { AppLog } from "./app-log.ts";
import { addressOf, type PackedAddress, packedAddress } from "./peer-address.ts";
import { type PeerFound, PeerNames, programAt } from "./peer-names.ts";
import { PeerRules, type Said } from "./peer-rules.ts";
import type { ProcessBuffer } from "./process-buffer.ts";
import { type ConnectionEnd, type UnfoundPeer, UnfoundPeers } from "./unfound-peers.ts";

/** A program that nobody records, or what is known of one on another machine; plain values for msgpackr. */
export interface StoredStranger {
  /** 0: it is on another machine. */
  readonly pid: number;
  /** When that began, ns of CLOCK_BOOTTIME: both together name it. */
  readonly began: number;
  /** Of another machine: its address, and the port that it serves at; 0: a client, which may be any program there. */
  readonly host?: string;
  readonly port?: number;
  /** It was seen to hold a connection; else to close them. */
  readonly holds: boolean;
  /** Processes that have sent it data. */
  readonly took: readonly string[];
  /** Processes that it has sent data to. */
  readonly gave: readonly string[];
}

/** As logs of older versions have it: data was not told apart from connections. */
interface OldStranger extends Omit<StoredStranger, "took" | "gave"> {
  readonly spoke: boolean;
  readonly processes: readonly string[];
}

interface Address {
  readonly host: PackedAddress;
  readonly port: number;
  /** This end has connected; of whom connected to it the port says nothing. */
  readonly connected: boolean;
}

function addressAndPort(records: RecordColumns, row: number): Address {
  return {
    host: packedAddress(records, row),
    port: records.lostBefore[row]!,
    connected: (records.flags[row]! & RingFlag.OPEN) !== 0,
  };
}

/** For people. */
function textOf({ host: packed, port, connected }: Address): string {
  const host = addressOf(packed);
  if (!connected) return host;
  return isIPv6(host) ? `[${host}]:${port}` : `${host}:${port}`;
}

type Recorded = (cgroupId: number) => ProcessBuffer | undefined;

export class OutsidePeers {
  readonly #bootId: string;
  #strangers = new Map<string, StoredStranger>();
  /** They are not what the log's state says. */
  changed = false;

  /** What the user says of addresses. */
  rules = new PeerRules();
  /** False: the application runs on several nodes, so that most of those in doubt are of it. */
  readonly tellsDoubts: boolean;
  /** By the channel that the process's end sends on. */
  readonly #addresses = new Map<string, Address>();
  /** Connections that rows tell of, by the same; more rows of one would do no harm. */
  readonly #told = new Map<ProcessBuffer, { readonly incarnation: number; readonly channels: Set<string> }>();
  #toldCount = 0;
  readonly unfound = new UnfoundPeers();
  /** Of those that are outside. */
  readonly names = new PeerNames();

  constructor(bootId: string, tellsDoubts: boolean) {
    this.#bootId = bootId;
    this.tellsDoubts = tellsDoubts;
  }

  stored(): StoredStranger[] {
    return [...this.#strangers.values()];
  }

  load(stored: readonly (StoredStranger | OldStranger)[]): void {
    this.#strangers = new Map(stored.map((one) => [keyOf(one), withData(one)]));
    this.#forgetTold();
    this.changed = false;
  }

  /** A PEER record. `recorded`: the process with a cgroup id. Returns the number of gap rows it made. */
  take(process: ProcessBuffer, records: RecordColumns, row: number, recorded: Recorded): number {
    const unix = (records.flags[row]! & RingFlag.UNIX) !== 0;
    const sends = channelName(unix, this.#bootId, records.local[row]!, records.remote[row]!);
    if ((records.flags[row]! & RingFlag.WRITE) !== 0) {
      if (this.#addresses.size >= MAX_PEER_ADDRESSES) this.#addresses.clear();
      this.#addresses.set(sends, addressAndPort(records, row));
      return 0;
    }
    return this.#judge(process, records, row, recorded, sends);
  }

  #judge(
    process: ProcessBuffer,
    records: RecordColumns,
    row: number,
    recorded: Recorded,
    sends: string,
  ): number {
    const [pid, began] = [records.length[row]!, records.begin[row]!];
    const address = this.#addresses.get(sends);
    if (address !== undefined) this.#addresses.delete(sends);
    const end = endIn(process, records, row);
    const said =
      address && this.rules.any ? this.rules.says(addressOf(address.host), address.port) : undefined;
    const peer = pid === 0 && began !== 0 ? recorded(began) : undefined;
    this.unfound.delete(end);
    if (address && said && contradicts(said, kindOf(process, pid, peer))) {
      const found = pid !== 0 ? strangerFound(pid, began) : processFound(process, peer!);
      process.state.meet({ what: "contradicted", peer: textOf(address), rule: said.rule, found });
    }
    if (pid === 0 && began !== 0 && (peer === undefined || peer.app === process.app)) return 0;
    if (said?.side === "inside") return 0;
    if (pid === 0 && peer === undefined && said === undefined) {
      if (address !== undefined && this.tellsDoubts)
        this.unfound.add({
          ...end,
          host: addressOf(address.host),
          port: address.port,
          text: textOf(address),
        });
      return 0;
    }
    if (peer !== undefined) process.state.meet({ what: "foreign", peer: `${peer.app.name}/${peer.name}` });
    if (pid !== 0 && said === undefined) {
      const stranger = this.#meet({ pid, began }, process.name, end.flags);
      if (carries(stranger, process.name)) return judge(process.app, stranger);
    }
    const who = {
      ...{ pid, began },
      ...(peer === undefined ? {} : { process: `${peer.app.name}/${peer.name}` }),
      ...(address === undefined ? {} : { place: () => textOf(address) }),
    };
    this.#outside(process, end, who, sends);
    return 0;
  }

  /**
   * Who is at addresses where nobody was found. Returns the number of gap rows it made. `app`: whose peers these are.
   * Throws what `ownerOf` throws.
   */
  async settleUnfound(app: AppLog, here: Surroundings): Promise<number> {
    let gaps = 0;
    for (const { peer, verdict } of await this.unfound.settle(app, this.rules, this.#bootId, here)) {
      const process = app.processes.get(peer.process);
      if (process === undefined) continue;
      if (verdict.is === "doubted" && process.state.incarnation === peer.incarnation)
        process.state.meet({
          what: "doubted",
          peer: peer.text,
          ...(verdict.why === undefined ? {} : { rule: verdict.why }),
        });
      if (verdict.is === "far") gaps += this.#far(process, peer);
      if (verdict.is === "outside") this.#outside(process, peer, foundAt(peer));
    }
    return gaps;
  }

  /** At an address of another machine: whoever it is there may be whoever else is, but for two services. */
  #far(process: ProcessBuffer, peer: UnfoundPeer): number {
    const { host, port, flags } = peer;
    const served = (flags & RingFlag.OPEN) === 0 ? 0 : port;
    this.#meet({ pid: 0, began: 0, host, port: served }, process.name, flags);
    const maybeOne = [...this.#strangers.values()].filter(
      (one) => one.host === host && (one.port === served || one.port === 0 || served === 0),
    );
    const stranger = {
      took: maybeOne.flatMap(({ took }) => took),
      gave: maybeOne.flatMap(({ gave }) => gave),
    };
    if (carries(stranger, process.name)) return judge(process.app, stranger, host);
    this.#outside(process, peer, foundAt(peer));
    return 0;
  }

  #meet(who: Who, process: string, flags: number): StoredStranger {
    const key = keyOf(who);
    const known = this.#strangers.get(key) ?? { ...who, holds: false, took: [], gave: [] };
    const met: StoredStranger = {
      ...known,
      holds: known.holds || (flags & RingFlag.END) === 0,
      took: (flags & RingFlag.SINK) === 0 ? known.took : withName(known.took, process),
      gave: (flags & RingFlag.SOURCE) === 0 ? known.gave : withName(known.gave, process),
    };
    if (met.holds === known.holds && met.took === known.took && met.gave === known.gave) return known;
    this.#strangers.delete(key);
    this.#strangers.set(key, met);
    this.changed = true;
    if (this.#strangers.size > MAX_STRANGERS) this.#forgetOne();
    return met;
  }

  /** Whoever holds none: most come once. */
  #forgetOne(): void {
    const oldest = [...this.#strangers].find(([, { holds }]) => !holds) ?? [...this.#strangers][0]!;
    this.#strangers.delete(oldest[0]);
  }

  /** What is received of an opening or ending never comes into the log, as nobody sends it there: those have no row. */
  #outside(
    process: ProcessBuffer,
    { local, remote, flags }: ConnectionEnd,
    found: PeerFound,
    sends = channelName((flags & RingFlag.UNIX) !== 0, this.#bootId, local, remote),
  ): void {
    if ((flags & RingFlag.SOURCE) !== 0) this.names.gave(found, process.name);
    if (!this.#isNews(process, sends)) return;
    const unix = (flags & RingFlag.UNIX) !== 0;
    if (unix && process.state.holdLimitMs > 0)
      process.state.meet({ what: "unheld", peer: "AF_UNIX, to a program that is not recorded" });
    const receives = channelName(unix, this.#bootId, remote, local);
    this.names.add([sends, receives], found);
    const connected = (flags & RingFlag.OPEN) !== 0;
    const [opening, ending] = [`${connected ? sends : receives}/open`, `${sends}/end`];
    for (const channel of [sends, receives, ending]) pushOutside(process, channel);
    if (connected) pushOutside(process, opening);
    process.app.messages.outside([opening, ending, `${receives}/end`]);
    process.app.touch();
  }

  #isNews(process: ProcessBuffer, sends: string): boolean {
    const { incarnation } = process.state;
    const known = this.#told.get(process);
    if (known?.incarnation === incarnation && known.channels.has(sends)) return false;
    if (this.#toldCount >= MAX_PEER_ADDRESSES) this.#forgetTold();
    const told = this.#told.get(process);
    if (told?.incarnation === incarnation) told.channels.add(sends);
    else this.#told.set(process, { incarnation, channels: new Set([sends]) });
    this.#toldCount += 1;
    return true;
  }

  #forgetTold(): void {
    this.#told.clear();
    this.#toldCount = 0;
  }
}

function pushOutside({ columns }: ProcessBuffer, channel: string): void {
  columns.pushRange(EVENT_KIND.outside, columns.addChannel(channel), 0, 0, Number.NaN, 0);
}

/** Nobody was found, and the address says enough. */
function foundAt({ text }: UnfoundPeer): PeerFound {
  return { pid: 0, began: 0, place: () => text };
}

type Found = NonNullable<PeerNote["found"]>;

function processFound(process: ProcessBuffer, { app, name }: ProcessBuffer): Found {
  return app === process.app ? { is: "recorded", who: name } : { is: "foreign", who: `${app.name}/${name}` };
}

function strangerFound(pid: number, began: number): Found {
  return { is: "stranger", who: programAt(pid, began) };
}

/** Undefined: nobody was found. */
function kindOf(process: ProcessBuffer, pid: number, peer?: ProcessBuffer): Found["is"] | undefined {
  if (pid !== 0) return "stranger";
  return peer && (peer.app === process.app ? "recorded" : "foreign");
}

/** Of a range that is outside as a whole, processes of the application are none. */
function contradicts({ side, narrow }: Said, is: Found["is"] | undefined): boolean {
  if (is === undefined) return false;
  return side === "inside" ? is !== "recorded" : is === "recorded" && narrow;
}

function endIn({ name, state }: ProcessBuffer, records: RecordColumns, row: number): ConnectionEnd {
  const [local, remote, flags] = [records.local[row]!, records.remote[row]!, records.flags[row]!];
  return { process: name, incarnation: state.incarnation, local, remote, flags };
}

type Who = Pick<StoredStranger, "pid" | "began" | "host" | "port">;

function keyOf({ pid, began, host, port }: Who): string {
  return host === undefined ? `${pid}@${began}` : `${host} ${port}`;
}

function withData(stored: StoredStranger | OldStranger): StoredStranger {
  if (!("processes" in stored)) return stored;
  const { spoke, processes, ...rest } = stored;
  return { ...rest, took: processes, gave: spoke ? processes : [] };
}

function withName(names: readonly string[], name: string): readonly string[] {
  return names.includes(name) ? names : [...names, name];
}

type Carrier = Pick<StoredStranger, "took" | "gave">;

/** It may carry messages between this process and another. */
function carries({ took, gave }: Carrier, process: string): boolean {
  const isRelay = took.some((from) => gave.some((to) => to !== from));
  return isRelay && (took.includes(process) || gave.includes(process));
}

/** A verdict for all that it exchanges data with. `host`: where it is, on another machine. */
function judge(app: AppLog, { took, gave }: Carrier, host?: string): number {
  let gaps = 0;
  for (const name of new Set([...took, ...gave])) {
    const process = app.processes.get(name);
    if (!process?.state.live) continue;
    if (host !== undefined) process.state.meet({ what: "relay", peer: host });
    gaps += process.verdict("relay");
  }
  return gaps;
}
