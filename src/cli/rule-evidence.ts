/** What `run --outside` and `--inside` say of an address and port, against who listens there. */

import type { BlockList } from "node:net";
import type { CollectorClient } from "../client/client.ts";
import { type NamedPlace, PeerRules } from "../collect/peer-rules.ts";
import { ProcessCgroup } from "../host/cgroups.ts";
import { asV4, type EndAddress, isAnyAddress, listenersHere } from "../host/open-connections.ts";
import { programName } from "../host/process-tree.ts";
import { localAddresses } from "../host/surroundings.ts";
import type { CollectedProcess } from "../model/collector-answers.ts";
import { RecoveryLineError } from "../model/errors.ts";
import type { StoredPeerRules } from "../model/stored-process.ts";

/** Throws RL_CONTRADICTION where one of this network namespace listens there who is on the other side. */
export async function refuseContradicted(
  collector: CollectorClient,
  app: string,
  rules: StoredPeerRules,
): Promise<void> {
  const places = new PeerRules(rules).places();
  if (places.length === 0) return;
  const known = (await collector.processes()).filter(({ live, rings }) => live && !rings);
  const here = localAddresses();
  for (const listener of listenersHere()) {
    const place = places.find((one) => one.port === listener.port && leadsTo(one, asV4(listener), here));
    if (place === undefined || listener.pid === undefined) continue;
    const why = contradiction(place, app, listener.pid, known);
    if (why !== undefined)
      throw new RecoveryLineError("RL_CONTRADICTION", `${place.rule}: ${why.is}`, why.advice);
  }
}

function leadsTo(place: NamedPlace, { address, v6 }: EndAddress, here: BlockList): boolean {
  return isAnyAddress(address) ? here.check(place.address, place.family) : place.isAt(address, v6);
}

function contradiction(
  { side }: NamedPlace,
  app: string,
  pid: number,
  known: readonly CollectedProcess[],
): { readonly is: string; readonly advice: string } | undefined {
  const recorded = known.find((one) => new ProcessCgroup(one.app, one.process).pids().includes(pid));
  const program = `process ${pid} (${programName(pid)})`;
  if (side === "outside" && recorded?.app === app)
    return {
      is: `${recorded.process} of ${app}, which is recorded, listens there (${program})`,
      advice: "Leave the option out: it goes back with the others.",
    };
  if (side === "outside" || recorded?.app === app) return undefined;
  if (recorded !== undefined)
    return {
      is: `${recorded.process} of ${recorded.app}, another application, listens there (${program})`,
      advice: "Leave the option out, as it never goes back with this one; or run both as one application.",
    };
  return {
    is: `${program} listens there, and nobody records it, so that it never goes back`,
    advice: "Record it under this application first (run, attach), or leave the option out.",
  };
}
