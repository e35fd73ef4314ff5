/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is not a byte and yet is known: looks, openings, endings, and who made them. And loss by force: rings
 * of the smallest size, runs left out at random.
 */
#include "harness.h"

#include <net/if.h>
#include <sys/ioctl.h>

static char block[1 << 16];

struct two {
    struct actor *client, *server;
};

/* Both play their parts up to their first step. */
static struct two play(actor_function *client, actor_function *server) {
    struct two two = {.client = new_actor(1), .server = new_actor(1)};
    const int listener = listen_tcp(&pair_port);

    client_part = client;
    server_part = server;
    start(two.server, play_server, listener);
    start(two.client, play_client, -1);
    reached(two.client, 1);
    reached(two.server, 1);
    return two;
}

/* The one range of a kind that the actor has. */
static void one_range(const struct actor *actor, int kind, uint64_t begin, uint64_t end) {
    size_t found = 0;

    for (size_t i = 0; i < test.records.count; i++) {
        if (!is_range_of(&test.records.items[i], actor, kind))
            continue;
        EQUAL(test.records.items[i].begin, begin);
        EQUAL(test.records.items[i].length, end - begin);
        found++;
    }
    EQUAL(found, 1);
}

static void nothing(int fd, struct told *told) {
    (void)fd;
    (void)told;
}

static void send_hundred(int fd, struct told *told) {
    send_all(fd, block, 100, told);
}

/* ---- looking ---- */

static void look(int fd, struct told *told) {
    char bytes[100];

    CHECK(recv(fd, bytes, 60, MSG_PEEK | MSG_WAITALL) == 60);
    CHECK(recv(fd, bytes, 20, MSG_PEEK) == 20); /* less than it has seen */
    step(told);
    CHECK(recv(fd, bytes, 30, MSG_WAITALL) == 30);
    step(told);
    CHECK(recv(fd, bytes, 70, MSG_WAITALL) == 70);
}

static void case_look(void) {
    needs_each_call();
    set_up();
    const struct two two = play(send_hundred, look);
    one_range(two.server, RECOVERY_PEEK, 0, 60);
    struct capture_cut_entry entry = only(frozen_cut(two.server));
    EQUAL(entry.received, 0);
    EQUAL(entry.seen, 60);
    release(two.server, 1);
    reached(two.server, 2);
    entry = only(frozen_cut(two.server));
    EQUAL(entry.received, 30);
    EQUAL(entry.seen, 60);
    release(two.server, 2);
    reached(two.server, 3);
    entry = only(frozen_cut(two.server));
    EQUAL(entry.received, 100);
    EQUAL(entry.seen, 100);
    one_range(two.server, RECOVERY_PEEK, 0, 60);
}

/* SO_PEEK_OFF: each look begins where the last one ended. */
static void look_with_offset(int fd, struct told *told) {
    const int from = 0;
    char bytes[100];

    if (setsockopt(fd, SOL_SOCKET, SO_PEEK_OFF, &from, sizeof(from)) != 0)
        told->value[0] = 1;
    CHECK(recv(fd, bytes, 10, MSG_WAITALL) == 10);
    while (recv(fd, bytes, 100, MSG_PEEK | MSG_DONTWAIT) > 0 || errno == EAGAIN) {
        int queued;
        CHECK(ioctl(fd, FIONREAD, &queued) == 0);
        if (queued == 90)
            break;
        usleep(1000);
    }
    while (recv(fd, bytes, 40, MSG_PEEK | MSG_DONTWAIT) > 0)
        continue;
}

static void case_look_with_offset(void) {
    set_up();
    const struct two two = play(send_hundred, look_with_offset);
    if (two.server->told->value[0] != 0)
        SKIP("this kernel has no SO_PEEK_OFF for TCP");
    const struct capture_cut_entry entry = only(frozen_cut(two.server));
    EQUAL(entry.received, 10);
    EQUAL(entry.seen, 100);
}

static int looked_from_outside;

static void wait_to_be_looked_at(int fd, struct told *told) {
    looked_from_outside = fd;
    step(told);
    CHECK(recv(fd, block, 100, MSG_WAITALL) == 100);
}

/* A task outside of the recorded cgroup looks through a duplicate: the process has seen nothing. */
static void case_look_from_outside(void) {
    needs_each_call();
    int ends[2];

    set_up();
    struct actor *client = new_actor(1), *server = new_actor(1);
    CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, ends) == 0);
    start(client, send_hundred, dup(ends[0]));
    start(server, wait_to_be_looked_at, dup(ends[1]));
    reached(client, 1);
    reached(server, 1);
    CHECK(recv(ends[1], block, 50, MSG_PEEK) == 50);
    drain();
    EQUAL(count_records(server, RECOVERY_PEEK), 0);
    release(server, 1);
    reached(server, 2);
    one_range(server, RECOVERY_RECEIVE, 0, 100);
    EQUAL(count_records(server, RECOVERY_PEEK), 0);
}

static void look_at_unix(int fd, struct told *told) {
    CHECK(recv(fd, block, 40, MSG_PEEK | MSG_WAITALL) > 0);
    told->value[0] = 1;
    step(told);
    CHECK(recv(fd, block, 10, MSG_WAITALL) == 10);
}

static void case_look_at_unix(void) {
    needs_each_call();
    int ends[2];

    set_up();
    struct actor *client = new_actor(1), *server = new_actor(1);
    CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, ends) == 0);
    start(client, send_hundred, dup(ends[0]));
    reached(client, 1);
    start(server, look_at_unix, dup(ends[1]));
    reached(server, 1);
    one_range(server, RECOVERY_PEEK, 0, 40);
    const struct cut cut = frozen_cut(server);
    size_t found = 0;
    for (size_t i = 0; i < cut.count; i++)
        found += cut.entries[i].seen == 40 && cut.entries[i].received == 0;
    EQUAL(found, 1);
    release(server, 1);
    reached(server, 2);
    one_range(server, RECOVERY_RECEIVE, 0, 10);
}

/* ---- out of band ---- */

static void send_urgent(int fd, struct told *told) {
    send_all(fd, block, 50, told);
    CHECK(send(fd, block, 1, MSG_OOB) == 1);
    told->sent++;
    send_all(fd, block, 49, told);
}

static void take_urgent(int fd, struct told *told) {
    struct pollfd urgent = {.fd = fd, .events = POLLPRI};

    CHECK(poll(&urgent, 1, 10000) == 1);
    CHECK(recv(fd, block, 1, MSG_OOB) == 1);
    step(told);
    while (told->received < 99) { /* the urgent byte is passed over */
        const ssize_t got = recv(fd, block, 100, 0);
        CHECK(got > 0);
        told->received += (uint64_t)got;
    }
}

/* TCP: who took the urgent byte has seen all up to it; in the end both count 100. */
static void case_urgent(void) {
    needs_each_call();
    set_up();
    const struct two two = play(send_urgent, take_urgent);
    struct capture_cut_entry entry = only(frozen_cut(two.server));
    EQUAL(entry.received, 0);
    EQUAL(entry.seen, 51);
    release(two.server, 1);
    reached(two.server, 2);
    entry = only(frozen_cut(two.server));
    EQUAL(entry.received, 100);
    EQUAL(only(frozen_cut(two.client)).sent, 100);
    EQUAL(verdicts_of(two.server) | verdicts_of(two.client), 0);
}

static int oob_ends[2];

static void send_oob_unix(int fd, struct told *told) {
    (void)fd;
    send_all(oob_ends[0], block, 50, told);
    if (send(oob_ends[0], block, 1, MSG_OOB) != 1)
        told->value[0] = 1;
    told->sent++;
    send_all(oob_ends[0], block, 49, told);
}

static void take_oob_unix(int fd, struct told *told) {
    (void)fd;
    CHECK(recv(oob_ends[1], block, 1, MSG_OOB) == 1);
    told->received++;
}

static void pass_over_oob_unix(int fd, struct told *told) {
    (void)fd;
    while (told->received < 99) {
        const ssize_t got = recv(oob_ends[1], block, 100, 0);
        CHECK(got > 0);
        told->received += (uint64_t)got;
    }
}

static struct two oob_pair(actor_function *server) {
    needs_each_call();
    set_up();
    struct two two = {.client = new_actor(1), .server = new_actor(1)};
    CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, oob_ends) == 0);
    start(two.client, send_oob_unix, -1);
    reached(two.client, 1);
    if (two.client->told->value[0] != 0)
        SKIP("this kernel has no MSG_OOB for AF_UNIX");
    start(two.server, server, -1);
    reached(two.server, 1);
    return two;
}

/* AF_UNIX: a byte that is taken out of its order has no offset. */
static void case_oob_unix_taken(void) {
    const struct two two = oob_pair(take_oob_unix);
    EQUAL(verdicts_of(two.server), 1u << RECOVERY_VERDICT_UNIX_OOB);
    EQUAL(verdicts_of(two.client), 0);
}

/* One that is passed over has no place among what was read: all that had arrived counts as seen. */
static void case_oob_unix_passed_over(void) {
    const struct two two = oob_pair(pass_over_oob_unix);
    const struct cut cut = frozen_cut(two.server);
    size_t found = 0;

    for (size_t i = 0; i < cut.count; i++)
        found += cut.entries[i].seen == 100;
    EQUAL(found, 1);
}

/* ---- opening ---- */

static int waiting_listener;

static void accept_late(int fd, struct told *told) {
    waiting_listener = fd;
    step(told);
    const int one = accept(fd, NULL, NULL);
    CHECK(one >= 0);
    step(told);
    close(one);
}

static void connect_only(int fd, struct told *told) {
    (void)fd;
    const int one = connect_tcp(pair_port);
    step(told);
    close(one);
}

/* The listener's kernel answers by itself: only who has a descriptor has received the opening. */
static void case_open_waits_for_accept(void) {
    set_up();
    struct actor *client = new_actor(1), *server = new_actor(1);
    start(server, accept_late, listen_tcp(&pair_port));
    start(client, connect_only, -1);
    reached(server, 1);
    reached(client, 1);
    EQUAL(only(frozen_cut(client)).told, CAPTURE_OPEN_SENT);
    EQUAL(count_units(client, RECOVERY_SEND, RECOVERY_FLAG_OPEN), 1);
    EQUAL(frozen_cut(server).count, 0);
    EQUAL(count_units(server, RECOVERY_RECEIVE, RECOVERY_FLAG_OPEN), 0);
    release(server, 1);
    reached(server, 2);
    EQUAL(only(frozen_cut(server)).told, CAPTURE_OPEN_RECEIVED);
    EQUAL(count_units(server, RECOVERY_RECEIVE, RECOVERY_FLAG_OPEN), 1);
}

static struct sockaddr_un name;

static int bound_unix(void) {
    const int fd = socket(AF_UNIX, SOCK_STREAM, 0);

    name.sun_family = AF_UNIX;
    snprintf(name.sun_path + 1, 90, "recovery-line-test-%d", (int)getpid());
    CHECK(bind(fd, (struct sockaddr *)&name, sizeof(name)) == 0);
    return fd;
}

static void accept_unix(int fd, struct told *told) {
    const int one = accept(fd, NULL, NULL);
    CHECK(one >= 0);
    step(told);
    receive_all(one, block, 1, told);
    close(one);
}

static int credentials; /* the client asks for them, and is bound for it */

static void connect_unix(int fd, struct told *told) {
    const int one = socket(AF_UNIX, SOCK_STREAM, 0);
    (void)fd;
    CHECK(setsockopt(one, SOL_SOCKET, SO_PASSCRED, &credentials, sizeof(credentials)) == 0);
    CHECK(connect(one, (struct sockaddr *)&name, sizeof(name)) == 0);
    step(told);
    send_all(one, block, 1, told);
    close(one);
}

static void open_unix(int client_is_bound) {
    const int listener = bound_unix();

    credentials = client_is_bound;
    set_up();
    CHECK(listen(listener, 1) == 0);
    struct actor *client = new_actor(1), *server = new_actor(1);
    start(server, accept_unix, dup(listener));
    start(client, connect_unix, -1);
    reached(client, 1);
    reached(server, 1);
    frozen_cut(client);
    frozen_cut(server);
    EQUAL(count_units(client, RECOVERY_SEND, RECOVERY_FLAG_OPEN), 1);
    EQUAL(count_units(server, RECOVERY_RECEIVE, RECOVERY_FLAG_OPEN), 1);
    release(client, 1);
    reached(client, 2);
    release(server, 1);
    reached(server, 2);
    EQUAL(count_units(client, RECOVERY_SEND, RECOVERY_FLAG_OPEN), 1);
    EQUAL(count_units(server, RECOVERY_RECEIVE, RECOVERY_FLAG_OPEN), 1);
}

static int accepts_first;

static void listen_and_close(int fd, struct told *told) {
    CHECK(listen(fd, 1) == 0);
    step(told);
    if (accepts_first)
        close(accept(fd, NULL, NULL));
    close(fd);
    step(told);
}

static void connect_in_vain(int fd, struct told *told) {
    const int one = socket(AF_UNIX, SOCK_STREAM, 0);
    (void)fd;
    CHECK(connect(one, (struct sockaddr *)&name, sizeof(name)) == 0);
    step(told);
    CHECK(recv(one, block, 1, 0) <= 0);
    step(told);
}

/* It learns from nobody but the listener that nothing will come of it, and that one is known by nothing else.
 */
static void untouched_by_listener(int accepts) {
    needs_each_call();
    const int listener = bound_unix();

    accepts_first = accepts;
    set_up();
    struct actor *client = new_actor(1), *server = new_actor(1);
    start(server, listen_and_close, listener);
    reached(server, 1);
    start(client, connect_in_vain, -1);
    reached(client, 1);
    frozen_cut(client);
    EQUAL(frozen_cut(server).count, 0);
    EQUAL(count_units(client, RECOVERY_SEND, RECOVERY_FLAG_OPEN), 1);
    EQUAL(count_units(server, RECOVERY_RECEIVE, RECOVERY_FLAG_OPEN), 0);
    release(server, 1);
    reached(server, 2);
    release(client, 1);
    reached(client, 2);
    EQUAL(count_units(server, RECOVERY_RECEIVE, RECOVERY_FLAG_OPEN), 1);
    EQUAL(count_units(client, RECOVERY_RECEIVE, RECOVERY_FLAG_END), 1);
}

static void case_open_unix_never_accepted(void) {
    untouched_by_listener(0);
}

static void case_open_unix_never_used(void) {
    untouched_by_listener(1);
}

static void case_open_unix(void) {
    needs_each_call();
    open_unix(0);
}

static void case_open_unix_bound(void) {
    needs_each_call();
    open_unix(1);
}

/* ---- ending ---- */

static void wait_for_end(int fd, struct told *told) {
    step(told);
    receive_rest(fd, told);
}

static void end_half(int fd, struct told *told) {
    (void)told;
    shutdown(fd, SHUT_WR);
}

static void case_end_by_shutdown(void) {
    set_up();
    const struct two two = play(end_half, wait_for_end);
    EQUAL(count_units(two.client, RECOVERY_SEND, RECOVERY_FLAG_END), 1);
    EQUAL(only(frozen_cut(two.client)).told & CAPTURE_END_SENT, CAPTURE_END_SENT);
    release(two.server, 1);
    reached(two.server, 2);
    EQUAL(count_units(two.server, RECOVERY_RECEIVE, RECOVERY_FLAG_END), 1);
    EQUAL(count_units(two.server, RECOVERY_SEND, RECOVERY_FLAG_END), 0);
    EQUAL(only(frozen_cut(two.server)).told & CAPTURE_END_RECEIVED, CAPTURE_END_RECEIVED);
}

static void end_by_reset(int fd, struct told *told) {
    const struct linger now = {.l_onoff = 1};
    (void)told;
    CHECK(setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof(now)) == 0);
    close(fd);
}

static void see_the_reset(int fd, struct told *told) {
    (void)told;
    wait_for_reset(fd);
}

static void case_end_by_reset(void) {
    set_up();
    const struct two two = play(end_by_reset, see_the_reset);
    /* It has not touched the connection since it accepted it. */
    EQUAL(only(frozen_cut(two.server)).told, CAPTURE_OPEN_RECEIVED | CAPTURE_END_RECEIVED);
    EQUAL(verdicts_of(two.server), 0);
    EQUAL(count_units(two.client, RECOVERY_SEND, RECOVERY_FLAG_END), 1);
    EQUAL(count_units(two.client, RECOVERY_SEND, RECOVERY_FLAG_FAILING), 0);
    EQUAL(count_units(two.server, RECOVERY_RECEIVE, RECOVERY_FLAG_END), 1);
}

/* The second actor tells its port, and goes on once somebody is to connect. */
static int accept_told(struct told *told) {
    uint16_t port;
    const int listener = listen_tcp(&port);
    enter_cgroup(test.actors[1].cgroup); /* listen_tcp may have left it */
    told->value[0] = port;
    step(told);
    return accept_one(listener);
}

static void accept_reset_close(int fd, struct told *told) {
    (void)fd;
    const int one = accept_told(told);
    wait_for_reset(one);
    close(one);
}

static void connect_and_reset(int fd, struct told *told) {
    (void)fd;
    const int one = connect_tcp(pair_port);
    enter_cgroup(test.actors[0].cgroup);
    step(told);
    end_by_reset(one, told);
}

/* `server` begins with accept_told, `client` connects and steps. */
static struct two connected(actor_function *server, actor_function *client) {
    const struct two two = {.client = new_actor(1), .server = new_actor(1)};

    start(two.server, server, -1);
    reached(two.server, 1);
    pair_port = (uint16_t)two.server->told->value[0];
    release(two.server, 1);
    start(two.client, client, -1);
    reached(two.client, 1);
    return two;
}

/* No call ever moved it, and no state changed when it was closed. */
static void case_end_by_reset_unused(void) {
    set_up();
    const struct two two = connected(accept_reset_close, connect_and_reset);
    release(two.client, 1);
    reached(two.client, 2);
    reached(two.server, 2);
    take_cut(two.server);
    EQUAL(count_units(two.client, RECOVERY_SEND, RECOVERY_FLAG_END), 1);
    EQUAL(count_units(two.server, RECOVERY_RECEIVE, RECOVERY_FLAG_OPEN), 1);
    EQUAL(count_units(two.server, RECOVERY_RECEIVE, RECOVERY_FLAG_END), 1);
}

/*
 * A reset sets the socket's error, frees what waits to be sent, and then changes the state: with much to free another CPU sees the error
 * for a while before anything else says that the connection has ended.
 */
#define WAITING_SENDS 20000

static void stay_on(int cpu) {
    cpu_set_t one;

    CPU_ZERO(&one);
    CPU_SET(cpu, &one);
    (void)sched_setaffinity(0, sizeof(one), &one); /* with one CPU alone nobody is in between */
}

/* Each byte in a buffer of its own. */
static void send_apart(int fd, struct told *told) {
    const int room = 64 << 20;

    CHECK(setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &room, sizeof(room)) == 0);
    for (int i = 0; i < WAITING_SENDS; i++)
        CHECK(send(fd, block, 1, MSG_EOR | MSG_NOSIGNAL | MSG_DONTWAIT) == 1);
    told->sent = WAITING_SENDS;
}

static actor_function *at_reset;

static void accept_and_watch(int fd, struct told *told) {
    (void)fd;
    const int one = accept_told(told);
    send_apart(one, told);
    stay_on(1);
    told->value[1] = 1; /* it looks from now on */
    at_reset(one, told);
}

static void connect_stay_and_reset(int fd, struct told *told) {
    (void)fd;
    const int one = connect_tcp(pair_port);
    enter_cgroup(test.actors[0].cgroup);
    step(told);
    stay_on(0);
    end_by_reset(one, told);
}

static void close_at_error(int fd, struct told *told) {
    struct pollfd gone = {.fd = fd};
    (void)told;
    do
        CHECK(poll(&gone, 1, 0) >= 0);
    while ((gone.revents & POLLERR) == 0);
    close(fd);
}

static void take_error(int fd, struct told *told) {
    int error = 0;
    socklen_t length = sizeof(error);
    (void)told;
    while (error == 0)
        CHECK(getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &length) == 0);
    EQUAL(error, ECONNRESET);
}

/* The server has learnt of the reset before the state has changed. */
static struct two reset_in_between(actor_function *then) {
    set_up();
    at_reset = then;
    const struct two two = connected(accept_and_watch, connect_stay_and_reset);
    while (*(volatile uint64_t *)&two.server->told->value[1] == 0) {
        drain();
        usleep(1000);
    }
    release(two.client, 1);
    reached(two.client, 2);
    reached(two.server, 2);
    return two;
}

static void only_the_client_has_ended(const struct two *two) {
    EQUAL(verdicts_of(two->client), 0);
    EQUAL(verdicts_of(two->server), 0);
    EQUAL(count_units(two->client, RECOVERY_SEND, RECOVERY_FLAG_END), 1);
    EQUAL(count_units(two->server, RECOVERY_RECEIVE, RECOVERY_FLAG_END), 1);
}

static void case_end_by_reset_seen_at_once(void) {
    const struct two two = reset_in_between(close_at_error);
    take_cut(two.server);
    only_the_client_has_ended(&two);
}

static void case_end_by_reset_error_taken(void) {
    const struct two two = reset_in_between(take_error);
    EQUAL(only(frozen_cut(two.server)).told & CAPTURE_END_RECEIVED, CAPTURE_END_RECEIVED);
    only_the_client_has_ended(&two);
    EQUAL(count_units(two.server, RECOVERY_SEND, RECOVERY_FLAG_END), 0);
}

static void exit_with(int code, struct told *told) {
    step(told);
    _exit(code);
}

static void exit_well(int fd, struct told *told) {
    (void)fd;
    exit_with(0, told);
}

static void exit_badly(int fd, struct told *told) {
    (void)fd;
    exit_with(3, told);
}

/* How the process ended is told with the ending. */
static void end_of(actor_function *client, int signal, size_t failing) {
    set_up();
    const struct two two = play(client, wait_for_end);
    if (signal != 0)
        kill(two.client->pid, signal);
    release(two.client, 1);
    CHECK(waitpid(two.client->pid, NULL, 0) == two.client->pid);
    two.client->pid = 0;
    release(two.server, 1);
    reached(two.server, 2);
    take_cut(two.client);
    EQUAL(count_units(two.client, RECOVERY_SEND, RECOVERY_FLAG_END), 1);
    EQUAL(count_units(two.client, RECOVERY_SEND, RECOVERY_FLAG_FAILING), failing);
    EQUAL(count_units(two.server, RECOVERY_RECEIVE, RECOVERY_FLAG_END), 1);
}

static void case_end_by_exit(void) {
    end_of(exit_well, 0, 0);
}

static void case_end_by_exit_code(void) {
    end_of(exit_badly, 0, 1);
}

static void case_end_by_signal(void) {
    end_of(nothing, SIGKILL, 1);
}

static void unix_survivor(int fd, struct told *told) {
    (void)fd;
    close(oob_ends[0]);
    receive_all(oob_ends[1], block, 5, told);
    step(told);
    CHECK(recv(oob_ends[1], block, 1, 0) == 0);
}

static void unix_closer(int fd, struct told *told) {
    (void)fd;
    close(oob_ends[1]);
    send_all(oob_ends[0], block, 5, told);
    step(told);
    close(oob_ends[0]);
}

/* Nothing is called when an AF_UNIX socket is closed: the other end tells. */
static void case_end_of_unix(void) {
    needs_each_call();
    set_up();
    struct actor *client = new_actor(1), *server = new_actor(1);
    CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, oob_ends) == 0);
    start(client, unix_closer, -1);
    start(server, unix_survivor, -1);
    close(oob_ends[0]);
    close(oob_ends[1]);
    reached(client, 1);
    reached(server, 1);
    EQUAL(count_units(server, RECOVERY_RECEIVE, RECOVERY_FLAG_END), 0);
    release(client, 1);
    reached(client, 2);
    take_cut(server);
    EQUAL(count_units(server, RECOVERY_RECEIVE, RECOVERY_FLAG_END), 1);
    release(server, 1);
    reached(server, 2);
    EQUAL(count_units(server, RECOVERY_RECEIVE, RECOVERY_FLAG_END), 1);
}

static void polls_and_closes(int fd, struct told *told) {
    struct pollfd poll_end = {.fd = oob_ends[1], .events = POLLIN};
    (void)fd;
    close(oob_ends[0]);
    receive_all(oob_ends[1], block, 5, told);
    send_all(oob_ends[1], block, 7, told);
    step(told);
    CHECK(poll(&poll_end, 1, 5000) == 1 && (poll_end.revents & POLLHUP) != 0);
    close(oob_ends[1]);
    step(told);
}

static void answered_closer(int fd, struct told *told) {
    (void)fd;
    close(oob_ends[1]);
    send_all(oob_ends[0], block, 5, told);
    receive_all(oob_ends[0], block, 7, told);
    step(told);
    close(oob_ends[0]);
    step(told);
}

/* Who polls learns of the other's end without a word: once both are gone, each counts as having known. An
 * end that still stands is no such case. */
static void case_end_of_unix_by_poll(void) {
    needs_each_call();
    set_up();
    CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, oob_ends) == 0);
    struct actor *survivor = new_actor(1), *closer = new_actor(1);
    start(survivor, polls_and_closes, -1);
    start(closer, answered_closer, -1);
    close(oob_ends[0]);
    close(oob_ends[1]);
    reached(survivor, 1);
    reached(closer, 1);
    take_cut(survivor);
    EQUAL(count_units(survivor, RECOVERY_RECEIVE, RECOVERY_FLAG_END), 0);
    release(closer, 1);
    release(survivor, 1);
    reached(closer, 2);
    reached(survivor, 2);
    EQUAL(count_units(survivor, RECOVERY_RECEIVE, RECOVERY_FLAG_END), 0);
    take_cut(survivor);
    EQUAL(count_units(survivor, RECOVERY_RECEIVE, RECOVERY_FLAG_FAILING), 1);
    EQUAL(count_units(closer, RECOVERY_RECEIVE, RECOVERY_FLAG_FAILING), 1);
    take_cut(closer);
    EQUAL(count_units(survivor, RECOVERY_RECEIVE, RECOVERY_FLAG_FAILING), 1);
    EQUAL(count_units(closer, RECOVERY_RECEIVE, RECOVERY_FLAG_FAILING), 1);
}

/* ---- lives ---- */

static void talk_udp(int fd, struct told *told) {
    const struct sockaddr_in address = loopback(9);
    const int one = socket(AF_INET, SOCK_DGRAM, 0);

    send_all(fd, block, 10, told);
    CHECK(sendto(one, block, 1, 0, (const struct sockaddr *)&address, sizeof(address)) == 1);
    close(one);
    step(told);
    send_all(fd, block, 10, told);
}

static void drink(int fd, struct told *told) {
    receive_rest(fd, told);
}

static uint32_t last_incarnation(const struct actor *actor) {
    uint32_t last = 0;
    for (size_t i = 0; i < test.records.count; i++)
        if (test.records.items[i].process == actor->id)
            last = test.records.items[i].thread;
    return last;
}

/* Records bear the incarnation, and verdicts end with it. */
static void case_incarnation(void) {
    set_up();
    struct actor *client = new_actor(1), *server = new_actor(1);
    client_part = talk_udp;
    server_part = drink;
    start(server, play_server, listen_tcp(&pair_port));
    start(client, play_client, -1);
    reached(client, 1);
    CHECK(verdicts_of(client) & (1u << RECOVERY_VERDICT_UDP | 1u << RECOVERY_VERDICT_DATAGRAM));
    EQUAL(last_incarnation(client), 1);
    EQUAL(capture_select(test.capture, client->id, 1, 2, NULL), 0);
    EQUAL(verdicts_of(client), 0);
    release(client, 1);
    reached(client, 2);
    EQUAL(last_incarnation(client), 2);
    EQUAL(verdicts_of(client), 0);
}

/* ---- other networks ---- */

static void up_loopback(void) {
    struct ifreq request = {.ifr_name = "lo"};
    const int one = socket(AF_INET, SOCK_DGRAM, 0);

    CHECK(ioctl(one, SIOCGIFFLAGS, &request) == 0);
    request.ifr_flags |= IFF_UP;
    CHECK(ioctl(one, SIOCSIFFLAGS, &request) == 0);
    close(one);
}

static void in_own_network(int fd, struct told *told) {
    char byte = 0, control[CMSG_SPACE(sizeof(int))] = {0};
    struct iovec part = {&byte, 1};
    struct msghdr message = {
        .msg_iov = &part, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof(control)};
    uint16_t port;
    int ends[2];

    (void)fd;
    CHECK(unshare(CLONE_NEWNET) == 0);
    up_loopback();
    const int listener = listen_tcp(&port), one = connect_tcp(port), other = accept_one(listener);
    CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, ends) == 0);
    send_all(one, block, 100, told);
    receive_all(other, block, 40, told);
    CMSG_FIRSTHDR(&message)->cmsg_level = SOL_SOCKET;
    CMSG_FIRSTHDR(&message)->cmsg_type = SCM_RIGHTS;
    CMSG_FIRSTHDR(&message)->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(CMSG_FIRSTHDR(&message)), &other, sizeof(other));
    CHECK(sendmsg(ends[0], &message, 0) == 1);
    close(other);
    step(told);
}

/* A connection in another network namespace, one end in flight in a message: behind no descriptor. */
static void case_own_network(void) {
    needs_each_call();
    set_up();
    struct actor *actor = new_actor(1);
    start(actor, in_own_network, -1);
    reached(actor, 1);
    const struct cut cut = frozen_cut(actor);
    size_t live = 0, flying = 0;
    for (size_t i = 0; i < cut.count; i++) {
        live += cut.entries[i].live && cut.entries[i].sent == 100;
        flying += !cut.entries[i].live && cut.entries[i].received == 40 && cut.entries[i].queued == 60;
    }
    EQUAL(live, 1);
    EQUAL(flying, 1);
    EQUAL(cut.complete, 1);
}

/* ---- loss by force ---- */

#define CALLS 300

static void call_often(int fd, struct told *told) {
    (void)fd;
    for (unsigned i = 0; i < CALLS; i++) {
        const int one = connect_tcp(pair_port);
        for (unsigned j = 0; j < 8; j++) {
            send_all(one, block, 1 + (i * 7 + j) % 900, told);
            receive_all(one, block, 1 + j % 3, told);
        }
        close(one);
    }
}

static void serve_often(int fd, struct told *told) {
    for (unsigned i = 0; i < CALLS; i++) {
        const int one = accept(fd, NULL, NULL);
        CHECK(one >= 0);
        for (unsigned j = 0; j < 8; j++) {
            receive_all(one, block, 1 + (i * 7 + j) % 900, told);
            send_all(one, block, 1 + j % 3, told);
        }
        receive_rest(one, told);
        close(one);
    }
}

static uint64_t sum_of(const struct cut *cut, bool sent) {
    uint64_t sum = 0;
    for (size_t i = 0; i < cut->count; i++)
        sum += sent ? cut->entries[i].sent : cut->entries[i].received;
    return sum;
}

static void tile_all(const struct actor *actor, const struct cut *cut) {
    for (size_t i = 0; i < cut->count; i++) {
        const struct capture_cut_entry *entry = &cut->entries[i];
        tiles(actor, RECOVERY_SEND, entry->local, entry->remote, 0, entry->sent);
        tiles(actor, RECOVERY_RECEIVE, entry->local, entry->remote, 0, entry->received);
    }
}

/* Whatever the ring or the kernel leaves out: after a flush every connection tiles, at both ends, without a
 * verdict. */
static void everything_tiles(uint32_t ring_bytes, const char *variant) {
    set_up_as(ring_bytes, variant);
    struct actor *client = new_actor(1), *server = new_actor(1);
    start(server, serve_often, listen_tcp(&pair_port));
    start(client, call_often, -1);
    reached(client, 1);
    reached(server, 1);
    const struct cut a = frozen_cut(client), b = frozen_cut(server);
    EQUAL(a.count, CALLS);
    EQUAL(b.count, CALLS);
    tile_all(client, &a);
    tile_all(server, &b);
    EQUAL(sum_of(&a, true), client->told->sent);
    EQUAL(sum_of(&b, false), client->told->sent);
    EQUAL(sum_of(&b, true), server->told->sent);
    EQUAL(sum_of(&a, false), server->told->sent);
    EQUAL(count_units(client, RECOVERY_SEND, RECOVERY_FLAG_OPEN), CALLS);
    EQUAL(count_units(server, RECOVERY_RECEIVE, RECOVERY_FLAG_OPEN), CALLS);
    EQUAL(count_units(client, RECOVERY_SEND, RECOVERY_FLAG_END), CALLS);
    EQUAL(count_units(server, RECOVERY_RECEIVE, RECOVERY_FLAG_END), CALLS);
    EQUAL(count_units(server, RECOVERY_SEND, RECOVERY_FLAG_END), CALLS);
    EQUAL(verdicts_of(client) | verdicts_of(server), 0);
}

static void case_smallest_ring(void) {
    everything_tiles(4096, NULL);
}

static void case_runs_left_out(void) {
    needs_each_call();
    everything_tiles(4 << 20, "leave-out=500");
}

static void case_both(void) {
    needs_each_call();
    everything_tiles(4096, "leave-out=300");
}

/* ---- a kernel that refuses ---- */

static int try_variant(const char *variant, char *error) {
    char pins[300];
    struct capture *capture = NULL;

    snprintf(pins, sizeof(pins), "%s-refused", test.pins);
    const struct capture_options options = {
        .pin_dir = pins, .ring_bytes = 1 << 16, .cgroup_level = 2, .variant = variant};
    const int status = capture_open(&options, &capture, NULL, error);
    capture_close(capture);
    capture_unpin(pins, NULL);
    return status;
}

/* Whatever program is refused: another variant takes its place, or the error names it. */
static void case_refused(void) {
    static const char *const replaced[] = {"sock_sent",       "sock_received",  "socket_released",
                                           "connection_made", "datagram_sent4", "datagram_sent6",
                                           "cut_stored_tcp",  "cut_stored_unix"};
    static const char *const needed[] = {"tcp_state", "tcp_destroyed", "cut_files", "push_closed", "condemn"};
    char variant[64], error[CAPTURE_ERROR_BYTES];

    set_up();
    for (size_t i = 0; i < sizeof(replaced) / sizeof(replaced[0]); i++) {
        snprintf(variant, sizeof(variant), "refuse=%s", replaced[i]);
        if (try_variant(variant, error) != 0)
            FAIL("%s has no stand-in: %s", replaced[i], error);
    }
    for (size_t i = 0; i < sizeof(needed) / sizeof(needed[0]); i++) {
        snprintf(variant, sizeof(variant), "refuse=%s", needed[i]);
        EQUAL(try_variant(variant, error), -ENOTSUP);
        CHECK(strstr(error, needed[i]) != NULL && strstr(error, "CAP_") == NULL);
    }
    EQUAL(try_variant("sockets=nonsense", error), -EINVAL);
    CHECK(strstr(error, "storage") != NULL);
    EQUAL(try_variant("nonsense", error), -EINVAL);
}

static void case_parts(void) {
    struct capture_part parts[16];
    char used[64] = "";

    set_up();
    const int count = capture_parts(test.capture, parts, 16);
    EQUAL(count, 10);
    for (int i = 0; i < count; i++) {
        CHECK(parts[i].reason[0] != '\0');
        if (parts[i].in_use) {
            EQUAL(parts[i].usable, 1);
            strncat(used, parts[i].part, sizeof(used) - strlen(used) - 1);
        }
    }
    EQUAL(strcmp(used, "progresssocketslifedatagramsoutput"), 0);
}

int main(int argc, char **argv) {
    static const struct test_case cases[] = {
        {"look", case_look},
        {"look-with-offset", case_look_with_offset},
        {"look-from-outside", case_look_from_outside},
        {"look-at-unix", case_look_at_unix},
        {"urgent", case_urgent},
        {"oob-unix-taken", case_oob_unix_taken},
        {"oob-unix-passed-over", case_oob_unix_passed_over},
        {"open-waits-for-accept", case_open_waits_for_accept},
        {"open-unix", case_open_unix},
        {"open-unix-bound", case_open_unix_bound},
        {"open-unix-never-accepted", case_open_unix_never_accepted},
        {"open-unix-never-used", case_open_unix_never_used},
        {"end-by-shutdown", case_end_by_shutdown},
        {"end-by-reset", case_end_by_reset},
        {"end-by-reset-unused", case_end_by_reset_unused},
        {"end-by-reset-seen-at-once", case_end_by_reset_seen_at_once},
        {"end-by-reset-error-taken", case_end_by_reset_error_taken},
        {"end-by-exit", case_end_by_exit},
        {"end-by-exit-code", case_end_by_exit_code},
        {"end-by-signal", case_end_by_signal},
        {"end-of-unix", case_end_of_unix},
        {"end-of-unix-by-poll", case_end_of_unix_by_poll},
        {"incarnation", case_incarnation},
        {"own-network", case_own_network},
        {"smallest-ring", case_smallest_ring},
        {"runs-left-out", case_runs_left_out},
        {"both", case_both},
        {"refused", case_refused},
        {"parts", case_parts},
    };
    return run_cases(cases, sizeof(cases) / sizeof(cases[0]), argc, argv);
}
