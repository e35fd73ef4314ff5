/** What stands in the way of a container of docker, by a docker that answers what it is told to. */
import { expect, test } from "vitest";
import { DockerDriver } from "../../src/images/container/driver-docker.ts";
import { fakePrograms, withVariables } from "./fake-programs.ts";

const ID = "a".repeat(64);
const NOTES = {
  container: ID,
  name: "db",
  image: "sha256:0123456789abcdef",
  imageName: "redis",
  addresses: ["10.0.0.2"],
  unsaved: [],
};
const DEAD = {
  Id: ID,
  Name: "/db",
  State: { Pid: 0, Status: "exited", ExitCode: 137 },
  Image: NOTES.image,
  Config: { Image: "redis" },
  GraphDriver: { Data: { UpperDir: "/none/diff" } },
  ResolvConfPath: "/none/resolv.conf",
  HostConfig: { NetworkMode: "bridge", Runtime: "runc" },
  NetworkSettings: { Networks: { bridge: { IPAddress: "" } } },
};

/** With a docker on the path that has these containers, and images or none. */
function obstacles(containers: readonly object[], hasImage = true): Promise<string[]> {
  const ids = containers.map((_, at) => at).join("\n");
  const docker = `case "$1 $2" in
"ps --all") echo '${ids}';;
"container inspect") echo '${JSON.stringify(containers)}';;
"image inspect") exit ${hasImage ? 0 : 1};;
esac`;
  const folder = fakePrograms(() => ({ docker }));
  return withVariables({ PATH: `${folder}:${process.env["PATH"]}` }, () =>
    new DockerDriver("9.9").obstacles(NOTES, new Set([77])),
  );
}

test("a dead container, and one that this restart kills, have nothing in their way", async () => {
  expect(await obstacles([DEAD])).toEqual([]);
  expect(await obstacles([{ ...DEAD, State: { Pid: 77, Status: "running", ExitCode: 0 } }])).toEqual([]);
});

test("each obstacle is named: gone, removed by itself, started again, running, a namesake, its address, its image, who uses its network", async () => {
  const other = { ...DEAD, Id: "b".repeat(64), Name: "/other" };
  const running = { Pid: 5, Status: "running", ExitCode: 0 };
  const cases: [readonly object[], string][] = [
    [[], "the container db was removed, and docker starts only what it has: there is no way back"],
    [
      [{ ...DEAD, HostConfig: { ...DEAD.HostConfig, AutoRemove: true } }],
      "the container db would be removed by docker as soon as it is dead",
    ],
    [
      [{ ...DEAD, State: { ...DEAD.State, Status: "restarting" } }],
      "docker is about to start the container db again (restarting): docker stop db",
    ],
    [[{ ...DEAD, State: running }], "the container db runs, and nobody records it: docker stop db"],
    [
      [DEAD, { ...other, Name: "/db" }],
      "another container has the name db now (bbbbbbbbbbbb): rename or remove that one",
    ],
    [
      [
        DEAD,
        {
          ...other,
          State: running,
          NetworkSettings: { Networks: { bridge: { IPAddress: "10.0.0.2" } } },
        },
      ],
      "the container other has its address 10.0.0.2 now: stop that one",
    ],
    [
      [DEAD, { ...other, HostConfig: { NetworkMode: `container:${ID}` } }],
      "the container other uses namespaces of db, which can't be made anew below it: remove it",
    ],
  ];
  for (const [containers, sentence] of cases) expect(await obstacles(containers)).toEqual([sentence]);
  expect(await obstacles([DEAD], false)).toEqual([
    "the image redis (0123456789ab) of the container is gone: pull or load it",
  ]);
});

test("a container that goes between list and look hides no other", async () => {
  const namesake = { ...DEAD, Id: "b".repeat(64) };
  const folder = fakePrograms((at) => ({
    docker: `case "$1 $2" in
"ps --all") echo a; echo b; [ -e ${at}/gone ] || echo c;;
"container inspect") [ -e ${at}/gone ] || { touch ${at}/gone; echo '[]'; exit 1; }; echo '${JSON.stringify([DEAD, namesake])}';;
esac`,
  }));
  const told = await withVariables({ PATH: `${folder}:${process.env["PATH"]}` }, () =>
    new DockerDriver("9.9").obstacles(NOTES, new Set()),
  );
  expect(told).toEqual(["another container has the name db now (bbbbbbbbbbbb): rename or remove that one"]);
});
