/** What plugged policies tell Prometheus, as of their last beat. */
import { Counter, Gauge, type Registry } from "prom-client";
import type { PolicyStatus } from "../model/plugged-policy.ts";

export interface PoliciesToldOf {
  readonly plugged: readonly PolicyStatus[];
  /** What the last beat of all took, ms. */
  readonly beatMs: number;
}

type Values = Pick<PolicyStatus, "epoch" | "faults" | "stalls" | "restarts" | "state">;

const GAUGES: Readonly<Record<string, { readonly help: string; readonly of: (one: Values) => number }>> = {
  policy_epoch: { help: "Rises with each change of what decides.", of: ({ epoch }) => epoch },
  policy_fallback: {
    help: "1 where the policy has failed and decides no more.",
    of: ({ state }) => (state === "fallback" ? 1 : 0),
  },
  policy_faults: { help: "Crashes, hangs and bad answers of what is plugged.", of: ({ faults }) => faults },
  policy_stalls: { help: "Times that work beyond --most-loss was at risk.", of: ({ stalls }) => stalls },
  policy_restarts: { help: "Restarts by policies in the last ten minutes.", of: ({ restarts }) => restarts },
};

export function definePolicyMetrics(registry: Registry, policies: PoliciesToldOf): void {
  const registers = [registry];
  for (const [name, { help, of }] of Object.entries(GAUGES))
    new Gauge({
      name: `recovery_line_${name}`,
      help,
      registers,
      labelNames: ["app", "policy"],
      collect() {
        this.reset();
        for (const one of policies.plugged) this.set({ app: one.app, policy: one.policy }, of(one));
      },
    });
  new Counter({
    name: "recovery_line_policy_actions_total",
    help: "What policies and their host asked for, and what came of it.",
    registers,
    labelNames: ["app", "action", "outcome"],
    collect() {
      this.reset();
      for (const { app, actions } of policies.plugged)
        for (const [key, count] of Object.entries(actions)) {
          const [action = "", outcome = ""] = key.split(" ");
          this.inc({ app, action, outcome }, count);
        }
    },
  });
  new Gauge({
    name: "recovery_line_policy_beat_seconds",
    help: "Time that the last beat of all policies took.",
    registers,
    collect() {
      this.set(policies.beatMs / 1000);
    },
  });
}
