/** The manifests of packaging/: a schema of the part of Kubernetes that is used, and one set of mounts and namespaces in all three. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { parse } from "yaml";
import { packageRoot } from "../../src/native/binding.ts";

function packaged(name: string): string {
  return readFileSync(join(packageRoot(), "packaging", name), "utf8");
}

/** A field's kind; of an object its fields, those with "!" required; [x]: a list of x; "map": any strings. */
type Schema =
  | "string"
  | "number"
  | "boolean"
  | "map"
  | readonly [Schema]
  | { readonly [field: string]: Schema };

const LABELS = { labels: "map" } as const;
const CONTAINER: Schema = {
  "name!": "string",
  "image!": "string",
  imagePullPolicy: "string",
  command: ["string"],
  args: ["string"],
  securityContext: { privileged: "boolean" },
  resources: { requests: "map", limits: "map" },
  volumeMounts: [
    { "name!": "string", "mountPath!": "string", mountPropagation: "string", readOnly: "boolean" },
  ],
};
/** apps/v1 DaemonSet, as the API's reference has it. */
const DAEMON_SET: Schema = {
  "apiVersion!": "string",
  "kind!": "string",
  "metadata!": { "name!": "string", namespace: "string", ...LABELS },
  "spec!": {
    "selector!": { "matchLabels!": "map" },
    updateStrategy: { type: "string", rollingUpdate: { maxUnavailable: "number" } },
    "template!": {
      "metadata!": LABELS,
      "spec!": {
        hostPID: "boolean",
        hostIPC: "boolean",
        hostNetwork: "boolean",
        dnsPolicy: "string",
        automountServiceAccountToken: "boolean",
        terminationGracePeriodSeconds: "number",
        nodeSelector: "map",
        "containers!": [CONTAINER],
        volumes: [{ "name!": "string", hostPath: { "path!": "string", type: "string" } }],
      },
    },
  },
};

/** Where a value is not as the schema has it. */
function wrong(value: unknown, schema: Schema, at = ""): string[] {
  if (schema === "map")
    return Object.entries((value ?? {}) as object).flatMap(([name, one]) =>
      wrong(one, "string", `${at}.${name}`),
    );
  if (typeof schema === "string") return typeof value === schema ? [] : [`${at} is no ${schema}`];
  if (Array.isArray(schema))
    return Array.isArray(value)
      ? value.flatMap((one, index) => wrong(one, schema[0] as Schema, `${at}[${index}]`))
      : [`${at} is no list`];
  if (typeof value !== "object" || value === null || Array.isArray(value)) return [`${at} is no object`];
  const fields = new Map(Object.entries(schema).map(([name, kind]) => [name.replace("!", ""), kind]));
  const lacking = Object.keys(schema).filter((name) => name.endsWith("!") && !(name.slice(0, -1) in value));
  return [
    ...lacking.map((name) => `${at}.${name.slice(0, -1)} is missing`),
    ...Object.entries(value).flatMap(([name, one]) => {
      const kind = fields.get(name);
      return kind === undefined ? [`${at}.${name} is no field`] : wrong(one, kind, `${at}.${name}`);
    }),
  ];
}

interface DaemonSet {
  readonly spec: {
    readonly selector: { readonly matchLabels: object };
    readonly template: {
      readonly metadata: { readonly labels: object };
      readonly spec: {
        readonly hostPID: boolean;
        readonly hostIPC: boolean;
        readonly hostNetwork: boolean;
        readonly containers: readonly {
          readonly args: readonly string[];
          readonly securityContext: { readonly privileged: boolean };
          readonly volumeMounts: readonly { name: string; mountPath: string; mountPropagation?: string }[];
        }[];
        readonly volumes: readonly { name: string; hostPath: { path: string; type: string } }[];
      };
    };
  };
}

function daemonSet(): DaemonSet {
  return parse(packaged("kubernetes-daemonset.yaml"), { strict: true }) as DaemonSet;
}

/** Volumes, each "HOST:INSIDE[:rslave]", and the command of recovery-line-collector.container, which test/daemon/packaging.test.ts runs. */
function quadlet(): { volumes: string[]; exec: string } {
  const lines = packaged("recovery-line-collector.container").split("\n");
  const values = (key: string): string[] =>
    lines.filter((line) => line.startsWith(`${key}=`)).map((line) => line.slice(key.length + 1));
  expect(values("PodmanArgs")).toEqual(["--privileged --pid=host --cgroupns=host --ipc=host --uts=host"]);
  expect(values("Network")).toEqual(["host"]);
  return { volumes: values("Volume").toSorted(), exec: values("Exec")[0]! };
}

test("the DaemonSet has the fields that Kubernetes knows, each of its type, and its parts name each other", () => {
  const manifest = daemonSet();
  expect(wrong(manifest, DAEMON_SET)).toEqual([]);
  const { selector, template } = manifest.spec;
  expect(template.metadata.labels).toEqual(selector.matchLabels);
  const [collector] = template.spec.containers;
  expect(collector!.volumeMounts.map(({ name }) => name)).toEqual(
    template.spec.volumes.map(({ name }) => name),
  );
  for (const { hostPath } of template.spec.volumes)
    expect(["Directory", "DirectoryOrCreate"]).toContain(hostPath.type);
});

test("the schema finds a field that is unknown, missing or of another type", () => {
  const manifest = daemonSet();
  const spec = (more: object): unknown => ({ ...manifest, spec: { ...manifest.spec, ...more } });
  expect(wrong(spec({ replicas: 1 }), DAEMON_SET)).toEqual([".spec.replicas is no field"]);
  expect(wrong(spec({ selector: {} }), DAEMON_SET)).toEqual([".spec.selector.matchLabels is missing"]);
  expect(wrong(spec({ updateStrategy: { type: 1 } }), DAEMON_SET)).toEqual([
    ".spec.updateStrategy.type is no string",
  ]);
});

test("quadlet, compose file and DaemonSet give the collector the same", () => {
  const { volumes, exec } = quadlet();
  const { spec } = daemonSet().spec.template;
  const [pod] = spec.containers;
  const ofPod = pod!.volumeMounts.map(({ name, mountPath, mountPropagation }) => {
    const { path } = spec.volumes.find((one) => one.name === name)!.hostPath;
    return `${path}:${mountPath}${mountPropagation === "HostToContainer" ? ":rslave" : ""}`;
  });
  expect(ofPod.toSorted()).toEqual(volumes);
  expect([spec.hostPID, spec.hostIPC, spec.hostNetwork, pod!.securityContext.privileged]).toEqual([
    true,
    true,
    true,
    true,
  ]);
  expect(pod!.args.join(" ")).toBe(exec);

  const { collector } = (
    parse(packaged("compose.yaml"), { strict: true }) as { services: Record<string, object> }
  ).services;
  expect(collector).toMatchObject({
    privileged: true,
    pid: "host",
    cgroup: "host",
    ipc: "host",
    uts: "host",
    network_mode: "host",
  });
  const { volumes: ofCompose, command } = collector as { volumes: string[]; command: string[] };
  expect(ofCompose.toSorted()).toEqual(volumes);
  expect(command.join(" ")).toBe(exec);
});
