/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/*
 * What a program does with userfaultfd, for DSMs that we did not write. Loaded only when asked for: a hook on
 * the end of every system call of the machine.
 *
 *   read, readv of a userfaultfd   each UFFD_EVENT_PAGEFAULT message: one RECOVERY_PAGE_FAULT (address,
 * access) ioctl UFFDIO_*                 counted; REGISTER and UNREGISTER keep the list of ranges madvise,
 * munmap                counted where they drop pages of a registered range
 *
 * Nothing here is a dependency: the observer sees a page arrive, not where it comes from. The bytes of the
 * page came through a socket, and that is recorded. One thing breaks this argument, and is reported as
 * a verdict at both ends: a process that fills or moves the memory of another unit of recovery through its
 * userfaultfd.
 *
 * At the end of a call the registers still hold its arguments (x86-64), so that one hook is enough. The ring
 * and the maps of the capture are reached through outer maps, which the loader fills.
 */
#include "record.bpf.h"
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_tracing.h>
#include "userfault.h"

#define SYSCALL_READ 0
#define SYSCALL_MUNMAP 11
#define SYSCALL_IOCTL 16
#define SYSCALL_READV 19
#define SYSCALL_MADVISE 28
#define TS_COMPAT 2

#define MADV_DONTNEED 4
#define MADV_FREE 8
#define MADV_REMOVE 9

/* include/uapi/linux/userfaultfd.h */
#define UFFD_TYPE 0xaa
#define UFFD_NR_REGISTER 0
#define UFFD_NR_UNREGISTER 1
#define UFFD_NR_COPY 3
#define UFFD_NR_ZEROPAGE 4
#define UFFD_NR_MOVE 5
#define UFFD_NR_WRITEPROTECT 6
#define UFFD_NR_CONTINUE 7
#define UFFD_EVENT_PAGEFAULT 0x12
#define UFFD_FLAG_WRITE 1
#define UFFD_FLAG_WRITE_PROTECTED 2
#define UFFD_MESSAGE_BYTES 32
#define MAX_MESSAGES 64 /* read by one call; handlers read 1 to 16 */
#define MAX_RANGES 16   /* registered by one process; more are merged */

struct uffd_message {
    uint8_t event, reserved[7];
    uint64_t flags, address, rest;
};

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct pt_regs {
    unsigned long di, si, dx, orig_ax;
};
struct mm_struct;
struct kernfs_node {
    uint64_t id;
};
struct cgroup {
    int level;
    struct kernfs_node *kn;
    struct cgroup *ancestors[];
};
struct css_set {
    struct cgroup *dfl_cgrp;
};
struct qstr {
    const unsigned char *name;
};
struct dentry {
    struct qstr d_name;
};
struct path {
    struct dentry *dentry;
};
struct file___named {
    struct path f_path;
    void *private_data;
};
struct fdtable {
    unsigned int max_fds;
    struct file___named **fd;
};
struct files_struct___table {
    struct fdtable *fdt;
};
struct thread_info {
    uint32_t status;
};
struct task_struct___caller {
    struct thread_info thread_info;
    int tgid;
    struct task_struct___caller *group_leader;
    uint64_t start_boottime;
    struct mm_struct *mm;
    struct files_struct___table *files;
    struct css_set *cgroups;
};
struct mm_struct___owned {
    struct task_struct___caller *owner;
};
struct userfaultfd_ctx {
    struct mm_struct *mm;
};

#pragma clang attribute pop

const volatile uint32_t cgroup_level = 3;
const volatile uint32_t ring_bytes = 16 << 20;

/* ---- maps
 * -------------------------------------------------------------------------------------------------- */

struct inner_ring {
    __uint(type, BPF_MAP_TYPE_RINGBUF);
    __uint(max_entries, 1 << 16);
};
struct inner_processes {
    __uint(type, BPF_MAP_TYPE_HASH);
    __uint(max_entries, 4096);
    __uint(key_size, sizeof(uint64_t));
    __uint(value_size, sizeof(struct process_state));
};
struct inner_counters {
    __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
    __uint(max_entries, 1);
    __uint(key_size, sizeof(uint32_t));
    __uint(value_size, sizeof(struct cpu_counters));
};

struct {
    __uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
    __uint(max_entries, 1);
    __type(key, uint32_t);
    __array(values, struct inner_ring);
} rings SEC(".maps");
struct {
    __uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
    __uint(max_entries, 1);
    __type(key, uint32_t);
    __array(values, struct inner_processes);
} selections SEC(".maps");
struct {
    __uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
    __uint(max_entries, 1);
    __type(key, uint32_t);
    __array(values, struct inner_counters);
} statistics SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
    __uint(max_entries, 1);
    __type(key, uint32_t);
    __type(value, struct userfault_counts);
} userfaults SEC(".maps");

/* A pid names one process only together with its start. */
struct owner_key {
    uint64_t start_ns;
    uint32_t pid, zero;
};
struct ranges {
    uint32_t count, zero;
    struct {
        uint64_t begin, end;
    } at[MAX_RANGES];
};
struct {
    __uint(type, BPF_MAP_TYPE_LRU_HASH);
    __uint(max_entries, 1024);
    __type(key, struct owner_key);
    __type(value, struct ranges);
} registered SEC(".maps");

static const struct ranges NO_RANGES;

/* ---- the capture
 * ------------------------------------------------------------------------------------------- */

static __always_inline struct process_state *state_of(uint64_t process) {
    uint32_t slot = USERFAULT_SLOT;
    void *processes = bpf_map_lookup_elem(&selections, &slot);

    return processes ? bpf_map_lookup_elem(processes, &process) : 0;
}

static __always_inline struct cpu_counters *cpu_counters(void) {
    uint32_t slot = USERFAULT_SLOT, zero = 0;
    void *counters = bpf_map_lookup_elem(&statistics, &slot);

    return counters ? bpf_map_lookup_elem(counters, &zero) : 0;
}

static __always_inline int emit(struct process_state *state, uint64_t process, const struct range *range) {
    uint32_t slot = USERFAULT_SLOT;
    void *ring = bpf_map_lookup_elem(&rings, &slot);

    return ring ? put_record(ring, ring_bytes, cpu_counters(), process, state->incarnation, range) : 0;
}

static __always_inline void count(uint32_t operation, uint64_t calls, uint64_t bytes) {
    uint32_t zero = 0;
    struct userfault_counts *counts = bpf_map_lookup_elem(&userfaults, &zero);

    if (!counts || operation >= USERFAULT_OPERATIONS)
        return;
    counts->calls[operation] += calls;
    counts->bytes[operation] += bytes;
}

static __noinline int foreign(uint64_t process) {
    struct range range = {.kind = RECOVERY_VERDICT, .local = RECOVERY_VERDICT_FOREIGN_PAGER, .length = 1};
    uint32_t bit = 1u << RECOVERY_VERDICT_FOREIGN_PAGER;
    struct process_state *state = state_of(process);

    if (!state || state->verdicts & bit)
        return 0;
    if (!(__sync_fetch_and_or(&state->verdicts, bit) & bit))
        emit(state, process, &range);
    return 0;
}

/* ---- whose descriptor
 * -------------------------------------------------------------------------------------- */

/* The userfaultfd that is open as `fd`, or NULL. */
static __always_inline struct userfaultfd_ctx *userfault_context(struct task_struct___caller *task,
                                                                 uint32_t fd) {
    struct fdtable *table = BPF_CORE_READ(task, files, fdt);
    struct file___named **files = BPF_CORE_READ(table, fd), *file = 0;
    char name[16] = "";

    if (fd >= BPF_CORE_READ(table, max_fds) || bpf_probe_read_kernel(&file, sizeof(file), files + fd) ||
        !file)
        return 0;
    const unsigned char *text = BPF_CORE_READ(file, f_path.dentry, d_name.name);
    if (bpf_probe_read_kernel_str(name, sizeof(name), text) != sizeof("[userfaultfd]"))
        return 0;
    /* "[userfau", "ltfd]": as numbers, little endian */
    if (*(uint64_t *)name != 0x756166726573755bull ||
        (*(uint64_t *)(name + 8) & 0xffffffffffull) != 0x5d6466746cull)
        return 0;
    return BPF_CORE_READ(file, private_data);
}

/* Cgroup id of the unit of recovery that a memory belongs to; 0: nobody knows. */
static __always_inline uint64_t owner_of(struct mm_struct *mm) {
    struct task_struct___caller *task = BPF_CORE_READ((struct mm_struct___owned *)mm, owner);
    struct cgroup *cgroup = BPF_CORE_READ(task, cgroups, dfl_cgrp), *ancestor = 0;

    if ((uint32_t)BPF_CORE_READ(cgroup, level) < cgroup_level)
        return 0;
    struct cgroup **ancestors = __builtin_preserve_access_index(&cgroup->ancestors[0]);
    bpf_probe_read_kernel(&ancestor, sizeof(ancestor), ancestors + cgroup_level);
    return BPF_CORE_READ(ancestor, kn, id);
}

/* True if the pages belong to somebody else; that is then known to both. */
static __always_inline int pages_of_another(struct task_struct___caller *task,
                                            struct userfaultfd_ctx *context, uint64_t process) {
    struct mm_struct *mm = BPF_CORE_READ(context, mm);

    if (mm == BPF_CORE_READ(task, mm))
        return 0;
    const uint64_t owner = owner_of(mm);
    if (owner == process)
        return 0;
    foreign(process);
    foreign(owner);
    return 1;
}

/* ---- faults
 * ------------------------------------------------------------------------------------------------ */

struct reading {
    uint64_t process, buffer;
    uint32_t messages, lost;
};

static long take_message(uint32_t index, void *context) {
    struct reading *reading = context;
    struct uffd_message message;
    struct range range = {.kind = RECOVERY_PAGE_FAULT};

    if (index >= reading->messages)
        return 1;
    if (bpf_probe_read_user(&message, sizeof(message),
                            (const void *)(reading->buffer + (uint64_t)index * UFFD_MESSAGE_BYTES))) {
        reading->lost++;
        return 0;
    }
    if (message.event != UFFD_EVENT_PAGEFAULT)
        return 0;
    range.local = message.address & ~0xfffull; /* with UFFD_FEATURE_EXACT_ADDRESS it is no page address */
    range.flags = message.flags & (UFFD_FLAG_WRITE | UFFD_FLAG_WRITE_PROTECTED) ? RECOVERY_FLAG_WRITE : 0;
    count(USERFAULT_FAULT, 1, 0);
    struct process_state *state = state_of(reading->process);
    if (state)
        emit(state, reading->process, &range);
    return 0;
}

/* A fault is no dependency: that some are not told is a matter of statistics. */
static __always_inline void lose(uint32_t messages) {
    count(USERFAULT_UNREAD, messages, 0);
    for (uint32_t i = 0; i < messages && i < MAX_MESSAGES; i++)
        count_loss(cpu_counters(), RECOVERY_PAGE_FAULT);
}

static __always_inline void messages_read(struct process_state *state, uint64_t process, uint64_t buffer,
                                          uint64_t bytes) {
    struct reading reading = {.process = process, .buffer = buffer, .messages = bytes / UFFD_MESSAGE_BYTES};

    bpf_loop(MAX_MESSAGES, take_message, &reading, 0);
    if (reading.messages > MAX_MESSAGES)
        reading.lost += reading.messages - MAX_MESSAGES;
    if (reading.lost)
        lose(reading.lost);
}

static __always_inline void vector_read(struct process_state *state, uint64_t process, uint64_t vector,
                                        uint64_t bytes) {
    struct {
        uint64_t base, length;
    } first = {};

    if (bpf_probe_read_user(&first, sizeof(first), (const void *)vector) || first.length < bytes)
        lose(bytes / UFFD_MESSAGE_BYTES);
    else
        messages_read(state, process, first.base, bytes);
}

/* ---- ranges
 * ------------------------------------------------------------------------------------------------ */

static __always_inline struct owner_key owner_key(struct task_struct___caller *task) {
    struct owner_key key = {.pid = (uint32_t)BPF_CORE_READ(task, tgid),
                            .start_ns = BPF_CORE_READ(task, group_leader, start_boottime)};
    return key;
}

/* Two threads that register at once may lose one of the two ranges: it is only counted from. */
static __always_inline void add_range(struct task_struct___caller *task, uint64_t begin, uint64_t end) {
    struct owner_key key = owner_key(task);
    struct ranges *ranges = bpf_map_lookup_elem(&registered, &key);

    if (!ranges) {
        bpf_map_update_elem(&registered, &key, &NO_RANGES, BPF_NOEXIST);
        ranges = bpf_map_lookup_elem(&registered, &key);
    }
    if (!ranges)
        return;
    for (uint32_t i = 0; i < MAX_RANGES; i++)
        if (ranges->at[i].begin <= begin && end <= ranges->at[i].end)
            return;
    uint32_t index = ranges->count;
    if (index < MAX_RANGES) {
        ranges->count = index + 1;
        ranges->at[index].begin = begin;
        ranges->at[index].end = end;
        return;
    }
    if (begin < ranges->at[MAX_RANGES - 1].begin)
        ranges->at[MAX_RANGES - 1].begin = begin;
    if (end > ranges->at[MAX_RANGES - 1].end)
        ranges->at[MAX_RANGES - 1].end = end;
}

static __always_inline void forget_range(struct task_struct___caller *task, uint64_t begin, uint64_t end) {
    struct owner_key key = owner_key(task);
    struct ranges *ranges = bpf_map_lookup_elem(&registered, &key);

    if (!ranges)
        return;
    for (uint32_t i = 0; i < MAX_RANGES; i++)
        if (begin <= ranges->at[i].begin && ranges->at[i].end <= end)
            ranges->at[i].end = ranges->at[i].begin;
}

/* Bytes of registered ranges in [begin, end). */
static __always_inline uint64_t registered_bytes(struct task_struct___caller *task, uint64_t begin,
                                                 uint64_t end) {
    struct owner_key key = owner_key(task);
    struct ranges *ranges = bpf_map_lookup_elem(&registered, &key);
    uint64_t bytes = 0;

    if (!ranges)
        return 0;
    for (uint32_t i = 0; i < MAX_RANGES; i++) {
        const uint64_t from = begin > ranges->at[i].begin ? begin : ranges->at[i].begin;
        const uint64_t to = end < ranges->at[i].end ? end : ranges->at[i].end;
        bytes += from < to ? to - from : 0;
    }
    return bytes;
}

static __always_inline void dropped(struct task_struct___caller *task, uint64_t begin, uint64_t length,
                                    int unmapped) {
    const uint64_t bytes = registered_bytes(task, begin, begin + length);

    if (bytes)
        count(USERFAULT_DROP, 1, bytes);
    if (bytes && unmapped)
        forget_range(task, begin, begin + length);
}

/* ---- ioctl
 * ------------------------------------------------------------------------------------------------- */

/* Where the length stands in the argument, in bytes. Each begins with the address. */
static __always_inline uint32_t length_at(uint32_t number) {
    return number == UFFD_NR_COPY || number == UFFD_NR_MOVE ? 16 : 8;
}

static __always_inline uint32_t operation_of(uint32_t number) {
    switch (number) {
    case UFFD_NR_REGISTER:
        return USERFAULT_REGISTER;
    case UFFD_NR_UNREGISTER:
        return USERFAULT_UNREGISTER;
    case UFFD_NR_COPY:
        return USERFAULT_COPY;
    case UFFD_NR_ZEROPAGE:
        return USERFAULT_ZEROPAGE;
    case UFFD_NR_MOVE:
        return USERFAULT_MOVE;
    case UFFD_NR_WRITEPROTECT:
        return USERFAULT_WRITEPROTECT;
    case UFFD_NR_CONTINUE:
        return USERFAULT_CONTINUE;
    default:
        return USERFAULT_OPERATIONS;
    }
}

/* Also of processes that are not recorded: their target may be. */
static __noinline int controlled(struct task_struct___caller *task, uint64_t process, uint32_t fd,
                                 uint32_t command, uint64_t argument) {
    const uint32_t number = command & 0xff, operation = operation_of(number);
    uint64_t begin = 0, length = 0;

    if (operation == USERFAULT_OPERATIONS)
        return 0;
    struct userfaultfd_ctx *context = userfault_context(task, fd);
    if (!context)
        return 0;
    if (pages_of_another(task, context, process) || !state_of(process))
        return 0;
    bpf_probe_read_user(&begin, sizeof(begin), (const void *)argument);
    bpf_probe_read_user(&length, sizeof(length), (const void *)(argument + length_at(number)));
    count(operation, 1, length);
    if (operation == USERFAULT_REGISTER)
        add_range(task, begin, begin + length);
    if (operation == USERFAULT_UNREGISTER)
        forget_range(task, begin, begin + length);
    return 0;
}

/* ---- the hook
 * ---------------------------------------------------------------------------------------------- */

static __always_inline int interesting(const struct pt_regs *regs, uint64_t call) {
    switch (call) {
    case SYSCALL_READ:
    case SYSCALL_READV:
    case SYSCALL_MUNMAP:
        return 1;
    case SYSCALL_MADVISE:
        return regs->dx == MADV_DONTNEED || regs->dx == MADV_FREE || regs->dx == MADV_REMOVE;
    case SYSCALL_IOCTL:
        return (regs->si >> 8 & 0xff) == UFFD_TYPE;
    default:
        return 0;
    }
}

static __always_inline void look(struct task_struct___caller *task, const struct pt_regs *regs, uint64_t call,
                                 long result) {
    const uint64_t process = bpf_get_current_ancestor_cgroup_id(cgroup_level);

    if (call == SYSCALL_IOCTL) {
        controlled(task, process, (uint32_t)regs->di, (uint32_t)regs->si, regs->dx);
        return;
    }
    struct process_state *state = state_of(process);
    if (!state)
        return;
    if (call == SYSCALL_MADVISE || call == SYSCALL_MUNMAP) {
        dropped(task, regs->di, regs->si, call == SYSCALL_MUNMAP);
        return;
    }
    if (result < UFFD_MESSAGE_BYTES || result % UFFD_MESSAGE_BYTES ||
        !userfault_context(task, (uint32_t)regs->di))
        return;
    if (call == SYSCALL_READ)
        messages_read(state, process, regs->si, (uint64_t)result);
    else
        vector_read(state, process, regs->si, (uint64_t)result);
}

SEC("tp_btf/sys_exit")
int BPF_PROG(userfault_call_ended, struct pt_regs *regs, long result) {
    const uint64_t call = regs->orig_ax;

    if (result < 0 || !interesting(regs, call))
        return 0;
    struct task_struct___caller *task = (void *)bpf_get_current_task();
    if (BPF_CORE_READ(task, thread_info.status) & TS_COMPAT)
        return 0;
    look(task, regs, call, result);
    return 0;
}

char LICENSE[] SEC("license") = "GPL";
