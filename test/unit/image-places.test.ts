/** Which mount a path lies on, by /proc/PID/mountinfo, and what of a restart's surroundings is another than the image's. */
import { expect, test } from "vitest";
import { mountsIn, mountsOf, mountUnder } from "../../src/host/mounts.ts";
import { type ImagePlaces, placeObstacles } from "../../src/images/criu/image-places.ts";

const TABLE = `22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
30 22 0:26 / /srv rw shared:2 - tmpfs none rw
31 30 8:1 /data/db /srv/with\\040space rw shared:3 master:1 - ext4 /dev/sda1 rw
32 30 0:27 / /srv/db rw - tmpfs one rw
33 22 0:28 / /over rw - tmpfs two rw
`;

test.each([
  ["/etc/passwd", "/", "/"],
  ["/srv", "/srv", "/"],
  ["/srvx/file", "/", "/"],
  ["/srv/with space/file", "/srv/with space", "/data/db"],
  ["/srv/db/file", "/srv/db", "/"],
])("%s lies on the mount %s", (path, point, root) => {
  expect(mountUnder(mountsIn(TABLE), path)).toMatchObject({ point, root });
});

test("what is mounted later hides what was below it; a path that no mount holds has none", () => {
  const later = `${TABLE}34 22 0:29 / /srv rw - tmpfs later rw\n`;
  expect(mountUnder(mountsIn(later), "/srv/db/file")).toMatchObject({ point: "/srv", source: "later" });
  expect(mountUnder([], "/srv")).toBeUndefined();
});

const here = mountUnder(mountsOf("self"), import.meta.filename)!;
const places = (change: Partial<ImagePlaces>): ImagePlaces => ({
  bootId: "another boot",
  namespaces: [],
  mounts: [],
  ...change,
});

test("after a boot devices may have other names; another type, or another place, is another mount", () => {
  const on = (mount: object) =>
    placeObstacles(places({ mounts: [{ path: import.meta.filename, mount: { ...here, ...mount } }] }));
  expect(on({})).toEqual([]);
  expect(on({ source: "/dev/other" })).toEqual([]);
  expect(on({ type: "other" })).toEqual([
    expect.stringMatching(/lay on the mount .* \(other of .* mount what was there$/),
  ]);
  expect(on({ point: "/no-such" })).toHaveLength(1);
});

test("names of namespaces mean nothing after a boot", () => {
  expect(placeObstacles(places({ namespaces: [{ kind: "net", name: "net:[1]" }] }))).toEqual([]);
});
