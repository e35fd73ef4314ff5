/** What `doctor` tries of the SDK works where it is tried with everything there. */
import { execFileSync } from "node:child_process";
import { expect, test } from "vitest";
import { testSdkInC } from "../../src/sdk/self-test.ts";

function compiles(): boolean {
  try {
    execFileSync("cc", ["--version"], { stdio: "ignore" });
    return true;
  } catch {
    return false;
  }
}

test.skipIf(!compiles())(
  "a program in C is compiled with all sources of the package, and comes back",
  async () => {
    expect(await testSdkInC()).toEqual({
      works: true,
      reason: "A C program with recovery_sdk.h was compiled, ran, and came back.",
    });
  },
);
