/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* What an end has told of its opening and ending: kept by the BPF programs, told by capture.h. */
#ifndef RECOVERY_TOLD_H
#define RECOVERY_TOLD_H

enum capture_told {
    CAPTURE_OPEN_SENT = 1,
    CAPTURE_OPEN_RECEIVED = 2,
    CAPTURE_END_SENT = 4,
    CAPTURE_END_RECEIVED = 8
};

#endif
