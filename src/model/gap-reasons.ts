/** Why events of a process are missing or can't be followed (`gap.reason`): in words, and what to do. One table for everybody who says it. */

export interface GapReason {
  /** What the process did, or what happened: completes "it …". */
  readonly what: string;
  /** What to do about it. */
  readonly advice: string;
  /** What it did with another recorded process: completes "they …". Absent: it is no matter of two. */
  readonly together?: string;
}

const ONE_NAME = "start both under one name (recovery-line run APP NAME -- sh -c 'ONE & OTHER')";

/** The first line of a process that ran before it was recorded: it has no initial state (docs/semantics.md, 15). */
export const ATTACHED = "attached";

const REASONS: Readonly<Record<string, GapReason>> = {
  udp: {
    what: "exchanged UDP packets with another recorded process, or may have, and they have no positions",
    advice: "let them talk over TCP or unix stream sockets, or vouch for it: run --trust udp",
  },
  mptcp: {
    what: "used Multipath TCP, whose bytes have no positions here",
    advice:
      "turn it off (sysctl net.mptcp.enabled=0, GODEBUG=multipathtcp=0), or vouch for it: run --trust mptcp",
  },
  ktls: {
    what: "encrypts in the kernel (kernel TLS), which hides the positions of its bytes",
    advice: "let the program encrypt by itself, or vouch for it: run --trust ktls",
  },
  "unix-dgram": {
    what: "exchanged unix datagrams with another recorded process, or may have, and they have no positions",
    advice: "use unix stream or seqpacket sockets, or vouch for it: run --trust unix-dgram",
  },
  "old-connection": {
    what: "uses a connection whose beginning was not recorded",
    advice: "start the collector before the program, and restore only with `recovery-line restart`",
  },
  "other-socket": {
    what: "used a socket that can't be followed (vsock, packet, sctp, a unix socket after one half was shut down, …)",
    advice: "use TCP or unix stream sockets, or vouch for it: run --trust other-socket",
  },
  "foreign-pager": {
    what: "has its memory filled by another process (userfaultfd)",
    advice: "start both under one name",
  },
  "shared-socket": {
    what: "uses one end of a connection together with another recorded process",
    advice: "start both under one name: what shares a socket fails and goes back together",
  },
  "shared-memory": {
    what: "shares memory with another recorded process",
    advice: `${ONE_NAME}, or let them talk over TCP or unix stream sockets`,
    together: "share memory",
  },
  pipe: {
    what: "talks with another recorded process through a pipe",
    advice: "start the whole pipeline under one name (recovery-line run APP NAME -- sh -c 'ONE | OTHER')",
    together: "talk through a pipe",
  },
  "message-queue": {
    what: "talks with another recorded process through a message queue",
    advice: `${ONE_NAME}, or let them talk over TCP or unix stream sockets`,
    together: "talk through a message queue",
  },
  eventfd: {
    what: "shares an eventfd with another recorded process",
    advice: ONE_NAME,
    together: "share an eventfd",
  },
  "shared-file": {
    what: "has a file open that another recorded process has open, too, and one of them writes it",
    advice: `${ONE_NAME}, or vouch that what one writes means nothing to the other: run --trust shared-file`,
    together: "have one file open, and one of them writes it",
  },
  "unix-oob": {
    what: "took a byte of a unix socket out of its order (MSG_OOB)",
    advice: "send urgent data as ordinary data, or vouch for it: run --trust unix-oob",
  },
  missed: {
    what: "used sockets without positions while the kernel left a capture program out",
    advice: "checkpoint a new life of it: end it and start it again, or restart it",
  },
  overflow: {
    what: "closed more connections while the ring was full than the kernel keeps for it",
    advice: "give the collector a larger ring (collect --ring-mib), then start the process again",
  },
  "taken-over": {
    what: "took up a connection that a program outside had held",
    advice: "start whoever hands connections over before the collector looks for them: run it recorded, too",
  },
  relay: {
    what: "exchanges data with a program that is not recorded and does so with another process of the application, too",
    advice: "record that program as a process of the application: recovery-line run",
  },
  unknown: {
    what: "went on while nobody could write down what it did",
    advice:
      "repair the log's disk, or give the collector the --pin-dir of the one before, through which it was recorded; then start the process again",
  },
  [ATTACHED]: {
    what: "ran before it was recorded",
    advice: "checkpoint it: from then on it can come back",
  },
  left: {
    what: "has a part that left its cgroup, which nobody records",
    advice: "keep what belongs to it in its cgroup",
  },
  "runtime-died": {
    what: "ended before all its memory rings had been read",
    advice: "keep the collector alive while runtimes with memory rings are",
  },
};

/** Of a reason that nobody here knows: its word. */
export function gapReason(reason: string): GapReason {
  return REASONS[reason] ?? { what: `can't be followed (${reason})`, advice: "see docs/operate.md" };
}
