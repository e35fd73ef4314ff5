/* SPDX-License-Identifier: Apache-2.0 */
/* What is not plain TCP, or TCP in unusual ways: told apart where it can't be matched, exact where it can. */
#include "harness.h"

#include <linux/io_uring.h>
#include <linux/netlink.h>
#include <netinet/ip_icmp.h>
#include <sys/mount.h>

#ifndef IPPROTO_MPTCP
#define IPPROTO_MPTCP 262
#endif
#ifndef TCP_ULP
#define TCP_ULP 31
#endif
#ifndef TCP_FASTOPEN
#define TCP_FASTOPEN 23
#endif

static char block[1 << 20];

static void pause_ms(int ms) {
    usleep((useconds_t)ms * 1000);
}

static struct actor *run_alone(actor_function *part) {
    struct actor *actor = new_actor(1);

    start(actor, part, -1);
    reached(actor, 1);
    return actor;
}

/* ---- not TCP ---- */

static void use_udp(int fd, struct told *told) {
    struct sockaddr_in address = loopback(0);
    socklen_t length = sizeof(address);
    const int one = socket(AF_INET, SOCK_DGRAM, 0), two = socket(AF_INET, SOCK_DGRAM, 0);

    (void)fd;
    (void)told;
    CHECK(bind(one, (struct sockaddr *)&address, sizeof(address)) == 0);
    CHECK(getsockname(one, (struct sockaddr *)&address, &length) == 0);
    for (int i = 0; i < 3; i++)
        CHECK(sendto(two, block, 10, 0, (struct sockaddr *)&address, length) == 10);
    CHECK(recv(one, block, 100, 0) == 10);
}

static void case_udp(void) {
    set_up();
    const struct actor *actor = run_alone(use_udp);

    if (has_verdict(actor, RECOVERY_VERDICT_UDP)) /* a variant that knows no addresses */
        return;
    EQUAL(verdicts_of(actor), 1u << RECOVERY_VERDICT_DATAGRAM);
    EQUAL(count_records(actor, RECOVERY_DATAGRAM), 2); /* where it has sent to, where it has received */
    EQUAL(test.records.count, 3);
}

/* Netlink asks the kernel, not a process. */
static void use_netlink(int fd, struct told *told) {
    struct {
        struct nlmsghdr header;
        char rest[64];
    } request = {
        .header = {.nlmsg_len = NLMSG_LENGTH(16), .nlmsg_type = 18 /* RTM_GETLINK */, .nlmsg_flags = 0x301}};
    const int one = socket(AF_NETLINK, SOCK_RAW, NETLINK_ROUTE);

    (void)fd;
    (void)told;
    CHECK(send(one, &request, request.header.nlmsg_len, 0) > 0);
    CHECK(recv(one, block, sizeof(block), 0) > 0);
}

static void case_netlink_is_no_channel(void) {
    set_up();
    run_alone(use_netlink);
    EQUAL(test.records.count, 0);
}

static void use_raw(int fd, struct told *told) {
    const struct sockaddr_in address = loopback(0);
    const struct icmphdr echo = {.type = ICMP_ECHO, .checksum = (uint16_t)~ICMP_ECHO};
    const int one = socket(AF_INET, SOCK_RAW, IPPROTO_ICMP);

    (void)fd;
    (void)told;
    CHECK(sendto(one, &echo, sizeof(echo), 0, (const struct sockaddr *)&address, sizeof(address)) > 0);
}

static void case_raw(void) {
    set_up();
    CHECK(has_verdict(run_alone(use_raw), RECOVERY_VERDICT_OTHER_SOCKET));
}

/* ---- MPTCP and kTLS ---- */

static int mptcp_socket(void) {
    return socket(AF_INET, SOCK_STREAM, IPPROTO_MPTCP);
}

static int listen_mptcp(uint16_t *port) {
    struct sockaddr_in address = loopback(0);
    socklen_t length = sizeof(address);
    const int fd = mptcp_socket();

    if (fd < 0)
        SKIP("this kernel has no MPTCP: %s", strerror(errno));
    CHECK(bind(fd, (struct sockaddr *)&address, sizeof(address)) == 0 && listen(fd, 8) == 0);
    CHECK(getsockname(fd, (struct sockaddr *)&address, &length) == 0);
    *port = ntohs(address.sin_port);
    return fd;
}

static void call_mptcp(int fd, struct told *told) {
    const struct sockaddr_in address = loopback(pair_port);
    const int one = mptcp_socket();

    (void)fd;
    CHECK(connect(one, (const struct sockaddr *)&address, sizeof(address)) == 0);
    send_all(one, block, 100, told);
    receive_all(one, block, 50, told);
}

static void serve_mptcp(int fd, struct told *told) {
    const int one = accept(fd, NULL, NULL);
    CHECK(one >= 0);
    receive_all(one, block, 100, told);
    send_all(one, block, 50, told);
}

static void case_mptcp(void) {
    const int listener = listen_mptcp(&pair_port);

    set_up();
    struct actor *client = new_actor(1), *server = new_actor(1);
    start(server, serve_mptcp, listener);
    start(client, call_mptcp, -1);
    reached(client, 1);
    reached(server, 1);
    CHECK(has_verdict(client, RECOVERY_VERDICT_MPTCP));
    CHECK(has_verdict(server, RECOVERY_VERDICT_MPTCP));
    EQUAL(count_records(client, RECOVERY_SEND) + count_records(server, RECOVERY_RECEIVE), 0);
}

static void call_plain(int fd, struct told *told) {
    const int one = connect_tcp(pair_port);
    (void)fd;
    send_all(one, block, 100, told);
    receive_all(one, block, 50, told);
}

/* Go's net.Listen asks for MPTCP since 1.24: a plain client makes it plain TCP, exact on both sides. */
static void case_plain_client_of_mptcp_listener(void) {
    const int listener = listen_mptcp(&pair_port);

    set_up();
    struct actor *client = new_actor(1), *server = new_actor(1);
    start(server, serve_mptcp, listener);
    start(client, call_plain, -1);
    reached(client, 1);
    reached(server, 1);
    const struct capture_cut_entry a = only(frozen_cut(client));
    tiles(client, RECOVERY_SEND, a.local, a.remote, 0, 100);
    tiles(client, RECOVERY_RECEIVE, a.local, a.remote, 0, 50);
    printf("the server's side is %s\n", count_records(server, RECOVERY_VERDICT) > 0 ? "MPTCP" : "TCP");
    if (count_records(server, RECOVERY_VERDICT) > 0) { /* older kernels keep the MPTCP socket above it */
        CHECK(has_verdict(server, RECOVERY_VERDICT_MPTCP));
        return;
    }
    const struct capture_cut_entry b = only(frozen_cut(server));
    EQUAL(b.remote, a.local);
    EQUAL(b.received, 100);
    EQUAL(b.sent, 50);
    tiles(server, RECOVERY_RECEIVE, b.local, b.remote, 0, 100);
    tiles(server, RECOVERY_SEND, b.local, b.remote, 0, 50);
}

static void offer_tls(int fd, struct told *told) {
    const int one = connect_tcp(pair_port);
    (void)fd;
    told->value[0] = setsockopt(one, IPPROTO_TCP, TCP_ULP, "tls", 3) == 0 ? 1 : 2;
    send_all(one, block, 100, told);
}

static void hold(int fd, struct told *told) {
    (void)told;
    CHECK(accept(fd, NULL, NULL) >= 0);
}

static void case_ktls(void) {
    set_up();
    struct actor *client = new_actor(1), *server = new_actor(1);
    start(server, hold, listen_tcp(&pair_port));
    start(client, offer_tls, -1);
    reached(client, 1);
    if (client->told->value[0] == 2) { /* a kernel without: who asked in vain is followed as before */
        printf("this kernel has no kTLS (/proc/sys/net/ipv4/tcp_available_ulp)\n");
        const struct capture_cut_entry end = only(frozen_cut(client));
        EQUAL(end.sent, 100);
        tiles(client, RECOVERY_SEND, end.local, end.remote, 0, 100);
        CHECK(!has_verdict(client, RECOVERY_VERDICT_KTLS));
        return;
    }
    CHECK(has_verdict(client, RECOVERY_VERDICT_KTLS));
    EQUAL(count_records(client, RECOVERY_SEND), 0);
}

/* ---- unusual openings ---- */

/* Data with the SYN, in a network of its own where the server may allow it. */
static void enter_fast_network(void) {
    if (unshare(CLONE_NEWNET) != 0)
        SKIP("no network namespace of one's own: %s", strerror(errno));
    if (system("ip link set lo up && echo 519 > /proc/sys/net/ipv4/tcp_fastopen") != 0)
        SKIP("TCP Fast Open cannot be switched on");
}

static void call_fast(int fd, struct told *told) {
    const struct sockaddr_in address = loopback(pair_port);
    const int one = socket(AF_INET, SOCK_STREAM, 0);

    (void)fd;
    const ssize_t sent =
        sendto(one, block, 300, MSG_FASTOPEN, (const struct sockaddr *)&address, sizeof(address));
    CHECK(sent > 0);
    told->sent = (uint64_t)sent;
    pause_ms(30);
    send_all(one, block, 200, told);
    receive_all(one, block, 50, told);
}

static void serve_fast(int fd, struct told *told) {
    const int one = accept(fd, NULL, NULL);
    CHECK(one >= 0);
    receive_all(one, block, 500, told);
    send_all(one, block, 50, told);
}

static void case_fast_open(void) {
    const int queue = 5;

    enter_fast_network();
    set_up();
    struct actor *client = new_actor(1), *server = new_actor(1);
    const int listener = listen_tcp(&pair_port);
    CHECK(setsockopt(listener, IPPROTO_TCP, TCP_FASTOPEN, &queue, sizeof(queue)) == 0);
    start(server, serve_fast, listener);
    start(client, call_fast, -1);
    reached(client, 1);
    reached(server, 1);
    const struct capture_cut_entry a = only(frozen_cut(client)), b = only(frozen_cut(server));
    EQUAL(a.local, b.remote);
    EQUAL(a.remote, b.local);
    EQUAL(a.sent, 500);
    EQUAL(b.received, 500);
    tiles(server, RECOVERY_RECEIVE, b.local, b.remote, 0, 500);
    tiles(server, RECOVERY_SEND, b.local, b.remote, 0, 50);
    tiles(client, RECOVERY_RECEIVE, a.local, a.remote, 0, 50);
    tiles(client, RECOVERY_SEND, a.local, a.remote, 0, 500); /* what went with the SYN, too */
    EQUAL(verdicts_of(client) | verdicts_of(server), 0);
}

static void call_from_one_port(int fd, struct told *told) {
    const struct sockaddr_in to = loopback(pair_port);
    const struct linger now = {.l_onoff = 1, .l_linger = 0};
    struct sockaddr_in from = loopback(0);
    socklen_t length = sizeof(from);
    const int yes = 1;

    (void)fd;
    for (int i = 0; i < 5; i++) {
        const int one = socket(AF_INET, SOCK_STREAM, 0);
        CHECK(setsockopt(one, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof(yes)) == 0);
        CHECK(bind(one, (struct sockaddr *)&from, sizeof(from)) == 0);
        CHECK(getsockname(one, (struct sockaddr *)&from, &length) == 0);
        CHECK(connect(one, (const struct sockaddr *)&to, sizeof(to)) == 0);
        send_all(one, block, 100 + (size_t)i, told);
        receive_all(one, block, 1, told);
        CHECK(setsockopt(one, SOL_SOCKET, SO_LINGER, &now, sizeof(now)) == 0);
        close(one); /* reset: no TIME_WAIT, the same four numbers at once */
    }
    told->value[0] = ntohs(from.sin_port);
}

static void serve_five(int fd, struct told *told) {
    for (size_t i = 0; i < 5; i++) {
        const int one = accept(fd, NULL, NULL);
        CHECK(one >= 0);
        receive_all(one, block, 100 + i, told);
        send_all(one, block, 1, told);
        pause_ms(5);
        close(one);
    }
}

static void case_same_four_numbers_again(void) {
    set_up();
    struct actor *client = new_actor(1), *server = new_actor(1);
    start(server, serve_five, listen_tcp(&pair_port));
    start(client, call_from_one_port, -1);
    reached(client, 1);
    reached(server, 1);
    const struct cut cut = frozen_cut(client), other = frozen_cut(server);
    uint64_t sum = 0;
    EQUAL(cut.count, 5);
    EQUAL(other.count, 5);
    for (size_t i = 0; i < 5; i++) {
        const struct capture_cut_entry *entry = &cut.entries[i];
        sum += entry->sent;
        tiles(client, RECOVERY_SEND, entry->local, entry->remote, 0, entry->sent);
        tiles(server, RECOVERY_RECEIVE, entry->remote, entry->local, 0, entry->sent);
    }
    EQUAL(sum, 510);
}

/* ---- io_uring ---- */

struct uring {
    int fd;
    uint32_t *sq_tail, *sq_mask, *sq_array, *cq_head, *cq_tail, *cq_mask;
    struct io_uring_sqe *sqes;
    struct io_uring_cqe *cqes;
};

static void *map_ring(int fd, size_t bytes, off_t at) {
    void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd, at);
    CHECK(memory != MAP_FAILED);
    return memory;
}

static struct uring open_uring(void) {
    struct io_uring_params p = {0};
    struct uring ring = {.fd = (int)syscall(SYS_io_uring_setup, 8, &p)};

    CHECK(ring.fd >= 0);
    char *sq = map_ring(ring.fd, p.sq_off.array + p.sq_entries * 4, IORING_OFF_SQ_RING);
    char *cq =
        map_ring(ring.fd, p.cq_off.cqes + p.cq_entries * sizeof(struct io_uring_cqe), IORING_OFF_CQ_RING);
    ring.sqes = map_ring(ring.fd, p.sq_entries * sizeof(struct io_uring_sqe), IORING_OFF_SQES);
    ring.sq_tail = (uint32_t *)(sq + p.sq_off.tail);
    ring.sq_mask = (uint32_t *)(sq + p.sq_off.ring_mask);
    ring.sq_array = (uint32_t *)(sq + p.sq_off.array);
    ring.cq_head = (uint32_t *)(cq + p.cq_off.head);
    ring.cq_tail = (uint32_t *)(cq + p.cq_off.tail);
    ring.cq_mask = (uint32_t *)(cq + p.cq_off.ring_mask);
    ring.cqes = (struct io_uring_cqe *)(cq + p.cq_off.cqes);
    return ring;
}

/* One operation, waited for. */
static int uring_do(struct uring *ring, struct io_uring_sqe operation) {
    const uint32_t tail = *ring->sq_tail, slot = tail & *ring->sq_mask;

    ring->sqes[slot] = operation;
    ring->sq_array[slot] = slot;
    __atomic_store_n(ring->sq_tail, tail + 1, __ATOMIC_RELEASE);
    CHECK(syscall(SYS_io_uring_enter, ring->fd, 1, 1, IORING_ENTER_GETEVENTS, NULL, 0) >= 0);
    const uint32_t head = *ring->cq_head;
    CHECK(__atomic_load_n(ring->cq_tail, __ATOMIC_ACQUIRE) != head);
    const int result = ring->cqes[head & *ring->cq_mask].res;
    __atomic_store_n(ring->cq_head, head + 1, __ATOMIC_RELEASE);
    return result;
}

static int uring_move(struct uring *ring, uint8_t code, int fd, size_t bytes, uint8_t flags,
                      uint32_t message) {
    const struct io_uring_sqe operation = {.opcode = code,
                                           .flags = flags,
                                           .fd = fd,
                                           .addr = (uint64_t)(uintptr_t)block,
                                           .len = (uint32_t)bytes,
                                           .msg_flags = message};
    return uring_do(ring, operation);
}

static void uring_send(int fd, struct told *told) {
    struct uring ring = open_uring();

    for (int i = 0; i < 40; i++) {
        const uint8_t flags = i % 2 == 0 ? 0 : IOSQE_ASYNC; /* every second one on a worker thread */
        const uint8_t code = i % 3 == 0 ? IORING_OP_WRITE : IORING_OP_SEND;
        const int sent = uring_move(&ring, code, fd, i % 7 == 0 ? 700000 : 500, flags,
                                    code == IORING_OP_SEND ? MSG_WAITALL : 0);
        CHECK(sent > 0);
        told->sent += (uint64_t)sent;
    }
    shutdown(fd, SHUT_WR);
}

static void uring_receive(int fd, struct told *told) {
    struct uring ring = open_uring();

    for (int i = 0;; i++) {
        const uint8_t flags = i % 2 == 0 ? 0 : IOSQE_ASYNC;
        const int got = uring_move(&ring, i % 3 == 0 ? IORING_OP_READ : IORING_OP_RECV, fd, 30000, flags, 0);
        CHECK(got >= 0);
        if (got == 0)
            break;
        told->received += (uint64_t)got;
    }
}

static void case_io_uring(void) {
    struct io_uring_params p = {0};
    const int fd = (int)syscall(SYS_io_uring_setup, 1, &p);

    test.owner = getpid();
    if (fd < 0)
        SKIP("io_uring is not permitted here: %s", strerror(errno));
    close(fd);
    set_up();
    run_pair(uring_send, uring_receive);
}

/* ---- where processes may be ---- */

static void select_in_namespace(void) {
    char mount_at[300], path[400], error[CAPTURE_ERROR_BYTES] = "";
    struct stat status;

    enter_cgroup(test.root);
    if (unshare(CLONE_NEWCGROUP | CLONE_NEWNS) != 0)
        SKIP("no cgroup namespace of one's own: %s", strerror(errno));
    CHECK(mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0);
    find_cgroup2(mount_at, sizeof(mount_at));
    CHECK(umount2(mount_at, MNT_DETACH) == 0 && mount("none", mount_at, "cgroup2", 0, NULL) == 0);
    snprintf(path, sizeof(path), "%s/p0/deeper", mount_at); /* two levels below what looks like the root */
    CHECK(mkdir(path, 0755) == 0 && stat(path, &status) == 0);
    const int selected = capture_select(test.capture, status.st_ino, 1, 1, error);
    CHECK(rmdir(path) == 0);
    EQUAL(selected, -ENOTSUP);
    CHECK(strstr(error, "cgroup namespace") != NULL);
}

/* In a cgroup namespace levels count from its own root, in the kernel from the real one: refused by name. */
static void case_cgroup_namespace(void) {
    int status;

    set_up();
    new_actor(0);
    const pid_t child = fork();
    if (child == 0) {
        select_in_namespace();
        _exit(0);
    }
    CHECK(waitpid(child, &status, 0) == child && WIFEXITED(status));
    if (WEXITSTATUS(status) == SKIPPED)
        SKIP("no cgroup namespace of one's own");
    EQUAL(WEXITSTATUS(status), 0);
}

static void case_wrong_level(void) {
    char error[CAPTURE_ERROR_BYTES] = "";
    struct stat status;

    set_up();
    CHECK(stat(test.root, &status) == 0);
    EQUAL(capture_select(test.capture, status.st_ino, 1, 1, error), -EINVAL);
    CHECK(strstr(error, "level 1") != NULL);
    EQUAL(capture_select(test.capture, 0xfffffffffull, 1, 1, error), -ENOENT);
    EQUAL(capture_select(test.capture, 0xfffffffffull, 0, 1, error), 0);
}

int main(int argc, char **argv) {
    static const struct test_case cases[] = {
        {"udp", case_udp},
        {"netlink-is-no-channel", case_netlink_is_no_channel},
        {"raw", case_raw},
        {"mptcp", case_mptcp},
        {"plain-client-of-mptcp-listener", case_plain_client_of_mptcp_listener},
        {"ktls", case_ktls},
        {"fast-open", case_fast_open},
        {"same-four-numbers-again", case_same_four_numbers_again},
        {"io-uring", case_io_uring},
        {"cgroup-namespace", case_cgroup_namespace},
        {"wrong-level", case_wrong_level},
    };
    return run_cases(cases, sizeof(cases) / sizeof(cases[0]), argc, argv);
}
