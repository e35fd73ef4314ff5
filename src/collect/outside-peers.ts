/**
 * Who is at the other end of a process's connections (native/bpf/peer.bpf.h, unix_peer.bpf.h), and what follows:
 *
 *   a program that nobody records              outside: `outside` rows for the channels of the connection
 *   the same, but it took data of one          a relay: it may carry messages between them. No row for this connection, and a verdict
 *   process of the application and gave        for all that it has exchanged data with. A connection without data, such as a probe whether
 *   data to another                            somebody is there, carries none; nor does who only listens to all, or only talks to them
 *   a process of another application           outside; `status` says which
 *   a process of this application              inside: nothing
 *   nobody was found                           in doubt: nothing, and `status` says so
 *
 * What the user says of an address (`run --outside`, `--inside`) comes before all that, but for two processes of the application.
 *
 * A row holds for the whole channel wherever it stands, so it is appended as the kernel tells. What is told twice is one.
 */
import { isIPv6 } from "node:net";
import { RingFlag } from "../format/ring-layout.ts";
import type { RecordColumns } from "../format/ring-record.ts";
import { channelName } from "../model/channel-names.ts";
import { MAX_PEER_ADDRESSES, MAX_STRANGERS } from "../model/limits.ts";
import { addressOf } from "./peer-address.ts";
import { PeerRules } from "./peer-rules.ts";
import type { ProcessBuffer } from "./process-buffer.ts";

/** A program that nobody records; plain values for msgpackr. */
export interface StoredStranger {
  readonly pid: number;
  /** When that began, ns of CLOCK_BOOTTIME: both together name it. */
  readonly began: number;
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
  readonly host: string;
  readonly port: number;
  /** For people: of whom connected the port says nothing. */
  readonly text: string;
}

function addressAndPort(records: RecordColumns, row: number): Address {
  const host = addressOf(records, row);
  const port = records.lostBefore[row]!;
  const connected = (records.flags[row]! & RingFlag.OPEN) !== 0;
  const shown = isIPv6(host) ? `[${host}]:${port}` : `${host}:${port}`;
  return { host, port, text: connected ? shown : host };
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
  readonly #addresses = new Map<string, Address>();
  /** Connections that rows tell of; more rows of one would do no harm. */
  readonly #told = new Set<string>();

  constructor(bootId: string, tellsDoubts: boolean) {
    this.#bootId = bootId;
    this.tellsDoubts = tellsDoubts;
  }

  stored(): StoredStranger[] {
    return [...this.#strangers.values()];
  }

  load(stored: readonly (StoredStranger | OldStranger)[]): void {
    this.#strangers = new Map(stored.map((one) => [keyOf(one), withData(one)]));
    this.#told.clear();
    this.changed = false;
  }

  /** A PEER record. `recorded`: the process with a cgroup id. Returns the number of gap rows it made. */
  take(process: ProcessBuffer, records: RecordColumns, row: number, recorded: Recorded): number {
    const key = `${process.name} ${records.local[row]!} ${records.remote[row]!}`;
    if ((records.flags[row]! & RingFlag.WRITE) !== 0) {
      if (this.#addresses.size >= MAX_PEER_ADDRESSES) this.#addresses.clear();
      this.#addresses.set(key, addressAndPort(records, row));
      return 0;
    }
    const address = this.#addresses.get(key);
    this.#addresses.delete(key);
    return this.#judge(process, records, row, recorded, address);
  }

  #judge(
    process: ProcessBuffer,
    records: RecordColumns,
    row: number,
    recorded: Recorded,
    address: Address | undefined,
  ): number {
    const [pid, began] = [records.length[row]!, records.begin[row]!];
    const said = address && this.rules.says(address.host, address.port);
    const peer = pid === 0 && began !== 0 ? recorded(began) : undefined;
    if (pid === 0 && began !== 0 && (peer === undefined || peer.app === process.app)) return 0;
    if (said?.side === "inside") {
      if (pid !== 0 || peer !== undefined)
        process.state.meet({ what: "contradicted", peer: address!.text, rule: said.rule });
      return 0;
    }
    if (pid === 0 && peer === undefined && said === undefined) {
      if (address !== undefined && this.tellsDoubts)
        process.state.meet({ what: "doubted", peer: address.text });
      return 0;
    }
    if (peer !== undefined) process.state.meet({ what: "foreign", peer: `${peer.app.name}/${peer.name}` });
    if (pid !== 0 && said === undefined) {
      const stranger = this.#meet(pid, began, process.name, records.flags[row]!);
      if (carries(stranger, process.name)) return judge(process, stranger);
    }
    this.#outside(process, records, row);
    return 0;
  }

  #meet(pid: number, began: number, process: string, flags: number): StoredStranger {
    const key = keyOf({ pid, began });
    const known = this.#strangers.get(key) ?? { pid, began, holds: false, took: [], gave: [] };
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
  #outside(process: ProcessBuffer, records: RecordColumns, row: number): void {
    const [local, remote, flags] = [records.local[row]!, records.remote[row]!, records.flags[row]!];
    const key = `${process.name} ${process.state.incarnation} ${local} ${remote}`;
    if (this.#told.has(key)) return;
    if (this.#told.size >= MAX_PEER_ADDRESSES) this.#told.clear();
    this.#told.add(key);
    const unix = (flags & RingFlag.UNIX) !== 0;
    if (unix && process.state.holdLimitMs > 0)
      process.state.meet({ what: "unheld", peer: "AF_UNIX, to a program that is not recorded" });
    const sends = channelName(unix, this.#bootId, local, remote);
    const receives = channelName(unix, this.#bootId, remote, local);
    const opening = (flags & RingFlag.OPEN) === 0 ? [] : [`${sends}/open`];
    for (const channel of [sends, receives, `${sends}/end`, ...opening])
      process.columns.push({ type: "outside", process: process.name, channel });
    process.app.touch();
  }
}

function keyOf({ pid, began }: Pick<StoredStranger, "pid" | "began">): string {
  return `${pid}@${began}`;
}

function withData(stored: StoredStranger | OldStranger): StoredStranger {
  if (!("processes" in stored)) return stored;
  const { spoke, processes, ...rest } = stored;
  return { ...rest, took: processes, gave: spoke ? processes : [] };
}

function withName(names: readonly string[], name: string): readonly string[] {
  return names.includes(name) ? names : [...names, name];
}

/** It may carry messages between this process and another. */
function carries({ took, gave }: StoredStranger, process: string): boolean {
  const isRelay = took.some((from) => gave.some((to) => to !== from));
  return isRelay && (took.includes(process) || gave.includes(process));
}

/** A verdict for all that it exchanges data with. */
function judge({ app }: ProcessBuffer, { took, gave }: StoredStranger): number {
  let gaps = 0;
  for (const name of new Set([...took, ...gave])) {
    const process = app.processes.get(name);
    if (process?.state.live) gaps += process.verdict("relay");
  }
  return gaps;
}
