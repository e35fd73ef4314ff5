/** HTTP on the unix socket, for root and the collector's own user. */

import { once } from "node:events";
import { chmodSync, rmSync } from "node:fs";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { Socket } from "node:net";
import { sendBlocks } from "../client/block-stream.ts";
import { statusOf, type WireCommitted, wireError } from "../client/protocol.ts";
import { socketAddress, socketFile } from "../host/socket-path.ts";
import { windowOf } from "../model/block-window.ts";
import { RecoveryLineError } from "../model/errors.ts";
import { MAX_BLOCK_STREAMS, MAX_CLIENTS, REQUEST_LIMIT_MS } from "../model/limits.ts";
import { native } from "../native/binding.ts";
import { readBody } from "./body.ts";
import { ROUTES, type Service } from "./routes.ts";

const COMMITTED = /^\/v1\/apps\/([^/]+)\/committed$/;
const BLOCK = /^\/v1\/apps\/([^/]+)\/blocks\/(\d{1,16})(?:-(\d{1,16}))?$/;
const BLOCKS = /^\/v1\/apps\/([^/]+)\/blocks$/;
const CLOSE_LIMIT_MS = 2_000;

export class CollectorServer {
  readonly #server: Server;
  readonly #service: Service;
  readonly #home: string;
  #streams = 0;

  private constructor(service: Service, home: string) {
    this.#service = service;
    this.#home = home;
    this.#server = createServer(
      { requestTimeout: REQUEST_LIMIT_MS, headersTimeout: 10_000 },
      (request, response) => this.#answer(request, response),
    );
    this.#server.maxConnections = MAX_CLIENTS;
    this.#server.on("connection", refuseStrangers);
  }

  /** Listens on the home's socket, in place of a dead collector's. The caller holds the home's lock. */
  static async listen(service: Service, home: string): Promise<CollectorServer> {
    const server = new CollectorServer(service, home);
    rmSync(socketFile(home), { force: true });
    const address = socketAddress(home);
    const before = process.umask(0o177); // 0600 from its first moment
    try {
      server.#server.listen(address.path);
      await once(server.#server, "listening");
      chmodSync(socketFile(home), 0o600);
    } finally {
      process.umask(before);
      address.close();
    }
    return server;
  }

  /** Takes nobody new, lets requests under way end for a moment, then cuts them off; the socket is gone on return. */
  async close(): Promise<void> {
    const closed = new Promise<void>((resolve) => this.#server.close(() => resolve()));
    this.#server.closeIdleConnections();
    const timer = setTimeout(() => this.#server.closeAllConnections(), CLOSE_LIMIT_MS);
    await closed;
    clearTimeout(timer);
    rmSync(socketFile(this.#home), { force: true });
  }

  async #answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    response.on("error", () => response.destroy());
    try {
      await this.#route(request, response);
    } catch (error) {
      const body = wireError(error);
      if (!response.headersSent) sendJson(response, statusOf(body.code), body);
      else response.destroy();
      request.resume();
    }
  }

  async #route(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const url = new URL(request.url ?? "/", "http://collector");
    const blocks = BLOCKS.exec(url.pathname);
    if (request.method === "GET" && blocks !== null)
      return this.#blocks(decodeURIComponent(blocks[1]!), url.searchParams.get("since"), response);
    const committed = COMMITTED.exec(url.pathname);
    if (request.method === "GET" && committed !== null)
      return sendJson(response, 200, await this.#committed(decodeURIComponent(committed[1]!)));
    const block = BLOCK.exec(url.pathname);
    if (request.method === "GET" && block !== null) {
      const [, app, first, last] = block as unknown as readonly [string, string, string, string | undefined];
      if (last === undefined) return this.#block(decodeURIComponent(app), Number(first), response);
      return this.#range(decodeURIComponent(app), Number(first), Number(last), response);
    }
    if (request.method === "GET" && url.pathname === "/metrics") {
      response.setHeader("content-type", "text/plain; version=0.0.4; charset=utf-8");
      response.end(await this.#service.metrics());
      return;
    }
    const route = ROUTES.get(`${request.method} ${url.pathname}`);
    if (route === undefined)
      throw new RecoveryLineError("RL_USAGE", `the collector knows no ${request.method} ${url.pathname}`);
    sendJson(response, 200, await route(this.#service, await readBody(request)));
  }

  async #committed(app: string): Promise<WireCommitted> {
    await this.#service.unseen.beforeAnswer(app);
    const log = await this.#service.collector.logs.committed(app);
    return { ...log, heads: [...log.heads], firstCarried: [...log.firstCarried] };
  }

  async #block(app: string, chain: number, response: ServerResponse): Promise<void> {
    const bytes = await this.#service.collector.logs.block(app, chain).catch((error: unknown) => {
      if (!(error instanceof TypeError)) throw error;
      throw new RecoveryLineError("RL_USAGE", `the log of ${app} holds no block ${chain}`);
    });
    response.writeHead(200, { "content-type": "application/octet-stream", "content-length": bytes.length });
    response.end(bytes);
  }

  async #range(app: string, first: number, last: number, response: ServerResponse): Promise<void> {
    if (!(first >= 1 && first <= last && windowOf(first).number === windowOf(last).number))
      throw new RecoveryLineError("RL_USAGE", `blocks ${first} to ${last} are not those of one window`);
    const { logs } = this.#service.collector;
    await sendBlocks(response, firstOf(logs.committedBlocks(app, first - 1), last - first + 1));
  }

  async #blocks(app: string, sinceText: string | null, response: ServerResponse): Promise<void> {
    const since = Number(sinceText ?? 0);
    if (!Number.isSafeInteger(since) || since < 0)
      throw new RecoveryLineError("RL_USAGE", "since is the chain number of a block");
    if (this.#streams >= MAX_BLOCK_STREAMS)
      throw new RecoveryLineError(
        "RL_LIMIT",
        `${MAX_BLOCK_STREAMS} readers are being served`,
        "Try again later.",
      );
    this.#streams += 1;
    try {
      await this.#service.unseen.beforeAnswer(app);
      await sendBlocks(response, this.#service.collector.logs.readBlocks(app, since));
    } finally {
      this.#streams -= 1;
    }
  }
}

async function* firstOf<T>(items: AsyncIterable<T>, count: number): AsyncGenerator<T> {
  let left = count;
  for await (const item of items) {
    yield item;
    left -= 1;
    if (left === 0) return;
  }
}

/** The socket's mode keeps others out already; the kernel's word for who connected holds even where that was changed. */
function refuseStrangers(socket: Socket): void {
  const { fd } = (socket as unknown as { _handle: { fd: number } })._handle;
  const { uid } = native().peer(fd);
  if (uid !== 0 && uid !== process.geteuid!()) socket.destroy();
}

function sendJson(response: ServerResponse, status: number, value: unknown): void {
  const text = JSON.stringify(value);
  response.writeHead(status, {
    "content-type": "application/json",
    "content-length": Buffer.byteLength(text),
  });
  response.end(text);
}
