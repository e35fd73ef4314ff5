/** What CRIU's own lines mean, for those failures that are known: a sentence of ours stands above them. */

interface Meaning {
  readonly lines: RegExp;
  readonly means: string;
  readonly advice: string;
}

const MEANINGS: readonly Meaning[] = [
  {
    lines: /unix:.*(External socket|can't.*peer|Can't dump half of)|External socket is used/i,
    means: "a unix socket leads to a program outside of the process",
    advice: "Record both under one name, or end that connection first.",
  },
  {
    lines: /Unknown shit|Can't dump file .*of that type|anon_inode/i,
    means: "it has something open of a kind that no image holds",
    advice: "`ls -l /proc/PID/fd` shows what; a driver hook may bring the program back by its own means.",
  },
  {
    lines: /ghost file .* (size|limit)|ghost-limit/i,
    means: "it uses a removed file that is too long for an image",
    advice: "Start it with run --criu-options ghost-limit=SIZE.",
  },
  {
    lines: /tty|pts|slavery/i,
    means: "it has a terminal whose other end is elsewhere",
    advice: "Start it with run --detach.",
  },
  {
    lines: /unreachable sharing|mnt.*(can't|unsupported)|Mount .* (unreachable|is unreachable)/i,
    means: "its mounts are tied to others that are out of reach",
    advice: "`nsenter --net` instead of `ip netns exec` leaves the mounts as they are.",
  },
  {
    lines: /Can't lookup mount=/,
    means:
      "with a /dev/shm of its own (--own-ipc) it has a file open that it got from outside, of the host's mounts",
    advice: "Start it with run --detach --output FILE, or with its streams appended to files (>>).",
  },
  {
    lines: /netlink: .*-16|reported by netlink/i,
    means: "a network interface of its namespace is there already",
    advice: "Remove the namespace that was left over, or use the host's network.",
  },
  {
    lines: /Address already in use|Can't bind/i,
    means: "an address that it listens on is taken",
    advice: "`ss -tlnp` shows by whom.",
  },
  {
    lines: /Can't fork.*(exists|pid)|Pid \d+ do(es)? not match/i,
    means: "a process id that it needs is taken",
    advice: "End whoever has it, or wait until it has been waited for.",
  },
  {
    lines: /File .* has bad (size|mode)|Can't open file|Can't find .*build.?id/i,
    means: "a file that it uses is gone or is another one",
    advice: "Put it back (a program or library may have been upgraded).",
  },
  {
    lines: /Operation not permitted|EPERM|lacks.*capabilit/i,
    means: "a right is lacking",
    advice: "It takes root with CAP_CHECKPOINT_RESTORE, CAP_SYS_PTRACE and CAP_SYS_RESOURCE.",
  },
];

/** Undefined: nothing that is known. */
export function meaningOf(lines: string): Pick<Meaning, "means" | "advice"> | undefined {
  return MEANINGS.find((one) => one.lines.test(lines));
}
