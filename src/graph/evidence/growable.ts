/**
 * Typed arrays that grow: millions of values without an object each. Unsigned 32-bit (lines, ids) or double (offsets, counts). They start
 * at 64 bytes, the most that V8 keeps inside its own heap: small evidence makes no allocation outside.
 */
abstract class Growable<A extends Uint32Array | Float64Array> {
  data: A;
  length = 0;

  constructor(data: A) {
    this.data = data;
  }

  protected abstract resized(capacity: number): A;

  push(value: number): void {
    if (this.length === this.data.length) this.data = this.resized(this.length * 2);
    this.data[this.length++] = value;
  }

  at(index: number): number {
    return this.data[index] as number;
  }

  clear(): void {
    this.length = 0;
  }
}

export class Uint32List extends Growable<Uint32Array> {
  constructor(capacity = 16) {
    super(new Uint32Array(capacity));
  }

  protected resized(capacity: number): Uint32Array {
    const larger = new Uint32Array(capacity);
    larger.set(this.data);
    return larger;
  }

  /** The values pushed so far, without a copy. */
  view(): Uint32Array {
    return this.data.subarray(0, this.length);
  }
}

export class Float64List extends Growable<Float64Array> {
  constructor(capacity = 8) {
    super(new Float64Array(capacity));
  }

  protected resized(capacity: number): Float64Array {
    const larger = new Float64Array(capacity);
    larger.set(this.data);
    return larger;
  }

  /** The values pushed so far, without a copy. */
  view(): Float64Array {
    return this.data.subarray(0, this.length);
  }
}
