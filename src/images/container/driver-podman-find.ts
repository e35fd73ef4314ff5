/** Whether images of containers can be taken and restored here, and if not, why. */
import { execFileSync } from "node:child_process";
import { answerOf } from "../../host/answer-of.ts";
import { cgroup2Root } from "../../host/cgroups.ts";
import { findCriu } from "../criu/driver-criu-find.ts";
import { rootAlone, whyNoEngine } from "./container-driver.ts";
import { PodmanDriver } from "./driver-podman.ts";

export type PodmanSearch =
  | { readonly found: PodmanDriver; readonly reason: string }
  /** One sentence. */
  | { readonly found: undefined; readonly reason: string };

const HELP_LIMIT_MS = 10_000;

/** As `podman info` prints it. */
interface PodmanInfo {
  readonly host: {
    readonly conmon: { readonly path: string };
    readonly ociRuntime: { readonly name: string; readonly path: string };
    readonly security: { readonly rootless: boolean };
    readonly serviceIsRemote?: boolean;
  };
  readonly version: { readonly Version: string };
}

/** `stateFolder`: where a private CRIU may lie. */
export async function findPodman(stateFolder?: string): Promise<PodmanSearch> {
  if (answerOf("podman", ["--version"]) === undefined) return no(whyNoEngine("podman"));
  const info = infoOf(answerOf("podman", ["info", "--format", "json"]));
  if (info === undefined) return no("podman info does not answer: `podman info` tells why");
  const { security, ociRuntime, conmon, serviceIsRemote } = info.host;
  if (security.rootless || process.geteuid!() !== 0)
    return no("podman runs rootless for this user, and images take root: attach as root what root runs");
  if (serviceIsRemote === true) return no("podman here only speaks to another machine");
  const isHybrid = cgroup2Root() !== "/sys/fs/cgroup";
  if (ociRuntime.name === "crun" && isHybrid)
    return no("crun refuses hybrid cgroups (v1 beside v2): use runc, or boot with cgroup v2 alone");
  if (!canCheckpoint(ociRuntime.path))
    return no(`the runtime ${ociRuntime.name} has no command \`checkpoint\`: it was built without CRIU`);
  const search = await findCriu(stateFolder);
  if (search.found === undefined) return no(search.reason.replace(/\.$/, ""));
  const tools = { criu: search.found, conmon: conmon.path, version: info.version.Version };
  const works = `podman ${tools.version} with ${ociRuntime.name}, which is handed CRIU ${search.found.version}`;
  return { found: new PodmanDriver(tools), reason: `${works}${rootAlone()}.` };
}

function no(reason: string): PodmanSearch {
  return { found: undefined, reason: `${reason}.` };
}

function infoOf(answer: string | undefined): PodmanInfo | undefined {
  try {
    const info = JSON.parse(answer ?? "") as PodmanInfo;
    return info.host?.conmon?.path === undefined || info.host.ociRuntime?.path === undefined
      ? undefined
      : info;
  } catch {
    return undefined;
  }
}

function canCheckpoint(runtime: string): boolean {
  try {
    execFileSync(runtime, ["checkpoint", "--help"], { stdio: "ignore", timeout: HELP_LIMIT_MS });
    return true;
  } catch {
    return false;
  }
}
