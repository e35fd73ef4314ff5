/** This host's addresses, and whether it translates any, from the kernel's texts. */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, readlinkSync } from "node:fs";
import { BlockList } from "node:net";
import { expect, test } from "vitest";
import { addLocal, readSurroundings, translation } from "../../src/host/surroundings.ts";

const FIB = `Main:
  +-- 0.0.0.0/0 3 0 5
     |-- 0.0.0.0
        /0 universe UNICAST
     |-- 192.0.2.0
        /24 link UNICAST
Local:
     |-- 127.0.0.0
        /8 host LOCAL
     |-- 192.0.2.2
        /32 host LOCAL
     |-- 192.0.2.255
        /32 link BROADCAST
     |-- 10.9.0.0
        /16 host LOCAL
`;
const ZERO = "0".repeat(32);
const ROUTES6 = `fd000000000000000000000000000000 40 ${ZERO} 00 ${ZERO} 00000100 00000001 00000000 00000001     eth0
fd000000000000000000000000000002 80 ${ZERO} 00 ${ZERO} 00000000 00000004 00000000 80200001     eth0
`;

test("local routes are this host's addresses, whole ranges too; networks and their broadcasts are not", () => {
  const addresses = new BlockList();
  addLocal(FIB, ROUTES6, addresses);
  const owns = (address: string) => addresses.check(address, address.includes(":") ? "ipv6" : "ipv4");
  expect(["127.8.8.8", "192.0.2.2", "10.9.200.1", "fd00::2"].filter((one) => !owns(one))).toEqual([]);
  expect(["192.0.2.3", "192.0.2.255", "10.8.0.1", "fd00::3", "::"].filter(owns)).toEqual([]);
});

const said = (rules: string, tables: Record<string, string> = {}) =>
  translation(new Map(Object.entries(tables)), rules, "X");

test("what leads an address elsewhere is named; what only hides ours is none", () => {
  for (const rule of [
    "ip daddr 203.0.113.1 dnat to 10.0.0.1",
    "tcp dport 80 redirect to :8080",
    "ip saddr 10.0.0.0/8 snat to 198.51.100.9",
    "meta l4proto tcp tproxy to :50080",
    "ip daddr set 10.0.0.7",
    'meta l4proto tcp counter packets 0 bytes 0 xt target "DNAT"',
    "counter packets 0 bytes 0 # xt_NETMAP",
  ])
    expect(said(`table ip t {\n chain c {\n  ${rule}\n }\n}`)).toBe(
      `the network namespace of X translates addresses ("${rule}")`,
    );
  for (const rule of [
    "masquerade",
    "type nat hook prerouting priority dstnat; policy accept;",
    "tcp dport 80 drop",
  ])
    expect(said(`  ${rule}\n`)).toBeUndefined();
  expect(said("", { ip_tables_names: "filter\nnat\n" })).toContain("iptables");
  expect(said("", { ip6_tables_names: "filter\n" })).toBeUndefined();
  const head = "IP Virtual Server version 1.2.1 (size=4096)\nProt\n  -> RemoteAddress:Port\n";
  expect(said("", { ip_vs: head })).toBeUndefined();
  expect(said("", { ip_vs: `${head}TCP  0A000001:0050 rr\n` })).toContain("IPVS");
});

test("this host has its loopback addresses, and no documentation address of others", async () => {
  const { owns } = await readSurroundings();
  expect([owns("127.0.0.1"), owns("203.0.113.77"), owns("2001:db8::77")]).toEqual([true, false, false]);
});

test.skipIf(process.getuid!() !== 0)(
  "a process that ends while its network namespace is looked at leaves no doubt, also where nobody waits for it",
  async () => {
    const script =
      'import subprocess,sys; print(subprocess.Popen(["unshare", "-n", "sleep", "60"]).pid, flush=True); sys.stdin.read()';
    const parent = spawn("python3", ["-c", script], { stdio: ["pipe", "pipe", "inherit"] });
    try {
      const [text] = (await once(parent.stdout, "data")) as [Buffer];
      const child = `/proc/${Number(text)}`;
      const own = readlinkSync("/proc/self/ns/net");
      await expect.poll(() => readlinkSync(`${child}/ns/net`), { timeout: 20_000 }).not.toBe(own);
      const reading = readSurroundings(); // has chosen it, and has not entered yet
      process.kill(Number(text), "SIGKILL");
      while (existsSync(`${child}/net/dev`));
      expect(existsSync(child)).toBe(true);
      expect((await reading).doubt ?? "").not.toContain(child);
    } finally {
      parent.kill("SIGKILL");
    }
  },
);
