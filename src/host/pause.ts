/** A wait that somebody else can end early. */
export class Pause {
  #end: (() => void) | undefined;
  #ended = false;

  /** Resolves after `ms`, or at once where `end` was called since the last wait. */
  wait(ms: number): Promise<void> {
    if (this.#ended || ms <= 0) {
      this.#ended = false;
      return new Promise((resolve) => setImmediate(resolve));
    }
    return new Promise((resolve) => {
      const timer = setTimeout(() => this.#end?.(), ms);
      this.#end = () => {
        clearTimeout(timer);
        this.#end = undefined;
        resolve();
      };
    });
  }

  end(): void {
    if (this.#end === undefined) this.#ended = true;
    else this.#end();
  }
}
