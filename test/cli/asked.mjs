/**
 * Answers questions to the command line one after the other, in one process: `asked.mjs COMMAND-LINE.js`, then a message each. A command that would
 * keep its own process from ending, or throws after its end, is told.
 */
import { readdirSync, readlinkSync } from "node:fs";
import { Readable } from "node:stream";
import { setTimeout as sleep } from "node:timers/promises";

const { runCommandLine } = await import(process.argv[2]);

const SIGNALS = ["SIGINT", "SIGTERM", "SIGHUP"];
const PIPE_BYTES = 65_536;
/** What is under way when a command has answered (a file that is being closed, a child that was killed) ends so soon, also on a slow disk. */
const ENDS_MS = 30_000;
let before = Promise.resolve();
for (const name of ["stdout", "stderr"]) void process[name]; // opened now, so that they count as what was there before
/** What keeps this process alive by itself: the channel to who asks, and the standard streams where they are pipes. */
const resting = kept();
const restingFiles = openFiles();

function kept() {
  const ignored = new Set(["Immediate", "TTYWrap"]);
  return process.getActiveResourcesInfo().filter((name) => !ignored.has(name)).length;
}

/** Paths of all open files, one for each descriptor: one that is left open is closed when its object is collected, with a warning to whoever runs then. */
function openFiles() {
  return readdirSync("/proc/self/fd").flatMap((number) => {
    try {
      const path = readlinkSync(`/proc/self/fd/${number}`);
      return path.startsWith("/") && !path.startsWith("/dev/") ? [path] : [];
    } catch {
      return []; // the folder's own
    }
  });
}

/** As a pipe hands it over. */
function* pieces(text) {
  const bytes = Buffer.from(text);
  for (let at = 0; at < bytes.length; at += PIPE_BYTES) yield bytes.subarray(at, at + PIPE_BYTES);
}

process.on("message", (question) => {
  before = before.then(() => answer(question)).then((told) => process.send(told));
});

/** All of it, and nothing else. */
function setEnvironment(env) {
  for (const key of Object.keys(process.env)) delete process.env[key];
  Object.assign(process.env, env);
}

async function answer({ args, input, env, umask, cwd }) {
  const told = { stdout: "", stderr: "" };
  const own = { env: { ...process.env }, umask: process.umask(umask), cwd: process.cwd() };
  const write = { stdout: process.stdout.write, stderr: process.stderr.write };
  for (const name of ["stdout", "stderr"])
    process[name].write = (chunk, encoding, done) => {
      told[name] += typeof chunk === "string" ? chunk : Buffer.from(chunk).toString();
      (typeof encoding === "function" ? encoding : done)?.();
      return true;
    };
  const stdin = Readable.from(pieces(input), { objectMode: false });
  Object.defineProperty(process, "stdin", { value: stdin, configurable: true });
  setEnvironment(env);
  process.chdir(cwd);
  process.exitCode = undefined;
  try {
    await runCommandLine(args);
    const leftFiles = () => openFiles().filter((path) => !restingFiles.includes(path));
    const isOver = () => kept() <= resting && leftFiles().length === 0;
    for (const untilMs = Date.now() + ENDS_MS; !isOver() && Date.now() < untilMs; ) await sleep(2);
    const left = isOver() ? undefined : [...process.getActiveResourcesInfo(), ...leftFiles()].join(" ");
    return { code: process.exitCode ?? 0, ...told, left };
  } finally {
    for (const name of ["stdout", "stderr"]) process[name].write = write[name];
    for (const signal of SIGNALS) process.removeAllListeners(signal);
    setEnvironment(own.env);
    process.umask(own.umask);
    process.chdir(own.cwd);
    process.exitCode = undefined;
  }
}
