/** An application's evidence from the logs of one node or of several. */
import type { EventColumns } from "../format/event-columns.ts";
import type { PageVersions } from "../graph/evidence/page-versions.ts";
import { RecoveryLineError } from "../model/errors.ts";
import type { Evidence } from "../model/evidence-layout.ts";
import { type AppLogs, closeLogs, openAppLogs } from "./app-logs.ts";

export interface AppEvidence extends Omit<AppLogs, "logs"> {
  readonly evidence: Evidence;
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
  const { logs, ...absent } = await openAppLogs(homes, app, assumeLost, nodes);
  const builder = new EvidenceBuilder();
  const owners = new Map<string, string>();
  try {
    for (const { name, checked } of logs)
      for await (const bytes of checked()) {
        const block = decodeBlock(bytes);
        claim(owners, block.columns, name);
        addBlock(builder, block, versions);
      }
  } finally {
    await closeLogs(logs);
  }
  if (declare) for (const process of absent.unrecorded) builder.addEvent({ type: "gap", process });
  return { evidence: builder.build(), ...absent };
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
