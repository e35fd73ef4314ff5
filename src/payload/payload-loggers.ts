/** The payload loggers of one collector: one for each application that asked for it and has a live process. */
import { existsSync, statSync } from "node:fs";
import { mkdir, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { applicationCgroup } from "../host/cgroups.ts";
import { Serial } from "../host/serial.ts";
import { RecoveryLineError } from "../model/errors.ts";
import { PAYLOAD_RESTART_MAX_MS, PAYLOAD_RESTART_MS } from "../model/limits.ts";
import { PAYLOAD_FOLDER } from "./payload-log.ts";
import { PayloadLogger, type PayloadLoggerOptions } from "./payload-logger.ts";

export interface PayloadLoggersOptions {
  readonly home: string;
  readonly pinDir: string;
  /** Of one application, in MiB. */
  readonly limitMib: number;
  /** True: the collector has no rights, and a logger would have none. */
  readonly withoutRights: boolean;
  /** Something that goes on by itself but should be seen; one sentence. */
  readonly onTrouble: (sentence: string) => void;
  /** For tests: others who keep them. */
  readonly start?: (options: PayloadLoggerOptions) => Promise<Logger>;
}

type Logger = Pick<PayloadLogger, "cgroupId" | "running" | "flush" | "close">;

export class PayloadLoggers {
  readonly #options: PayloadLoggersOptions;
  readonly #loggers = new Map<string, Logger>();
  readonly #serial = new Serial();
  /** Of what is started again, by application. */
  readonly #timers = new Map<string, NodeJS.Timeout>();
  #closed = false;

  constructor(options: PayloadLoggersOptions) {
    this.#options = options;
  }

  /** From here on, and after every restart of the collector, payloads of the application are kept. Throws RL_NOT_SUPPORTED. */
  async enable(app: string): Promise<void> {
    this.requireRights();
    await mkdir(this.#folder(app), { recursive: true, mode: 0o700 });
    await rm(this.#off(app), { force: true });
    await this.ensure(app);
  }

  /** From here on, and after every restart of the collector, they are not; what was kept stays, and what follows is a hole. */
  async disable(app: string): Promise<void> {
    if (!existsSync(this.#folder(app))) return;
    await writeFile(this.#off(app), "");
    await this.#serial.run(() => this.#drop(app));
  }

  async #drop(app: string): Promise<void> {
    clearTimeout(this.#timers.get(app));
    this.#timers.delete(app);
    const logger = this.#loggers.get(app);
    this.#loggers.delete(app);
    await logger?.close();
  }

  /** Throws RL_NO_RIGHTS where no payload can be kept. */
  requireRights(): void {
    if (!this.#options.withoutRights) return;
    throw new RecoveryLineError(
      "RL_NO_RIGHTS",
      "this collector has no rights (collect --user), and keeping payloads takes CAP_NET_ADMIN",
      "Run without --payload, or start the collector without --user.",
    );
  }

  /**
   * A process of the application is there: its payloads are kept from here on if it ever asked for it; after `close` by the next collector.
   * Throws RL_NOT_SUPPORTED.
   */
  ensure(app: string): Promise<void> {
    return this.#serial.run(async () => {
      if (this.#closed || !existsSync(this.#folder(app)) || existsSync(this.#off(app))) return;
      this.requireRights();
      const running = this.#loggers.get(app);
      if (running?.running && running.cgroupId === statSync(this.#cgroup(app)).ino) return;
      await running?.close(); // its cgroup was made anew: nobody is in the old one
      this.#loggers.set(app, await this.#start(app));
    });
  }

  /** The application lived before the collector did; a logger that can't be started is told, and tried again. */
  resume(app: string): Promise<void> {
    return this.#tryToStart(app, PAYLOAD_RESTART_MS);
  }

  /** Ends the loggers of all other applications. */
  retain(apps: ReadonlySet<string>): Promise<void> {
    return this.#serial.run(async () => {
      for (const app of new Set([...this.#loggers.keys(), ...this.#timers.keys()]))
        if (!apps.has(app)) await this.#drop(app);
    });
  }

  /** All payload that was sent before the call is durable on return, or counted as lost; of a logger that is dead nothing more comes. */
  flush(): Promise<void> {
    return this.#serial.run(async () => {
      for (const logger of this.#loggers.values()) if (logger.running) await logger.flush();
    });
  }

  async close(): Promise<void> {
    this.#closed = true;
    await this.retain(new Set());
  }

  #folder(app: string): string {
    return join(this.#options.home, app, PAYLOAD_FOLDER);
  }

  #off(app: string): string {
    return `${this.#folder(app)}.off`;
  }

  #cgroup(app: string): string {
    return applicationCgroup(app);
  }

  #start(app: string): Promise<Logger> {
    const { home, pinDir, limitMib, start = (options) => PayloadLogger.start(options) } = this.#options;
    return start({
      appDir: join(home, app),
      cgroup: this.#cgroup(app),
      pinDir,
      limitMib,
      onEnd: (why) => this.#again(app, why),
    });
  }

  /** What is sent until then is a hole. */
  #again(app: string, why: string): void {
    this.#options.onTrouble(`the payload logger of ${app} ended and is started again: ${why}`);
    this.#startLater(app, PAYLOAD_RESTART_MS);
  }

  /** As long as the application lives, twice as late each time; the first failure is told. */
  #startLater(app: string, pauseMs: number): void {
    if (this.#closed) return;
    clearTimeout(this.#timers.get(app));
    this.#timers.set(
      app,
      setTimeout(() => void this.#tryToStart(app, pauseMs), pauseMs),
    );
  }

  async #tryToStart(app: string, pauseMs: number): Promise<void> {
    this.#timers.delete(app);
    try {
      await this.ensure(app);
    } catch (error) {
      if (pauseMs === PAYLOAD_RESTART_MS)
        this.#options.onTrouble(`the payload logger of ${app} is tried again: ${(error as Error).message}`);
      this.#startLater(app, Math.min(2 * pauseMs, PAYLOAD_RESTART_MAX_MS));
    }
  }
}
