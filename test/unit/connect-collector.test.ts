/** Whether there is a collector: a connection that is cut off says that there is. */
import { rmSync } from "node:fs";
import { expect, test } from "vitest";
import { connectCollector } from "../../src/client/client.ts";
import { socketFile } from "../../src/host/socket-path.ts";
import { run } from "../cli/cli.ts";
import { fakeCollector } from "./fake-collector.ts";

test("a collector that has too many clients for a moment is asked again", async () => {
  let asked = 0;
  const home = await fakeCollector({}, () => {
    asked += 1;
    return asked < 3;
  });
  const collector = await connectCollector(home);
  expect(await collector?.ping()).toMatchObject({ pid: 1 });
  collector?.close();
});

test("one that ends meanwhile is none", async () => {
  const home = await fakeCollector({}, () => {
    rmSync(socketFile(home));
    return true;
  });
  expect(await connectCollector(home)).toBeUndefined();
});

test("one that takes nobody is not taken for none: status says why, and does not advise to start one", async () => {
  const home = await fakeCollector({}, () => true);
  const { code, stdout, stderr } = await run(["status", "--log", home]);
  expect([code, stdout, stderr]).toEqual([
    1,
    "",
    expect.stringMatching(/takes no connection: .*\n.*64 clients/),
  ]);
});
