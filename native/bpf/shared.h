/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/*
 * What the BPF programs and native/loader both see: keys and values of the maps. Needs uint*_t and
 * recovery_ring.h first. Any change here, or in the meaning of a field, raises CAPTURE_MAP_VERSION: pinned
 * maps of another version are refused.
 */
#ifndef RECOVERY_SHARED_H
#define RECOVERY_SHARED_H

#define CAPTURE_MAP_VERSION 13
#define CAPTURE_MAGIC 0x31656e696c766365ull /* "ecvline1" */

/* How the parts are done (native/loader/parts.c). The last of each is chosen only where the others don't run.
 */
enum capture_progress { PROGRESS_LENGTH, PROGRESS_EXIT };
enum capture_sockets { SOCKETS_STORAGE, SOCKETS_TABLES };
enum capture_life { LIFE_CGROUP, LIFE_TRACE };
enum capture_datagrams { DATAGRAMS_CGROUP, DATAGRAMS_TRACE };
enum capture_commit { OUTPUT_HOLD, OUTPUT_NONE };

struct capture_variant {
    uint8_t progress, sockets, life, datagrams, output;
};

/* Pinned last: its presence says that the instance is complete. Map `config`, one element. */
struct capture_config {
    uint64_t magic;
    uint32_t map_version;
    uint32_t ring_layout_version;
    uint32_t ring_bytes;
    uint32_t cgroup_level;
    struct capture_variant variant;
    uint32_t reserved;
};

/* What a process uses that leaves no position in the kernel: only a run that is not left out tells of it. */
enum process_use { USES_UNIX = 1, USES_PEEK = 2, USES_DATAGRAMS = 4 };

/* Map `processes`: cgroup id -> this. An entry exists while the process is selected. */
struct process_state {
    uint32_t verdicts; /* bit per enum recovery_verdict; they stick */
    uint32_t incarnation;
    uint32_t uses;    /* enum process_use */
    uint32_t spilled; /* entries of `closed` that are its own */
    uint64_t other;   /* the process that used the same socket, and the first such socket's names */
    uint64_t other_local, other_remote;
    uint64_t misses;   /* runs left out of the programs that tell what it uses, when it was looked at last */
    uint32_t moved;    /* PROGRESS_EXIT: it made a call that may have moved a socket since the last flush */
    uint32_t paired;   /* entries of `unix_pairs` that are its own */
    uint64_t parent;   /* cgroup above its own: that of its application */
    uint32_t ends;     /* entries of `ends` that are its own */
    uint32_t attached; /* 1: it ran before it was recorded, and others were told that it is outside */
    uint32_t
        walker; /* PROGRESS_EXIT: the program that flushes, and holds files meanwhile as their processes do */
    uint32_t reserved;
};

/* Map `levels`, one element: depths of recorded cgroups that lie elsewhere than `cgroup_level` below the root.
 * They are never taken out: so many are there. */
#define CAPTURE_LEVELS 8u
struct cgroup_levels {
    uint32_t count;
    uint32_t level[CAPTURE_LEVELS];
};

/* Entries of `closed` a process may hold: who closes more while nobody reads the ring pays alone. */
#define MAX_SPILLED 2048u

/* Map `unix_pairs`: an AF_UNIX pair between two recorded processes, by the cookies of its ends, while its end
 * is not told. Nothing is called when an AF_UNIX socket is closed: where both are gone, each may have known
 * of the other's end (by poll). */
struct unix_pair_key {
    uint64_t low, high;
};
struct unix_pair_end {
    uint64_t process;
    uint32_t incarnation;
    uint32_t end_told; /* it has received the other's end */
};
struct unix_pair {
    struct unix_pair_end low, high;
    uint64_t walk;  /* the last one that found an end of it */
    uint64_t payer; /* process whose `paired` counts it */
};

/* Entries of `unix_pairs` a process may hold. */
#define MAX_PAIRED 8192u

/* Map `ends`: the named ends of TCP connections of recorded processes, and who is at the other end. */
struct end_key {
    uint32_t local, remote; /* initial sequence numbers */
};
enum end_flag {
    END_CONNECTOR = 1,
    END_KNOWN = 2,    /* `peer` and `tgid` are valid */
    END_TOLD = 4,     /* a record tells of it, or there is nothing to tell */
    END_GONE = 8,     /* the end is closed */
    END_DOUBTED = 32, /* it was told that nobody was found */
    END_CLOSED = 16,  /* the other one was when its holder was seen */
    END_GAVE = 64,    /* data of the other end was received, or looked at */
    END_TOOK = 128,   /* data was sent to the other end */
};
struct end_note {
    uint64_t process; /* who uses it; before that who listens */
    uint64_t payer;   /* process whose `ends` counts it */
    uint64_t peer;    /* recorded: its cgroup id; else when it began, boot-time ns */
    uint64_t walk;    /* END_GONE: the last one before that */
    uint32_t tgid;    /* 0: recorded */
    uint32_t incarnation;
    uint32_t flags;      /* enum end_flag */
    uint32_t sought;     /* walks that did not find anybody */
    uint32_t address[4]; /* of the other end as this one sees it, words in network order; IPv4 is mapped */
    uint32_t port;
    uint32_t reserved;
};

/* Entries of `ends` a process may hold. */
#define MAX_ENDS 16384u

struct datagram_address {
    uint32_t words[4]; /* in network order; IPv4 is mapped */
};

/* Map `datagrams`: what is told of the datagrams of a process, each once (datagram.bpf.h). */
struct datagram_key {
    uint64_t process;
    uint64_t socket; /* `id` of its mailbox; 0: a port, or AF_UNIX at large */
    uint32_t incarnation;
    uint32_t port; /* kind of place, and enum recovery_flag */
    uint32_t peer_port;
    struct datagram_address address; /* sent to */
    uint32_t reserved;
};

/* In `datagrams`, too: somebody of an application has sent to a port of this number (`process`: its cgroup).
 */
enum aimed {
    AIMED_CHOSEN = 1, /* whoever has chosen the port may have got it */
    AIMED_ANY = 2     /* so may one that the kernel has given it to */
};
/* Map `last_takers`: who has received at a port last. */
struct datagram_port {
    uint64_t parent; /* cgroup of the application */
    uint64_t port;
};
struct datagram_taker {
    uint64_t process;
    uint32_t by; /* enum aimed */
    uint32_t reserved;
};

/* Map `mailboxes`: a datagram socket, whoever has it. */
enum mailbox_flag {
    MAILBOX_AIMED = 1, /* a recorded process has sent to it */
    MAILBOX_HOOKED = 2 /* UDP: the hooks of its cgroup tell of what is sent */
};
struct mailbox {
    uint64_t receiver; /* the last recorded process that has taken from it */
    uint64_t id;
    uint32_t flags;
    uint32_t reserved;
};

/* Map `holders`: process -> this. Whose entry is gone is held all the same, as long as its sockets are. */
enum holder_flag {
    HOLDER_HOLDS = 1,
    HOLDER_PASSES = 2 /* nothing is held: it is tried whether the program runs here */
};

/* Map `outputs`, by the names of an end_key: how far what a holding process sends may go out. */
enum output_flag {
    OUTPUT_FREE = 1 /* the other end is of the application: nothing waits */
};
struct output_mark {
    uint64_t process;    /* whose cgroup made the socket */
    uint64_t released;   /* offset: data before it may go */
    uint64_t wanted;     /* offset: data before it was to go; it waits where this is above `released` */
    uint64_t since;      /* when it began to wait, boot-time ns */
    uint32_t address[4]; /* of the other end, as in struct end_note */
    uint32_t port;
    uint32_t flags; /* enum output_flag */
};
#define MAX_OUTPUTS (1u << 16)

/* Map `unheld`: output of a holding process that goes out, or never will, whatever anybody releases. */
enum unheld_kind {
    UNHELD_DATAGRAM = 1, /* goes: UDP and all that is not TCP */
    UNHELD_SOCKET = 2,   /* goes: the socket was made in another cgroup */
    UNHELD_NAMELESS = 3, /* waits for ever: a connection that has no name */
    UNHELD_OVERFLOW = 4  /* waits until others are closed: MAX_OUTPUTS connections wait */
};
struct unheld_key {
    uint64_t process;
    uint32_t kind;
    uint32_t port;
    uint32_t address[4];
};

/* So many walks through all descriptors of the host look for who is at the other end; who is found by none
 * is told when it closes, or is on another host. */
#define MAX_SOUGHT 3u

/* Map `filter`, at a cgroup id modulo its size. It spares nearly everybody the look into a hash: where `ever`
 * is 0, no cgroup with such an id was selected. That is set before the process's entry and never cleared, so
 * it can't say so wrongly. `process`, where it isn't 0, is one that is recorded, in this incarnation: that is
 * set after the process's entry and cleared before it changes or goes. Of two with one place the second has
 * none. */
#define CAPTURE_FILTER_ENTRIES 8192u
struct filter_slot {
    uint64_t process;
    uint32_t incarnation;
    uint32_t ever;
};

/* Map `counters`, one element per CPU. */
struct cpu_counters {
    uint64_t committed[RECOVERY_KIND_COUNT];
    uint64_t lost[RECOVERY_KIND_COUNT]; /* found no room; told by others later */
    uint64_t time_ns;                   /* when it was looked at last, in this tick (rough_time) */
    uint64_t tick, timed;
};

/* Map `closed`: what the last records of an end would have told, had there been room in the ring. */
struct closed_key {
    uint64_t process;
    uint64_t local;
    uint64_t remote;
    uint32_t flags; /* RECOVERY_FLAG_UNIX or 0 */
    uint32_t incarnation;
};
struct closed_value {
    uint64_t sent_mark, sent; /* not yet recorded: [mark, offset) */
    uint64_t received_mark, received;
    uint64_t seen_mark, seen;
    uint32_t untold; /* enum capture_told that must still be told */
    uint32_t failing;
};

/* Map `restored`: the next connection that TCP_REPAIR establishes at these sequence numbers is an old
 * acquaintance. */
struct restored_key {
    uint32_t write_seq;
    uint32_t rcv_nxt;
};
struct restored_value {
    uint32_t local;
    uint32_t remote;
    uint64_t first;    /* offset that write_seq stands for */
    uint64_t sent;     /* what the process has sent: the rest fills the queue */
    uint64_t received; /* offset that rcv_nxt stands for */
    uint64_t seen;
    uint32_t told;
    uint32_t reserved;
};

/* Map `request`, one element: what the iterators are asked for. */
struct iterator_request {
    uint64_t process; /* whose descriptors are walked */
    uint32_t frozen;  /* it stands still: AF_UNIX counters may be corrected by what its queues hold */
    int32_t tgid;     /* not 0: the walk can't be limited to it, so others are passed over */
    uint64_t walk;    /* number of the walk through all sockets */
};

enum cut_flag {
    CUT_UNNAMED = 1, /* a TCP connection whose numbers don't name it: the cut is partial */
    CUT_PENDING = 2, /* the ring had no room: something of it is not recorded yet */
    CUT_HELD = 4     /* behind a descriptor, and nobody has used it yet */
};

/* What the iterators print. */
struct cut_record {
    uint64_t process; /* owner; 0 = nobody has used it yet */
    uint64_t local, remote;
    uint64_t sent, received, seen;
    uint64_t unacknowledged, queued;
    uint32_t flags; /* enum recovery_flag */
    uint32_t cut_flags;
    uint32_t told;
    uint32_t reserved;
    uint64_t sock; /* CUT_UNNAMED: to tell it from others; the walk that locks may name it */
};

/* Argument of the syscall program push_closed: in the key, out whether it found room. */
struct push_closed_args {
    struct closed_key key;
    uint32_t pending;
    uint32_t reserved;
};

/* Argument of the syscall program push_pairs: pairs that this walk has not found are counted, or told. */
struct push_pairs_args {
    uint64_t walk;
    uint32_t tell;
    uint32_t gone;    /* out */
    uint32_t pending; /* out: the ring had no room */
    uint32_t reserved;
};

/* Argument of the syscall program push_ends: what is known is told; what is gone and was not found, goes. */
struct push_ends_args {
    uint64_t walk;
    uint64_t forget;  /* not 0: those of this process go, and nothing is told */
    uint32_t sought;  /* a walk has looked for those that nobody is known of */
    uint32_t unknown; /* out: those that another walk may find */
    uint32_t pending; /* out: the ring had no room */
    uint32_t reserved;
};

/* Argument of the syscall program take_moved. */
struct take_moved_args {
    uint64_t process;
    uint32_t moved;
    uint32_t reserved;
};

/* Argument of the syscall program condemn: so many runs were left out by now. */
struct condemn_args {
    uint64_t misses;
    uint32_t uses; /* who uses such sockets and was looked at before gets the verdicts */
    uint32_t verdicts;
};

#endif
