/* SPDX-License-Identifier: Apache-2.0 */
/* AF_UNIX between two recorded processes: streams count bytes, seqpacket sockets whole messages. */
#include "harness.h"

#include <pthread.h>
#include <sys/ioctl.h>
#include <sys/sendfile.h>

static char block[1 << 18];

static void pause_ms(int ms) {
    usleep((useconds_t)ms * 1000);
}

/* ---- two ends of a pair ---- */

/* Both ends play their part on a socketpair made beforehand; then ranges, names and cuts must agree. */
static struct pair run_unix(int type, actor_function *client, actor_function *server) {
    struct pair pair = {.client = new_actor(1), .server = new_actor(1)};
    int ends[2];

    CHECK(socketpair(AF_UNIX, type, 0, ends) == 0);
    CHECK(fcntl(ends[0], F_SETFD, FD_CLOEXEC) == 0);
    start(pair.server, server, dup(ends[1]));
    close(ends[1]);
    start(pair.client, client, dup(ends[0]));
    close(ends[0]);
    reached(pair.client, 1);
    reached(pair.server, 1);
    return pair;
}

/* fork gave each actor the other's end, too; it is not the test's own business to talk there. */
static struct capture_cut_entry entry_named(const struct actor *actor, const struct cut *cut,
                                            uint64_t local) {
    for (size_t i = 0; i < cut->count; i++)
        if ((cut->entries[i].flags & RECOVERY_FLAG_UNIX) != 0 && cut->entries[i].local == local)
            return cut->entries[i];
    FAIL("%s has no end %llu", actor->cgroup, (unsigned long long)local);
}

/* The name of the end that the actor used, from its first record of it. */
static const struct recovery_record *first_record(const struct actor *actor) {
    for (size_t i = 0; i < test.records.count; i++)
        if (test.records.items[i].process == actor->id &&
            (test.records.items[i].flags & RECOVERY_FLAG_UNIX) != 0)
            return &test.records.items[i];
    FAIL("%s has no record", actor->cgroup);
}

static void check_pair(struct pair *pair) {
    const struct recovery_record *a = first_record(pair->client), *b = first_record(pair->server);
    const struct cut client = frozen_cut(pair->client), server = frozen_cut(pair->server);

    EQUAL(a->flags & RECOVERY_FLAG_UNIX, RECOVERY_FLAG_UNIX);
    EQUAL(a->local, b->remote);
    EQUAL(a->remote, b->local);
    EQUAL(client.complete && server.complete, 1);
    pair->client_cut = entry_named(pair->client, &client, a->local);
    pair->server_cut = entry_named(pair->server, &server, b->local);
    EQUAL(pair->client_cut.sent, pair->client->told->sent);
    EQUAL(pair->client_cut.received, pair->client->told->received);
    EQUAL(pair->server_cut.sent, pair->server->told->sent);
    EQUAL(pair->server_cut.received, pair->server->told->received);
    tiles(pair->client, RECOVERY_SEND, a->local, a->remote, 0, pair->client_cut.sent);
    tiles(pair->client, RECOVERY_RECEIVE, a->local, a->remote, 0, pair->client_cut.received);
    tiles(pair->server, RECOVERY_SEND, b->local, b->remote, 0, pair->server_cut.sent);
    tiles(pair->server, RECOVERY_RECEIVE, b->local, b->remote, 0, pair->server_cut.received);
    EQUAL(verdicts_of(pair->client), 0);
    EQUAL(verdicts_of(pair->server), 0);
}

/* As long as the test holds `start`'s duplicate of an end, that end is not closed by its actor's exit. */
static struct pair agree(int type, actor_function *client, actor_function *server) {
    struct pair pair = run_unix(type, client, server);

    check_pair(&pair);
    return pair;
}

/* ---- streams ---- */

static void ping(int fd, struct told *told) {
    for (size_t size = 1; size < sizeof(block); size *= 3) {
        send_all(fd, block, size, told);
        receive_all(fd, block, size, told);
    }
}

static void pong(int fd, struct told *told) {
    for (size_t size = 1; size < sizeof(block); size *= 3) {
        receive_all(fd, block, size, told);
        send_all(fd, block, size, told);
    }
}

static void case_stream(void) {
    struct pair pair;

    needs_each_call();
    set_up();
    pair = agree(SOCK_STREAM, ping, pong);
    for (int kind = RECOVERY_SEND; kind <= RECOVERY_RECEIVE; kind++) /* nobody has opened a socketpair */
        EQUAL(count_units(pair.client, kind, RECOVERY_FLAG_OPEN) +
                  count_units(pair.server, kind, RECOVERY_FLAG_OPEN),
              0);
}

static void send_many_ways(int fd, struct told *told) {
    struct iovec parts[3] = {{block, 1}, {block, 500}, {block, 7}};
    struct msghdr message = {.msg_iov = parts, .msg_iovlen = 3};
    const int file = memfd_create("payload", 0);
    int ends[2];

    CHECK(write(fd, block, 11) == 11);
    CHECK(writev(fd, parts, 3) == 508);
    CHECK(sendmsg(fd, &message, 0) == 508);
    CHECK(send(fd, block, 0, 0) == 0);
    CHECK(send(fd, (void *)1, 100, 0) == -1 && errno == EFAULT);
    CHECK(file >= 0 && write(file, block, 3000) == 3000 && pipe(ends) == 0);
    CHECK(sendfile(fd, file, &(off_t){0}, 3000) == 3000);
    CHECK(write(ends[1], block, 2000) == 2000);
    CHECK(splice(ends[0], NULL, fd, NULL, 2000, 0) == 2000);
    told->sent = 11 + 508 + 508 + 3000 + 2000;
    shutdown(fd, SHUT_WR);
}

static void receive_all_ways(int fd, struct told *told) {
    struct iovec parts[2] = {{block, 4}, {block, 7}};
    struct mmsghdr many[2] = {{.msg_hdr = {.msg_iov = parts, .msg_iovlen = 2}},
                              {.msg_hdr = {.msg_iov = parts, .msg_iovlen = 2}}};

    CHECK(recv(fd, block, 5, MSG_PEEK | MSG_WAITALL) == 5);
    CHECK(readv(fd, parts, 2) == 11);
    CHECK(recv(fd, block, 508, MSG_WAITALL) == 508);
    CHECK(recvmmsg(fd, many, 2, MSG_WAITALL, NULL) == 2);
    CHECK(read(fd, block, 200) > 0);
    told->received = 6027;
    while (recv(fd, block, sizeof(block), 0) > 0)
        continue;
}

static void case_stream_many_ways(void) {
    needs_each_call();
    set_up();
    agree(SOCK_STREAM, send_many_ways, receive_all_ways);
}

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
    CHECK(recv(fd, block, 0, MSG_DONTWAIT) <= 0);
    pause_ms(60);
    receive_rest(fd, told);
}

static void case_stream_would_block(void) {
    needs_each_call();
    set_up();
    agree(SOCK_STREAM, fill_until_full, drink_late);
}

static void send_hundred(int fd, struct told *told) {
    send_all(fd, block, 100, told);
    pause_ms(30);
}

static void leave_queued(int fd, struct told *told) {
    receive_all(fd, block, 25, told);
    pause_ms(50);
}

static void case_stream_queued(void) {
    needs_each_call();
    set_up();
    const struct pair pair = agree(SOCK_STREAM, send_hundred, leave_queued);
    if (pair.server_cut.queued == 0)
        SKIP("this kernel does not keep the number of bytes queued in an AF_UNIX socket");
    EQUAL(pair.server_cut.queued, 75);
}

static void splice_out(int fd, struct told *told) {
    int ends[2];

    CHECK(pipe(ends) == 0);
    CHECK(recv(fd, block, 10, MSG_WAITALL) == 10);
    CHECK(splice(fd, NULL, ends[1], NULL, 40, 0) == 40);
    step(told);
    CHECK(recv(fd, block, 10, MSG_WAITALL) == 10);
}

/* Splice out of an AF_UNIX socket raises nothing. But sent = received + queued: a cut of a process that
 * stands still counts what is missing. */
static void case_stream_splice_out(void) {
    needs_each_call();
    set_up();
    const struct pair pair = run_unix(SOCK_STREAM, send_hundred, splice_out);
    const struct cut cut = frozen_cut(pair.server);
    const struct recovery_record name_of = *first_record(pair.server), *first = &name_of;
    const struct capture_cut_entry entry = entry_named(pair.server, &cut, first->local);
    if (entry.queued == 0)
        SKIP("this kernel does not keep the number of bytes queued in an AF_UNIX socket");
    EQUAL(entry.queued, 50);
    EQUAL(entry.received, 50);
    EQUAL(cut.complete, 1);
    release(pair.server, 1);
    reached(pair.server, 2);
    EQUAL(verdicts_of(pair.server), 0);
    tiles(pair.server, RECOVERY_RECEIVE, first->local, first->remote, 0, 60);
}

/* Where no cut comes first, the next receive finds that the queue is shorter than what was counted: that
 * tells. */
static void case_stream_splice_unseen(void) {
    needs_each_call();
    set_up();
    const struct pair pair = run_unix(SOCK_STREAM, send_hundred, splice_out);
    EQUAL(verdicts_of(pair.server), 0);
    release(pair.server, 1);
    reached(pair.server, 2);
    CHECK(has_verdict(pair.server, RECOVERY_VERDICT_OTHER_SOCKET));
}

/* fork left duplicates of both ends: whoever holds the socket might be reading it, too. */
static void keep_only(int fd) {
    CHECK(fd > 3 && close_range(3, (unsigned)fd - 1, 0) == 0);
    CHECK(close_range((unsigned)fd + 1, ~0u, 0) == 0);
}

static void *read_half(void *context) {
    char bytes[100];
    for (int left = 5000; left > 0;) {
        const ssize_t got = recv(*(int *)context, bytes, left < 100 ? (size_t)left : 100, 0);
        CHECK(got > 0);
        left -= (int)got;
    }
    return NULL;
}

static void receive_in_two_threads(int fd, struct told *told) {
    pthread_t thread;

    keep_only(fd);
    CHECK(pthread_create(&thread, NULL, read_half, &fd) == 0);
    read_half(&fd);
    pthread_join(thread, NULL);
    told->received = 10000;
}

static void send_ten_thousand(int fd, struct told *told) {
    send_all(fd, block, 10000, told);
}

/* Two readers: the process has them, whoever of its threads took which. */
static void case_stream_two_readers(void) {
    needs_each_call();
    set_up();
    agree(SOCK_STREAM, send_ten_thousand, receive_in_two_threads);
}

static int inside_ends[2];

static void *take_all(void *context) {
    static char bytes[sizeof(block)];
    (void)context;
    CHECK(recv(inside_ends[1], bytes, sizeof(bytes), MSG_WAITALL) == sizeof(bytes));
    return NULL;
}

static void write_queue(size_t count, struct told *told) {
    CHECK(write(inside_ends[0], block, count) == (ssize_t)count);
    told->sent += count;
}

/* The other thread has taken what there is, and waits for more. */
static void wait_until_taken(void) {
    for (int queued = 1; queued > 0;) {
        usleep(1000);
        CHECK(ioctl(inside_ends[1], FIONREAD, &queued) == 0);
    }
}

/* On one processor and before the other thread, so that what is written is ours unless that thread still
 * holds the lock: then it takes that, too, and we try again. */
static void snatch_fifty(struct told *told) {
    const struct sched_param first = {.sched_priority = 1};

    (void)sched_setscheduler(0, SCHED_FIFO, &first);
    do {
        wait_until_taken();
        write_queue(50, told);
    } while (recv(inside_ends[1], block, 50, MSG_DONTWAIT) != 50);
    (void)sched_setscheduler(0, SCHED_OTHER, &(struct sched_param){0});
}

static void read_past_another(int fd, struct told *told) {
    pthread_t thread;
    cpu_set_t one;
    int ends[2];

    (void)fd;
    CPU_ZERO(&one);
    CPU_SET(sched_getcpu(), &one);
    CHECK(sched_setaffinity(0, sizeof(one), &one) == 0);
    CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, inside_ends) == 0 && pipe(ends) == 0);
    CHECK(pthread_create(&thread, NULL, take_all, NULL) == 0);
    write_queue(100, told);
    snatch_fifty(told);
    step(told);
    while (told->sent < sizeof(block) + 50)
        write_queue(told->sent + 5000 < sizeof(block) + 50 ? 5000 : sizeof(block) + 50 - told->sent, told);
    pthread_join(thread, NULL);
    step(told);
    write_queue(100, told);
    CHECK(splice(inside_ends[1], NULL, ends[1], NULL, 40, 0) == 40);
    step(told);
    CHECK(recv(inside_ends[1], block, 60, MSG_WAITALL) == 60);
}

/* A thread is in the midst of a receive: what it has taken is not counted yet, and not missing. Later bytes
 * are missing and nobody is in there who might have them. */
static void case_stream_reader_inside(void) {
    needs_each_call();
    struct cut cut;

    set_up();
    struct actor *actor = new_actor(1);
    start(actor, read_past_another, -1);
    reached(actor, 1);
    EQUAL(count_records(actor, RECOVERY_RECEIVE), 1); /* the other's is not told yet */
    EQUAL(count_records(actor, RECOVERY_VERDICT), 0);
    release(actor, 1);
    reached(actor, 2);
    const struct recovery_record first = *first_record(actor), *sent = &first;
    const uint64_t local = sent->remote;
    tiles(actor, RECOVERY_RECEIVE, local, sent->local, 0, sizeof(block) + 50);
    cut = frozen_cut(actor);
    EQUAL(cut.complete, 1);
    EQUAL(entry_named(actor, &cut, local).received, sizeof(block) + 50);
    EQUAL(count_records(actor, RECOVERY_VERDICT), 0);
    release(actor, 2);
    reached(actor, 3);
    cut = frozen_cut(actor);
    if (entry_named(actor, &cut, local).queued == 0)
        SKIP("this kernel does not keep the number of bytes queued in an AF_UNIX socket");
    EQUAL(cut.complete, 1);
    EQUAL(entry_named(actor, &cut, local).received, sizeof(block) + 90);
    release(actor, 3);
    reached(actor, 4);
    EQUAL(verdicts_of(actor), 0);
    tiles(actor, RECOVERY_RECEIVE, local, sent->local, 0, sizeof(block) + 150);
}

static void *sleep_on(void *context) {
    for (;;)
        pause();
    return context;
}

static void splice_among_threads(int fd, struct told *told) {
    const int second = dup(fd);
    pthread_t thread;
    int ends[2];

    CHECK(second >= 0 && pipe(ends) == 0 && pthread_create(&thread, NULL, sleep_on, NULL) == 0);
    CHECK(recv(fd, block, 10, MSG_WAITALL) == 10);
    CHECK(splice(fd, NULL, ends[1], NULL, 40, 0) == 40);
    CHECK(recv(second, block, 10, MSG_WAITALL) == 10);
    step(told);
    pause_ms(1100); /* more than DOUBT_NS */
    CHECK(recv(fd, block, 10, MSG_WAITALL) == 10);
}

/* Where another thread might have the bytes, time tells that none has. */
static void case_stream_splice_among_threads(void) {
    needs_each_call();
    set_up();
    const struct pair pair = run_unix(SOCK_STREAM, send_hundred, splice_among_threads);
    EQUAL(count_records(pair.server, RECOVERY_VERDICT), 0);
    release(pair.server, 1);
    reached(pair.server, 2);
    CHECK(has_verdict(pair.server, RECOVERY_VERDICT_OTHER_SOCKET));
}

#define FRESH_PAIRS 200

static int fresh[FRESH_PAIRS][2];
static _Atomic int fresh_read;

static void *read_one_each(void *context) {
    char byte;
    for (int i = 0; i < FRESH_PAIRS; i++) {
        CHECK(recv(fresh[i][1], &byte, 1, 0) == 1);
        atomic_fetch_add(&fresh_read, 1);
    }
    return context;
}

static void use_each_at_once(int fd, struct told *told) {
    pthread_t readers[2];

    (void)fd;
    for (int i = 0; i < FRESH_PAIRS; i++)
        CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, fresh[i]) == 0);
    for (int i = 0; i < 2; i++)
        CHECK(pthread_create(&readers[i], NULL, read_one_each, NULL) == 0);
    for (int i = 0; i < FRESH_PAIRS; i++) {
        while (atomic_load(&fresh_read) < 2 * i)
            sched_yield();
        CHECK(write(fresh[i][0], block, 2) == 2);
    }
    for (int i = 0; i < 2; i++)
        pthread_join(readers[i], NULL);
    told->sent = told->received = 2 * FRESH_PAIRS;
}

/* A sender and two readers meet at an end that nobody knows yet: each finds it, and by its name. */
static void case_stream_first_use(void) {
    needs_each_call();
    size_t pairs = 0;

    set_up();
    struct actor *actor = new_actor(1);
    start(actor, use_each_at_once, -1);
    reached(actor, 1);
    EQUAL(count_records(actor, RECOVERY_VERDICT), 0);
    for (size_t i = 0; i < test.records.count; i++) {
        const struct recovery_record *record = &test.records.items[i];
        CHECK(record->local != 0 && record->remote != 0);
        if (record->kind != RECOVERY_SEND)
            continue;
        tiles(actor, RECOVERY_SEND, record->local, record->remote, 0, 2);
        tiles(actor, RECOVERY_RECEIVE, record->remote, record->local, 0, 2);
        pairs++;
    }
    EQUAL(pairs, FRESH_PAIRS);
}

/* ---- names, closing, passing ---- */

static struct sockaddr_un name;
static socklen_t name_length;

static void serve_named(int fd, struct told *told) {
    const int one = accept_one(fd);
    pong(one, told);
    receive_rest(one, told);
    close(one);
}

static void call_named(int fd, struct told *told) {
    const int one = socket(AF_UNIX, SOCK_STREAM, 0);
    (void)fd;
    CHECK(connect(one, (struct sockaddr *)&name, name_length) == 0);
    ping(one, told);
    send_all(one, block, 17, told);
    close(one);
}

static void talk_by_name(void) {
    struct pair pair = {.client = new_actor(1), .server = new_actor(1)};
    const int listener = socket(AF_UNIX, SOCK_STREAM, 0);

    CHECK(bind(listener, (struct sockaddr *)&name, name_length) == 0 && listen(listener, 1) == 0);
    start(pair.server, serve_named, listener);
    start(pair.client, call_named, -1);
    reached(pair.client, 1);
    reached(pair.server, 1);
    check_pair(&pair);
    EQUAL(pair.client_cut.live, 0); /* closed: the last offsets are kept */
    EQUAL(pair.server_cut.live, 0);
}

static void case_abstract_name(void) {
    needs_each_call();
    set_up();
    name.sun_family = AF_UNIX;
    name_length =
        (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 +
                    (size_t)snprintf(name.sun_path + 1, 90, "recovery-line-test-%d", (int)getpid()));
    talk_by_name();
}

static void case_path_name(void) {
    needs_each_call();
    set_up();
    name.sun_family = AF_UNIX;
    snprintf(name.sun_path, sizeof(name.sun_path), "/tmp/recovery-line-test-%d.sock", (int)getpid());
    name_length = sizeof(name);
    unlink(name.sun_path);
    talk_by_name();
    unlink(name.sun_path);
}

static uint16_t port;

static void pass_tcp(int fd, struct told *told) {
    char control[CMSG_SPACE(sizeof(int))] = {0};
    struct iovec part = {block, 1};
    struct msghdr message = {
        .msg_iov = &part, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof(control)};
    const int tcp = connect_tcp(port);

    CMSG_FIRSTHDR(&message)->cmsg_level = SOL_SOCKET;
    CMSG_FIRSTHDR(&message)->cmsg_type = SCM_RIGHTS;
    CMSG_FIRSTHDR(&message)->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(CMSG_FIRSTHDR(&message)), &tcp, sizeof(tcp));
    CHECK(sendmsg(fd, &message, 0) == 1);
    close(tcp);
    told->sent = 1;
    pause_ms(30);
}

static void take_tcp(int fd, struct told *told) {
    char control[CMSG_SPACE(sizeof(int))];
    struct iovec part = {block, 1};
    struct msghdr message = {
        .msg_iov = &part, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof(control)};

    CHECK(recvmsg(fd, &message, 0) == 1 && CMSG_FIRSTHDR(&message) != NULL);
    told->received = 1;
}

/* The message that carries a descriptor is a byte of the channel like any other. */
static void case_passing_a_connection(void) {
    needs_each_call();
    set_up();
    const int listener = listen_tcp(&port);
    agree(SOCK_STREAM, pass_tcp, take_tcp);
    close(listener);
}

static void talk_one_sided(int fd, struct told *told) {
    for (int i = 0; i < 4; i++) {
        send_all(fd, block, 100, told);
        receive_all(fd, block, 50, told);
        step(told);
    }
}

static void answer_in_steps(int fd, struct told *told) {
    for (int i = 0; i < 4; i++) {
        receive_all(fd, block, 100, told);
        send_all(fd, block, 50, told);
        say(i + 1);
    }
    step(told);
}

/* One end is counted as soon as the other is recorded: the first record of a process selected later tells
 * what it did before. */
static void case_peer_selected_later(void) {
    needs_each_call();
    int ends[2];

    set_up();
    struct actor *client = new_actor(1), *server = new_actor(0);
    CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, ends) == 0);
    start(server, answer_in_steps, dup(ends[1]));
    start(client, talk_one_sided, dup(ends[0]));
    reached(client, 1);
    release(client, 1);
    reached(client, 2);
    hear(2); /* the server's second send has ended, its third receive waits */
    EQUAL(count_records(server, RECOVERY_RECEIVE), 0);
    select_actor(server, 1);
    release(client, 2);
    reached(client, 3);
    release(client, 3);
    reached(server, 1);
    const struct recovery_record *mine = first_record(client), *theirs = first_record(server);
    EQUAL(theirs->local, mine->remote);
    tiles(client, RECOVERY_SEND, mine->local, mine->remote, 0, 400);
    tiles(server, RECOVERY_RECEIVE, mine->remote, mine->local, 0, 400);
    tiles(server, RECOVERY_SEND, mine->remote, mine->local, 0, 200);
}

static int shared_ends[2];

static void write_in_steps(int fd, struct told *told) {
    (void)fd;
    for (int i = 0; i < 3; i++) {
        send_all(shared_ends[0], block, 10, told);
        step(told);
    }
}

static void read_shared(int fd, struct told *told) {
    (void)fd;
    receive_all(shared_ends[1], block, 60, told);
}

/* Two units of recovery write into one socket. As long as nobody who is recorded reads it (a service manager
 * takes both's output) it is no channel and no verdict; with a recorded reader the second writer is told
 * apart. */
static void case_shared_output(void) {
    needs_each_call();
    set_up();
    CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, shared_ends) == 0);
    struct actor *first = new_actor(1), *second = new_actor(1), *reader = new_actor(1);
    start(first, write_in_steps, -1);
    reached(first, 1);
    start(second, write_in_steps, -1);
    reached(second, 1);
    release(second, 1);
    reached(second, 2);
    EQUAL(count_records(second, RECOVERY_VERDICT), 0);
    EQUAL(count_records(first, RECOVERY_SEND), 1);
    start(reader, read_shared, -1);
    while (reader->told->received < 30)
        usleep(200);
    release(first, 1);
    reached(first, 2);
    release(second, 2);
    reached(second, 3);
    EQUAL(verdicts_of(second), 1u << RECOVERY_VERDICT_SHARED_SOCKET);
    EQUAL(verdicts_of(first), 1u << RECOVERY_VERDICT_SHARED_SOCKET);
    release(first, 2);
    reached(first, 3);
    reached(reader, 1);
    EQUAL(verdicts_of(reader), 0);
    const struct recovery_record *theirs = first_record(reader);
    tiles(reader, RECOVERY_RECEIVE, theirs->local, theirs->remote, 0, 60);
}

static void stop_reading(int fd, struct told *told) {
    CHECK(shutdown(fd, SHUT_RD) == 0);
    step(told);
}

static void send_in_vain(int fd, struct told *told) {
    step(told);
    CHECK(send(fd, block, 10, MSG_NOSIGNAL) == -1 && errno == EPIPE);
}

/* The writer learns what the reader did, and no message says so. */
static void case_reader_shuts_down(void) {
    needs_each_call();
    set_up();
    int ends[2];
    CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, ends) == 0);
    struct actor *writer = new_actor(1), *reader = new_actor(1);
    start(writer, send_in_vain, ends[0]);
    start(reader, stop_reading, ends[1]);
    reached(reader, 1);
    EQUAL(verdicts_of(writer), 0);
    release(writer, 1);
    reached(writer, 2);
    EQUAL(verdicts_of(writer), 1u << RECOVERY_VERDICT_OTHER_SOCKET);
}

/* ---- whole messages ---- */

static void receive_messages_late(int fd, struct told *told) {
    CHECK(recv(fd, block, 10, MSG_PEEK) == 10);
    for (int i = 0; i < 10; i++) {
        CHECK(recv(fd, block, 700, 0) == 700);
        told->received++;
    }
    CHECK(recv(fd, block, 700, 0) == 0);
    told->received++;
    CHECK(recv(fd, block, 700, MSG_TRUNC) == 5);
    told->received++;
}

static void send_messages_open(int fd, struct told *told) {
    for (size_t size = 1; size <= 10; size++) {
        CHECK(send(fd, block, size * 1000, 0) == (ssize_t)size * 1000);
        told->sent++;
    }
    CHECK(send(fd, block, 0, 0) == 0);
    CHECK(send(fd, block, 5, 0) == 5);
    told->sent += 2;
    pause_ms(50);
}

static void case_seqpacket(void) {
    needs_each_call();
    set_up();
    agree(SOCK_SEQPACKET, send_messages_open, receive_messages_late);
}

/* A 0 after the peer's shutdown is the end of file, no message. */
static void read_end_only(int fd, struct told *told) {
    for (int i = 0; i < 10; i++) {
        CHECK(recv(fd, block, 700, 0) == 700);
        told->received++;
    }
    for (int i = 0; i < 3; i++)
        CHECK(recv(fd, block, 700, 0) == 0);
}

static void send_ten_and_end(int fd, struct told *told) {
    for (int i = 0; i < 10; i++) {
        CHECK(send(fd, block, 1000, 0) == 1000);
        told->sent++;
    }
    shutdown(fd, SHUT_WR);
}

static void case_seqpacket_end_of_file(void) {
    needs_each_call();
    set_up();
    agree(SOCK_SEQPACKET, send_ten_and_end, read_end_only);
}

static void send_datagram(int fd, struct told *told) {
    (void)told;
    CHECK(send(fd, block, 100, 0) == 100);
    CHECK(send(fd, block, 100, 0) == 100);
}

static void receive_datagram(int fd, struct told *told) {
    (void)told;
    CHECK(recv(fd, block, 200, 0) == 100);
}

/* The socket that it has sent datagrams to, or taken them from; 0: none is told. */
static uint64_t mail_socket(const struct actor *actor, uint8_t flag) {
    for (size_t i = 0; i < test.records.count; i++) {
        const struct recovery_record *r = &test.records.items[i];
        if (r->process == actor->id && r->kind == RECOVERY_DATAGRAM &&
            r->flags == (RECOVERY_FLAG_UNIX | flag) && r->local != 0)
            return r->local;
    }
    return 0;
}

static void case_datagram(void) {
    needs_each_call();
    set_up();
    const struct pair pair = run_unix(SOCK_DGRAM, send_datagram, receive_datagram);
    const uint64_t to = mail_socket(pair.client, RECOVERY_FLAG_SOURCE);
    CHECK(to != 0);
    EQUAL(mail_socket(pair.server, RECOVERY_FLAG_SINK), to);
    EQUAL(count_records(pair.client, RECOVERY_DATAGRAM), 1); /* once, and no event */
    EQUAL(count_records(pair.client, RECOVERY_SEND), 0);
    EQUAL(verdicts_of(pair.client) | verdicts_of(pair.server), 0);
}

int main(int argc, char **argv) {
    static const struct test_case cases[] = {
        {"stream", case_stream},
        {"stream-many-ways", case_stream_many_ways},
        {"stream-would-block", case_stream_would_block},
        {"stream-queued", case_stream_queued},
        {"stream-splice-out", case_stream_splice_out},
        {"stream-splice-unseen", case_stream_splice_unseen},
        {"stream-two-readers", case_stream_two_readers},
        {"stream-reader-inside", case_stream_reader_inside},
        {"stream-splice-among-threads", case_stream_splice_among_threads},
        {"stream-first-use", case_stream_first_use},
        {"abstract-name", case_abstract_name},
        {"path-name", case_path_name},
        {"passing-a-connection", case_passing_a_connection},
        {"shared-output", case_shared_output},
        {"reader-shuts-down", case_reader_shuts_down},
        {"peer-selected-later", case_peer_selected_later},
        {"seqpacket", case_seqpacket},
        {"seqpacket-end-of-file", case_seqpacket_end_of_file},
        {"datagram", case_datagram},
    };
    return run_cases(cases, sizeof(cases) / sizeof(cases[0]), argc, argv);
}
