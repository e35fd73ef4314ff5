/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The hook on system calls that sees userfaultfd DSMs. Not pinned: it taxes every system call of the machine,
 * so it lives only as long as who asked for it. Errors as in capture.h.
 */
#ifndef RECOVERY_LOADER_USERFAULT_H
#define RECOVERY_LOADER_USERFAULT_H

#include "capture.h"
#include "../bpf/userfault.h"

struct userfault; /* opaque */

/* Loads and attaches the hook; page faults of selected processes go into the ring of `capture`. NULL: it
 * records nobody, which costs what it costs everybody who is not recorded. -EPERM: rights; -ENOTSUP: the
 * kernel or the architecture (only x86-64 keeps a call's arguments in its registers until its end). */
int userfault_open(struct capture *capture, struct userfault **out, char *error);
/* Detaches at once. NULL is fine. */
void userfault_close(struct userfault *userfault);

/* Since userfault_open, of all recorded processes together. */
int userfault_counts(struct userfault *userfault, struct userfault_counts *out, char *error);

/* Mean duration of getppid(2) over `count` calls, in nanoseconds. */
double userfault_time_system_call(uint32_t count);

#endif
