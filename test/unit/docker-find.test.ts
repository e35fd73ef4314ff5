/** Why docker can't take images of its containers here, as `doctor` says it: by a docker that answers what it is told to. */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, onTestFinished, test } from "vitest";
import { findDocker } from "../../src/images/container/driver-docker-find.ts";

const GOOD = {
  ServerVersion: "9.9",
  ExperimentalBuild: true,
  DefaultRuntime: "runc",
  SecurityOptions: ["name=seccomp,profile=default"],
};

/** With such a docker alone on the path; absent: none. */
function reasonWith(info?: object, host = ""): string {
  const bin = mkdtempSync(join(tmpdir(), "rl-fake-docker-"));
  const before = { path: process.env["PATH"]!, host: process.env["DOCKER_HOST"] };
  onTestFinished(() => {
    process.env["PATH"] = before.path;
    if (before.host === undefined) delete process.env["DOCKER_HOST"];
    else process.env["DOCKER_HOST"] = before.host;
    rmSync(bin, { recursive: true, force: true });
  });
  process.env["PATH"] = bin;
  process.env["DOCKER_HOST"] = host;
  const answer = `case "$1" in --version) echo docker;; *) echo '${JSON.stringify(info)}';; esac`;
  if (info !== undefined) writeFileSync(join(bin, "docker"), `#!/bin/sh\n${answer}\n`, { mode: 0o755 });
  const { found, reason } = findDocker();
  process.env["PATH"] = before.path;
  expect(found).toBeUndefined();
  return reason;
}

test("no docker, no daemon, one of another machine, one without checkpoints, another runtime: named", () => {
  expect(reasonWith()).toBe("docker is not installed.");
  expect(reasonWith({ ServerErrors: ["Cannot connect"] })).toMatch(/^docker's daemon does not answer/);
  expect(reasonWith(GOOD, "ssh://elsewhere")).toMatch(
    /^docker here speaks to another machine \(ssh:\/\/elsewhere\)/,
  );
  expect(reasonWith({ ...GOOD, SecurityOptions: ["name=rootless"] })).toMatch(/^docker runs rootless/);
  const root = process.geteuid!() === 0;
  const whatRootIsTold = [
    [{ ExperimentalBuild: false }, /start dockerd with --experimental/],
    [{ DefaultRuntime: "crun" }, /^docker's runtime is crun/],
  ] as const;
  for (const [change, reason] of whatRootIsTold)
    expect(reasonWith({ ...GOOD, ...change })).toMatch(root ? reason : /^docker runs rootless/);
});
