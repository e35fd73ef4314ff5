/** The policies that come with the program, and files by path. */
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { RecoveryLineError } from "../model/errors.ts";
import { packageRoot } from "../native/binding.ts";
import { buildPolicy } from "./build.ts";
import type { BuiltPolicy } from "./component.ts";
import { nearestWord } from "./nearest-word.ts";
import { decodePolicy } from "./xml-places.ts";

const folder = (): string => join(packageRoot(), "policies");

/** Names, in alphabetical order. */
export function shippedPolicies(): string[] {
  return readdirSync(folder())
    .filter((file) => file.endsWith(".xml"))
    .map((file) => file.slice(0, -4))
    .sort();
}

/** What trials of shipped policies have printed, for the reference. */
export function trialResults(): string {
  return readFileSync(join(packageRoot(), "docs/policy-trials.txt"), "utf8");
}

/** The text of a policy file. Throws RL_USAGE where it can't be read, RL_BAD_INPUT where it is too large or not UTF-8. */
export function readPolicy(file: string): string {
  let bytes: Uint8Array;
  try {
    bytes = readFileSync(file);
  } catch (error) {
    throw new RecoveryLineError("RL_USAGE", `can't read ${file}: ${(error as Error).message}`, "", error);
  }
  return decodePolicy(file, bytes);
}

/** A shipped policy by name, or a file by its path (anything with a `/` or `.xml`). Throws RL_USAGE and what building throws. */
export function loadPolicy(nameOrFile: string): BuiltPolicy {
  if (nameOrFile.includes("/") || nameOrFile.endsWith(".xml"))
    return buildPolicy(nameOrFile, readPolicy(nameOrFile));
  const known = shippedPolicies();
  if (known.includes(nameOrFile)) {
    const file = join(folder(), `${nameOrFile}.xml`);
    return buildPolicy(file, readPolicy(file));
  }
  const near = nearestWord(nameOrFile, known);
  throw new RecoveryLineError(
    "RL_USAGE",
    `no shipped policy is called ${nameOrFile}${near === undefined ? "" : `; did you mean ${near}?`}`,
    `Shipped are ${known.join(", ")}; a file is named by its path.`,
  );
}
