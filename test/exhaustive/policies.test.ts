/** The random policies and executions of test/policy, 10 000 of each: `npm test` samples them. RL_POLICY_RUNS and RL_POLICY_SEED say others. */
process.env["RL_POLICY_RUNS"] ??= "10000";
await import("../policy/messages.test.ts");
await import("../policy/message-policy.test.ts");
await import("../policy/protocols.test.ts");
await import("../policy/random.test.ts");

export {};
