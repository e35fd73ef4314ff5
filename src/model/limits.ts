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
/** Events in one log block, count. */
export const MAX_BLOCK_EVENTS = 65_536;
/** Processes of one application, count. */
export const MAX_PROCESSES = 4_194_304;
