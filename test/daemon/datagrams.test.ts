/** Datagrams to and from programs that are not recorded are outputs and inputs; between two recorded processes they are a verdict that names both. */
import { spawn } from "node:child_process";
import { createSocket } from "node:dgram";
import { once } from "node:events";
import { expect, test } from "vitest";
import type { RecoveryLine } from "../../src/model/recovery-line.ts";
import type { PeerNote } from "../../src/model/stored-process.ts";
import { freePort, missing, type Rig, until, withRig } from "./rig.ts";

const live = test.skipIf(missing !== undefined);

/** A look-up every few ms, each from a socket of its own. */
const LOOK_UP = `const d=require("dgram");const ask=()=>{const s=d.createSocket("udp4");s.on("message",()=>{console.log("answer");s.close();setTimeout(ask,20)});s.send("?",+process.argv[1],"127.0.0.1")};ask()`;
const ANSWER = `const s=require("dgram").createSocket("udp4").bind(+process.argv[1],"127.0.0.1",()=>console.log("listening"));s.on("message",(m,a)=>s.send("!",a.port,a.address))`;

/** AF_UNIX datagrams, which Node has not: as a system log takes them, as \`syslog\` sends them, and as a service tells its manager. */
const perl = (program: string): string[] => [
  "perl",
  "-MSocket",
  "-e",
  `$|=1;socket(S,AF_UNIX,SOCK_DGRAM,0);${program}`,
];
const TAKE = perl(
  'bind(S,sockaddr_un($ARGV[0]))or die;print"listening\\n";while(defined recv(S,$m,99,0)){print"$m\\n"}',
);
const LOG = perl(
  'connect(S,sockaddr_un($ARGV[0]))or die;while(1){send(S,"line",0);select(undef,undef,undef,.02)}',
);
const NOTIFY = perl('$a=sockaddr_un($ARGV[0]);while(1){send(S,"ready",0,$a);select(undef,undef,undef,.02)}');

interface Told {
  readonly process: string;
  readonly uncaptured: readonly string[];
  readonly peers?: readonly PeerNote[];
}

async function told(rig: Rig): Promise<Record<string, readonly string[]>> {
  await rig.events(); // drained
  const { processes } = await rig.json<{ processes: Told[] }>("status", rig.app);
  const others = ({ peers = [] }: Told): string[] => peers.map(({ peer, rule }) => `${peer}: ${rule}`);
  return Object.fromEntries(processes.map((one) => [one.process, [...one.uncaptured, ...others(one)]]));
}

live(
  "a look-up, a line for the system log and a word to the service manager spoil no checkpoint; datagrams between two that are recorded do",
  () =>
    withRig("datagrams", async (rig) => {
      await rig.collect();
      const names = createSocket("udp4").bind(0, "127.0.0.1");
      await once(names, "listening");
      let asked = 0;
      names.on("message", (_, { port, address }) => {
        asked += 1;
        names.send("!", port, address);
      });
      const [program, ...args] = TAKE as [string, ...string[]];
      const log = spawn(program, [...args, rig.path("log")], { stdio: ["ignore", "pipe", "inherit"] });
      let taken = "";
      log.stdout.on("data", (text: Buffer) => {
        taken += text.toString();
      });
      try {
        await until("the log takes", () => taken.includes("listening"));
        await rig.run("resolves", process.execPath, "-e", LOOK_UP, String(names.address().port));
        for (const name of ["logs", "logs-too"]) await rig.run(name, ...LOG, rig.path("log"));
        await rig.run("notifies", ...NOTIFY, rig.path("log"));
        await until("all have come", () => asked > 3 && taken.includes("line") && taken.includes("ready"));
        expect(await told(rig)).toEqual({ logs: [], "logs-too": [], notifies: [], resolves: [] });
        await rig.json("checkpoint", rig.app, "--driver", "none");
        const { outcome, line } = await rig.json<RecoveryLine>("compute", rig.app);
        expect([outcome, ...line.map(({ checkpoint }) => checkpoint)]).toEqual(["clean", 1, 1, 1, 1]);

        const port = await freePort();
        await rig.run("serves", process.execPath, "-e", ANSWER, String(port));
        await until("it serves", () => rig.output("serves").includes("listening"));
        await rig.run("asks", process.execPath, "-e", LOOK_UP, String(port));
        await rig.run("takes", ...TAKE, rig.path("inside"));
        await until("it takes", () => rig.output("takes").includes("listening"));
        await rig.run("says", ...LOG, rig.path("inside"));
        await until(
          "both have come",
          () => rig.output("asks") !== "" && rig.output("takes").includes("line"),
        );
        const unix = "AF_UNIX datagrams";
        expect(await told(rig)).toMatchObject({
          ...{ logs: [], "logs-too": [], resolves: [] },
          asks: ["udp", `serves: UDP, port ${port}`],
          serves: ["udp", `asks: UDP, port ${port}`],
          says: ["unix-dgram", `takes: ${unix}`],
          notifies: ["unix-dgram", `takes: ${unix}`], // it may have sent there
        });
        expect((await rig.cli("status", rig.app)).out).toContain(
          `asks has exchanged datagrams with serves (UDP, port ${port}), or may have`,
        );
      } finally {
        names.close();
        log.kill("SIGKILL");
      }
    }),
);
