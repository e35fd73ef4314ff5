/* SPDX-License-Identifier: Apache-2.0 */
/*
 * memory_client SOCKET MODE: a runtime that hands a memory ring over and misbehaves in one way; waits until
 * it is turned away or told to end by the end of its input.
 *
 *   good      ten messages and a checkpoint          file      a descriptor that is no memfd
 *   lossy     overflows its ring before it hands it  unsealed  a memfd that could shrink
 *             over, goes on where there is room      hello     says something else first
 *   untold    the same, and dies instead
 *   scribble  an impossible header                   impostor  records of another rank
 *   foreign   a kernel's record                      number    a message number that no double can hold
 *   hole      a sequence number nobody wrote         control   a reliable event of another process
 *   null      ten messages, and then no object
 *   half      ten messages; after a byte of input half a ring more, and a call
 *   busy      no misbehaviour: 2 000 checkpoints, each behind five messages more
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "../../../native/include/recovery_ring.h"
#include "../../../native/ring/ring_write.h"

#define TEXT_OF(number) #number
#define TEXT(number) TEXT_OF(number)
#define LAYOUT TEXT(RECOVERY_RING_LAYOUT_VERSION)

static struct ring_writer writer;
static uint64_t counter;
static int connection;

static void say(const char *text, int fd) {
    char control[CMSG_SPACE(sizeof(int))] = {0};
    struct iovec part = {.iov_base = (void *)(uintptr_t)text, .iov_len = strlen(text)};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};
    if (fd >= 0) {
        message.msg_control = control;
        message.msg_controllen = sizeof(control);
        struct cmsghdr *rights = CMSG_FIRSTHDR(&message);
        rights->cmsg_level = SOL_SOCKET;
        rights->cmsg_type = SCM_RIGHTS;
        rights->cmsg_len = CMSG_LEN(sizeof(int));
        memcpy(CMSG_DATA(rights), &fd, sizeof(int));
    }
    if (sendmsg(connection, &message, MSG_NOSIGNAL) < 0)
        perror("sendmsg");
}

static int put(unsigned entity, uint64_t number, uint8_t flags) {
    const struct recovery_record record = {.kind = RECOVERY_SEND,
                                           .flags = (uint8_t)(flags | RECOVERY_FLAG_SOURCE),
                                           .cpu = RECOVERY_DSM_LOCK_ACQUIRE,
                                           .process = entity,
                                           .local = entity,
                                           .remote = 1,
                                           .begin = number,
                                           .length = 1};
    return ring_write(&writer, &record, &counter);
}

/* Behind all records so far, the sends of p1. */
static void say_checkpoint(unsigned index) {
    char text[256];
    const unsigned long long records = counter;

    snprintf(text, sizeof(text),
             "{\"sequence\":%llu,\"event\":{\"type\":\"checkpoint\",\"process\":\"p1\",\"checkpoint\":%u,"
             "\"cut\":{\"sent\":{\"dsm:p1-h0\":%llu},\"received\":{}}}}",
             records, index, records);
    say(text, -1);
}

static void be_busy(void) {
    for (unsigned index = 1; index <= 2000; index++) {
        for (unsigned i = 0; i < 5; i++)
            put(2, counter, RECOVERY_FLAG_DSM);
        say_checkpoint(index);
        if (index % 4 == 0)
            usleep(1); /* so that many looks fall among them */
    }
}

static int odd_descriptor(const char *mode) {
    if (strcmp(mode, "file") == 0)
        return open("/dev/null", O_RDWR);
    const int fd = memfd_create("unsealed", MFD_ALLOW_SEALING);
    return ftruncate(fd, 3 * 4096) == 0 ? fd : -1;
}

static void misbehave(const char *mode) {
    for (unsigned i = 0; i < 10; i++) {
        if (strcmp(mode, "good") == 0 && i == 5)
            say_checkpoint(1);
        if (strcmp(mode, "hole") == 0 && i == 5)
            counter++;
        const int foreign = strcmp(mode, "foreign") == 0 && i == 5,
                  impostor = strcmp(mode, "impostor") == 0 && i == 5;
        const int huge = strcmp(mode, "number") == 0 && i == 5;
        put(impostor ? 4 : 2, huge ? (uint64_t)1 << 60 : i, foreign ? 0 : RECOVERY_FLAG_DSM);
    }
    if (strcmp(mode, "scribble") == 0)
        memset(writer.data + 64, 0xff, 64);
    if (strcmp(mode, "null") == 0)
        say("null", -1);
    if (strcmp(mode, "control") == 0)
        say("{\"sequence\":5,\"event\":{\"type\":\"checkpoint\",\"process\":\"p0\",\"checkpoint\":1}}", -1);
}

int main(int argc, char **argv) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    const char *mode = argc > 2 ? argv[2] : "";
    int ring;

    if (argc < 3 || strlen(argv[1]) >= sizeof(address.sun_path))
        return 2;
    strcpy(address.sun_path, argv[1]);
    connection = socket(AF_UNIX, SOCK_SEQPACKET, 0);
    if (connect(connection, (struct sockaddr *)&address, sizeof(address)) != 0 ||
        ring_writer_open(&writer, strcmp(mode, "busy") == 0 ? 1 << 20 : 4096, &ring) != 0)
        return 1;
    if (strcmp(mode, "file") == 0 || strcmp(mode, "unsealed") == 0)
        ring = odd_descriptor(mode);
    if (strcmp(mode, "lossy") == 0 || strcmp(mode, "untold") == 0)
        for (unsigned i = 0; i < 100; i++)
            put(2, i, RECOVERY_FLAG_DSM); /* while nobody reads */
    if (strcmp(mode, "hello") == 0)
        say("{\"version\":" LAYOUT ",\"application\":\"../x\",\"rank\":1}", ring);
    else
        say("{\"version\":" LAYOUT ",\"application\":\"client\",\"rank\":1,\"entities\":[\"p1\",\"h1\"]}",
            ring);
    if (strcmp(mode, "lossy") == 0)
        while (!put(2, 100, RECOVERY_FLAG_DSM))
            usleep(1000);
    else if (strcmp(mode, "busy") == 0)
        be_busy();
    else if (strcmp(mode, "untold") != 0)
        misbehave(mode);
    char end;
    if (strcmp(mode, "half") == 0 && read(STDIN_FILENO, &end, 1) == 1)
        for (unsigned i = 0; i < 32; i++) {
            put(2, 10 + i, RECOVERY_FLAG_DSM);
            if (ring_wants_reader(&writer))
                say("{\"hurry\":true}", -1);
        }
    return read(STDIN_FILENO, &end, 1) < 0;
}
