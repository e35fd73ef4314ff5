/* SPDX-License-Identifier: Apache-2.0 */
/* The helper's side of protocol.h. */
#ifndef RECOVERY_ATTACH_SERVE_H
#define RECOVERY_ATTACH_SERVE_H

#include "protocol.h"
#include "../loader/userfault.h"

/* All of it is lent for the call. */
struct attach_service {
    struct capture *capture;     /* NULL: it could not be opened, and every request is told so */
    struct userfault *userfault; /* NULL: page faults are not watched */
    const char *below;           /* cgroups may be selected below <cgroup2 mount>/<below>/ only */
    int created;
    int reader_lock; /* handed over with the ring */
    int status;      /* without capture: why, a negative errno and a sentence */
    char error[CAPTURE_ERROR_BYTES];
};

/* Answers until the other end of the socket closes. Takes no descriptors and no order that is not in the
 * table.
 */
void attach_serve(int socket, const struct attach_service *service);

#endif
