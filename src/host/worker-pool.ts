/**
 * Worker threads with a bounded queue. Whatever ends a worker ends the work: nobody waits for an answer that can't come, and no partial
 * answer is taken for a whole one.
 */
import { Piscina } from "piscina";
import { RecoveryLineError } from "../model/errors.ts";
import { MAX_WORKERS, TASKS_PER_WORKER, WORKER_HEAP_MB } from "../model/limits.ts";

export class WorkerPool<Task, Answer> {
  /** Tasks that may wait or run at one time: callers hold back until `run` settles. */
  readonly capacity: number;
  readonly #piscina: Piscina<Task, Answer>;

  /** Threads run the compiled `file` and start with the first tasks. Throws RL_LIMIT beyond MAX_WORKERS. */
  constructor(workers: number, file: string, heapMb: number = WORKER_HEAP_MB) {
    if (workers > MAX_WORKERS)
      throw new RecoveryLineError("RL_LIMIT", `${workers} workers; at most ${MAX_WORKERS} are possible`);
    this.capacity = workers * TASKS_PER_WORKER;
    this.#piscina = new Piscina<Task, Answer>({
      filename: file,
      minThreads: workers,
      maxThreads: workers,
      maxQueue: this.capacity,
      resourceLimits: { maxOldGenerationSizeMb: heapMb },
    });
    // A thread that dies between tasks reports here; its next task fails by itself.
    this.#piscina.on("error", () => undefined);
  }

  /**
   * One task. `transfer`: memory that moves to the worker. Throws RL_WORKER where the worker died, ran out of memory or threw; the
   * signal's reason where it was aborted.
   */
  async run(task: Task, transfer: ArrayBuffer[], signal?: AbortSignal): Promise<Answer> {
    try {
      return await this.#piscina.run(task, {
        transferList: transfer,
        ...(signal === undefined ? {} : { signal }),
      });
    } catch (cause) {
      signal?.throwIfAborted();
      const why = cause instanceof Error ? cause.message : String(cause);
      throw new RecoveryLineError(
        "RL_WORKER",
        `a worker thread failed: ${why}`,
        "No answer was computed. Try `--workers 0` (no threads) or more memory; if it fails again, report it.",
        cause,
      );
    }
  }

  /** Ends all threads, also working ones. */
  async close(): Promise<void> {
    await this.#piscina.destroy();
  }
}
