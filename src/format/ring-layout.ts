/**
 * native/include/recovery_ring.h for TypeScript: same names, same numbers, little endian.
 * test/native/ring-layout.test.ts compiles the header and proves both equal.
 *
 * What the reader hands over is not the raw slot: the kernel's 8-byte slot header is replaced by the
 * record's position in the ring (u64), so that 64 bytes a record are: position, then the record.
 */

export const RING_LAYOUT_VERSION = 3;
/** Size of struct recovery_record, in bytes. */
export const RECORD_BYTES = 56;
/** One drained record: 8 bytes ring position and the record, in bytes. */
export const SLOT_BYTES = 64;
/** Where the record starts in a drained slot, in bytes. */
export const RECORD_OFFSET = SLOT_BYTES - RECORD_BYTES;

/** Offsets inside struct recovery_record, in bytes. */
export const RECORD_FIELDS = {
  kind: 0,
  flags: 1,
  cpu: 2,
  lost_before: 4,
  process: 8,
  local: 16,
  remote: 24,
  begin: 32,
  time_ns: 40,
  length: 48,
  thread: 52,
} as const;

/** enum recovery_kind. */
export const RingKind = {
  SEND: 1,
  RECEIVE: 2,
  PAGE_FAULT: 3,
  PAGE_COPY: 4,
  PAGE_INVALIDATE: 5,
  /** Memory rings only. */
  GAP: 6,
  VERDICT: 7,
  PEEK: 8,
  /** Who is at the other end of a connection. */
  PEER: 9,
  /** With whom it may have exchanged datagrams. */
  DATAGRAM: 10,
} as const;
export const RING_KIND_COUNT = 16;

/** enum recovery_flag. OPEN, END: the one unit of `<channel>/open`, `<channel>/end`. */
export const RingFlag = {
  UNIX: 1,
  /** Of a peer: data was sent to it. */
  SINK: 2,
  WRITE: 4,
  /** Of a peer: data has come from it. */
  SOURCE: 8,
  DSM: 16,
  OPEN: 32,
  END: 64,
  /** With END: the task that closed was dying, and not with exit code 0. */
  FAILING: 128,
} as const;

/** enum recovery_verdict: the number of its bit among a process's flags. */
export const RingVerdict = {
  UDP: 1,
  MPTCP: 2,
  KTLS: 3,
  UNIX_DGRAM: 4,
  OLD_CONNECTION: 5,
  OTHER_SOCKET: 6,
  FOREIGN_PAGER: 7,
  SHARED_SOCKET: 8,
  UNIX_OOB: 9,
  MISSED: 10,
  OVERFLOW: 11,
  TAKEN_OVER: 12,
  /** Used UDP: none where all of its application is on this host. */
  DATAGRAM: 13,
} as const;

/** Why a process can't be followed, by number: the words of `gap.reason` and of reports (model/gap-reasons.ts). */
export const VERDICT_REASONS: readonly string[] = [
  "unknown",
  "udp",
  "mptcp",
  "ktls",
  "unix-dgram",
  "old-connection",
  "other-socket",
  "foreign-pager",
  "shared-socket",
  "unix-oob",
  "missed",
  "overflow",
  "taken-over",
  "datagram",
];

/** Kinds of communication that the user may know to carry nothing between processes (`run --trust`); all others are evidence that is missing. */
export const VOUCHABLE_REASONS: readonly string[] = [
  "udp",
  "mptcp",
  "ktls",
  "unix-dgram",
  "old-connection",
  "other-socket",
  "unix-oob",
];

/** enum capture_told (native/loader/told.h): what records have told of a connection's opening and ending. */
export const Told = { OPEN_SENT: 1, OPEN_RECEIVED: 2, END_SENT: 4, END_RECEIVED: 8 } as const;

/** Names of the kinds by number, for metrics. */
export const RING_KIND_NAMES: readonly string[] = [
  "none",
  "send",
  "receive",
  "page-fault",
  "page-copy",
  "page-invalidate",
  "gap",
  "verdict",
  "peek",
  "peer",
  "datagram",
];
