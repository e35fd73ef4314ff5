// npm's install script: builds the native part and the payload logger with the headers of this machine, or leaves them out. Never fails:
// without them nothing can be captured, and whoever tries is told so (RL_NOT_SUPPORTED); importing, exporting and computing need none.
// In a checkout setup.sh builds what is missing (package.json's `prepare`).
import { spawnSync } from "node:child_process";
import { existsSync } from "node:fs";
import { dirname, join } from "node:path";

const prefixes = [process.env.npm_config_nodedir, "/usr", dirname(dirname(process.execPath))];
const headers = prefixes.find((prefix) => prefix && existsSync(join(prefix, "include/node/node_api.h")));
const leaveOut = (why) =>
  console.log(`recovery-line: the native part is left out (${why}); nothing can be captured`);

if (existsSync("scripts/setup.sh")) process.exit();
if (process.platform !== "linux") leaveOut("this is not Linux");
else if (headers === undefined) leaveOut("Node's headers are not on this machine");
else {
  const built = spawnSync("node-gyp-build", {
    env: { ...process.env, npm_config_nodedir: headers },
    encoding: "utf8",
  });
  if (built.status !== 0) {
    const last = `${built.stderr ?? ""}`.split("\n").findLast((line) => /error|not found|fatal/i.test(line));
    leaveOut(last?.trim() ?? built.error?.message ?? "its build failed");
  } else if (spawnSync("make", ["-s", "-C", "native/payload"]).status !== 0)
    console.log("recovery-line: the payload logger is left out; run --payload needs it (doctor tells)");
}
