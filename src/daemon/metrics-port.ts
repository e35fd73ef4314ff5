/** Metrics for a scraper that speaks TCP: on 127.0.0.1 only, one path, nothing to change. */
import { once } from "node:events";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { RecoveryLineError } from "../model/errors.ts";
import { MAX_CLIENTS } from "../model/limits.ts";

export interface MetricsPort {
  readonly port: number;
  /** What it answers; before that it says that it is starting (503). */
  serve(text: () => Promise<string>): void;
  close(): Promise<void>;
}

/** `port` 0: any free one. Throws RL_USAGE where the port is taken. */
export async function openMetricsPort(port: number): Promise<MetricsPort> {
  let metrics: (() => Promise<string>) | undefined;
  const server = createServer({ requestTimeout: 10_000 }, async (request, response) => {
    if (request.method !== "GET" || request.url !== "/metrics") {
      response.writeHead(404).end();
      return;
    }
    if (metrics === undefined) {
      response.writeHead(503).end("the collector is starting\n");
      return;
    }
    try {
      const text = await metrics();
      response.writeHead(200, { "content-type": "text/plain; version=0.0.4; charset=utf-8" }).end(text);
    } catch (error) {
      response.writeHead(500).end(`${(error as Error).message}\n`);
    }
  });
  server.maxConnections = MAX_CLIENTS;
  await listen(server, port);
  return {
    port: (server.address() as AddressInfo).port,
    serve: (text) => {
      metrics = text;
    },
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
}

/** Throws RL_USAGE where the port is taken now. Absent and 0 never are. */
export async function requireFreePort(port: number | undefined): Promise<void> {
  if (port !== undefined && port !== 0) await (await openMetricsPort(port)).close();
}

async function listen(server: Server, port: number): Promise<void> {
  try {
    server.listen(port, "127.0.0.1");
    await once(server, "listening");
  } catch (cause) {
    throw new RecoveryLineError(
      "RL_USAGE",
      `metrics port ${port} cannot be opened: ${(cause as Error).message}`,
      "Choose another --metrics-port.",
      cause,
    );
  }
}
