/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* What userfault_events.bpf.c and native/loader/userfault.c both see. Needs uint*_t first. */
#ifndef RECOVERY_USERFAULT_H
#define RECOVERY_USERFAULT_H

/* Calls of recorded processes that did what they were asked for. */
enum userfault_operation {
    USERFAULT_FAULT, /* uffd_msg read by the handler: the canonical fault, and the only one that is an event
                      */
    USERFAULT_REGISTER, /* UFFDIO_REGISTER */
    USERFAULT_UNREGISTER,
    USERFAULT_COPY,
    USERFAULT_ZEROPAGE,
    USERFAULT_MOVE,
    USERFAULT_WRITEPROTECT,
    USERFAULT_CONTINUE,
    USERFAULT_DROP,   /* madvise(MADV_DONTNEED, MADV_REMOVE, MADV_FREE) or munmap over a registered range */
    USERFAULT_UNREAD, /* faults whose message could not be read back: losses */
    USERFAULT_OPERATIONS
};

/* Map `userfaults`, one element per CPU. */
struct userfault_counts {
    uint64_t calls[USERFAULT_OPERATIONS];
    uint64_t bytes[USERFAULT_OPERATIONS]; /* of the ranges; 0 for faults */
};

/* Outer maps: slot 0 of each holds the capture instance's own map of that name; empty: nothing is recorded.
 */
#define USERFAULT_SLOT 0

#endif
