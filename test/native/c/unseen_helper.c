/* SPDX-License-Identifier: Apache-2.0 */
/* Two of these use one thing together: unseen_helper KIND first|second [PID FD | NAME]. Prints "FD\n" once it
 * has it, stays until its standard input ends. `count`: the case of two programs that share memory whose name
 * is gone; they count on for ever. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <mqueue.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/msg.h>
#include <sys/shm.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static int first;

static void ready(int fd) {
    char byte;

    printf("%d\n", fd);
    fflush(stdout);
    while (read(0, &byte, 1) > 0)
        ;
    exit(0);
}

static int check(long result, const char *what) {
    if (result >= 0)
        return (int)result;
    perror(what);
    exit(1);
}

static volatile int *map(int fd) {
    void *at = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

    if (at == MAP_FAILED)
        check(-1, "mmap");
    return at;
}

/* A descriptor of another process, as a socket could have passed it. */
static int taken(const char *pid, const char *fd) {
    int process = check(syscall(SYS_pidfd_open, atoi(pid), 0), "pidfd_open");

    return check(syscall(SYS_pidfd_getfd, process, atoi(fd), 0), "pidfd_getfd");
}

static void pause_ms(long ms) {
    struct timespec time = {0, ms * 1000000};

    nanosleep(&time, NULL);
}

/* The first makes it, and removes its name once the second has it as well. */
static void count(const char *name) {
    int fd;
    volatile int *m;

    if (first) {
        fd = check(shm_open(name, O_CREAT | O_RDWR, 0600), "shm_open");
        check(ftruncate(fd, 4096), "ftruncate");
    } else {
        struct stat stat;

        while ((fd = shm_open(name, O_RDWR, 0)) < 0 || fstat(fd, &stat) != 0 || stat.st_size == 0)
            pause_ms(20);
    }
    m = map(fd);
    close(fd);
    if (first) {
        while (m[0] == 0)
            pause_ms(20);
        shm_unlink(name);
        for (;;) {
            m[1] += 1;
            pause_ms(20);
            printf("wrote %d, answered %d\n", m[1], m[2]);
            fflush(stdout);
        }
    }
    m[0] = 1;
    for (;;) {
        m[2] = m[1];
        pause_ms(5);
    }
}

int main(int argc, char **argv) {
    const char *kind = argv[1];
    struct {
        long type;
        char text[4];
    } message = {1, "hi"};
    struct mq_attr attributes = {.mq_maxmsg = 1, .mq_msgsize = 8};
    int id;

    if (argc < 4)
        return 2;
    first = strcmp(argv[2], "first") == 0;
    if (strcmp(kind, "count") == 0)
        count(argv[3]);
    if (strcmp(kind, "memfd") == 0) {
        int fd = first ? memfd_create("ours", 0) : taken(argv[3], argv[4]);

        if (first)
            check(ftruncate(fd, 4096), "ftruncate");
        map(fd);
        if (!first)
            close(fd);
        ready(fd);
    }
    if (strcmp(kind, "eventfd") == 0)
        ready(first ? eventfd(0, 0) : taken(argv[3], argv[4]));
    if (strcmp(kind, "mqueue") == 0) {
        id = check(mq_open(argv[3], first ? O_CREAT | O_WRONLY : O_RDONLY, 0600, &attributes), "mq_open");
        if (!first)
            mq_unlink(argv[3]); /* both have it */
        ready(id);
    }
    if (strcmp(kind, "sysv-memory") == 0) {
        id = check(shmget(atoi(argv[3]), 4096, IPC_CREAT | 0600), "shmget");
        if (shmat(id, NULL, 0) == (void *)-1)
            check(-1, "shmat");
        if (!first)
            shmctl(id, IPC_RMID, NULL); /* gone with the last one that uses it */
        ready(id);
    }
    if (strcmp(kind, "sysv-queue") == 0) {
        id = check(msgget(atoi(argv[3]), IPC_CREAT | 0600), "msgget");
        if (first)
            check(msgsnd(id, &message, sizeof(message.text), 0), "msgsnd");
        else
            check(msgrcv(id, &message, sizeof(message.text), 0, 0), "msgrcv");
        ready(id);
    }
    if (strcmp(kind, "file") == 0) /* FIFOs, too */
        ready(check(open(argv[3], first ? O_WRONLY : O_RDONLY), "open"));
    if (strcmp(kind, "append") == 0)
        ready(check(open(argv[3], O_WRONLY | O_APPEND), "open"));
    if (strcmp(kind, "map") == 0) {
        map(check(open(argv[3], O_RDWR), "open"));
        ready(0);
    }
    return 2;
}
