/* SPDX-License-Identifier: Apache-2.0 */
/* The attach helper and its client: the same answers as without it, and nothing else whatever is asked. */
#include "harness.h"

#include "attach/remote.h"
#include "attach/serve.h"

#include <dirent.h>

#define CONNECTIONS 700 /* of one process with itself: twice as many entries, three packets */
#define FUZZ_PACKETS 20000

static struct {
    pid_t pid;
    int socket; /* the collector's end */
    struct remote remote;
    char outside[300]; /* a cgroup that nobody may have recorded */
    uint64_t outside_id;
} helper;

/* ---- set-up ---- */

static void remove_outside(void) {
    char path[300];

    if (getpid() != test.owner || helper.outside[0] == '\0')
        return;
    rmdir(helper.outside);
    snprintf(path, sizeof(path), "%s", helper.outside);
    *strrchr(path, '/') = '\0';
    rmdir(path);
}

/* Beside the test's own, at the same level, under a name that begins the same. */
static void make_outside(void) {
    struct stat status;
    char path[280];

    snprintf(path, sizeof(path), "%sx", test.root);
    CHECK(mkdir(path, 0755) == 0);
    snprintf(helper.outside, sizeof(helper.outside), "%s/p", path);
    CHECK(mkdir(helper.outside, 0755) == 0 && stat(helper.outside, &status) == 0);
    helper.outside_id = status.st_ino;
}

static void start_helper(void) {
    int ends[2];

    set_up();
    make_outside();
    CHECK(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) == 0);
    helper.pid = fork();
    CHECK(helper.pid >= 0);
    if (helper.pid == 0) {
        const struct attach_service service = {.capture = test.capture,
                                               .below = strrchr(test.root, '/') + 1,
                                               .reader_lock = open("/dev/null", O_RDONLY)};
        close(ends[0]);
        attach_serve(ends[1], &service);
        _exit(0);
    }
    close(ends[1]);
    helper.socket = ends[0];
}

static void meet_helper(void) {
    char error[CAPTURE_ERROR_BYTES] = "";
    struct attach_hello hello;
    uint32_t bytes;
    int ring = -1, lock = -1, own;

    start_helper();
    EQUAL(remote_open(&helper.remote, helper.socket, &hello, &ring, &lock, error), 0);
    capture_ring(test.capture, &own, &bytes);
    EQUAL(hello.ring_bytes, bytes);
    CHECK(fcntl(ring, F_GETFD) == FD_CLOEXEC && fcntl(lock, F_GETFD) == FD_CLOEXEC);
    struct ring_map map;
    EQUAL(ring_map_open(&map, ring, bytes), 0);
    ring_map_close(&map);
    close(ring);
    close(lock);
}

static void helper_ends(void) {
    int status = -1;

    for (const uint64_t begun = now_ns(); now_ns() - begun < HANG_NS;) {
        if (waitpid(helper.pid, &status, WNOHANG) == helper.pid) {
            EQUAL(status, 0);
            return;
        }
        usleep(1000);
    }
    kill(helper.pid, SIGKILL);
    FAIL("the helper goes on without a collector");
}

/* ---- the same answers ---- */

static void talk_to_itself(int fd, struct told *told) {
    struct sockaddr_in address;
    socklen_t length = sizeof(address);
    char text[64] = "";

    (void)told;
    close(helper.socket); /* not its own */
    CHECK(getsockname(fd, (struct sockaddr *)&address, &length) == 0);
    for (int i = 0; i < CONNECTIONS; i++) {
        const int one = socket(AF_INET, SOCK_STREAM, 0);
        CHECK(connect(one, (struct sockaddr *)&address, sizeof(address)) == 0);
        const int two = accept(fd, NULL, NULL);
        CHECK(send(one, text, (size_t)i % 60 + 1, 0) == i % 60 + 1);
        CHECK(recv(two, text, sizeof(text), 0) == i % 60 + 1);
        if (i + 1 < CONNECTIONS) { /* the last one stays open */
            close(one);
            close(two);
        }
    }
}

static void remote_select_actor(struct actor *actor, int on) {
    char error[CAPTURE_ERROR_BYTES] = "";
    const int status = remote_select(&helper.remote, actor->id, on, 1, error);
    if (status != 0)
        FAIL("remote_select: %d %s", status, error);
}

static struct cut take_remote_cut(const struct actor *actor) {
    char error[CAPTURE_ERROR_BYTES] = "";
    struct cut cut;
    int pending = 1;
    const int status =
        remote_cut(&helper.remote, actor->id, &cut.entries, &cut.count, &cut.complete, &pending, error);
    if (status != 0)
        FAIL("remote_cut: %d %s", status, error);
    EQUAL(pending, 0);
    return cut;
}

static void same_cut(struct cut a, struct cut b) {
    EQUAL(a.count, b.count);
    EQUAL(a.complete, b.complete);
    CHECK(memcmp(a.entries, b.entries, a.count * sizeof(*a.entries)) == 0);
}

static void same_counters(void) {
    static struct capture_counters here, there;
    uint64_t lost[CAPTURE_KINDS] = {0};

    EQUAL(capture_counters(test.capture, &here, NULL), 0);
    EQUAL(remote_counters(&helper.remote, &there, NULL), 0);
    EQUAL(there.cpus, 1);
    CHECK(memcmp(here.committed, there.committed, sizeof(here.committed)) == 0);
    for (uint32_t cpu = 0; cpu < here.cpus; cpu++)
        for (int kind = 0; kind < CAPTURE_KINDS; kind++)
            lost[kind] += here.lost[cpu][kind];
    CHECK(memcmp(lost, there.lost[0], sizeof(lost)) == 0);
}

static void same_verdicts(void) {
    struct capture_verdict *here, *there;
    size_t count, remote_count;

    EQUAL(capture_verdicts(test.capture, &here, &count, NULL), 0);
    EQUAL(remote_verdicts(&helper.remote, &there, &remote_count, NULL), 0);
    EQUAL(remote_count, count);
    CHECK(count == 0 || memcmp(here, there, count * sizeof(*here)) == 0);
    free(here), free(there);
}

static void same_parts(void) {
    static struct capture_part here[64], there[64];
    const int count = capture_parts(test.capture, here, 64);

    EQUAL(remote_parts(&helper.remote, there, 64), count);
    CHECK(count > 0);
    for (int i = 0; i < count; i++) {
        CHECK(strcmp(here[i].variant, there[i].variant) == 0);
        EQUAL(there[i].in_use, here[i].in_use);
    }
}

static void case_same_answers(void) {
    char error[CAPTURE_ERROR_BYTES] = "";
    uint16_t port;
    int pending = 1;

    meet_helper();
    struct actor *actor = new_actor(0);
    remote_select_actor(actor, 1);
    remote_select_actor(actor, 1); /* again is nothing */
    start(actor, talk_to_itself, listen_tcp(&port));
    reached(actor, 1);
    EQUAL(count_records(actor, RECOVERY_SEND), CONNECTIONS);
    freeze(actor, 1);
    struct cut here;
    EQUAL(capture_cut(test.capture, actor->id, &here.entries, &here.count, &here.complete, &pending, error),
          0);
    const struct cut there = take_remote_cut(actor);
    EQUAL(there.count, 2); /* the others have ended */
    same_cut(here, there);
    same_counters();
    EQUAL(remote_flush(&helper.remote, &actor->id, 1, &pending, error), 0);
    EQUAL(pending, 0);
    same_verdicts();
    same_parts();
    EQUAL(remote_expect_restore(&helper.remote, there.entries, there.count, error), 0);
    free(here.entries), free(there.entries);
    freeze(actor, 0);
    remote_select_actor(actor, 0);
    struct cut none;
    EQUAL(remote_cut(&helper.remote, actor->id, &none.entries, &none.count, &none.complete, &pending, error),
          -ESRCH);
    CHECK(strstr(error, "not recorded") != NULL && none.entries == NULL);
    struct userfault_counts counts;
    EQUAL(remote_userfaults(&helper.remote, &counts, error), -ENOTSUP);
    remote_close(&helper.remote);
    helper_ends();
    remove_outside();
    nothing_leaked();
}

/* ---- what is not for the asking ---- */

static void is_not_recorded(uint64_t cgroup) {
    struct cut cut;
    int pending;

    EQUAL(capture_cut(test.capture, cgroup, &cut.entries, &cut.count, &cut.complete, &pending, NULL), -ESRCH);
}

static void case_foreign_cgroup(void) {
    char error[CAPTURE_ERROR_BYTES] = "";
    struct stat root;

    meet_helper();
    EQUAL(remote_select(&helper.remote, helper.outside_id, 1, 1, error), -EPERM);
    CHECK(strstr(error, "not below") != NULL);
    is_not_recorded(helper.outside_id);
    CHECK(stat(test.root, &root) == 0);
    CHECK(remote_select(&helper.remote, root.st_ino, 1, 1, error) < 0);
    EQUAL(remote_select(&helper.remote, 1, 1, 1, error), -EPERM); /* all of the machine */
    EQUAL(remote_select(&helper.remote, 1ull << 60, 1, 1, error), -ENOENT);
    remote_select_actor(new_actor(0), 1);
    remote_close(&helper.remote);
    helper_ends();
    remove_outside();
}

/* A capture that could not be opened: the reason is the answer to everything. */
static void case_told_why(void) {
    char error[CAPTURE_ERROR_BYTES] = "";
    struct attach_hello hello;
    int ends[2], ring, lock;

    test.owner = getpid();
    CHECK(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) == 0);
    helper.pid = fork();
    CHECK(helper.pid >= 0);
    if (helper.pid == 0) {
        struct attach_service service = {.below = "x", .reader_lock = -1, .status = -EPERM};
        memset(service.error, 'w', sizeof(service.error) - 1); /* as long as a sentence can be */
        close(ends[0]);
        attach_serve(ends[1], &service);
        _exit(0);
    }
    close(ends[1]);
    EQUAL(remote_open(&helper.remote, ends[0], &hello, &ring, &lock, error), -EPERM);
    EQUAL(strlen(error), CAPTURE_ERROR_BYTES - 1);
    EQUAL(remote_select(&helper.remote, 5, 1, 1, error), -EPERM);
    remote_close(&helper.remote);
    helper_ends();
}

/* ---- hostile requests ---- */

struct raw {
    struct attach_request request;
    struct capture_cut_entry entries[ATTACH_ENTRIES + 1]; /* of flush: cgroup ids */
};

/* The status that the helper answers with. */
static int32_t answer_to(const void *packet, size_t bytes) {
    static uint8_t answer[ATTACH_PACKET_BYTES];
    struct attach_answer head;

    CHECK(send(helper.socket, packet, bytes, 0) == (ssize_t)bytes);
    do {
        struct pollfd ready = {.fd = helper.socket, .events = POLLIN};
        EQUAL(poll(&ready, 1, (int)(HANG_NS / 1000000)), 1);
        const ssize_t got = recv(helper.socket, answer, sizeof(answer), 0);
        CHECK(got >= (ssize_t)sizeof(head));
        memcpy(&head, answer, sizeof(head));
        EQUAL(head.magic, ATTACH_MAGIC);
        EQUAL(head.bytes, (size_t)got - sizeof(head));
    } while (head.more);
    return head.status;
}

static struct raw request_of(enum attach_operation operation, uint64_t cgroup, uint16_t count) {
    struct raw raw = {
        .request = {
            .magic = ATTACH_MAGIC, .operation = (uint16_t)operation, .count = count, .cgroup = cgroup}};
    return raw;
}

static size_t bytes_of(const struct raw *raw) {
    const size_t item = raw->request.operation == ATTACH_FLUSH ? sizeof(uint64_t) : sizeof(raw->entries[0]);
    const size_t bytes = sizeof(raw->request) + raw->request.count * item;

    return bytes < sizeof(*raw) ? bytes : sizeof(*raw);
}

static void refused(struct raw raw) {
    EQUAL(answer_to(&raw, bytes_of(&raw)), -EPROTO);
}

static void refuses_broken_requests(uint64_t cgroup) {
    struct raw raw = request_of(ATTACH_COUNTERS, 0, 0);

    for (size_t bytes = 1; bytes < sizeof(raw.request); bytes++)
        EQUAL(answer_to(&raw, bytes), -EPROTO);
    EQUAL(answer_to(&raw, sizeof(raw.request) + 1), -EPROTO);
    raw.request.magic ^= 1;
    refused(raw);
    refused(request_of(0, 0, 0));
    refused(request_of(ATTACH_SELECT_ATTACHED + 1, 0, 0));
    refused(request_of(0xffff, cgroup, 0));
    for (int operation = ATTACH_HELLO; operation <= ATTACH_SELECT_ATTACHED; operation++) {
        const bool lists = operation == ATTACH_FLUSH || operation == ATTACH_EXPECT_RESTORE;
        const bool names = operation == ATTACH_SELECT || operation == ATTACH_SELECT_ATTACHED ||
                           operation == ATTACH_UNSELECT || operation == ATTACH_CUT;
        refused(request_of(operation, names ? 0 : cgroup, lists));
        refused(request_of(operation, names ? cgroup : 0, lists ? 0 : 1));
        refused(request_of(operation, names ? cgroup : 0, ATTACH_CGROUPS + 1));
        raw = request_of(operation, names ? cgroup : 0, 3);
        EQUAL(answer_to(&raw, bytes_of(&raw) - 1), -EPROTO);
        raw.request.count = 0xffff;
        EQUAL(answer_to(&raw, sizeof(raw)), -EPROTO);
    }
}

static void refuses_impossible_entries(void) {
    static const struct capture_cut_entry wrong[] = {
        {.flags = 128},
        {.flags = RECOVERY_FLAG_DSM},
        {.live = 2},
        {.told = 16},
        {.seen = 1ull << 53},
        {.reserved = {0, 0, 0, 0, 1}},
        {.local = 1ull << 32},
        {.remote = 1ull << 32},
        {.sent = 1ull << 53},
        {.received = UINT64_MAX},
        {.sent = 5, .unacknowledged = 6},
        {.queued = 1ull << 53},
    };

    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        struct raw raw = request_of(ATTACH_EXPECT_RESTORE, 0, 2);
        raw.entries[1] = wrong[i];
        refused(raw);
    }
}

static int descriptors_of(pid_t pid) {
    char path[64];
    int count = 0;

    snprintf(path, sizeof(path), "/proc/%d/fd", (int)pid);
    DIR *folder = opendir(path);
    CHECK(folder != NULL);
    while (readdir(folder) != NULL)
        count++;
    closedir(folder);
    return count;
}

static void takes_no_descriptors(void) {
    const struct raw raw = request_of(ATTACH_COUNTERS, 0, 0);
    const int before = descriptors_of(helper.pid);
    union {
        char bytes[CMSG_SPACE(200 * sizeof(int))];
        struct cmsghdr align;
    } control = {0};
    struct iovec part = {(void *)&raw, sizeof(raw.request)};
    struct msghdr message = {.msg_iov = &part,
                             .msg_iovlen = 1,
                             .msg_control = control.bytes,
                             .msg_controllen = sizeof(control.bytes)};
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    int fds[200];

    for (int i = 0; i < 200; i++)
        fds[i] = helper.socket;
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof(fds));
    memcpy(CMSG_DATA(header), fds, sizeof(fds));
    for (int i = 0; i < 20; i++) {
        static uint8_t answer[ATTACH_PACKET_BYTES];
        CHECK(sendmsg(helper.socket, &message, 0) == (ssize_t)sizeof(raw.request));
        CHECK(recv(helper.socket, answer, sizeof(answer), 0) > 0);
    }
    EQUAL(descriptors_of(helper.pid), before);
}

/* Requests with a few fields or bytes exchanged: every one is answered, and none has anything recorded. (Not
 * ATTACH_PARTS, which takes its time.) */
static void survives_fuzz(uint64_t cgroup) {
    const unsigned int seed = (unsigned int)time(NULL);
    static struct raw raw;
    int counted[2] = {0};

    printf("seed %u\n", seed);
    srandom(seed);
    for (int i = 0; i < FUZZ_PACKETS; i++) {
        const uint64_t ids[] = {0, 1, cgroup, helper.outside_id,
                                (uint64_t)random() << 32 | (uint64_t)random()};
        raw = request_of(random() % ATTACH_PARTS, ids[random() % 5], random() % 3 == 0 ? random() % 4 : 0);
        size_t bytes = bytes_of(&raw);
        for (long changes = random() % 4; changes > 0; changes--)
            ((uint8_t *)&raw)[(size_t)random() % (bytes + 1)] = (uint8_t)random();
        if (random() % 8 == 0)
            bytes = 1 + (size_t)random() % sizeof(raw);
        counted[answer_to(&raw, bytes) == -EPROTO]++;
    }
    printf("%d requests answered, %d refused\n", counted[0], counted[1]);
    CHECK(counted[0] > FUZZ_PACKETS / 100 && counted[1] > FUZZ_PACKETS / 10);
}

static void case_hostile_requests(void) {
    static uint8_t large[100000];

    start_helper();
    const struct actor *actor = new_actor(0);
    refuses_broken_requests(actor->id);
    refuses_impossible_entries();
    is_not_recorded(actor->id);
    EQUAL(answer_to(large, sizeof(large)), -EPROTO);
    takes_no_descriptors();
    survives_fuzz(actor->id);
    is_not_recorded(helper.outside_id);
    const struct raw fine = request_of(ATTACH_SELECT, actor->id, 0);
    EQUAL(answer_to(&fine, bytes_of(&fine)), 0);
    close(helper.socket);
    helper_ends();
    remove_outside();
    nothing_leaked();
}

/* ---- a helper that dies, or answers nonsense ---- */

static void case_dead_helper(void) {
    char error[CAPTURE_ERROR_BYTES] = "";
    struct capture_counters counters;
    const uint64_t cgroup = 5;
    int status, pending;

    meet_helper();
    EQUAL(remote_counters(&helper.remote, &counters, error), 0);
    CHECK(kill(helper.pid, SIGKILL) == 0 && waitpid(helper.pid, &status, 0) == helper.pid);
    EQUAL(remote_counters(&helper.remote, &counters, error), -EPIPE);
    CHECK(strstr(error, "helper has ended") != NULL);
    EQUAL(remote_flush(&helper.remote, &cgroup, 1, &pending, error), -EPIPE);
    remote_close(&helper.remote);
    remove_outside();
}

/* Plays the helper: what it is told to answer next. */
static int after_answer(const void *packet, size_t bytes) {
    char error[CAPTURE_ERROR_BYTES] = "";
    struct remote remote;
    struct cut cut;
    int ends[2], pending;

    CHECK(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) == 0);
    CHECK(send(ends[1], packet, bytes, 0) == (ssize_t)bytes);
    remote = (struct remote){.socket = ends[0]};
    const int status = remote_cut(&remote, 5, &cut.entries, &cut.count, &cut.complete, &pending, error);
    if (status == 0)
        free(cut.entries);
    else
        CHECK(cut.entries == NULL && error[0] != '\0');
    remote_close(&remote);
    close(ends[1]);
    return status;
}

static void case_nonsense_answers(void) {
    static struct {
        struct attach_answer head;
        uint8_t body[ATTACH_BODY_BYTES + 64];
    } packet;
    const size_t head = sizeof(packet.head), entry = sizeof(struct capture_cut_entry);

    test.owner = getpid();
    packet.head = (struct attach_answer){.magic = ATTACH_MAGIC, .bytes = (uint32_t)entry};
    EQUAL(after_answer(&packet, head + entry), 0);
    EQUAL(after_answer(&packet, head - 1), -EPIPE);
    EQUAL(after_answer(&packet, head + entry - 1), -EPIPE);
    EQUAL(after_answer(&packet, head + entry + 1), -EPIPE);
    packet.head.bytes = (uint32_t)entry - 1; /* no whole entries */
    EQUAL(after_answer(&packet, head + entry - 1), -EPIPE);
    packet.head.bytes = sizeof(packet.body); /* more than a packet may hold */
    EQUAL(after_answer(&packet, sizeof(packet)), -EPIPE);
    packet.head = (struct attach_answer){.magic = ATTACH_MAGIC + 1};
    EQUAL(after_answer(&packet, head), -EPIPE);
    packet.head = (struct attach_answer){.magic = ATTACH_MAGIC, .status = 1};
    EQUAL(after_answer(&packet, head), -EPIPE);
    packet.head = (struct attach_answer){
        .magic = ATTACH_MAGIC, .status = -5, .bytes = CAPTURE_ERROR_BYTES}; /* too long a sentence */
    EQUAL(after_answer(&packet, head + CAPTURE_ERROR_BYTES), -EPIPE);
    packet.head.bytes = 5;
    memcpy(packet.body, "wrong", 5);
    EQUAL(after_answer(&packet, head + 5), -5);
    nothing_leaked();
}

int main(int argc, char **argv) {
    static const struct test_case cases[] = {
        {"same-answers", case_same_answers}, {"foreign-cgroup", case_foreign_cgroup},
        {"told-why", case_told_why},         {"hostile-requests", case_hostile_requests},
        {"dead-helper", case_dead_helper},   {"nonsense-answers", case_nonsense_answers},
    };
    return run_cases(cases, sizeof(cases) / sizeof(cases[0]), argc, argv);
}
