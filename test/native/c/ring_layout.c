/* SPDX-License-Identifier: Apache-2.0 */
/* Prints recovery_ring.h as JSON, for the test that compares src/format/ring-layout.ts with it. */
#include <stddef.h>
#include <stdio.h>

#include "../../../native/include/recovery_ring.h"

#define FIELD(name) printf("\"field.%s\":%zu,", #name, offsetof(struct recovery_record, name))
#define NUMBER(name) printf("\"%s\":%d,", #name, (int)name)

int main(void) {
    putchar('{');
    FIELD(kind), FIELD(flags), FIELD(cpu), FIELD(lost_before), FIELD(process), FIELD(local), FIELD(remote);
    FIELD(begin), FIELD(time_ns), FIELD(length), FIELD(thread);
    NUMBER(RECOVERY_SEND), NUMBER(RECOVERY_RECEIVE), NUMBER(RECOVERY_PAGE_FAULT), NUMBER(RECOVERY_PAGE_COPY);
    NUMBER(RECOVERY_PAGE_INVALIDATE), NUMBER(RECOVERY_GAP), NUMBER(RECOVERY_VERDICT),
        NUMBER(RECOVERY_KIND_COUNT);
    NUMBER(RECOVERY_FLAG_UNIX), NUMBER(RECOVERY_FLAG_NAIVE), NUMBER(RECOVERY_FLAG_WRITE);
    NUMBER(RECOVERY_FLAG_SOURCE), NUMBER(RECOVERY_FLAG_DSM);
    NUMBER(RECOVERY_VERDICT_UDP), NUMBER(RECOVERY_VERDICT_MPTCP), NUMBER(RECOVERY_VERDICT_KTLS);
    NUMBER(RECOVERY_VERDICT_UNIX_DGRAM), NUMBER(RECOVERY_VERDICT_OLD_CONNECTION);
    NUMBER(RECOVERY_VERDICT_OTHER_SOCKET), NUMBER(RECOVERY_VERDICT_FOREIGN_PAGER);
    NUMBER(RECOVERY_RING_LAYOUT_VERSION), NUMBER(RECOVERY_RECORD_BYTES);
    printf("\"RECOVERY_SLOT_BYTES\":%d}", RECOVERY_SLOT_BYTES);
    return 0;
}
