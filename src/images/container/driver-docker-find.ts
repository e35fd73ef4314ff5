/** Whether docker can take and restore images of its containers here, and if not, why. */
import { readdirSync, readFileSync } from "node:fs";
import { answerOf } from "../../host/answer-of.ts";
import { cgroup2Root } from "../../host/cgroups.ts";
import { findProgram } from "../../host/find-program.ts";
import { rootAlone, whyNoEngine } from "./container-driver.ts";
import { DockerDriver } from "./driver-docker.ts";

export type DockerSearch =
  | { readonly found: DockerDriver; readonly reason: string }
  /** One sentence. */
  | { readonly found: undefined; readonly reason: string };

/** As `docker info` prints it. */
interface DockerInfo {
  readonly ServerVersion?: string;
  readonly ExperimentalBuild?: boolean;
  readonly DefaultRuntime?: string;
  readonly SecurityOptions?: readonly string[] | null;
}

export function findDocker(): DockerSearch {
  if (answerOf("docker", ["--version"]) === undefined) return no(whyNoEngine("docker"));
  const host = process.env["DOCKER_HOST"] ?? "";
  if (host !== "" && !host.startsWith("unix:")) return no(`docker here speaks to another machine (${host})`);
  const info = infoOf(answerOf("docker", ["info", "--format", "{{json .}}"]));
  if (info === undefined || (info.ServerVersion ?? "") === "")
    return no("docker's daemon does not answer: `docker info` tells why");
  const options = (info.SecurityOptions ?? []).join(" ");
  if (/name=(rootless|userns)/.test(options) || process.geteuid!() !== 0)
    return no("docker runs rootless or with user namespaces, and images take root");
  if (info.ExperimentalBuild !== true)
    return no("docker's daemon has no checkpoints: they are experimental, start dockerd with --experimental");
  if (info.DefaultRuntime !== "runc")
    return no(`docker's runtime is ${info.DefaultRuntime}: only runc's checkpoints are known`);
  if (cgroup2Root() === "/sys/fs/cgroup")
    return no(
      "with cgroup v2 alone docker would let go of the container before its record is durable: it thaws what it has not frozen",
    );
  const paths = searchPaths();
  const criu = paths.flatMap((path) => findProgram("criu", path, "/").program ?? [])[0];
  if (criu === undefined)
    return no(
      `docker's runtime finds no criu in its search path (${paths.join(" or ") || "no containerd of this machine was found"}): put one there`,
    );
  const works = `docker ${info.ServerVersion} with runc, which finds ${criu}`;
  return { found: new DockerDriver(info.ServerVersion!), reason: `${works}${rootAlone()}.` };
}

function no(reason: string): DockerSearch {
  return { found: undefined, reason: `${reason}.` };
}

function infoOf(answer: string | undefined): DockerInfo | undefined {
  try {
    return JSON.parse(answer ?? "") as DockerInfo;
  } catch {
    return undefined;
  }
}

/** Of all who may start docker's runtime. */
function searchPaths(): string[] {
  const paths = readdirSync("/proc").flatMap((pid) => {
    try {
      if (!/^\d+$/.test(pid) || !/^containerd/.test(readFileSync(`/proc/${pid}/comm`, "utf8"))) return [];
      const variables = readFileSync(`/proc/${pid}/environ`, "utf8").split("\0");
      return variables.filter((one) => one.startsWith("PATH=")).map((one) => one.slice("PATH=".length));
    } catch {
      return []; // it has just ended
    }
  });
  return [...new Set(paths)];
}
