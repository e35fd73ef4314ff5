/**
 * Runs `work` and then `cleanUp`, also where it fails or SIGINT or SIGTERM ends it; the program ends with 130 then. Throws what `work` or
 * `cleanUp` throws.
 */
export async function cleanedUp<T>(work: () => Promise<T>, cleanUp: () => Promise<void>): Promise<T> {
  const interrupted = (): void => void cleanUp().finally(() => process.exit(130));
  process.once("SIGINT", interrupted).once("SIGTERM", interrupted);
  try {
    return await work();
  } finally {
    process.off("SIGINT", interrupted).off("SIGTERM", interrupted);
    await cleanUp();
  }
}
