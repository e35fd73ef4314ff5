/** One line on the terminal that says how far a long piece of work is; nothing where the error output is no terminal. */
const INTERVAL_MS = 200;
/** Work that is done sooner shows nothing. */
const FIRST_MS = 500;

export class Progress {
  readonly #what: string;
  readonly #begin = performance.now();
  #last = this.#begin + FIRST_MS - INTERVAL_MS;
  #shown = false;

  constructor(what: string) {
    this.#what = what;
  }

  /** So many bytes are done. Cheap: most calls print nothing. */
  bytes(done: number): void {
    const now = performance.now();
    if (!process.stderr.isTTY || now - this.#last < INTERVAL_MS) return;
    this.#last = now;
    this.#shown = true;
    const seconds = (now - this.#begin) / 1000;
    const [mib, rate] = [done / 2 ** 20, done / 2 ** 20 / seconds];
    process.stderr.write(`\r${this.#what}: ${mib.toFixed(0)} MiB, ${rate.toFixed(0)} MiB/s\x1b[K`);
  }

  /** Takes the line away. */
  end(): void {
    if (this.#shown) process.stderr.write("\r\x1b[K");
    this.#shown = false;
  }
}
