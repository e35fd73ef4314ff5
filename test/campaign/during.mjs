/** How programs of the campaign tell c/kill_point.c what they are about; without it these calls do nothing. */
import { existsSync, writeSync } from "node:fs";

/** Synchronous: what was said before a SIGKILL has been said. */
export const say = (text) => writeSync(1, `${text}\n`);

/** Calls of the file system meanwhile are named after it. */
export async function during(name, work) {
  existsSync(`/kill-context/${name}`);
  const result = await work();
  existsSync("/kill-context/");
  return result;
}

/** Steps that are no calls of the file system: before and after each of these methods. */
export function makePoints(prototype, ...methods) {
  for (const method of methods) {
    const whole = prototype[method];
    prototype[method] = function (...given) {
      existsSync(`/kill-point/before ${method}`);
      const result = whole.apply(this, given);
      existsSync(`/kill-point/after ${method}`);
      return result;
    };
  }
}
