/** The capture programs and their ring as an `EventSource`. */

import { existsSync, readFileSync, rmSync } from "node:fs";
import { dirname } from "node:path";
import { bootId } from "../host/boot-id.ts";
import { lockReader, readerFolder } from "../host/reader-lock.ts";
import { RecoveryLineError } from "../model/errors.ts";
import type {
  CaptureCounters,
  CapturePart,
  CutEntry,
  DrainResult,
  EventSource,
  HeldOutput,
  Release,
  SourceCut,
  UnheldOutput,
  UserfaultCounts,
  Verdict,
} from "../model/event-source.ts";
import { COMMIT_INTERVAL_MS } from "../model/limits.ts";
import {
  call,
  type NativeAddon,
  type NativeHandle,
  native,
  type UserfaultHandle,
} from "../native/binding.ts";
import { partOf } from "./kernel-support.ts";
import { RingReader } from "./ring-reader.ts";

export interface KernelSourceOptions {
  /** Directory on a bpffs, e.g. /sys/fs/bpf/recovery-line. */
  readonly pinDir: string;
  /** Size of the ring in bytes, a power of two; used only when it is created. */
  readonly ringBytes: number;
  /** Depth of the process cgroups below the cgroup2 root (root = 0). */
  readonly cgroupLevel: number;
  /**
   * True: page faults that the recorded processes handle by userfaultfd are recorded, too, for as long as this source
   * is open. It costs every system call of the machine a few tens of nanoseconds (docs/userfaultfd.md).
   */
  readonly userfaults?: boolean;
  /**
   * Parts of the capture that are forced, "progress=exit,sockets=tables" (native/loader/capture.h); absent: $RECOVERY_LINE_CAPTURE, else the
   * best that runs here. Used only when the programs are loaded.
   */
  readonly variant?: string;
  /** Socket of an attach helper that opened the capture with these options; absent: it is opened here, which takes rights. */
  readonly helper?: number;
}

/** native/bpf/shared.h, enum unheld_kind, from 1. */
const UNHELD_KINDS = ["datagram", "socket", "nameless", "overflow"] as const;

const NO_COUNTERS: CaptureCounters = { lost: [], recursionMisses: 0 };

/** Of a ring that is only read: nobody knows which connections exist. */
const NO_CUT: SourceCut = { complete: false, pending: false, entries: [] };

/** What was asked for, or what the environment asks for; "": nothing is forced. Throws RL_USAGE for parts or variants that there are not. */
export function captureVariant(asked: string | undefined): string {
  const variant = asked ?? process.env["RECOVERY_LINE_CAPTURE"] ?? "";
  try {
    native().checkVariant(variant);
  } catch (cause) {
    if (cause instanceof RecoveryLineError) throw cause; // no addon
    throw new RecoveryLineError(
      "RL_USAGE",
      `${asked === undefined ? "$RECOVERY_LINE_CAPTURE" : "--capture"} ${variant}: ${(cause as Error).message}`,
      "recovery-line doctor lists the parts of the capture and their variants.",
      cause,
    );
  }
  return variant;
}

/** The kernel's number of the map behind a descriptor: never used twice in one boot. */
function mapId(fd: number): string {
  const id = /^map_id:\s*(\d+)/m.exec(readFileSync(`/proc/self/fdinfo/${fd}`, "utf8"))?.[1];
  if (id === undefined)
    throw new RecoveryLineError("RL_NOT_SUPPORTED", "the kernel does not tell the ring's map id");
  return id;
}

export class KernelSource implements EventSource {
  readonly ringId: string;
  readonly bootId = bootId();
  readonly ringBytes: number;
  /** True if the programs were loaded by this call: what was selected before is forgotten. */
  readonly created: boolean;
  readonly #native: NativeAddon;
  readonly #handle: NativeHandle;
  readonly #reader: RingReader;
  /** Our own programs do so (native/bpf/record.bpf.h); who fills an attached ring, nobody knows. */
  readonly wakesForFirst: boolean;
  readonly #unlock: () => void;
  readonly #captures: boolean;
  #userfaults: UserfaultHandle | undefined;
  #helpedUserfaults = false;
  #closed = false;
  #flushAtMs = 0;

  private constructor(addon: NativeAddon, handle: NativeHandle, captures: boolean, lock: () => () => void) {
    this.#native = addon;
    this.#handle = handle;
    this.#captures = captures;
    this.wakesForFirst = captures;
    this.#reader = new RingReader(addon, handle);
    const state = this.#reader.state();
    this.ringBytes = state.ringBytes;
    this.created = state.created !== 0;
    this.ringId = `${this.bootId}:${mapId(state.fd)}`;
    this.#unlock = lock();
    this.#reader.rewind();
  }

  /**
   * Opens what is pinned in `pinDir`, or loads and pins it, and becomes its only reader.
   * Throws RL_NO_RIGHTS, RL_NOT_SUPPORTED, RL_LOCKED.
   */
  static open(options: KernelSourceOptions): KernelSource {
    const { pinDir, ringBytes, cgroupLevel, helper } = options;
    if (helper !== undefined) return KernelSource.#helped(helper, options);
    const addon = native();
    const handle = call(`capture in ${pinDir}`, () =>
      addon.open(pinDir, ringBytes, cgroupLevel, captureVariant(options.variant)),
    );
    const source = KernelSource.#over(addon, handle, true, () => lockReader(pinDir));
    if (options.userfaults) source.#watchUserfaults();
    return source;
  }

  /** The helper has taken the reader's lock before it gave the ring away; it is let go with the handle. */
  static #helped(socket: number, { pinDir, userfaults = false }: KernelSourceOptions): KernelSource {
    const addon = native();
    const handle = call(`capture in ${pinDir}`, () => addon.openHelped(socket));
    const source = KernelSource.#over(addon, handle, true, () => () => undefined);
    source.#helpedUserfaults = userfaults;
    return source;
  }

  /** Reads a pinned ring that somebody else fills; it selects nothing and counts nothing. */
  static attach(pinnedRing: string, ringBytes: number): KernelSource {
    const addon = native();
    const handle = call(`ring ${pinnedRing}`, () => addon.attach(pinnedRing, ringBytes));
    return KernelSource.#over(addon, handle, false, () => lockReader(dirname(pinnedRing)));
  }

  static #over(
    addon: NativeAddon,
    handle: NativeHandle,
    captures: boolean,
    lock: () => () => void,
  ): KernelSource {
    try {
      return new KernelSource(addon, handle, captures, lock);
    } catch (error) {
      addon.close(handle);
      throw error;
    }
  }

  /**
   * Detaches and unpins everything in `pinDir`; records not yet read are gone.
   * RL_LOCKED while a collector reads it: that one would go on and never know that it records nothing any more.
   */
  static unpin(pinDir: string): void {
    const unlock = existsSync(readerFolder(pinDir)) ? lockReader(pinDir) : undefined;
    try {
      rmSync(readerFolder(pinDir), { recursive: true, force: true });
      call(`unpin ${pinDir}`, () => native().unpin(pinDir));
    } finally {
      unlock?.();
    }
  }

  #watchUserfaults(): void {
    try {
      this.#userfaults = call("userfaultfd", () => this.#native.userfaultOpen(this.#handle));
    } catch (error) {
      this.close();
      throw error;
    }
  }

  drain(buffer: Uint8Array): DrainResult {
    this.#flushMoved();
    return this.#reader.drain(buffer);
  }

  /** Where no record tells of each call (progress=exit) whoever has moved a socket is looked at now and then; else it costs nothing. */
  #flushMoved(): void {
    if (!this.#captures || performance.now() < this.#flushAtMs) return;
    this.#flushAtMs = performance.now() + COMMIT_INTERVAL_MS;
    call("flush", () => this.#native.flush(this.#handle, []));
  }

  commit(position: number): void {
    this.#reader.commit(position);
  }

  rewind(): void {
    this.#reader.rewind();
  }

  readPosition(): number {
    return this.#reader.state().position;
  }

  producerPosition(): number {
    const { consumer, fill } = this.#reader.state();
    return consumer + fill;
  }

  fillBytes(): number {
    return this.#reader.fillBytes();
  }

  onWake(callback: () => void): void {
    this.#reader.onWake(callback);
  }

  now(): number {
    return this.#native.bootTime();
  }

  select(cgroupId: number, on: boolean, incarnation: number): void {
    if (this.#captures)
      call(`select cgroup ${cgroupId}`, () => this.#native.select(this.#handle, cgroupId, on, incarnation));
  }

  attach(cgroupId: number, incarnation: number, parent: number): void {
    if (this.#captures)
      call(`attach cgroup ${cgroupId}`, () =>
        this.#native.selectAttached(this.#handle, cgroupId, incarnation, parent),
      );
  }

  counters(): CaptureCounters {
    return this.#captures ? call("counters", () => this.#native.counters(this.#handle)) : NO_COUNTERS;
  }

  /** Since this source was opened; undefined: nobody asked for `userfaults`. */
  userfaultCounts(): UserfaultCounts | undefined {
    const handle = this.#userfaults;
    if (this.#helpedUserfaults)
      return call("counts of userfaultfd", () => this.#native.helpedUserfaultCounts(this.#handle));
    return handle && call("counts of userfaultfd", () => this.#native.userfaultCounts(handle));
  }

  cut(cgroupId: number): SourceCut {
    if (!this.#captures) return NO_CUT;
    const { complete, pending, entries } = call(`cut of cgroup ${cgroupId}`, () =>
      this.#native.cut(this.#handle, cgroupId),
    );
    return { complete: complete !== 0, pending: pending !== 0, entries };
  }

  flush(cgroupIds: readonly number[]): boolean {
    if (!this.#captures || cgroupIds.length === 0) return false;
    return call("flush", () => this.#native.flush(this.#handle, cgroupIds)) !== 0;
  }

  verdicts(): readonly Verdict[] {
    return this.#captures ? call("verdicts", () => this.#native.verdicts(this.#handle)) : [];
  }

  /** Every variant of every part, and which this capture uses. */
  parts(): readonly CapturePart[] {
    return call("parts of the capture", () => this.#native.parts(this.#handle)).map(partOf);
  }

  /**
   * Announces TCP connections that a restore (TCP_REPAIR) is about to make: they keep their names and go on at the offsets of this cut.
   * Without it a restored connection is reported as uncaptured.
   */
  expectRestore(entries: readonly CutEntry[]): void {
    call("restored connections", () => this.#native.expectRestore(this.#handle, entries));
  }

  holdOutput(cgroupId: number): void {
    call(`holding output of cgroup ${cgroupId}`, () => this.#native.holdOutput(this.#handle, cgroupId));
  }

  heldCount(): number {
    return call("held output", () => this.#native.heldCount(this.#handle));
  }

  outputs(): readonly HeldOutput[] {
    return call("held output", () => this.#native.outputs(this.#handle)).map((one) => ({
      ...one,
      free: one.free !== 0,
    }));
  }

  release(outputs: readonly Release[]): void {
    call("releasing output", () =>
      this.#native.release(
        this.#handle,
        outputs.map((one) => ({ ...one, free: Number(one.free) })),
      ),
    );
  }

  takeUnheld(): readonly UnheldOutput[] {
    return call("output that is not held", () => this.#native.takeUnheld(this.#handle)).map((one) => ({
      ...one,
      kind: UNHELD_KINDS[one.kind - 1]!,
    }));
  }

  /** Everything pinned stays and goes on recording. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    if (this.#userfaults !== undefined) this.#native.userfaultClose(this.#userfaults);
    this.#native.close(this.#handle);
    this.#unlock();
  }
}
