/** The worker thread of compare.ts: one policy, one order, one way of counting delays. Runs from `dist`. */
import { type CompareTask, runTask } from "./compare.ts";
import type { Measures } from "./measures.ts";

export default function work(task: CompareTask): Measures {
  return runTask(task);
}
