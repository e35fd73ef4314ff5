/** A server that always has connections waiting to be accepted: no image holds such a one, and there is no moment without. */
import { connect } from "node:net";
import { expect, test } from "vitest";
import { CriuDriver } from "../../src/images/criu/driver-criu.ts";
import { findCriu } from "../../src/images/criu/driver-criu-find.ts";
import { sized } from "../size.ts";
import { freePort, missing, until, withRig } from "./rig.ts";

const criu = await findCriu();
const check = criu.found === undefined ? undefined : await new CriuDriver(criu.found).check();
const imaged = test.skipIf(missing !== undefined || check?.works !== true);

/** Takes one every 4 ms, and always has more. */
const server = (port: number): string => `
import socket, time
s = socket.socket()
s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
s.bind(("127.0.0.1", ${port}))
s.listen(64)
print("ready", flush=True)
while True:
    c, _ = s.accept()
    c.sendall(b"x")
    c.close()
    time.sleep(0.004)
`;

/** Clients that nobody records, each with one connection after the other. */
class Crowd {
  served = 0;
  #ended = false;
  readonly #port: number;

  constructor(port: number, count: number) {
    this.#port = port;
    for (let client = 0; client < count; client += 1) this.#visit();
  }

  #visit(): void {
    if (this.#ended) return;
    const socket = connect(this.#port, "127.0.0.1");
    socket.on("data", () => {
      this.served += 1;
    });
    socket.on("error", () => undefined);
    socket.on("close", () => setTimeout(() => this.#visit(), 1));
  }

  end(): void {
    this.#ended = true;
  }
}

imaged(
  "a busy server is imaged while newcomers wait, and all are served afterwards; it comes back, too",
  () =>
    withRig("newcomers", async (rig) => {
      await rig.collect();
      const port = await freePort();
      await rig.run("web", "python3", "-c", server(port));
      await until("it listens", () => rig.output("web").includes("ready"));
      const crowd = new Crowd(port, 20);
      try {
        await until("it serves", () => crowd.served > 50);
        for (let round = 0; round < sized(3, 1); round += 1) {
          await rig.json("checkpoint", rig.app, "--driver", "criu");
          const before = crowd.served;
          await until("it goes on", () => crowd.served > before + 50);
        }
        rig.cgroup("web").kill();
        await until("it is dead", () => !rig.cgroup("web").populated);
        expect((await rig.cli("restart", rig.app)).code).toBe(0);
        const before = crowd.served;
        await until("it serves again", () => crowd.served > before + 50);
      } finally {
        crowd.end();
      }
    }),
);
