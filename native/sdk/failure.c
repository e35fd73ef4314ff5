/* SPDX-License-Identifier: Apache-2.0 */
/* What a process says when it can not go on, and the small things that every file here uses. */
#include "internal.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

int fail(struct rl_node *node, int status, const char *format, ...) {
    va_list list;

    if (node->status != RL_OK)
        return node->status;
    va_start(list, format);
    vsnprintf(node->error, sizeof(node->error), format, list);
    va_end(list);
    node->status = status;
    return status;
}

int disk_failed(struct rl_node *node) {
    return fail(node, RL_SYSTEM, "the log of %s can't be written: %s", node->process, strerror(errno));
}

char *text(const char *format, ...) {
    va_list list;
    char *result;

    va_start(list, format);
    if (vasprintf(&result, format, list) < 0)
        abort();
    va_end(list);
    return result;
}

int64_t now_ms(void) {
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

bool is_name(const char *name) {
    const size_t length = name == NULL ? 0 : strlen(name);

    if (length < 1 || length > RL_MAX_NAME_BYTES || strchr("._-", name[0]) != NULL)
        return false;
    return strspn(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-") == length;
}
