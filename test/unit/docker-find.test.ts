/** Why docker can't take images of its containers here, as `doctor` says it: by a docker that answers what it is told to. */
import { expect, test } from "vitest";
import { findDocker } from "../../src/images/container/driver-docker-find.ts";
import { fakePrograms, withVariables } from "./fake-programs.ts";

const GOOD = {
  ServerVersion: "9.9",
  ExperimentalBuild: true,
  DefaultRuntime: "runc",
  SecurityOptions: ["name=seccomp,profile=default"],
};

/** With such a docker alone on the path; absent: none. */
async function reasonWith(info?: object, host = ""): Promise<string> {
  const answer = `case "$1" in --version) echo docker;; *) echo '${JSON.stringify(info)}';; esac`;
  const folder = fakePrograms((): Record<string, string> => (info === undefined ? {} : { docker: answer }));
  const { found, reason } = await withVariables({ PATH: folder, DOCKER_HOST: host }, findDocker);
  expect(found).toBeUndefined();
  return reason;
}

test("no docker, no daemon, one of another machine, one without checkpoints, another runtime: named", async () => {
  expect(await reasonWith()).toBe("docker is not installed.");
  expect(await reasonWith({ ServerErrors: ["Cannot connect"] })).toMatch(/^docker's daemon does not answer/);
  expect(await reasonWith(GOOD, "ssh://elsewhere")).toMatch(
    /^docker here speaks to another machine \(ssh:\/\/elsewhere\)/,
  );
  expect(await reasonWith({ ...GOOD, SecurityOptions: ["name=rootless"] })).toMatch(/^docker runs rootless/);
  const root = process.geteuid!() === 0;
  const whatRootIsTold = [
    [{ ExperimentalBuild: false }, /start dockerd with --experimental/],
    [{ DefaultRuntime: "crun" }, /^docker's runtime is crun/],
  ] as const;
  for (const [change, reason] of whatRootIsTold)
    expect(await reasonWith({ ...GOOD, ...change })).toMatch(root ? reason : /^docker runs rootless/);
});
