/** Why images of containers can't be taken here, as `doctor` says it: by a podman and a runtime that answer what they are told to. */
import { join } from "node:path";
import { expect, test } from "vitest";
import { cgroup2Root } from "../../src/host/cgroups.ts";
import { findPodman } from "../../src/images/container/driver-podman-find.ts";
import { fakePrograms, withVariables } from "./fake-programs.ts";

const isRoot = process.geteuid!() === 0;

interface Said {
  readonly rootless?: boolean;
  readonly isRemote?: boolean;
  readonly runtime?: string;
  /** Of the runtime's `checkpoint --help`. */
  readonly code?: number;
}

/** The reason, with such a podman alone on the path. */
async function reasonWith(said: Said | "nothing" | "no podman" | "not for us"): Promise<string> {
  const folder = fakePrograms((bin): Record<string, string> => {
    if (said === "no podman") return {};
    if (said === "not for us") return { podman: "exit 1" };
    const info =
      said === "nothing"
        ? ""
        : JSON.stringify({
            host: {
              conmon: { path: join(bin, "conmon") },
              ociRuntime: { name: said.runtime ?? "runc", path: join(bin, "runtime") },
              security: { rootless: said.rootless ?? false },
              serviceIsRemote: said.isRemote ?? false,
            },
            version: { Version: "9.9" },
          });
    const asked = said === "nothing" ? "exit 125" : `echo '${info}'`;
    const code = said === "nothing" ? 0 : (said.code ?? 0);
    return {
      podman: `case "$1" in --version) echo podman;; *) ${asked};; esac`,
      runtime: `[ "$1 $2" = "checkpoint --help" ] && exit ${code}; exit 9`,
    };
  });
  const { found, reason } = await withVariables({ PATH: folder }, () => findPodman());
  expect(found).toBeUndefined();
  return reason;
}

test("no podman, one that does not answer, a rootless one, one that speaks to another machine", async () => {
  expect(await reasonWith("no podman")).toBe("podman is not installed.");
  expect(await reasonWith("not for us")).toBe(
    `podman does not answer user ${process.geteuid!()}: \`podman --version\` tells why.`,
  );
  expect(await reasonWith("nothing")).toBe("podman info does not answer: `podman info` tells why.");
  expect(await reasonWith({ rootless: true })).toMatch(
    /^podman runs rootless for this user, and images take root/,
  );
  if (isRoot)
    expect(await reasonWith({ isRemote: true })).toBe("podman here only speaks to another machine.");
});

const asRoot = test.skipIf(!isRoot);

asRoot("a runtime without CRIU, and crun on hybrid cgroups", async () => {
  expect(await reasonWith({ code: 1 })).toBe(
    "the runtime runc has no command `checkpoint`: it was built without CRIU.",
  );
  const isHybrid = cgroup2Root() !== "/sys/fs/cgroup";
  expect(await reasonWith({ runtime: "crun", code: 1 })).toBe(
    isHybrid
      ? "crun refuses hybrid cgroups (v1 beside v2): use runc, or boot with cgroup v2 alone."
      : "the runtime crun has no command `checkpoint`: it was built without CRIU.",
  );
});
