/**
 * DSM transfers with known versions (theory.md, "DSM"): the model with exact dependencies (page-versions.ts), and
 *
 *   retention     an invalidated frame keeps its bytes: while its writer keeps having written it, a version has a copy
 */
import type { DsmEvent, PageName } from "../../model/event.ts";
import { EvidenceBuilder } from "../evidence/evidence-builder.ts";
import { PageVersions } from "../evidence/page-versions.ts";
import { type RollbackModel, rollbackModel } from "../rollback/rollback-model.ts";

/** The model of `rollback-model.ts` with exact page dependencies; `undoneBy` and `keptPositions` take it like any other. */
export function exactPageModel(events: Iterable<DsmEvent>): RollbackModel {
  const builder = new EvidenceBuilder();
  const versions = new PageVersions();
  for (const event of events) {
    builder.addEvent(event);
    versions.addEvent(event);
  }
  const { evidence } = versions.exact(builder.build());
  return rollbackModel(evidence, { dsm: "transfers", inTransit: "any" });
}

/** What a cut keeps of one page. */
export interface PageSurvival {
  readonly page: PageName;
  /** Newest version that some process of the cut has seen. */
  readonly version: number;
  /** Who holds it there, as a valid or a retained copy; sorted. Empty: no copy survives, which retention rules out. */
  readonly holders: readonly string[];
  /** Those of them that hold it only because invalidation retains. */
  readonly retained: readonly string[];
}

interface Holding {
  version: number;
  valid: boolean;
}

/**
 * The newest version of every page at a cut and who holds it there. `kept(process)` is the number of its lines that the cut keeps.
 * Events without a version are not seen. A page that nobody in the cut ever received does not appear: it is zero at its home.
 */
export function survivingCopies(
  events: readonly DsmEvent[],
  kept: (process: string) => number,
): PageSurvival[] {
  const newest = new Map<PageName, number>();
  const holdings = new Map<PageName, Map<string, Holding>>();
  const lines = new Map<string, number>();
  for (const event of events) {
    const line = (lines.get(event.process) ?? 0) + 1;
    lines.set(event.process, line);
    if (line > kept(event.process) || event.page === undefined || event.version === undefined) continue;
    const holding = holdingAfter(event, event.version);
    if (holding === undefined) continue;
    newest.set(event.page, Math.max(newest.get(event.page) ?? 0, holding.version));
    const holders = holdings.get(event.page) ?? new Map<string, Holding>();
    holdings.set(event.page, holders.set(event.process, holding));
  }
  return [...newest].map(([page, version]) =>
    survival(page, version, holdings.get(page) as Map<string, Holding>),
  );
}

/** What the event's process holds of the page afterwards; undefined: what it held before. */
function holdingAfter(event: DsmEvent, version: number): Holding | undefined {
  const owned = event.owner === true ? 1 : 0;
  if (event.type === "page-invalidate")
    return event.role === "destination" ? { version, valid: false } : undefined;
  if (event.type === "page-copy")
    return event.role === "destination" ? { version: version + owned, valid: true } : undefined;
  return event.type === "receive" && owned === 1 ? { version: version + 1, valid: true } : undefined;
}

function survival(page: PageName, version: number, holders: ReadonlyMap<string, Holding>): PageSurvival {
  const current = [...holders].filter(([, holding]) => holding.version === version);
  const names = current.map(([process]) => process).sort();
  return {
    page,
    version,
    holders: names,
    retained: names.filter((name) => holders.get(name)?.valid === false),
  };
}
