/**
 * What the paths, ports and ids of an image mean here: on which mounts its files lay, and which namespaces it shares with whoever took it.
 * CRIU does not say either, and brings a process back among those that it is called in.
 */
import { bootId } from "../../host/boot-id.ts";
import {
  type Mount,
  mountsOf,
  mountUnder,
  NAMESPACES,
  type NamespaceKind,
  namespaceOf,
  processIn,
} from "../../host/mounts.ts";
import { imageParts } from "./criu-files.ts";

/** Plain values for the manifest. */
export interface ImagePlaces {
  /** Names of namespaces mean something only until the next boot. */
  readonly bootId: string;
  /** Those that are no part of the image. */
  readonly namespaces: readonly { readonly kind: NamespaceKind; readonly name: string }[];
  /** One of its files on each mount. */
  readonly mounts: readonly { readonly path: string; readonly mount: Mount }[];
}

/** Of the image that was just taken of this task. `put`: what is below it is put back, or has mounts of its own. */
export function placesOf(pid: number, folder: string, isPut: (path: string) => boolean): ImagePlaces {
  const { paths, ourMounts } = imageParts(folder);
  const mounts = mountsOf(pid);
  const used = new Map<Mount, string>();
  for (const { path } of ourMounts ? paths : []) {
    const mount = path.startsWith("/") && !isPut(path) ? mountUnder(mounts, path) : undefined;
    if (mount !== undefined && !KERNEL_TYPES.has(mount.type) && !used.has(mount)) used.set(mount, path);
  }
  return {
    bootId: bootId(),
    namespaces: NAMESPACES.flatMap((kind) => {
      const name = namespaceOf(pid, kind);
      return name === undefined || name !== namespaceOf("self", kind) ? [] : [{ kind, name }];
    }),
    mounts: [...used].map(([mount, path]) => ({ path, mount })),
  };
}

/** Of the kernel itself: the same wherever they are mounted. */
const KERNEL_TYPES = new Set(["proc", "sysfs", "devpts", "devtmpfs", "cgroup", "cgroup2", "mqueue", "bpf"]);

/** What stands in the way, a sentence each. */
export function placeObstacles(places: ImagePlaces): string[] {
  const sameBoot = places.bootId === bootId();
  const mounts = mountsOf("self");
  return [
    ...places.mounts.flatMap(({ path, mount }) =>
      mountObstacle(path, mount, mountUnder(mounts, path), sameBoot),
    ),
    ...(sameBoot ? places.namespaces : []).flatMap(namespaceObstacle),
  ];
}

/** Devices may have other names after a boot. */
function mountObstacle(path: string, was: Mount, now: Mount | undefined, sameBoot: boolean): string[] {
  const isSame =
    now?.point === was.point &&
    now.type === was.type &&
    (!sameBoot || (now.source === was.source && now.root === was.root));
  if (isSame) return [];
  const is = now === undefined ? "on none" : `on ${mountText(now)}`;
  return [`${path}, which it uses, lay on ${mountText(was)} and is ${is} now: mount what was there`];
}

function mountText({ point, type, source, root }: Mount): string {
  return `the mount ${point} (${type} of ${source}${root === "/" ? "" : `, ${root} in it`})`;
}

const WORDS: Readonly<Record<NamespaceKind, string>> = {
  net: "network namespace",
  ipc: "IPC namespace",
  pid: "namespace of process ids",
  user: "user namespace",
};

function namespaceObstacle({ kind, name }: ImagePlaces["namespaces"][number]): string[] {
  if (namespaceOf("self", kind) === name) return [];
  const pid = processIn(kind, name);
  const what = `it was in the ${WORDS[kind]} ${name}, and this command is in another one, into which it would come back`;
  return [
    pid === undefined
      ? `${what}: nobody is in the old one any more, so start it anew (run --fresh)`
      : `${what}: call it from there (nsenter --${kind} --target ${pid})`,
  ];
}
