/**
 * The demo of policies: one is plugged into unmodified programs, another one takes over under load, its process is killed until the fallback decides, a
 * third one takes over from that; then they are compared over what was recorded. It checks what it promises and says so in its last line.
 */
import { readdirSync, readFileSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { RecoveryLineError } from "../model/errors.ts";
import type { PolicyLogLine, PolicyStatus } from "../model/plugged-policy.ts";
import { cleanedUp } from "../terminal/clean-up.ts";
import { OwnCollector } from "../terminal/own-collector.ts";
import { write } from "../terminal/print.ts";
import { askCommand, runCommand, showCommand } from "../terminal/run-command.ts";
import { natsPrograms } from "./demo-programs.ts";

/** The longest wait for what must happen, ms. */
const LIMIT_MS = 60_000;
const PAUSE_MS = 200;
/** User and group of policies' processes. */
const NOBODY = 65_534;

/** Runs it and cleans up whatever happens; the log stays. Throws what its commands fail with, RL_DRIVER where it does not end as it should. */
export async function policyDemo(): Promise<void> {
  const demo = new PolicyDemo();
  await cleanedUp(
    () => demo.run(),
    () => demo.stage.stop(),
  );
}

class PolicyDemo {
  readonly stage = new OwnCollector(`demo-policy-${process.pid}`);

  async run(): Promise<void> {
    await write("1. A collector, and programs that nobody changed.\n");
    await showCommand(this.stage.args);
    await this.stage.start();
    const { recorded } = await natsPrograms(this.stage.folder);
    for (const { process: name, command } of recorded) {
      await runCommand(
        ["run", this.stage.app, name, ...this.#log, "--detach", "--", ...command],
        undefined,
        "ignore",
      );
      await sleep(PAUSE_MS);
    }
    await this.#plugAndSwap();
    const { faults, deciding } = await this.#crash();
    await write("\n6. What would each have done with what was recorded?\n");
    await runCommand([
      "policy",
      "compare",
      this.stage.app,
      ...POLICIES,
      ...this.#log,
      "--seeds",
      "1",
      "--instants",
      "20",
    ]);
    await write(
      `\nSeen: periodic, then coordinated without a moment between them, killed ${faults} times until the fallback decided, then ${deciding}; ` +
        `the programs ran on. The log is in ${this.stage.home}.\n`,
    );
  }

  async #plugAndSwap(): Promise<void> {
    await write("\n2. A policy decides from now on when checkpoints are taken.\n");
    await this.#plug("periodic", "interval=2s");
    await this.#until("periodic checkpoints are taken", async () => (await this.#done("checkpoint", 1)) > 3);
    await this.#policy("log", "--last", "6");
    await write("\n3. Another one takes over, while they talk: the old one decides until then.\n");
    await this.#plug("coordinated", "interval=2s");
    await this.#until("sets are taken", async () => (await this.#done("synchronize", 2)) > 1);
    await this.#policy("log", "--last", "4");
  }

  /** Its process dies again and again; the fourth time within a minute is the last. */
  async #crash(): Promise<{ faults: number; deciding: string }> {
    await write(
      "\n4. Its process is killed: it starts again with its state. The fourth time in a minute the fallback takes over.\n",
    );
    let faults = 0;
    await this.#until("the fallback decides", async () => {
      for (const pid of this.#policyPids()) {
        process.kill(pid, "SIGKILL");
        faults += 1;
      }
      return (await this.#shown()).state === "fallback";
    });
    await this.#policy("show");
    await write("\n5. What is plugged now takes over from the fallback.\n");
    await this.#plug("bounded-loss", "bound=20s", "--allow", "none");
    const { epoch } = await this.#shown();
    const acts = ["checkpoint", "synchronize"];
    await this.#until("it decides", async () => {
      const done = await Promise.all(acts.map((action) => this.#done(action, epoch)));
      return done.some((count) => count > 0);
    });
    await this.#policy("log", "--last", "4");
    const { policy, state } = await this.#shown();
    if (state !== "active" || faults < 4)
      throw new RecoveryLineError(
        "RL_DRIVER",
        `the demo did not end as it should: ${policy} is ${state} after ${faults} kills`,
      );
    return { faults, deciding: policy };
  }

  get #log(): string[] {
    return ["--log", this.stage.home];
  }

  #plug(policy: string, set: string, ...flags: string[]): Promise<void> {
    return this.#policy(
      "plug",
      policy,
      "--set",
      set,
      "--driver",
      "none",
      "--fallback",
      "periodic:5s",
      ...flags,
    );
  }

  #policy(word: string, ...rest: string[]): Promise<void> {
    return runCommand(["policy", word, this.stage.app, ...rest, ...this.#log]);
  }

  async #shown(): Promise<PolicyStatus> {
    const { plugged } = await askCommand<{ plugged: readonly PolicyStatus[] }>([
      "policy",
      "list",
      this.stage.app,
      ...this.#log,
    ]);
    return plugged[0]!;
  }

  async #done(action: string, epoch: number): Promise<number> {
    const { lines } = await askCommand<{ lines: readonly PolicyLogLine[] }>([
      "policy",
      "log",
      this.stage.app,
      "--last",
      "1000",
      ...this.#log,
    ]);
    return lines.filter((one) => one.action === action && one.epoch === epoch && one.outcome === "done")
      .length;
  }

  #policyPids(): number[] {
    return readdirSync("/proc").flatMap((name) => {
      if (!/^\d+$/.test(name)) return [];
      try {
        const status = readFileSync(`/proc/${name}/status`, "utf8");
        return status.includes(`PPid:\t${this.stage.pid}\n`) && status.includes(`Uid:\t${NOBODY}\t`)
          ? [Number(name)]
          : [];
      } catch {
        return []; // it has ended meanwhile
      }
    });
  }

  async #until(what: string, condition: () => Promise<boolean>): Promise<void> {
    const deadlineMs = Date.now() + LIMIT_MS;
    while (!(await condition())) {
      if (Date.now() > deadlineMs)
        throw new RecoveryLineError("RL_TIMEOUT", `the demo waits for ever: ${what}`);
      await sleep(PAUSE_MS);
    }
  }
}

const POLICIES = ["periodic:interval=2s", "coordinated:interval=2s", "bounded-loss:bound=20s"];
