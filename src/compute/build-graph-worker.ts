/** The worker thread of worker-pool.ts: blocks in, reduced lines out. Runs from `dist`, as worker threads can't read TypeScript. */
import { move, transferableSymbol, valueSymbol } from "piscina";
import { type ReduceTask, reduceBlocks, transferred } from "./worker-protocol.ts";

export default function work(task: ReduceTask): unknown {
  const answer = reduceBlocks(task);
  return move({
    get [transferableSymbol]() {
      return transferred(answer);
    },
    get [valueSymbol]() {
      return answer;
    },
  });
}
