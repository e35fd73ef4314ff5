/* SPDX-License-Identifier: Apache-2.0 */
/* Connections that TCP_REPAIR makes, as a restart does: they keep their old names and offsets if announced.
 */
#include "harness.h"

#include <linux/sockios.h>
#include <sys/ioctl.h>

/* TCP option numbers (RFC 9293, 7323, 2018); netinet/tcp.h has them, but not beside linux/tcp.h. */
enum { OPTION_MSS = 2, OPTION_WINDOW = 3, OPTION_SACK = 4, OPTION_TIMESTAMP = 8 };

static char block[4 << 20];

static void pause_ms(int ms) {
    usleep((useconds_t)ms * 1000);
}

static void set(int fd, int option, int value) {
    CHECK(setsockopt(fd, IPPROTO_TCP, option, &value, sizeof(value)) == 0);
}

static uint32_t get(int fd, int option) {
    uint32_t value = 0;
    socklen_t length = sizeof(value);
    CHECK(getsockopt(fd, IPPROTO_TCP, option, &value, &length) == 0);
    return value;
}

static void need_repair(void) {
    const int fd = socket(AF_INET, SOCK_STREAM, 0), on = 1;

    test.owner = getpid();
    if (setsockopt(fd, IPPROTO_TCP, TCP_REPAIR, &on, sizeof(on)) != 0)
        SKIP("TCP_REPAIR is not permitted: %s", strerror(errno));
    close(fd);
}

/* What is needed to make an end of a connection out of nothing. */
struct end {
    uint16_t mine, other; /* ports */
    uint32_t write, read; /* first sequence numbers of the two queues */
    uint32_t write_bytes, read_bytes;
    char *write_queue, *read_queue;
    struct tcp_repair_opt options[4];
    int option_count;
    uint32_t timestamp;
};

static void put_queue(int fd, int queue, const char *bytes, size_t count) {
    set(fd, TCP_REPAIR_QUEUE, queue);
    for (size_t done = 0; done < count;) {
        const size_t piece = count - done > 16384 ? 16384 : count - done;
        const ssize_t put = send(fd, bytes + done, piece, 0);
        CHECK(put > 0);
        done += (size_t)put;
    }
}

static int make_end(const struct end *end) {
    const struct sockaddr_in from = loopback(end->mine), to = loopback(end->other);
    const int fd = socket(AF_INET, SOCK_STREAM, 0), yes = 1, room = 4 << 20;

    CHECK(setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof(yes)) == 0);
    CHECK(setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &room, sizeof(room)) == 0);
    CHECK(setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &room, sizeof(room)) == 0);
    set(fd, TCP_REPAIR, 1);
    set(fd, TCP_REPAIR_QUEUE, TCP_SEND_QUEUE);
    set(fd, TCP_QUEUE_SEQ, (int)end->write);
    set(fd, TCP_REPAIR_QUEUE, TCP_RECV_QUEUE);
    set(fd, TCP_QUEUE_SEQ, (int)end->read);
    CHECK(bind(fd, (const struct sockaddr *)&from, sizeof(from)) == 0);
    CHECK(connect(fd, (const struct sockaddr *)&to, sizeof(to)) == 0);
    if (end->option_count > 0)
        CHECK(setsockopt(fd, IPPROTO_TCP, TCP_REPAIR_OPTIONS, end->options,
                         (socklen_t)((size_t)end->option_count * sizeof(end->options[0]))) == 0);
    if (end->timestamp != 0)
        set(fd, TCP_TIMESTAMP, (int)end->timestamp);
    put_queue(fd, TCP_RECV_QUEUE, end->read_queue, end->read_bytes);
    put_queue(fd, TCP_SEND_QUEUE, end->write_queue, end->write_bytes);
    return fd;
}

static char *copy_queue(int fd, int queue, uint32_t bytes) {
    char *copy = malloc(bytes + 1);

    set(fd, TCP_REPAIR_QUEUE, queue);
    CHECK(bytes == 0 || recv(fd, copy, bytes, MSG_PEEK | MSG_DONTWAIT) == (ssize_t)bytes);
    return copy;
}

/* Reads an end out of a live connection, which is in repair mode afterwards. */
static struct end read_end(int fd) {
    struct sockaddr_in from, to;
    struct tcp_info info;
    socklen_t length = sizeof(from), info_length = sizeof(info);
    struct end end = {0};
    int queued, unsent;

    set(fd, TCP_REPAIR, 1);
    CHECK(getsockname(fd, (struct sockaddr *)&from, &length) == 0);
    CHECK(getpeername(fd, (struct sockaddr *)&to, &length) == 0);
    CHECK(getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &info_length) == 0);
    CHECK(ioctl(fd, SIOCINQ, &queued) == 0 && ioctl(fd, SIOCOUTQ, &unsent) == 0);
    end.mine = ntohs(from.sin_port);
    end.other = ntohs(to.sin_port);
    end.read_bytes = (uint32_t)queued;
    end.write_bytes = (uint32_t)unsent;
    end.write_queue = copy_queue(fd, TCP_SEND_QUEUE, end.write_bytes);
    end.write = get(fd, TCP_QUEUE_SEQ) - end.write_bytes;
    end.read_queue = copy_queue(fd, TCP_RECV_QUEUE, end.read_bytes);
    end.read = get(fd, TCP_QUEUE_SEQ) - end.read_bytes;
    end.timestamp = get(fd, TCP_TIMESTAMP);
    end.options[end.option_count++] = (struct tcp_repair_opt){OPTION_MSS, info.tcpi_snd_mss};
    if ((info.tcpi_options & TCPI_OPT_WSCALE) != 0)
        end.options[end.option_count++] = (struct tcp_repair_opt){
            OPTION_WINDOW, info.tcpi_snd_wscale | (uint32_t)info.tcpi_rcv_wscale << 16};
    if ((info.tcpi_options & TCPI_OPT_SACK) != 0)
        end.options[end.option_count++] = (struct tcp_repair_opt){OPTION_SACK, 0};
    if ((info.tcpi_options & TCPI_OPT_TIMESTAMPS) != 0)
        end.options[end.option_count++] = (struct tcp_repair_opt){OPTION_TIMESTAMP, 0};
    return end;
}

/* ---- a restart of one end ---- */

static void fill(int fd, struct told *told) {
    for (int full = 0; full < 3; full++) {
        ssize_t sent;
        while ((sent = send(fd, block, 50000, MSG_DONTWAIT)) > 0)
            told->sent += (uint64_t)sent;
        pause_ms(60);
    }
}

static void restart_end(int fd, struct told *told) {
    send_all(fd, block, 1000, told);
    receive_all(fd, block, 500, told); /* of 800 */
    fill(fd, told);
    step(told);
    const struct end end = read_end(fd);
    close(fd); /* in repair mode: not a word to the peer */
    step(told);
    fd = make_end(&end);
    set(fd, TCP_REPAIR, 0);
    step(told);
    receive_all(fd, block, 300, told);
    send_all(fd, block, 12345, told);
    receive_all(fd, block, 99, told);
    shutdown(fd, SHUT_WR);
    step(told);
}

static void answer_restarted(int fd, struct told *told) {
    send_all(fd, block, 800, told);
    step(told);
    send_all(fd, block, 99, told);
    receive_rest(fd, told);
}

static void case_restarted_end(void) {
    need_repair();
    set_up();
    struct actor *client = new_actor(1), *server = new_actor(1);
    client_part = restart_end;
    server_part = answer_restarted;
    start(server, play_server, listen_tcp(&pair_port));
    start(client, play_client, -1);
    reached(client, 1);
    reached(server, 1);
    const struct capture_cut_entry before = only(frozen_cut(client));
    EQUAL(before.sent, client->told->sent);
    EQUAL(before.received, 500);
    EQUAL(before.queued, 300);
    CHECK(before.unacknowledged > 0);
    EQUAL(capture_expect_restore(test.capture, &before, 1, NULL), 0);
    release(client, 1);
    reached(client, 2);
    same_offsets(only(take_cut(client)), before); /* dead: its last offsets */
    release(client, 2);
    reached(client, 3);
    release(client, 3);
    release(server, 1);
    reached(client, 4);
    reached(server, 2);
    const struct capture_cut_entry a = only(frozen_cut(client)), b = only(frozen_cut(server));
    EQUAL(a.live, 1);
    EQUAL(a.local, before.local);
    EQUAL(a.remote, before.remote);
    EQUAL(a.sent, before.sent + 12345);
    EQUAL(a.received, 899);
    EQUAL(b.received, a.sent);
    EQUAL(b.sent, 899);
    EQUAL(b.received, server->told->received);
    tiles(client, RECOVERY_SEND, a.local, a.remote, 0, a.sent);
    tiles(client, RECOVERY_RECEIVE, a.local, a.remote, 0, a.received);
    tiles(server, RECOVERY_RECEIVE, b.local, b.remote, 0, b.received);
    tiles(server, RECOVERY_SEND, b.local, b.remote, 0, b.sent);
    EQUAL(count_records(client, RECOVERY_VERDICT) + count_records(server, RECOVERY_VERDICT), 0);
}

/* ---- both ends out of nothing ---- */

/* 8 192 bytes before the sequence numbers wrap, 5 * 2^32 + 3 bytes after the first one. */
/* Just before they wrap; of this run alone, as the first connection at announced numbers takes their name. */
#define WRITE (0xffffe000u - (uint32_t)(test.owner % 4096) * 16)
#define READ (0xfffffff0u - (uint32_t)(test.owner % 32) * 16)
#define SENT ((5ull << 32) + 3)
#define RECEIVED 1000ull

static uint16_t ports[2];

/* Below those that the kernel gives to whoever connects meanwhile. */
static uint16_t free_port(void) {
    static unsigned tries;

    for (;;) {
        const uint16_t port = (uint16_t)(10000 + ((unsigned)getpid() * 8 + tries++) % 20000);
        const struct sockaddr_in address = loopback(port);
        const int fd = make_socket(AF_INET);
        const int status = bind(fd, (const struct sockaddr *)&address, sizeof(address));
        close(fd);
        if (status == 0)
            return port;
    }
}

static void talk_across(int fd, struct told *told) {
    const struct end end = {.mine = ports[0], .other = ports[1], .write = WRITE, .read = READ};
    (void)fd;
    const int one = make_end(&end);
    step(told); /* leaving repair mode sends a probe: the other end must exist */
    set(one, TCP_REPAIR, 0);
    for (int i = 0; i < 30; i++) {
        send_all(one, block, 777, told);
        receive_all(one, block, 33, told);
    }
    send_all(one, block, 3000000, told);
}

static void answer_across(int fd, struct told *told) {
    const struct end end = {.mine = ports[1], .other = ports[0], .write = READ, .read = WRITE};
    (void)fd;
    const int one = make_end(&end);
    step(told); /* leaving repair mode sends a probe: the other end must exist */
    set(one, TCP_REPAIR, 0);
    for (int i = 0; i < 30; i++) {
        receive_all(one, block, 777, told);
        send_all(one, block, 33, told);
    }
    receive_all(one, block, 3000000, told);
}

static void case_wrap(void) {
    need_repair();
    set_up();
    struct capture_cut_entry announced[2] = {
        {.local = WRITE - 1 - (uint32_t)SENT,
         .remote = READ - 1 - (uint32_t)RECEIVED,
         .sent = SENT,
         .received = RECEIVED},
        {.local = READ - 1 - (uint32_t)RECEIVED,
         .remote = WRITE - 1 - (uint32_t)SENT,
         .sent = RECEIVED,
         .received = SENT},
    };
    struct actor *client = new_actor(1), *server = new_actor(1);
    ports[0] = free_port();
    ports[1] = free_port();
    EQUAL(capture_expect_restore(test.capture, announced, 2, NULL), 0);
    start(client, talk_across, -1);
    start(server, answer_across, -1);
    reached(client, 1);
    reached(server, 1);
    release(client, 1);
    release(server, 1);
    reached(client, 2);
    reached(server, 2);
    const struct capture_cut_entry a = only(frozen_cut(client)), b = only(frozen_cut(server));
    const uint64_t sent = 30 * 777 + 3000000, answered = 30 * 33;
    EQUAL(a.local, announced[0].local);
    EQUAL(a.sent, SENT + sent);
    EQUAL(a.received, RECEIVED + answered);
    EQUAL(b.sent, RECEIVED + answered);
    EQUAL(b.received, SENT + sent);
    tiles(client, RECOVERY_SEND, a.local, a.remote, SENT, SENT + sent);
    tiles(client, RECOVERY_RECEIVE, a.local, a.remote, RECEIVED, RECEIVED + answered);
    tiles(server, RECOVERY_SEND, b.local, b.remote, RECEIVED, RECEIVED + answered);
    tiles(server, RECOVERY_RECEIVE, b.local, b.remote, SENT, SENT + sent);
    EQUAL(count_records(client, RECOVERY_VERDICT) + count_records(server, RECOVERY_VERDICT), 0);
}

/* Nobody announced them: no name, and both sides say so. */
static void case_not_announced(void) {
    need_repair();
    set_up();
    struct actor *client = new_actor(1), *server = new_actor(1);
    ports[0] = free_port();
    ports[1] = free_port();
    start(client, talk_across, -1);
    start(server, answer_across, -1);
    reached(client, 1);
    reached(server, 1);
    release(client, 1);
    release(server, 1);
    reached(client, 2);
    reached(server, 2);
    CHECK(has_verdict(client, RECOVERY_VERDICT_OLD_CONNECTION));
    CHECK(has_verdict(server, RECOVERY_VERDICT_OLD_CONNECTION));
    EQUAL(test.records.count, 2);
    EQUAL(frozen_cut(client).complete, 0);
}

int main(int argc, char **argv) {
    static const struct test_case cases[] = {
        {"restarted-end", case_restarted_end},
        {"wrap", case_wrap},
        {"not-announced", case_not_announced},
    };
    return run_cases(cases, sizeof(cases) / sizeof(cases[0]), argc, argv);
}
