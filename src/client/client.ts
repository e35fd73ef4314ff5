/** The other end of the collector's socket. */
import { once } from "node:events";
import { lstatSync } from "node:fs";
import { Agent, type IncomingMessage, request } from "node:http";
import { resolve } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import type { ParsedBlock } from "../format/block-header.ts";
import { printEvent } from "../format/interchange.ts";
import type { ProcessHead } from "../format/log-commit.ts";
import { isPlacedByRoot } from "../host/placed-by-root.ts";
import { socketAddress, socketFile } from "../host/socket-path.ts";
import type { Keep } from "../log/keep.ts";
import type { CollectorStats, CutAnswer, KnownPeer, Pruned } from "../model/collector-answers.ts";
import { hasCode, RecoveryLineError } from "../model/errors.ts";
import type { Event } from "../model/event.ts";
import type { CutEntry } from "../model/event-source.ts";
import { MAX_CLIENTS, PING_LIMIT_MS, REQUEST_LIMIT_MS } from "../model/limits.ts";
import type { PlugAnswer, PlugBody, PolicyStatus } from "../model/plugged-policy.ts";
import { shellWord } from "../model/printable.ts";
import type { ProcessData, StartRecipe } from "../model/stored-process.ts";
import type { UnseenChannel } from "../model/unseen-channel.ts";
import { receiveBlocks } from "./block-stream.ts";
import { BlockWindows } from "./block-windows.ts";
import {
  cutFromWire,
  errorFromWire,
  type Ping,
  type ProcessInfo,
  type PruneRequest,
  type RegisterRequest,
  type WireCommitted,
  type WireCut,
  type WireDependents,
  type WireError,
  type WireUnseen,
} from "./protocol.ts";

/** Longest wait for a log to be pruned, in ms: it is read twice. */
const PRUNE_LIMIT_MS = 60 * 60_000;

/** How often a collector that cuts us off is tried, in ms. */
const RETRY_MS = 50;

/** An answer that is no stream of blocks, in bytes: the largest is a cut of 2^18 connections. */
const MAX_ANSWER_BYTES = 128 * 1024 * 1024;

/**
 * The live collector of a home; undefined where none answers. Looks before it connects: a socket that belongs to neither root nor
 * us is somebody else's, unless we are root and gave the home away. Throws RL_NO_RIGHTS, and RL_TIMEOUT where something holds the socket and does
 * not answer, or cuts every connection off: only a socket that nobody listens at means that there is none.
 */
export async function connectCollector(home: string): Promise<CollectorClient | undefined> {
  if (!isSocketOfOurs(home)) return undefined;
  const client = new CollectorClient(home);
  const deadlineMs = performance.now() + PING_LIMIT_MS;
  for (;;)
    try {
      await client.ping(PING_LIMIT_MS);
      return client;
    } catch (error) {
      const cutOff = hasCode(error, "RL_NO_COLLECTOR") && !isUnheard(error.cause);
      if (cutOff && performance.now() < deadlineMs) {
        await sleep(RETRY_MS);
        continue;
      }
      client.close();
      if (cutOff) throw busy(home, error);
      if (hasCode(error, "RL_NO_COLLECTOR")) return undefined;
      throw error;
    }
}

/** Nobody listens. A collector with too many clients takes the connection, and drops it; one whose queue is full lets nobody in. */
function isUnheard(error: unknown): boolean {
  const { code } = error as NodeJS.ErrnoException;
  return code === "ENOENT" || code === "ECONNREFUSED";
}

function busy(home: string, cause: RecoveryLineError): RecoveryLineError {
  return new RecoveryLineError(
    "RL_TIMEOUT",
    `the collector of ${home} takes no connection: ${(cause.cause as Error).message}`,
    `It serves ${MAX_CLIENTS} clients at a time: try again once others are done.`,
    cause,
  );
}

/** The live collector, or RL_NO_COLLECTOR with what to do. */
export async function requireCollector(home: string): Promise<CollectorClient> {
  const client = await connectCollector(home);
  if (client !== undefined) return client;
  throw new RecoveryLineError(
    "RL_NO_COLLECTOR",
    `no collector is running for ${home}`,
    `Start one first, in another terminal: recovery-line collect --log ${shellWord(home)}`,
  );
}

function isSocketOfOurs(home: string): boolean {
  try {
    const stat = lstatSync(socketFile(home));
    return stat.isSocket() && (stat.uid === 0 || stat.uid === process.geteuid!() || isGiven(home, stat.uid));
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === "ENOENT" || code === "ENOTDIR") return false;
    throw noRights(home, error);
  }
}

/** For root: a home that root gave to the user of a collector without rights (collect --user). */
function isGiven(home: string, uid: number): boolean {
  return process.geteuid!() === 0 && lstatSync(home).uid === uid && isPlacedByRoot(resolve(home));
}

function noRights(home: string, cause: unknown): RecoveryLineError {
  return new RecoveryLineError(
    "RL_NO_RIGHTS",
    `the collector of ${home} is not open to this user: ${(cause as Error).message}`,
    "Only root and the collector's own user may ask it.",
    cause,
  );
}

/** What a live collector's log holds at one moment. */
export interface CollectedLog {
  readonly firstChain: number;
  readonly lastChain: number;
  /** Newest block of each process. */
  heads(): ReadonlyMap<string, ProcessHead>;
  /** Throws RL_BAD_BLOCK, RL_CORRUPT_LOG, and what the connection throws. */
  block(chain: number): Promise<ParsedBlock>;
  /** Of blocks before firstChain those that the base holds. */
  carried(chain: number): Promise<ParsedBlock | undefined>;
  readonly firstCarried: ReadonlyMap<string, number>;
}

export class CollectorClient {
  readonly #home: string;
  readonly #address: { readonly path: string; close(): void };
  /** A connection a request: one kept open could be closed by the other side just when a long dump has ended. */
  readonly #agent = new Agent({ keepAlive: false, maxSockets: 4 });

  constructor(home: string) {
    this.#home = home;
    this.#address = socketAddress(home);
  }

  /** Nothing of the client keeps the program alive, but a long path costs a descriptor. */
  close(): void {
    this.#agent.destroy();
    this.#address.close();
  }

  ping(limitMs = PING_LIMIT_MS): Promise<Ping> {
    return this.#json("GET", "/v1/ping", undefined, limitMs);
  }

  processes(): Promise<ProcessInfo[]> {
    return this.#json("GET", "/v1/processes");
  }

  stats(): Promise<CollectorStats> {
    return this.#json("GET", "/v1/stats");
  }

  /** Prometheus text. */
  async metrics(): Promise<string> {
    return (await this.#text("GET", "/metrics")).toString();
  }

  register(body: RegisterRequest): Promise<{ incarnation: number }> {
    return this.#json("POST", "/v1/register", body);
  }

  /** `follow: false`: for good, also where it follows a container's name. */
  async unregister(app: string, process: string, follow = true): Promise<void> {
    await this.#json("POST", "/v1/unregister", { app, process, ...(follow ? {} : { follow }) });
  }

  /** `/v1/ended` in protocol.ts. */
  async ended(app: string, process: string, status: number): Promise<void> {
    await this.#json("POST", "/v1/ended", { app, process, status });
  }

  async cut(app: string, process: string): Promise<CutAnswer> {
    return cutFromWire(await this.#json<WireCut>("POST", "/v1/cut", { app, process }));
  }

  /** `WireDependents`. Throws RL_WORKER where the log can't be read, or has no such process. */
  async dependents(app: string, processes: readonly string[]): Promise<readonly string[] | null | undefined> {
    const { dependents } = await this.#json<WireDependents>("POST", "/v1/dependents", { app, processes });
    return dependents;
  }

  /**
   * What processes of the application use together now, while nobody records what they exchange; it is in the log on return. A collector
   * without rights (collect --user) can't look at other users' processes: this program's own rights may reach further.
   */
  async unseen(app: string): Promise<readonly UnseenChannel[]> {
    const { channels, hidden } = await this.#json<WireUnseen>("POST", "/v1/unseen", { app });
    if (!hidden) return channels;
    const { channelsAmong } = await import("../host/look-at-things.ts");
    const live = (await this.processes()).filter((one) => one.app === app && one.live);
    const { channels: found } = await channelsAmong(app, live);
    if (found.length > 0) await this.#json("POST", "/v1/unseen", { app, found });
    return found;
  }

  append(app: string, event: Event): Promise<{ position: number }> {
    return this.#json("POST", "/v1/append", { app, event: printEvent(event) });
  }

  /** Events of several processes that stand still, at one moment: all of them are in the log, or none. `lives`: see protocol.ts. */
  appendAll(
    app: string,
    events: readonly Event[],
    lives: readonly number[],
  ): Promise<{ positions: readonly number[] }> {
    return this.#json("POST", "/v1/append", { app, events: events.map(printEvent), held: true, lives });
  }

  /** `unused`: a number of an earlier call under which nothing was recorded. */
  async nextCheckpoint(app: string, process: string, unused?: number): Promise<number> {
    const asked = { app, process, unused };
    return (await this.#json<{ checkpoint: number }>("POST", "/v1/next-checkpoint", asked)).checkpoint;
  }

  /** How the process is started again; undefined where nobody said. */
  async startRecipe(app: string, process: string): Promise<StartRecipe | undefined> {
    return (await this.#json<{ start?: StartRecipe }>("POST", "/v1/start-recipe", { app, process })).start;
  }

  /** Directory trees that are part of the process's state; undefined: none. With `data` they are so from now on. */
  async data(app: string, process: string, data?: ProcessData): Promise<ProcessData | undefined> {
    return (await this.#json<{ data?: ProcessData }>("POST", "/v1/data", { app, process, data })).data;
  }

  /** Who is at the other end of the application's newest connections with the outside, by channel. */
  async peerNames(app: string): Promise<ReadonlyMap<string, KnownPeer>> {
    const { names } = await this.#json<{ names: KnownPeer[] }>("POST", "/v1/peer-names", { app });
    return new Map(names.map((peer) => [peer.channel, peer]));
  }

  async expectRestore(entries: readonly CutEntry[]): Promise<void> {
    await this.#json("POST", "/v1/expect-restore", { entries });
  }

  async drain(): Promise<void> {
    await this.#json("POST", "/v1/drain", {});
  }

  /** `PruneRequest` in protocol.ts; the collector reads its whole log for it. */
  prune(app: string, oldest: ReadonlyMap<string, number>, keep?: Keep): Promise<Pruned> {
    const body: PruneRequest = { app, oldest: [...oldest], ...(keep === undefined ? {} : { keep }) };
    return this.#json("POST", "/v1/prune", body, PRUNE_LIMIT_MS);
  }

  /** Policies that are plugged. */
  policies(): Promise<PolicyStatus[]> {
    return this.#json("GET", "/v1/policies");
  }

  plugPolicy(body: PlugBody): Promise<PlugAnswer> {
    return this.#json("POST", "/v1/policy/plug", body, REQUEST_LIMIT_MS + body.shadow * 1000);
  }

  unplugPolicy(app: string): Promise<{ policy: string; epoch: number }> {
    return this.#json("POST", "/v1/policy/unplug", { app });
  }

  /** The node is about to go: on return what policies did about it is done, or the time is up. */
  async leaving(withinSeconds: number): Promise<void> {
    await this.#json(
      "POST",
      "/v1/leaving",
      { within: withinSeconds },
      REQUEST_LIMIT_MS + withinSeconds * 1000,
    );
  }

  async rotate(app: string): Promise<void> {
    await this.#json("POST", "/v1/rotate", { app });
  }

  /** Committed blocks of the application behind chain number `since`, in chain order. Throws RL_UNKNOWN_APP, RL_CORRUPT_LOG, RL_NO_COLLECTOR. */
  async *blocks(app: string, since = 0): AsyncGenerator<Uint8Array> {
    yield* this.#stream(`/v1/apps/${encodeURIComponent(app)}/blocks?since=${since}`);
  }

  async #range(path: string): Promise<readonly Uint8Array[]> {
    const all: Uint8Array[] = [];
    for await (const bytes of this.#stream(path)) all.push(bytes);
    return all;
  }

  async *#stream(path: string): AsyncGenerator<Uint8Array> {
    const response = await this.#send("GET", path, undefined, REQUEST_LIMIT_MS);
    try {
      if (response.statusCode !== 200) throw wireErrorOf(await readAll(response));
      yield* receiveBlocks(response);
    } finally {
      response.destroy(); // a reader that stops early stops the collector's reading, too
    }
  }

  /** The application's log by block, as it is now: it may go on, what is in it stays. Throws RL_UNKNOWN_APP. */
  async log(app: string): Promise<CollectedLog> {
    const base = `/v1/apps/${encodeURIComponent(app)}`;
    const log = await this.#json<WireCommitted>("GET", `${base}/committed`);
    const { firstChain, lastChain } = log;
    const known = new Map(log.heads);
    const requests = {
      one: (chain: number) => this.#text("GET", `${base}/blocks/${chain}`),
      range: (first: number, last: number) => this.#range(`${base}/blocks/${first}-${last}`),
    };
    const windows = new BlockWindows(requests, firstChain, lastChain);
    const block = (chain: number): Promise<ParsedBlock> => windows.block(chain);
    return {
      firstChain,
      lastChain,
      heads: () => known,
      block,
      carried: (chain) =>
        block(chain).catch((error: unknown) => {
          if (hasCode(error, "RL_USAGE")) return undefined; // it is not kept
          throw error;
        }),
      firstCarried: new Map(log.firstCarried),
    };
  }

  async #json<T>(method: string, path: string, body?: unknown, limitMs = REQUEST_LIMIT_MS): Promise<T> {
    return JSON.parse((await this.#text(method, path, body, limitMs)).toString()) as T;
  }

  async #text(method: string, path: string, body?: unknown, limitMs = REQUEST_LIMIT_MS): Promise<Buffer> {
    const response = await this.#send(method, path, body, limitMs);
    const bytes = await readAll(response).catch((error: unknown) => {
      throw this.#unreachable(error);
    });
    if (response.statusCode !== 200) throw wireErrorOf(bytes);
    return bytes;
  }

  async #send(method: string, path: string, body: unknown, limitMs: number): Promise<IncomingMessage> {
    const text = body === undefined ? "" : JSON.stringify(body);
    const outgoing = request({
      socketPath: this.#address.path,
      agent: this.#agent,
      method,
      path,
      headers: { "content-length": Buffer.byteLength(text) },
    });
    const timer = setTimeout(() => outgoing.destroy(slow(this.#home, limitMs)), limitMs);
    try {
      outgoing.end(text);
      const [response] = (await once(outgoing, "response")) as [IncomingMessage];
      outgoing.on("error", () => undefined); // the response tells
      return response;
    } catch (error) {
      throw this.#unreachable(error);
    } finally {
      clearTimeout(timer);
    }
  }

  #unreachable(error: unknown): unknown {
    if (error instanceof RecoveryLineError) return error;
    const { code } = error as NodeJS.ErrnoException;
    if (code === "EACCES" || code === "EPERM") return noRights(this.#home, error);
    return new RecoveryLineError(
      "RL_NO_COLLECTOR",
      `the collector of ${this.#home} does not answer: ${(error as Error).message}`,
      "Look at what it printed; start it again if it ended: nothing that it acknowledged is lost.",
      error,
    );
  }
}

function slow(home: string, limitMs: number): RecoveryLineError {
  return new RecoveryLineError(
    "RL_TIMEOUT",
    `the collector of ${home} did not answer within ${limitMs} ms`,
    "It may be waiting for a slow or full disk.",
  );
}

async function readAll(response: IncomingMessage): Promise<Buffer> {
  const chunks: Buffer[] = [];
  let bytes = 0;
  for await (const chunk of response as AsyncIterable<Buffer>) {
    bytes += chunk.length;
    if (bytes > MAX_ANSWER_BYTES)
      throw new RecoveryLineError("RL_LIMIT", "the collector's answer is too long");
    chunks.push(chunk);
  }
  return Buffer.concat(chunks);
}

function wireErrorOf(bytes: Buffer): Error {
  try {
    return errorFromWire(JSON.parse(bytes.toString()) as WireError);
  } catch {
    return new Error(`the collector answered: ${bytes.toString().slice(0, 200)}`);
  }
}
