/* SPDX-License-Identifier: Apache-2.0 */
/* TCP between two recorded processes: every way to send, to receive and to end. */
#include "harness.h"

#include <linux/sockios.h>
#include <sys/ioctl.h>
#include <sys/sendfile.h>

static char block[1 << 20];

/* Both sides end with half a byte of knowledge of each other: wait until the peer has it all. */
static void pause_ms(int ms) {
    usleep((useconds_t)ms * 1000);
}

/* ---- plain ---- */

static void ping(int fd, struct told *told) {
    for (size_t size = 1; size < 300000; size *= 3) {
        send_all(fd, block, size, told);
        receive_all(fd, block, size, told);
    }
}

static void pong(int fd, struct told *told) {
    for (size_t size = 1; size < 300000; size *= 3) {
        receive_all(fd, block, size, told);
        send_all(fd, block, size, told);
    }
}

static void case_request_and_answer(void) {
    set_up();
    run_pair(ping, pong);
}

static void pour(int fd, struct told *told) {
    for (int i = 0; i < 40; i++)
        send_all(fd, block, sizeof(block) - (size_t)i * 7, told);
    shutdown(fd, SHUT_WR);
}

static void drink(int fd, struct told *told) {
    receive_rest(fd, told);
}

static void case_bulk(void) {
    set_up_with(16 << 20);
    run_pair(pour, drink);
}

static void nothing(int fd, struct told *told) {
    (void)fd;
    (void)told;
}

static void case_empty_history(void) {
    set_up();
    const struct pair pair = run_pair(nothing, nothing);
    EQUAL(count_records(pair.client, RECOVERY_SEND) + count_records(pair.server, RECOVERY_RECEIVE), 0);
    EQUAL(pair.client_cut.live, 1);
    EQUAL(pair.client_cut.sent, 0);
}

/* ---- receiving ---- */

/* Until the peer's kernel has all of it. */
static void wait_for_acknowledgement(int fd) {
    for (int left = 1; left > 0;) {
        usleep(200);
        CHECK(ioctl(fd, SIOCOUTQ, &left) == 0);
    }
}

static void send_hundred(int fd, struct told *told) {
    send_all(fd, block, 100, told);
    wait_for_acknowledgement(fd);
}

static void peek_then_read(int fd, struct told *told) {
    char bytes[100];

    for (int i = 0; i < 5; i++)
        CHECK(recv(fd, bytes, 60, MSG_PEEK | MSG_WAITALL) == 60);
    receive_all(fd, bytes, 30, told);
    CHECK(recv(fd, bytes, 70, MSG_PEEK | MSG_WAITALL) == 70);
    receive_all(fd, bytes, 70, told);
    CHECK(recv(fd, bytes, 100, MSG_PEEK | MSG_DONTWAIT) == -1);
}

static void case_peek(void) {
    set_up();
    run_pair(send_hundred, peek_then_read);
}

static void truncate_read(int fd, struct told *told) {
    receive_all(fd, block, 40, told);
    while (told->received < 100) { /* MSG_TRUNC on TCP: consumed, not copied */
        const ssize_t got = recv(fd, NULL, 100, MSG_TRUNC);
        CHECK(got > 0);
        told->received += (uint64_t)got;
    }
}

static void case_discard(void) {
    set_up();
    run_pair(send_hundred, truncate_read);
}

static void splice_out(int fd, struct told *told) {
    int ends[2];

    CHECK(pipe(ends) == 0);
    while (told->received < 200000) {
        const ssize_t moved = splice(fd, NULL, ends[1], NULL, 65536, 0);
        CHECK(moved > 0);
        told->received += (uint64_t)moved;
        for (ssize_t left = moved; left > 0;) {
            const ssize_t got = read(ends[0], block, (size_t)left);
            CHECK(got > 0);
            left -= got;
        }
    }
    CHECK(splice(fd, NULL, ends[1], NULL, 65536, 0) == 0); /* the end of file is no byte */
}

static void send_for_splice(int fd, struct told *told) {
    send_all(fd, block, 200000, told);
    shutdown(fd, SHUT_WR);
}

static void case_splice_out(void) {
    set_up();
    run_pair(send_for_splice, splice_out);
}

static void send_pages(int fd, struct told *told) {
    const int one = 1;
    char *pages =
        mmap(NULL, 1 << 18, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);

    CHECK(setsockopt(fd, SOL_SOCKET, SO_ZEROCOPY, &one, sizeof(one)) == 0);
    for (size_t done = 0; done < 1 << 18;) {
        const ssize_t sent = send(fd, pages + done, (1 << 18) - done, MSG_ZEROCOPY);
        CHECK(sent > 0);
        done += (size_t)sent;
        told->sent += (uint64_t)sent;
    }
}

static void map_pages(int fd, struct told *told) {
    char copy[8192];
    char *window = mmap(NULL, 1 << 18, PROT_READ, MAP_SHARED, fd, 0);

    CHECK(window != MAP_FAILED);
    while (told->received < 1 << 18) {
        struct tcp_zerocopy_receive request = {.address = (uint64_t)(uintptr_t)window,
                                               .length = 1 << 18,
                                               .copybuf_address = (uint64_t)(uintptr_t)copy,
                                               .copybuf_len = sizeof(copy)};
        socklen_t length = sizeof(request);
        struct pollfd ready = {.fd = fd, .events = POLLIN};
        CHECK(poll(&ready, 1, 5000) == 1);
        CHECK(getsockopt(fd, IPPROTO_TCP, TCP_ZEROCOPY_RECEIVE, &request, &length) == 0);
        const uint64_t got = request.length + (request.copybuf_len > 0 ? (uint64_t)request.copybuf_len : 0);
        told->value[0] += request.length; /* really mapped */
        told->received += got;
        if (got == 0 && request.recv_skip_hint > 0)
            receive_all(fd, block, request.recv_skip_hint, told);
    }
}

static void case_zero_copy(void) {
    set_up();
    const struct pair pair = run_pair(send_pages, map_pages);
    printf("%llu bytes were mapped\n", (unsigned long long)pair.server->told->value[0]);
}

static void peer_that_waits(int fd, struct told *told) {
    hear(1);
    send_all(fd, block, 10, told);
}

static void read_nothing_first(int fd, struct told *told) {
    CHECK(recv(fd, block, 10, MSG_DONTWAIT) == -1 && errno == EAGAIN);
    say(1);
    receive_all(fd, block, 10, told);
    CHECK(recv(fd, block, 10, MSG_DONTWAIT) == -1 && errno == EAGAIN);
}

static void case_receive_would_block(void) {
    set_up();
    run_pair(peer_that_waits, read_nothing_first);
}

/* ---- sending ---- */

static void fill_until_full(int fd, struct told *told) {
    for (int full = 0; full < 3;) {
        const ssize_t sent = send(fd, block, 77777, MSG_DONTWAIT);
        if (sent > 0) {
            told->sent += (uint64_t)sent;
            continue;
        }
        CHECK(errno == EAGAIN);
        full++;
        pause_ms(30);
    }
    shutdown(fd, SHUT_WR);
}

static void drink_late(int fd, struct told *told) {
    pause_ms(60);
    receive_rest(fd, told);
}

static void case_send_would_block(void) {
    set_up();
    run_pair(fill_until_full, drink_late);
}

static void send_file(int fd, struct told *told) {
    const int file = memfd_create("payload", 0);
    int ends[2];
    off_t at = 0;

    CHECK(file >= 0 && pipe(ends) == 0);
    CHECK(write(file, block, 300000) == 300000);
    while (at < 300000) {
        const ssize_t sent = sendfile(fd, file, &at, (size_t)(300000 - at));
        CHECK(sent > 0);
        told->sent += (uint64_t)sent;
    }
    for (int i = 0; i < 10; i++) {
        CHECK(write(ends[1], block, 30000) == 30000);
        for (ssize_t left = 30000; left > 0;) {
            const ssize_t moved = splice(ends[0], NULL, fd, NULL, (size_t)left, SPLICE_F_MORE);
            CHECK(moved > 0);
            left -= moved;
            told->sent += (uint64_t)moved;
        }
    }
    shutdown(fd, SHUT_WR);
}

static void case_sendfile(void) {
    set_up();
    run_pair(send_file, drink);
}

static void send_many_ways(int fd, struct told *told) {
    struct iovec parts[3] = {{block, 1}, {block, 500}, {block, 7}};
    struct msghdr message = {.msg_iov = parts, .msg_iovlen = 3};
    struct mmsghdr many[2] = {{.msg_hdr = message}, {.msg_hdr = message}};

    CHECK(write(fd, block, 11) == 11);
    CHECK(writev(fd, parts, 3) == 508);
    CHECK(sendmsg(fd, &message, 0) == 508);
    CHECK(sendmmsg(fd, many, 2, 0) == 2);
    CHECK(send(fd, block, 0, 0) == 0);
    CHECK(send(fd, block, 100, MSG_MORE) == 100);
    CHECK(send(fd, (void *)1, 100, 0) == -1 && errno == EFAULT);
    CHECK(sendto(fd, block, 1, MSG_OOB, NULL, 0) == 1);
    told->sent = 11 + 508 * 4 + 100 + 1;
    shutdown(fd, SHUT_WR);
    CHECK(send(fd, block, 1, MSG_NOSIGNAL) == -1 && errno == EPIPE);
}

static void drink_inline(int fd, struct told *told) {
    const int one = 1;
    CHECK(setsockopt(fd, SOL_SOCKET, SO_OOBINLINE, &one, sizeof(one)) == 0);
    receive_rest(fd, told);
}

static void case_send_many_ways(void) {
    set_up();
    run_pair(send_many_ways, drink_inline);
}

/* ---- ending ---- */

static void half_close_first(int fd, struct told *told) {
    send_all(fd, block, 1000, told);
    shutdown(fd, SHUT_WR);
    receive_rest(fd, told);
    CHECK(recv(fd, block, 1, 0) == 0);
}

static void answer_after_end(int fd, struct told *told) {
    receive_rest(fd, told);
    send_all(fd, block, 50000, told);
    shutdown(fd, SHUT_WR);
}

static void case_half_close(void) {
    set_up();
    run_pair(half_close_first, answer_after_end);
}

static void close_now(int fd, struct told *told) {
    send_all(fd, block, 1234, told);
    close(fd);
}

static void read_after_close(int fd, struct told *told) {
    pause_ms(50);
    receive_rest(fd, told);
    close(fd);
}

static void case_close(void) {
    set_up();
    const struct pair pair = run_pair(close_now, read_after_close);
    EQUAL(pair.client_cut.live, 0);
    EQUAL(pair.server_cut.live, 0);
}

static void reset_peer(int fd, struct told *told) {
    const struct linger now = {.l_onoff = 1, .l_linger = 0};
    send_all(fd, block, 500, told);
    hear(1);
    CHECK(setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof(now)) == 0);
    close(fd);
}

static void read_some_then_reset(int fd, struct told *told) {
    receive_all(fd, block, 200, told);
    say(1);
    wait_for_reset(fd);
    CHECK(send(fd, block, 1, MSG_NOSIGNAL) == -1);
    while (recv(fd, block, 1, 0) == 1) /* what was queued before the reset can still be read */
        told->received++;
}

static void case_reset(void) {
    set_up();
    run_pair(reset_peer, read_some_then_reset);
}

static void close_with_unread(int fd, struct told *told) {
    receive_all(fd, block, 10, told);
    send_all(fd, block, 77, told);
    hear(1);
    close(fd); /* 490 bytes unread: the kernel resets */
}

static void see_reset(int fd, struct told *told) {
    send_all(fd, block, 500, told);
    receive_all(fd, block, 77, told);
    say(1);
    wait_for_reset(fd);
    CHECK(send(fd, block, 1, MSG_NOSIGNAL) == -1);
}

static void case_close_with_unread(void) {
    set_up();
    run_pair(see_reset, close_with_unread);
}

static void shutdown_receive(int fd, struct told *told) {
    receive_all(fd, block, 50, told);
    shutdown(fd, SHUT_RD);
    while (recv(fd, block, 10, MSG_DONTWAIT) > 0)
        told->received += 10;
}

static void case_shutdown_receive(void) {
    set_up();
    run_pair(send_hundred, shutdown_receive);
}

/* In FIN_WAIT the reader goes on: its offsets in the map of closed connections must follow. */
static void close_while_half_read(int fd, struct told *told) {
    shutdown(fd, SHUT_WR);
    receive_all(fd, block, 300, told);
    pause_ms(50);
    receive_all(fd, block, 300, told);
    close(fd);
}

static void send_and_end(int fd, struct told *told) {
    send_all(fd, block, 1000, told);
    pause_ms(20);
    shutdown(fd, SHUT_WR);
    pause_ms(150);
}

static void case_close_in_fin_wait(void) {
    set_up();
    const struct pair pair = run_pair(close_while_half_read, send_and_end);
    EQUAL(pair.client_cut.live, 0);
    EQUAL(pair.client_cut.received, 600);
}

static void leave_queued(int fd, struct told *told) {
    receive_all(fd, block, 25, told);
}

static void case_queued(void) {
    set_up();
    const struct pair pair = run_pair(send_hundred, leave_queued);
    EQUAL(pair.server_cut.queued, 75);
    EQUAL(pair.client_cut.unacknowledged, 0);
}

static void read_one(int fd, struct told *told) {
    receive_all(fd, block, 1, told);
}

/* What the peer has no room for is not sent: all that was is acknowledged. */
static void wait_until_none_flies(int fd) {
    struct tcp_info info = {.tcpi_unacked = 1};
    socklen_t length = sizeof(info);

    for (const uint64_t begun = now_ns(); info.tcpi_unacked > 0 && now_ns() - begun < 2000000000u;) {
        usleep(20000);
        CHECK(getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &length) == 0);
    }
}

static void fill(int fd, struct told *told) {
    ssize_t sent;
    while ((sent = send(fd, block, sizeof(block), MSG_DONTWAIT)) > 0)
        told->sent += (uint64_t)sent;
    wait_until_none_flies(fd);
}

static void case_unacknowledged(void) {
    set_up();
    const struct pair pair = run_pair(fill, read_one);
    EQUAL(pair.client_cut.unacknowledged + pair.server_cut.queued + 1, pair.client_cut.sent);
    CHECK(pair.client_cut.unacknowledged > 0);
}

/* ---- several connections ---- */

#define MANY 200

static void call_often(int fd, struct told *told) {
    (void)fd;
    for (int i = 0; i < MANY; i++) {
        const int one = connect_tcp(pair_port);
        send_all(one, block, (size_t)i + 1, told);
        shutdown(one, SHUT_WR);
        receive_rest(one, told);
        close(one);
    }
}

static void serve_often(int fd, struct told *told) {
    for (int i = 0; i < MANY; i++) {
        const int one = accept(fd, NULL, NULL);
        CHECK(one >= 0);
        receive_rest(one, told);
        send_all(one, block, 3, told);
        close(one);
    }
}

static void case_many_connections(void) {
    set_up();
    struct actor *client = new_actor(1), *server = new_actor(1);
    const int listener = listen_tcp(&pair_port);
    uint64_t sum = 0;

    start(server, serve_often, listener);
    start(client, call_often, -1);
    reached(client, 1);
    reached(server, 1);
    const struct cut cut = frozen_cut(client), other = frozen_cut(server);
    EQUAL(cut.count, MANY);
    EQUAL(other.count, MANY); /* the listener is no channel */
    EQUAL(cut.complete && other.complete, 1);
    for (size_t i = 0; i < cut.count; i++) {
        size_t j = 0;
        while (j < MANY && other.entries[j].local != cut.entries[i].remote)
            j++;
        CHECK(j < MANY);
        EQUAL(other.entries[j].remote, cut.entries[i].local);
        EQUAL(other.entries[j].received, cut.entries[i].sent);
        EQUAL(cut.entries[i].received, 3);
        sum += cut.entries[i].sent;
        tiles(client, RECOVERY_SEND, cut.entries[i].local, cut.entries[i].remote, 0, cut.entries[i].sent);
    }
    EQUAL(sum, client->told->sent);
    select_actor(server, 0);
    EQUAL(capture_cut(test.capture, server->id, &(struct capture_cut_entry *){0}, &(size_t){0}, &(int){0},
                      &(int){0}, NULL),
          -ESRCH);
}

static void reconnect(int fd, struct told *told) {
    const struct sockaddr_in address = loopback(pair_port);
    const struct sockaddr nobody = {.sa_family = AF_UNSPEC};
    const int again = socket(AF_INET, SOCK_STREAM, 0);

    (void)fd;
    for (int i = 0; i < 3; i++) {
        CHECK(connect(again, (const struct sockaddr *)&address, sizeof(address)) == 0);
        send_all(again, block, 100, told);
        pause_ms(20);
        CHECK(connect(again, &nobody, sizeof(nobody)) == 0);
    }
}

static void accept_three(int fd, struct told *told) {
    for (int i = 0; i < 3; i++) {
        const int one = accept(fd, NULL, NULL);
        CHECK(one >= 0);
        receive_all(one, block, 100, told);
        pause_ms(40);
        close(one);
    }
}

static void case_disconnect_and_reconnect(void) {
    set_up();
    struct actor *client = new_actor(1), *server = new_actor(1);

    start(server, accept_three, listen_tcp(&pair_port));
    start(client, reconnect, -1);
    reached(client, 1);
    reached(server, 1);
    const struct cut cut = frozen_cut(client);
    EQUAL(cut.count, 3);
    for (size_t i = 0; i < 3; i++) {
        EQUAL(cut.entries[i].sent, 100);
        tiles(client, RECOVERY_SEND, cut.entries[i].local, cut.entries[i].remote, 0, 100);
        tiles(server, RECOVERY_RECEIVE, cut.entries[i].remote, cut.entries[i].local, 0, 100);
    }
}

/* A simultaneous open, the only one that loopback can do: a socket connected to itself. */
static void talk_to_itself(int fd, struct told *told) {
    struct sockaddr_in address = loopback(0);
    socklen_t length = sizeof(address);
    const int one = socket(AF_INET, SOCK_STREAM, 0);

    (void)fd;
    CHECK(bind(one, (struct sockaddr *)&address, sizeof(address)) == 0);
    CHECK(getsockname(one, (struct sockaddr *)&address, &length) == 0);
    CHECK(connect(one, (struct sockaddr *)&address, sizeof(address)) == 0);
    send_all(one, block, 321, told);
    receive_all(one, block, 321, told);
}

static void case_simultaneous_open(void) {
    set_up();
    struct actor *actor = new_actor(1);

    start(actor, talk_to_itself, -1);
    reached(actor, 1);
    const struct capture_cut_entry entry = only(frozen_cut(actor));
    EQUAL(entry.local, entry.remote);
    EQUAL(entry.sent, 321);
    EQUAL(entry.received, 321);
    tiles(actor, RECOVERY_SEND, entry.local, entry.remote, 0, 321);
    tiles(actor, RECOVERY_RECEIVE, entry.local, entry.remote, 0, 321);
}

static void call_six(int fd, struct told *told) {
    const struct sockaddr_in6 address = {
        .sin6_family = AF_INET6, .sin6_port = htons(pair_port), .sin6_addr = IN6ADDR_LOOPBACK_INIT};
    const int one = socket(AF_INET6, SOCK_STREAM, 0);

    (void)fd;
    CHECK(connect(one, (const struct sockaddr *)&address, sizeof(address)) == 0);
    ping(one, told);
}

static void serve_six(int fd, struct told *told) {
    pong(accept_one(fd), told);
}

static void case_ipv6(void) {
    struct sockaddr_in6 address = {.sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT};
    socklen_t length = sizeof(address);
    const int listener = socket(AF_INET6, SOCK_STREAM, 0);

    test.owner = getpid();
    if (listener < 0 || bind(listener, (struct sockaddr *)&address, sizeof(address)) != 0)
        SKIP("this machine has no IPv6 loopback: %s", strerror(errno));
    set_up();
    struct actor *client = new_actor(1), *server = new_actor(1);
    CHECK(listen(listener, 1) == 0 && getsockname(listener, (struct sockaddr *)&address, &length) == 0);
    pair_port = ntohs(address.sin6_port);
    start(server, serve_six, listener);
    start(client, call_six, -1);
    reached(client, 1);
    reached(server, 1);
    const struct capture_cut_entry a = only(frozen_cut(client)), b = only(frozen_cut(server));
    EQUAL(a.local, b.remote);
    tiles(client, RECOVERY_SEND, a.local, a.remote, 0, client->told->sent);
    tiles(server, RECOVERY_RECEIVE, b.local, b.remote, 0, client->told->sent);
}

int main(int argc, char **argv) {
    static const struct test_case cases[] = {
        {"request-and-answer", case_request_and_answer},
        {"bulk", case_bulk},
        {"empty-history", case_empty_history},
        {"peek", case_peek},
        {"discard", case_discard},
        {"splice-out", case_splice_out},
        {"zero-copy", case_zero_copy},
        {"receive-would-block", case_receive_would_block},
        {"send-would-block", case_send_would_block},
        {"sendfile", case_sendfile},
        {"send-many-ways", case_send_many_ways},
        {"half-close", case_half_close},
        {"close", case_close},
        {"reset", case_reset},
        {"close-with-unread", case_close_with_unread},
        {"shutdown-receive", case_shutdown_receive},
        {"close-in-fin-wait", case_close_in_fin_wait},
        {"queued", case_queued},
        {"unacknowledged", case_unacknowledged},
        {"many-connections", case_many_connections},
        {"disconnect-and-reconnect", case_disconnect_and_reconnect},
        {"simultaneous-open", case_simultaneous_open},
        {"ipv6", case_ipv6},
    };
    return run_cases(cases, sizeof(cases) / sizeof(cases[0]), argc, argv);
}
