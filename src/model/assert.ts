/** A bug of ours. Never caught to go on; always on, also in production. */
export class AssertionError extends Error {
  override readonly name = "AssertionError";
}

/** States an invariant where it is written and where it is read. */
export function assert(condition: unknown, message: string): asserts condition {
  if (!condition) throw new AssertionError(message);
}
