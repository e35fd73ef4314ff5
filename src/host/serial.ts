/** Runs asynchronous work one piece at a time, in the order it was handed in. */
export class Serial {
  #last: Promise<unknown> = Promise.resolve();

  /** Resolves or rejects with the work's own result; a failure does not stop what comes after. */
  run<T>(work: () => Promise<T> | T): Promise<T> {
    const result = this.#last.then(work);
    this.#last = result.catch(() => undefined);
    return result;
  }
}
