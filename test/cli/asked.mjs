/** Answers questions to the command line one after the other, in one process: `asked.mjs COMMAND-LINE.js`, then a message each. */
import { Readable } from "node:stream";

const { runCommandLine } = await import(process.argv[2]);

const SIGNALS = ["SIGINT", "SIGTERM", "SIGHUP"];
let before = Promise.resolve();

process.on("message", (question) => {
  before = before.then(() => answer(question)).then((told) => process.send(told));
});

async function answer({ args, input, env }) {
  const told = { stdout: "", stderr: "" };
  const own = { ...process.env };
  const write = { stdout: process.stdout.write, stderr: process.stderr.write };
  for (const name of ["stdout", "stderr"])
    process[name].write = (chunk, encoding, done) => {
      told[name] += typeof chunk === "string" ? chunk : Buffer.from(chunk).toString();
      (typeof encoding === "function" ? encoding : done)?.();
      return true;
    };
  Object.defineProperty(process, "stdin", { value: Readable.from([Buffer.from(input)]), configurable: true });
  Object.assign(process.env, env);
  process.exitCode = undefined;
  try {
    await runCommandLine(args);
    return { code: process.exitCode ?? 0, ...told };
  } finally {
    for (const name of ["stdout", "stderr"]) process[name].write = write[name];
    for (const signal of SIGNALS) process.removeAllListeners(signal);
    for (const key of Object.keys(process.env)) delete process.env[key];
    Object.assign(process.env, own);
    process.exitCode = undefined;
  }
}
