/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A small distributed shared memory on userfaultfd that knows nothing of us.
 *
 * uffd_program server PORT PAGES           serves pages over TCP; exits when its client has gone
 * uffd_program client PORT PAGES ROUNDS    touches every page with two threads, drops them, touches them
 * again; its handler thread fetches what faults uffd_program fill SOCKET PAGES           fills the memory of
 * `lend` through the userfaultfd it is given uffd_program lend SOCKET PAGES           gives its userfaultfd
 * to `fill`, and touches every page
 *
 * client and lend print what they counted as JSON, then wait for SIGTERM. Page n holds n + 1 in every word.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#define PAGE 4096u
#define WORDS (PAGE / 8)
#define TOUCHERS 2
#define MESSAGES 4 /* that one read may take */

static uint8_t *memory;
static uint32_t pages;
static int uffd, wire;
static pthread_mutex_t counting =
    PTHREAD_MUTEX_INITIALIZER; /* from before a copy wakes somebody to its count */
static uint64_t read_faults, write_faults, copies, drops, dropped_bytes;

static void die(const char *what) {
    fprintf(stderr, "uffd_program: %s: %s\n", what, strerror(errno));
    exit(1);
}

/* ---- pages over TCP */

static int take_all(int fd, void *data, size_t bytes) {
    for (size_t done = 0; done < bytes;) {
        const ssize_t count = read(fd, (char *)data + done, bytes - done);
        if (count <= 0)
            return 0;
        done += (size_t)count;
    }
    return 1;
}

static void give_all(int fd, const void *data, size_t bytes) {
    for (size_t done = 0; done < bytes;) {
        const ssize_t count = write(fd, (const char *)data + done, bytes - done);
        if (count <= 0)
            die("write");
        done += (size_t)count;
    }
}

static void make_page(uint64_t *page, uint32_t number) {
    for (uint32_t i = 0; i < WORDS; i++)
        page[i] = number + 1;
}

static struct sockaddr_in address(const char *port) {
    return (struct sockaddr_in){.sin_family = AF_INET,
                                .sin_port = htons((uint16_t)atoi(port)),
                                .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
}

static void no_delay(int fd) {
    const int one = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
}

static int serve(const char *port) {
    const struct sockaddr_in where = address(port);
    const int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), one = 1;
    uint64_t page[WORDS];
    uint32_t number;

    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
    if (bind(listener, (const struct sockaddr *)&where, sizeof(where)) != 0 || listen(listener, 1) != 0)
        die("listen");
    puts("listening");
    fflush(stdout);
    const int fd = accept(listener, NULL, NULL);
    if (fd < 0)
        die("accept");
    no_delay(fd);
    while (take_all(fd, &number, sizeof(number))) {
        make_page(page, number);
        give_all(fd, page, sizeof(page));
    }
    pause();
    return 0;
}

static void fetch(uint64_t *page, uint32_t number) {
    give_all(wire, &number, sizeof(number));
    if (!take_all(wire, page, PAGE))
        die("the server has gone");
}

/* ---- the memory */

static void map_memory(void) {
    struct uffdio_api api = {.api = UFFD_API};

    memory = mmap(NULL, (size_t)pages * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    uffd = (int)syscall(SYS_userfaultfd, O_CLOEXEC);
    if (memory == MAP_FAILED || uffd < 0 || ioctl(uffd, UFFDIO_API, &api) != 0)
        die("userfaultfd");
    madvise(memory, (size_t)pages * PAGE, MADV_NOHUGEPAGE);
    struct uffdio_register range = {
        .range = {.start = (uintptr_t)memory, .len = (size_t)pages * PAGE},
        .mode = UFFDIO_REGISTER_MODE_MISSING,
    };
    if (ioctl(uffd, UFFDIO_REGISTER, &range) != 0)
        die("UFFDIO_REGISTER");
}

/* Two threads may fault on one page: the second copy meets EEXIST, and wakes the second thread itself. */
static void fill(uintptr_t at, const uint64_t *page) {
    struct uffdio_copy copy = {.dst = at, .src = (uintptr_t)page, .len = PAGE};
    struct uffdio_range range = {.start = at, .len = PAGE};

    pthread_mutex_lock(&counting);
    if (ioctl(uffd, UFFDIO_COPY, &copy) == 0)
        copies++;
    else if (errno != EEXIST || ioctl(uffd, UFFDIO_WAKE, &range) != 0)
        die("UFFDIO_COPY");
    pthread_mutex_unlock(&counting);
}

static void *handle(void *remote_base) {
    struct uffd_msg messages[MESSAGES];
    uint64_t page[WORDS];
    ssize_t bytes;

    while ((bytes = read(uffd, messages, sizeof(messages))) > 0)
        for (ssize_t i = 0; i < bytes / (ssize_t)sizeof(messages[0]); i++) {
            const uintptr_t at = messages[i].arg.pagefault.address;
            if (messages[i].event != UFFD_EVENT_PAGEFAULT)
                continue;
            if (messages[i].arg.pagefault.flags & UFFD_PAGEFAULT_FLAG_WRITE)
                write_faults++;
            else
                read_faults++;
            const uint32_t number = (uint32_t)((at - (uintptr_t)remote_base) / PAGE);
            if (wire >= 0)
                fetch(page, number);
            else
                make_page(page, number);
            fill(at, page);
        }
    die("read of the userfaultfd");
    return NULL;
}

/* Each thread begins elsewhere; every third page is written. */
static void *touch(void *argument) {
    const uint32_t self = (uint32_t)(uintptr_t)argument;

    for (uint32_t i = 0; i < pages; i++) {
        const uint32_t number = (i + self * pages / TOUCHERS) % pages;
        volatile uint64_t *page = (volatile uint64_t *)(memory + (size_t)number * PAGE);
        if (number % 3 == 0)
            page[self] = number + 1;
        if (page[WORDS - 1] != number + 1)
            die("a page holds something else");
    }
    return NULL;
}

static void touch_all(void) {
    pthread_t threads[TOUCHERS];

    for (uintptr_t i = 0; i < TOUCHERS; i++)
        pthread_create(&threads[i], NULL, touch, (void *)i);
    for (int i = 0; i < TOUCHERS; i++)
        pthread_join(threads[i], NULL);
}

static void drop(uint32_t first, uint32_t count) {
    if (madvise(memory + (size_t)first * PAGE, (size_t)count * PAGE, MADV_DONTNEED) != 0)
        die("madvise");
    drops++;
    dropped_bytes += (uint64_t)count * PAGE;
}

static void report(void) {
    pthread_mutex_lock(&counting);
    printf("{\"base\":%llu,\"readFaults\":%llu,\"writeFaults\":%llu,\"copies\":%llu,\"drops\":%llu,"
           "\"droppedBytes\":%llu}\n",
           (unsigned long long)(uintptr_t)memory, (unsigned long long)read_faults,
           (unsigned long long)write_faults, (unsigned long long)copies, (unsigned long long)drops,
           (unsigned long long)dropped_bytes);
    fflush(stdout);
    pause();
}

static int use(const char *port, int rounds) {
    const struct sockaddr_in where = address(port);
    pthread_t handler;

    wire = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (connect(wire, (const struct sockaddr *)&where, sizeof(where)) != 0)
        die("connect");
    no_delay(wire);
    map_memory();
    pthread_create(&handler, NULL, handle, memory);
    for (int round = 0; round < rounds; round++) {
        touch_all();
        drop(0, pages / 2);
        drop(pages / 2, pages - pages / 2);
    }
    report();
    return 0;
}

/* ---- a foreign pager */

static struct sockaddr_un unix_address(const char *path) {
    struct sockaddr_un where = {.sun_family = AF_UNIX};
    snprintf(where.sun_path, sizeof(where.sun_path), "%s", path);
    return where;
}

union descriptor_space {
    struct cmsghdr header;
    char bytes[CMSG_SPACE(sizeof(int))];
};

static void send_descriptor(int fd, int descriptor, uintptr_t base) {
    union descriptor_space space = {0};
    struct iovec vector = {.iov_base = &base, .iov_len = sizeof(base)};
    struct msghdr message = {
        .msg_iov = &vector, .msg_iovlen = 1, .msg_control = &space, .msg_controllen = sizeof(space)};
    struct cmsghdr *control = CMSG_FIRSTHDR(&message);

    *control = (struct cmsghdr){
        .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS, .cmsg_len = CMSG_LEN(sizeof(int))};
    memcpy(CMSG_DATA(control), &descriptor, sizeof(descriptor));
    if (sendmsg(fd, &message, 0) != sizeof(base))
        die("sendmsg");
}

static int receive_descriptor(int fd, uintptr_t *base) {
    union descriptor_space space = {0};
    struct iovec vector = {.iov_base = base, .iov_len = sizeof(*base)};
    struct msghdr message = {
        .msg_iov = &vector, .msg_iovlen = 1, .msg_control = &space, .msg_controllen = sizeof(space)};
    int descriptor = -1;

    if (recvmsg(fd, &message, 0) != sizeof(*base) || CMSG_FIRSTHDR(&message) == NULL)
        die("recvmsg");
    memcpy(&descriptor, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof(descriptor));
    return descriptor;
}

static int fill_another(const char *path) {
    const struct sockaddr_un where = unix_address(path);
    const int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    uintptr_t base = 0;

    wire = -1;
    if (bind(listener, (const struct sockaddr *)&where, sizeof(where)) != 0 || listen(listener, 1) != 0)
        die("listen");
    puts("listening");
    fflush(stdout);
    uffd = receive_descriptor(accept(listener, NULL, NULL), &base);
    handle((void *)base);
    return 0;
}

static int lend(const char *path) {
    const struct sockaddr_un where = unix_address(path);
    const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    if (connect(fd, (const struct sockaddr *)&where, sizeof(where)) != 0)
        die("connect");
    map_memory();
    send_descriptor(fd, uffd, (uintptr_t)memory);
    touch_all();
    report();
    return 0;
}

int main(int count, char **arguments) {
    const char *mode = count > 1 ? arguments[1] : "";

    if (count > 3)
        pages = (uint32_t)atoi(arguments[3]);
    if (strcmp(mode, "server") == 0 && count == 4)
        return serve(arguments[2]);
    if (strcmp(mode, "client") == 0 && count == 5)
        return use(arguments[2], atoi(arguments[4]));
    if (strcmp(mode, "fill") == 0 && count == 4)
        return fill_another(arguments[2]);
    if (strcmp(mode, "lend") == 0 && count == 4)
        return lend(arguments[2]);
    fputs("usage: uffd_program server|client|fill|lend WHERE PAGES [ROUNDS]\n", stderr);
    return 2;
}
