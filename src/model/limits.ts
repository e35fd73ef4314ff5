/** Every bound of the system, with its unit. Nothing grows past what stands here. */

/** Largest offset of a channel: integers stay exact in a double (interchange.md). */
export const MAX_OFFSET = Number.MAX_SAFE_INTEGER;
/** Longest process name, in UTF-8 bytes (interchange.md). */
export const MAX_PROCESS_NAME_BYTES = 255;
/** Longest channel name we accept, in UTF-8 bytes. */
export const MAX_CHANNEL_NAME_BYTES = 4096;
/** Longest line of an events file, in bytes: a cut vector of ~100 000 channels. */
export const MAX_LINE_BYTES = 16 * 1024 * 1024;
/** A log block is closed at this size, in bytes (facts.md: larger values halve LevelDB's throughput). */
export const MAX_BLOCK_BYTES = 256 * 1024;
/** A log block of one enormous event (a checkpoint with a very long cut vector) may grow to this size, in bytes. */
export const MAX_EVENT_BLOCK_BYTES = 32 * 1024 * 1024;
/** A log segment is sealed at this size of its blocks, in bytes (retention removes whole segments). */
export const SEGMENT_BYTES = 64 * 1024 * 1024;
/** LevelDB's write buffer of the open segment, in bytes; two of them may be in memory. */
export const LEVEL_WRITE_BUFFER_BYTES = 8 * 1024 * 1024;
/** LevelDB's cache of the open segment, in bytes: what it reads is read once. */
export const LEVEL_CACHE_BYTES = 256 * 1024;
/** Blocks of removed segments that a log carries along in its state because they may still matter, bytes. */
export const MAX_CARRIED_BYTES = 8 * 1024 * 1024;
/** Share of the removed segments that may be carried along: less is not worth it. */
export const MAX_CARRIED_SHARE = 0.5;
/** Gaps of one process before the checkpoint that its history is collapsed into, count. */
export const MAX_BASE_GAPS = 4096;
/** Channels outside that the checkpoint which a process's history is collapsed into may name though its own cut does not, count. */
export const MAX_BASE_OUTSIDE = 16_384;
/** Sealed segments kept open for readers, count. */
export const MAX_OPEN_SEGMENTS = 8;
/** Damaged places and overlaps that `verify` lists; more are counted. */
export const MAX_FINDINGS = 1000;
/** Longest key of `putState`, in UTF-8 bytes. */
export const MAX_STATE_KEY_BYTES = 1024;
/** UDP ports and sockets that a process is known to have sent datagrams to, count; beyond, it may have sent to any. */
export const MAX_DATAGRAM_PLACES = 4096;
/** Programs outside that the collector remembers of an application, so that it knows relays, count; those that hold connections stay longest. */
export const MAX_STRANGERS = 512;
/** `run --outside` and `--inside` of one application, count. */
export const MAX_PEER_RULES = 256;
/** Addresses of peers that are kept until it is told who is there, count. */
export const MAX_PEER_ADDRESSES = 4096;
/** Connections of an application at whose other end nobody was found that wait until a drain decides, count. */
export const MAX_UNFOUND_PEERS = 4096;
/** Peers of a process that `status` tells of, of each kind, count: processes of other applications, addresses in doubt. */
export const MAX_PEERS_TOLD = 16;
/** Events in one log block, count. */
export const MAX_BLOCK_EVENTS = 65_536;
/** Processes of one application, count. */
export const MAX_PROCESSES = 4_194_304;
/** Lines of one process's effective history, count: the engine keeps a line in 32 bits, and two values stand for "none". */
export const MAX_PROCESS_LINES = 2 ** 32 - 3;

/** Records the collector drains with one call, count (256 KiB of slots). */
export const DRAIN_BATCH_RECORDS = 4096;
/** A group commit is due at this many pending bytes of slots. */
export const COMMIT_BYTES = 256 * 1024;
/** Events the collector holds uncommitted before it stops draining and commits, count. */
export const MAX_PENDING_EVENTS = 8192;
/** Longest time from reading a record to its group commit, in ms, unless told otherwise. */
export const COMMIT_INTERVAL_MS = 50;
/** Priority (nice) of the thread that takes the records. */
export const COLLECT_NICE = -10;
/** The collector's ring timer, in ms: shortest while records flow, longest when idle (facts.md). */
export const MIN_POLL_MS = 2;
export const MAX_POLL_MS = 20;
/** The same timer while the kernel wakes the reader for the next record. */
export const IDLE_POLL_MS = 1000;
/** How often the collector looks whether a runtime wants to hand memory rings over, in ms, while none is connected: whoever connects wakes it. */
export const ACCEPT_POLL_MS = 10_000;
/**
 * Longest time that records stay unread in a memory ring whose runtime does not call, in ms. They outlive the program there; only with the
 * collector they are lost, and then the runtime stops, too.
 */
export const RING_LOOK_MS = 100;
/** How often the kernel is asked which processes it can't follow, in ms, if anything was recorded since. */
export const VERDICT_POLL_MS = 1000;
/** Openings and endings whose other half has not come, of one application, count; older ones are looked for in the log. */
export const MAX_OPEN_MESSAGES = 16_384;
/** Openings and endings of one application that wait to be decided, count; then it is drained at once. */
export const MAX_HELD_MESSAGES = 512;
/** The same while the kernel can't tell all that it knows, as its ring never has room: beyond it whoever waits for most pays. */
export const MAX_WAITING_MESSAGES = 32_768;
/** How long after a task died closing a connection its process may still live, in ms, before that was an ending like any other. */
export const FAILING_END_MS = 1000;
/** The same for an AF_UNIX connection, whose closing end says nothing: how long its process may take to end. */
export const UNIX_END_MS = 100;
/** Channel names that the next cut of one process must reach, count; beyond that no cut covers, and readers take the events. */
export const MAX_COVERAGE_NAMES = 65_536;
/** Connections to outside that a process has ended since its last covering cut and that are remembered, count. */
export const MAX_ENDED_OUTSIDE = 2048;
/** A drain gives up where the ring stays full for so long, in ms. */
export const FLUSH_LIMIT_MS = 20_000;
/** The log of an application without live processes is closed after this time without use, in ms; it is opened again on demand. */
export const IDLE_LOG_MS = 5_000;
/** Such logs that stay open for that long, count; of more the one that was not used for longest is closed at once. */
export const MAX_IDLE_LOGS = 16;
/** Processes of applications whose logs are closed that `status` still names, count. */
export const MAX_ENDED_PROCESSES = 4096;
/** Entries of one process's cache of channel names, count; a full cache is emptied, names are derived again. */
export const CHANNEL_CACHE_ENTRIES = 16_384;
/** Processes recorded at one time over all applications, count (as many as the kernel map `processes` holds). */
export const MAX_LIVE_PROCESSES = 4096;
/** Checkpoints of one process that can still be named in a rollback, count; the oldest are forgotten. */
export const MAX_KNOWN_CHECKPOINTS = 65_536;
/** Wait between two tries to write a log that failed, in ms: first, and after doubling at most. */
export const LOG_RETRY_MIN_MS = 50;
export const LOG_RETRY_MAX_MS = 5_000;
/** Tries after which a caller that waits for a failing log is told so, count; collection itself goes on trying. */
export const LOG_RETRY_CALLER = 4;
/**
 * Share of the ring from which on records of a log that can't be written are too many: the log is given up, collection ends, or the
 * recorded processes are held still (`collect --on-full`); held ones go on below the second share.
 */
export const FULL_RING_SHARE = 0.75;
export const RELIEVED_RING_SHARE = 0.5;
/** With `--on-full halt`: longest wait for a log to be written again, in ms. */
export const HALT_WAIT_MS = 30_000;
/** With `--on-full stop`: how often the ring's fill is looked at, in ms (a quarter of 16 MiB takes 65 ms at 1 M records/s). */
export const BACK_PRESSURE_POLL_MS = 5;
/** Longest wait for a producer that reserved a slot and has not finished it, in ms. */
export const BUSY_SLOT_MS = 10_000;
/** Largest JSON body the collector takes from its socket, in bytes: one event with the longest line (MAX_LINE_BYTES) and its frame. */
export const MAX_BODY_BYTES = MAX_LINE_BYTES + 64 * 1024;
/** How long a collector that starts waits for logs that other commands read, and a reader for one that changes hands, in ms. */
export const LOG_FREE_MS = 60_000;
export const LOG_HANDOVER_MS = 10_000;
/** Bytes of bodies that all clients of a collector together may have under way. */
export const MAX_BODIES_BYTES = 2 * MAX_BODY_BYTES;
/** Connections to the collector's socket, and streams of blocks among them, count. */
export const MAX_CLIENTS = 64;
export const MAX_BLOCK_STREAMS = 8;
/** How long the reader of such a stream may take nothing, in ms; it is cut off then: retention of all applications waits for it. */
export const BLOCK_READER_LIMIT_MS = 120_000;
/** How long a client waits for an answer to `ping`, in ms: a collector that is alive answers at once. */
export const PING_LIMIT_MS = 5_000;
/** Longest wait for any other answer of the collector, in ms (a drain of a full ring into a slow disk). */
export const REQUEST_LIMIT_MS = 120_000;
/** `collect --keep-bytes`, `--keep-hours`: how often sizes and ages are looked at, and the longest wait after a try that could not do it, in ms. */
export const KEEP_LOOK_MS = 5_000;
export const KEEP_RETRY_MAX_MS = 15 * 60_000;
/**
 * How often the collector looks at what it records, in ms: at first, when nothing has changed for a while, and how soon after the kernel has
 * told of a change or while the word is awaited how a process ended.
 */
export const REAP_INTERVAL_MS = 500;
export const REAP_IDLE_MS = 2_000;
export const REAP_SOON_MS = 50;
/** Tasks of one process that are remembered as having left its cgroup, count: the newest. */
export const MAX_LEFT_TASKS = 64;
/**
 * How often it is looked what processes of one application use together, in ms: at first, while they are young, and at most; and what share
 * of the time such looks may take.
 */
export const UNSEEN_FIRST_LOOK_MS = 500;
export const UNSEEN_LOOK_MS = 5_000;
export const UNSEEN_LOOK_SHARE = 0.001;
/** The same while nothing of the application has run since the last look. */
export const UNSEEN_SLEEP_LOOK_MS = 30_000;
/** A look that is no older serves for an answer, in ms; and what share of the time looks for answers may take, whoever asks how often. */
export const UNSEEN_FRESH_MS = 250;
export const UNSEEN_ANSWER_SHARE = 0.05;
/** Things that one process is known to use together with others, count. */
export const MAX_UNSEEN_CHANNELS = 16;
/** How many processes' tasks are looked at each time, count, and in what time all of them, where they are few, in ms. */
export const TASK_LOOKS = 32;
export const TASK_ROUND_MS = 2_000;
/** The same of processes of whose application nothing has run since. */
export const TASK_SLEEP_LOOK_MS = 10_000;
/** How often a cgroup is looked at that the kernel has told nothing of, in ms. */
export const CGROUP_LOOK_MS = 10_000;
/** How long after the end of a process the word is awaited how it ended, in ms. */
export const END_WORD_MS = 1_000;
/** The same of a container, whose engine writes it down when it has cleared up: a checkpoint or a removal that has it locked comes first. */
export const CONTAINER_END_MS = 12_000;
/** Ends of processes that no collector has taken, count; more of them go where they are older than this, in ms. */
export const ENDS_KEPT = 512;
export const ENDS_KEPT_MS = 3_600_000;
/** How long the cgroup of an ended process stays, in ms: it may be started again, or a command that ends may still look into it. */
export const EMPTY_CGROUP_MS = 5_000;
/** How soon a container that is made anew is looked for after one has ended, in ms; and how seldom in the end, where no new cgroup is seen. */
export const FOLLOW_LOOK_MS = 1_000;
export const FOLLOW_LOOK_MAX_MS = 15_000;
/** How long another CRIU may be at work on a process: a checkpoint that was killed leaves it, and it goes on to its end. In ms. */
export const OTHER_CRIU_LIMIT_MS = 10_000;
/** Longest wait for a cgroup to freeze, in ms. */
export const FREEZE_LIMIT_MS = 10_000;
/** Longest time a checkpoint driver may take for one image or one restore, in ms, unless told otherwise. */
export const DRIVER_LIMIT_MS = 120_000;
/** Processes rolled back, summed over the single-failure lines that are kept at once, count (8 bytes each). */
export const MAX_FAILURE_INDEX_ENTRIES = 4_194_304;
/** Dependencies and processes that `gc` visits before it settles for what is older than every line, count. */
export const MAX_COLLECT_STEPS = 500_000_000;
/** Dependencies that `graph` exports, count (facts.md: graphlib takes 780 bytes each). */
export const MAX_EXPORT_DEPENDENCIES = 200_000;
/** Worker threads, count, and tasks that may run or wait for each of them. */
export const MAX_WORKERS = 256;
export const TASKS_PER_WORKER = 3;
/** Blocks that one task of a worker holds at most, count; a task is full at this many bytes. */
export const MAX_TASK_BLOCKS = 4096;
export const TASK_BYTES = 2 * 1024 * 1024;
/** JavaScript heap of one worker thread, in MiB; the typed arrays it works on are not part of it. */
export const WORKER_HEAP_MB = 1024;
/** One commit of an import: events, count, and bytes of their lines. What fits needs no journal. */
export const IMPORT_BATCH_EVENTS = 131_072;
export const IMPORT_BATCH_BYTES = 48 * 1024 * 1024;
/** Blocks of one process that a log reads back to tell whether a cut covers its history, count. */
export const MAX_COVERAGE_BLOCKS = 64;
/** Blocks that a line from cuts may read at least, count; and of a log, one of so many: beyond that reading all of it in order is faster (one by one
 * from a collector 0.5 to 3 ms each, in order 0.05). Of blocks that are walked through a quarter of the log (compute/compute-from-cuts.ts). */
export const LEAST_CUT_BUDGET_BLOCKS = 256;
export const CUT_BUDGET_SHARE = 32;
/** Bytes of one channel that are read from the payload log at once. */
export const MAX_PAYLOAD_READ_BYTES = 256 * 1024 * 1024;
/** Longest wait for an answer of the payload logger, in ms: a flush of its ring into a slow disk. */
export const PAYLOAD_ANSWER_LIMIT_MS = 60_000;
/** From the death of a payload logger to its next start, in ms; where that fails to the next try, twice as long each time, and at most. */
export const PAYLOAD_RESTART_MS = 200;
export const PAYLOAD_RESTART_MAX_MS = 30_000;
/** All payloads that are kept of one application, in MiB, unless told otherwise. */
export const PAYLOAD_LIMIT_MIB = 1024;
/** SDK: one message or recorded value, and one saved state, in bytes. */
export const MAX_SDK_MESSAGE_BYTES = 16 * 1024 * 1024;
export const MAX_SDK_STATE_BYTES = 1024 * 1024 * 1024;
/** SDK: what waits in one incoming channel before its connection is told to pause, messages and bytes. */
export const SDK_QUEUE_MESSAGES = 4096;
export const SDK_QUEUE_BYTES = 8 * 1024 * 1024;
/** SDK: determinants that nothing waits for become stable after this time, in ms. */
export const SDK_FLUSH_INTERVAL_MS = 20;
/** SDK: wait between two tries to reach a peer, in ms: first, and after doubling at most. */
export const SDK_RETRY_MIN_MS = 5;
export const SDK_RETRY_MAX_MS = 200;
/** SDK: longest wait for the first frame of a new connection, in ms. */
export const SDK_HELLO_LIMIT_MS = 10_000;
/** SDK: a replay in which the program does nothing for this long has left the logged order, in ms. */
export const SDK_REPLAY_STALL_MS = 30_000;
/** Logs of so few blocks and bytes are read whole, message by message, before anything faster is tried. */
export const SMALL_LOG_BLOCKS = 1024;
export const SMALL_LOG_BYTES = 256 * 1024;
/** Output commit: how often it is looked for output that waits, and for what goes out all the same, ms. */
export const HOLD_POLL_MS = 10;
export const HOLD_LOOK_MS = 5_000;
/** Output commit: pause after a round that let nothing go, twice as long after each, at most; and between two tellings of the same, ms. */
export const HOLD_RETRY_MS = 500;
export const MAX_HOLD_RETRY_MS = 10_000;
export const HOLD_TELL_MS = 60_000;
/** `run --hold-limit`: when nothing else is said, and at most, ms: TCP itself gives a connection up after about 15 minutes. */
export const HOLD_LIMIT_MS = 30_000;
export const MAX_HOLD_LIMIT_MS = 10 * 60_000;
/** Moments tried for one checkpoint, count, and the longest pause between two, in ms. */
export const MOMENT_TRIES = 50;
export const MOMENT_PAUSE_MS = 40;
/** How long a server whose newcomers wait may take to accept those that are there, and how often that is looked at, ms. */
export const ACCEPT_LIMIT_MS = 200;
export const ACCEPT_PAUSE_MS = 10;
/** Processes of one comparison of policies, count: who depends on whom is kept as a square. */
export const MAX_COMPARED_PROCESSES = 4096;
/** Policies: their processes on a node, count, and the heap of each, in MiB. */
export const MAX_POLICY_PROCESSES = 16;
export const POLICY_HEAP_MIB = 32;
/** Policies: an event that takes more of the process's own time, or of the clock's, is a hang, in ms; a process may start for longer. */
export const POLICY_CPU_LIMIT_MS = 250;
export const POLICY_WALL_LIMIT_MS = 2_000;
export const POLICY_START_LIMIT_MS = 10_000;
/** Policies: how often one beats, and how often at most all lines of single failures are computed for it, in ms; and what share of the time that may take. */
export const POLICY_BEAT_MS = 1_000;
export const POLICY_LINE_MS = 5_000;
export const POLICY_LINE_SHARE = 0.05;
/** Policies and held output: evidence of more rows, cuts and checkpoints than that is not kept from one line to the next, count (some 40 bytes each). */
export const MAX_KEPT_ENTRIES = 1 << 20;
/** Policies: a full `policy.log` becomes `policy.log.1` at this size, in bytes. */
export const POLICY_LOG_BYTES = 1024 * 1024;
/** Policies: checkpoints of one process whose times are remembered, count. */
export const MAX_CHECKPOINT_TIMES = 256;
/** Policies: after a checkpoint that failed what a policy asks of its processes waits for so long, in ms; each time twice as long, at most so long. */
export const POLICY_CHECKPOINT_WAIT_MS = 2_000;
export const MAX_POLICY_CHECKPOINT_WAIT_MS = 30_000;
/** Policies: restarts of one application within the window, count and ms; from the second on each waits twice as long as the one before, from this many ms. */
export const MAX_POLICY_RESTARTS = 5;
export const POLICY_RESTART_WINDOW_MS = 10 * 60_000;
export const POLICY_RESTART_WAIT_MS = 1_000;
/** Policies: an application's garbage is collected, and other policies are told something, at most once in so many ms. */
export const POLICY_COLLECT_MS = 10_000;
export const POLICY_TELL_MS = 1_000;
/** Policies: work lost beyond `--most-loss` makes the host act; so many times, and the policy is ended. */
export const MAX_POLICY_STALLS = 3;
/** Policies: longest time of a shadow phase, in seconds. */
export const MAX_SHADOW_S = 3_600;
/** Policies: longest time that one of their actions may take, in ms; how long an ending collector waits for one. */
export const POLICY_ACTION_LIMIT_MS = 10 * 60_000;
export const POLICY_CLOSE_MS = 10_000;
