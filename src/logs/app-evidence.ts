/** An application's evidence from the logs of one node or of several. */
import { resolve } from "node:path";
import type { EventColumns } from "../format/event-columns.ts";
import type { PageVersions } from "../graph/evidence/page-versions.ts";
import { hasCode, RecoveryLineError } from "../model/errors.ts";
import type { Evidence } from "../model/evidence-layout.ts";
import { appBlocks } from "./app-blocks.ts";
import { resolveHome } from "./home.ts";

export interface AppEvidence {
  readonly evidence: Evidence;
  /** Log directories that lack the application although they were named: only with `assumeLost`. */
  readonly missing: readonly string[];
  /** Nodes that logs or `nodes` name and that no log is of: only with `assumeLost`. */
  readonly missingNodes: readonly string[];
  /** Processes that no collector records though their log says so (see unrecorded.ts). */
  readonly unrecorded: readonly string[];
}

/** The homes that `--log` names, or the default one. Throws RL_USAGE for one named twice. */
export function homesOf(log: readonly string[] | undefined): string[] {
  if (log === undefined) return [resolveHome()];
  const homes = log.map((dir) => resolveHome(dir));
  const twice = homes.find((home, at) => homes.indexOf(home) !== at);
  if (twice === undefined) return homes;
  throw new RecoveryLineError("RL_USAGE", `--log names ${resolve(twice)} twice`, "Name each directory once.");
}

/**
 * Reads one log after the other. Throws RL_UNKNOWN_APP where no home has the application, RL_REFUSED where one of several lacks it (unless
 * `assumeLost`), RL_CONTRADICTION for a process in two logs: its lines have no order then. `declare`: the evidence of an unrecorded process
 * ends in a gap. What events say of page versions goes into `versions`.
 */
export async function evidenceOfLogs(
  homes: readonly string[],
  app: string,
  assumeLost = false,
  nodes?: readonly string[],
  declare = false,
  versions?: PageVersions,
): Promise<AppEvidence> {
  const { EvidenceBuilder } = await import("../graph/evidence/evidence-builder.ts");
  const { decodeBlock } = await import("../format/block.ts");
  const { addBlock } = await import("./read-evidence.ts");
  const builder = new EvidenceBuilder();
  const owners = new Map<string, string>();
  const missing: string[] = [];
  let unknown: unknown;
  for (const home of homes)
    try {
      for await (const bytes of appBlocks(home, app)) {
        const block = decodeBlock(bytes);
        claim(owners, block.columns, home);
        addBlock(builder, block, versions);
      }
    } catch (error) {
      if (!hasCode(error, "RL_UNKNOWN_APP")) throw error;
      unknown = error;
      missing.push(home);
    }
  if (missing.length === homes.length) throw unknown;
  if (missing.length > 0 && !assumeLost) throw refused(app, missing);
  const { checkNodes } = await import("./app-nodes.ts");
  const missingNodes = await checkNodes(homes, app, nodes, assumeLost);
  const { unrecordedProcesses } = await import("./unrecorded.ts");
  const unrecorded = await unrecordedProcesses(homes, app);
  if (declare) for (const process of unrecorded) builder.addEvent({ type: "gap", process });
  return { evidence: builder.build(), missing, missingNodes, unrecorded };
}

function claim(owners: Map<string, string>, { process }: EventColumns, home: string): void {
  const owner = owners.get(process);
  if (owner === undefined) owners.set(process, home);
  else if (owner !== home)
    throw new RecoveryLineError(
      "RL_CONTRADICTION",
      `process ${JSON.stringify(process)} is in the logs of ${owner} and of ${home}`,
      "A process belongs to one node. Is one of the directories a copy of the other?",
    );
}

export function refused(app: string, missing: readonly string[]): RecoveryLineError {
  return new RecoveryLineError(
    "RL_REFUSED",
    `no log of ${app} in ${missing.join(", ")}: the evidence of that node is missing`,
    "Bring the node's log, or add --assume-lost: then the line is tainted, and earlier where it depends on that node.",
  );
}
