import { expect, test } from "vitest";
import {
  accessOf,
  isMemory,
  plainPipes,
  queueUses,
  sharedMappings,
  statKey,
  systemVKey,
  systemVQueues,
  type Use,
  unseenChannels,
} from "../../src/host/shared-things.ts";
import { unseenText } from "../../src/model/unseen-channel.ts";

test("only shared mappings with a path are things of others", () => {
  const maps = [
    "00400000-00452000 r-xp 00000000 08:02 173521 /usr/bin/dbus-daemon",
    "00e03000-00e24000 rw-s 00001000 103:10002 42 /srv/my data\\012x (deleted)",
    "7f3a00000000-7f3a00001000 r--s 00000000 fe:00 9 /usr/lib/gconv-modules.cache",
    "7f3a10000000-7f3a10001000 rw-s 00000000 00:0e 13 anon_inode:[io_uring]",
    "7f3a20000000-7f3a20001000 rw-s 00000000 00:08 77 socket:[77]",
    "7f3a30000000-7f3a30001000 rw-p 00000000 00:00 0 [heap]",
    "7f3a40000000-7f3a40001000 -w-s 00000000 00:01 5 /SYSV0000002a (deleted)",
  ].join("\n");
  expect(sharedMappings(`${maps}\n`)).toEqual([
    {
      range: "e03000-e24000",
      writable: true,
      key: "259:65538:42",
      inode: "42",
      path: "/srv/my data\\012x (deleted)",
    },
    {
      range: "7f3a00000000-7f3a00001000",
      writable: false,
      key: "254:0:9",
      inode: "9",
      path: "/usr/lib/gconv-modules.cache",
    },
    {
      range: "7f3a40000000-7f3a40001000",
      writable: true,
      key: "0:1:5",
      inode: "5",
      path: "/SYSV0000002a (deleted)",
    },
  ]);
});

test("device numbers of stat and of maps name the same device", () => {
  expect(statKey(0xfe00n, 9n)).toBe("254:0:9");
  expect(statKey((10002n & 0xffn) | (259n << 8n) | ((10002n & ~0xffn) << 12n), 2n ** 60n)).toBe(
    `259:10002:${2n ** 60n}`,
  );
});

test("who may read and who may write stands in the flags", () => {
  const flags = (octal: string): string => `pos:\t0\nflags:\t${octal}\nmnt_id:\t15\n`;
  expect(accessOf(flags("0100000"))).toEqual({ reads: true, writes: false });
  expect(accessOf(flags("0102001"))).toEqual({ reads: false, writes: true });
  expect(accessOf(flags("02000002"))).toEqual({ reads: true, writes: true });
  expect(accessOf(flags("010000000"))).toEqual({ reads: false, writes: false }); // O_PATH
  expect(accessOf(`${flags("04002")}eventfd-count:  0\neventfd-id: 31\n`)).toMatchObject({ eventfd: 31 });
});

test("memory that has the form of a file, and segments by their namespace", () => {
  expect(["/memfd:x (deleted)", "/dev/shm/x", "/dev/zero (deleted)"].every(isMemory)).toBe(true);
  expect(["/dev/zero", "/tmp/dev/shm/x", "/srv/memfd:x"].some(isMemory)).toBe(false);
  expect(systemVKey("/SYSV0000002a (deleted)", "5", "ipc:[1]")).toBe("sysv-memory:ipc:[1]:5");
  expect(systemVKey("/SYSV/file", "5", "ipc:[1]")).toBeUndefined();
});

test("a queue's last sender and last receiver use it", () => {
  const text = `       key      msqid perms      cbytes       qnum lspid lrpid   uid
         0          3   600           5          1   100   200     0
        42          4   600           0          0     0     0     0
`;
  const queues = systemVQueues(text);
  expect(queues).toEqual([
    { id: "3", lastSender: 100, lastReceiver: 200 },
    { id: "4", lastSender: 0, lastReceiver: 0 },
  ]);
  expect(queueUses(queues, [7, 100])).toMatchObject([{ pid: 100, reads: false, writes: true }]);
  expect(queueUses(queues, [200])).toMatchObject([{ pid: 200, reads: true, writes: false }]);
});

/** "rw" and the like, with "m" for mapped. */
function use(key: string, kind: Use["kind"], how: string, pid = 1): Use {
  const [reads, writes, mapped] = ["r", "w", "m"].map((letter) => how.includes(letter)) as [
    boolean,
    boolean,
    boolean,
  ];
  return { pid, key, kind, name: key, reads, writes, mapped };
}

function found(...holders: readonly (readonly [string, ...Use[]])[]): string[] {
  return unseenChannels(holders.map(([process, ...uses]) => ({ process, uses }))).map(
    ({ process, other, reason }) => `${process}>${other} ${reason}`,
  );
}

test("one writes and another reads: a channel, told for each of them", () => {
  expect(found(["a", use("x", "pipe", "w")], ["b", use("x", "pipe", "r")])).toEqual(["a>b pipe", "b>a pipe"]);
  expect(found(["a", use("x", "eventfd", "rw")], ["b", use("x", "eventfd", "rw")])).toHaveLength(2);
  expect(found(["a", use("x", "memory", "rwm")], ["b", use("x", "memory", "rm")])).toEqual([
    "a>b shared-memory",
    "b>a shared-memory",
  ]);
  expect(found(["a", use("x", "queue", "w")], ["b", use("x", "queue", "r")])[0]).toBe("a>b message-queue");
});

test("a pipe without a name whose writes run together could be laid anew; no other could", () => {
  const pipe = (name: string, packets: boolean): Use => {
    const one = use(name, "pipe", "rw");
    return packets ? { ...one, packets: true } : one;
  };
  const named = ["pipe:[1]", "pipe:[2]", "/srv/fifo"];
  const holders = ["a", "b"].map((process) => ({
    process,
    uses: named.map((name) => pipe(name, name === "pipe:[2]" && process === "b")),
  }));
  expect([...plainPipes(holders, unseenChannels(holders))]).toEqual(["pipe:[1]"]);
  expect(accessOf("flags:\t040001")).toMatchObject({ writes: true, packets: true });
});

test("what nobody can hear of is no channel", () => {
  const none: (readonly [string, ...Use[]])[][] = [
    [
      ["a", use("log", "file", "w")],
      ["b", use("log", "file", "w")],
    ],
    [
      ["a", use("lib", "file", "rm")],
      ["b", use("lib", "file", "rm")],
    ],
    [
      ["a", use("in", "pipe", "r")],
      ["b", use("in", "pipe", "r")],
    ],
    [
      ["a", use("x", "pipe", "w")],
      ["b", use("y", "pipe", "r")],
    ],
    [["a", use("own", "pipe", "w", 1), use("own", "pipe", "r", 2)]],
  ];
  for (const holders of none) expect(found(...holders)).toEqual([]);
});

test("a file is memory where both have mapped it, however many tasks hold it", () => {
  const [open, mapped] = [use("f", "file", "w", 5), use("f", "file", "rwm", 6)];
  expect(found(["a", open], ["b", use("f", "file", "rm")])[0]).toBe("a>b shared-file");
  expect(found(["a", open, mapped], ["b", use("f", "file", "rm")])[0]).toBe("a>b shared-memory");
});

test("of many that share one thing each names one, and two writers name the reader", () => {
  const many = Array.from({ length: 50 }, (_, n) => [`p${n}`, use("x", "memory", "rwm")] as const);
  expect(found(...many)).toHaveLength(50);
  expect(
    found(["a", use("x", "pipe", "w")], ["b", use("x", "pipe", "w")], ["c", use("x", "pipe", "r")]),
  ).toEqual(["a>c pipe", "b>c pipe", "c>a pipe"]);
});

test("both processes, their tasks and the thing are named", () => {
  const [channel] = unseenChannels([
    { process: "a", uses: [use("pipe:[7]", "pipe", "w", 12)] },
    { process: "b", uses: [use("pipe:[7]", "pipe", "r", 13)] },
  ]);
  expect(unseenText(channel!)).toBe("a (process 12) and b (process 13) talk through a pipe: pipe:[7]");
});
