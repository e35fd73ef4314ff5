import { expect, test } from "vitest";
import { yardsOf } from "../../src/host/containers.ts";
import { mountsIn } from "../../src/host/mounts.ts";

const ID = "ab".repeat(32);
const STORE = "/var/lib/con\\040tainers/storage/vfs-containers";
const yard = (id: string): string => `${STORE}/${id}/userdata/.criu.cgyard.x7`;

test("what a killed CRIU left mounted in a container's folder is found, once, and nobody else's", () => {
  const mountinfo = [
    "22 1 253:0 / / rw,relatime shared:1 - ext4 /dev/vda rw",
    `90 22 0:60 / ${yard(ID)} rw - tmpfs none rw`,
    `91 90 0:30 / ${yard(ID)}/unified rw - cgroup2 none rw`,
    `92 22 0:61 / ${yard("cd".repeat(32))} rw - tmpfs none rw`,
    `93 22 0:62 / ${STORE}/${ID}/merged rw - tmpfs none rw`,
    "",
  ].join("\n");
  expect(yardsOf(ID, mountsIn(mountinfo))).toEqual([yard(ID).replace("\\040", " ")]);
});
