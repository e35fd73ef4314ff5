/** Every bound of the system, with its unit. Nothing grows past what stands here. */

/** Largest offset of a channel: integers stay exact in a double (interchange.md). */
export const MAX_OFFSET = Number.MAX_SAFE_INTEGER;
/** Longest process name, in UTF-8 bytes (interchange.md). */
export const MAX_PROCESS_NAME_BYTES = 255;
/** Longest channel name we accept, in UTF-8 bytes. */
export const MAX_CHANNEL_NAME_BYTES = 4096;
/** Longest line of an events file, in bytes: a cut vector of ~100 000 channels. */
export const MAX_LINE_BYTES = 16 * 1024 * 1024;
/** One record in a kernel or memory ring, header included, in bytes. */
export const RING_SLOT_BYTES = 64;
/** A log block is closed at this size, in bytes (facts.md: larger values halve LevelDB's throughput). */
export const MAX_BLOCK_BYTES = 256 * 1024;
/** A log block of one enormous event (a checkpoint with a very long cut vector) may grow to this size, in bytes. */
export const MAX_EVENT_BLOCK_BYTES = 32 * 1024 * 1024;
/** Events in one log block, count. */
export const MAX_BLOCK_EVENTS = 65_536;
/** Processes of one application, count. */
export const MAX_PROCESSES = 4_194_304;

/** Records the collector drains with one call, count (256 KiB of slots). */
export const DRAIN_BATCH_RECORDS = 4096;
/** A group commit is due at this many pending bytes of slots. */
export const COMMIT_BYTES = 256 * 1024;
/** Events the collector holds uncommitted before it stops draining and commits, count. */
export const MAX_PENDING_EVENTS = 65_536;
/** Longest time from reading a record to its group commit, in ms, unless told otherwise. */
export const COMMIT_INTERVAL_MS = 50;
/** The collector's ring timer, in ms: shortest while records flow, longest when idle (facts.md). */
export const MIN_POLL_MS = 2;
export const MAX_POLL_MS = 20;
/** How often losses that no record has told yet are looked for, in ms. */
export const LOSS_POLL_MS = 100;
/** Entries of one process's cache of channel names, count; a full cache is emptied, names are derived again. */
export const CHANNEL_CACHE_ENTRIES = 65_536;
/** Processes recorded at one time over all applications, count (as many as the kernel map `processes` holds). */
export const MAX_LIVE_PROCESSES = 4096;
/** Checkpoints of one process that can still be named in a rollback, count; the oldest are forgotten. */
export const MAX_KNOWN_CHECKPOINTS = 65_536;
/** Wait between two tries to write a log that failed, in ms: first, and after doubling at most. */
export const LOG_RETRY_MIN_MS = 50;
export const LOG_RETRY_MAX_MS = 5_000;
/** Tries after which a caller that waits for a failing log is told so, count; collection itself goes on trying. */
export const LOG_RETRY_CALLER = 4;
/** Longest wait for a producer that reserved a slot and has not finished it, in ms. */
export const BUSY_SLOT_MS = 10_000;
