/* SPDX-License-Identifier: Apache-2.0 */
/* Nothing is missing without being declared: a full ring, full maps, missed program runs, a killed creator.
 */
#include "harness.h"
#include "bpf/shared.h"

#include <sys/resource.h>

static char block[1 << 16];

/* ---- a ring without room ---- */

#define SENDS 3000

static void send_many(int fd, struct told *told) {
    for (int i = 0; i < SENDS; i++)
        send_all(fd, block, 1 + (size_t)i % 9, told);
    step(told);
    send_all(fd, block, 1, told);
    shutdown(fd, SHUT_WR);
}

static void drink(int fd, struct told *told) {
    receive_rest(fd, told);
}

/* Waits without draining. */
static void reached_unread(struct actor *actor, int stage) {
    for (const uint64_t begun = now_ns(); atomic_load(&actor->told->stage) < stage;) {
        if (now_ns() - begun > HANG_NS)
            FAIL("actor %s hangs before step %d", actor->cgroup, stage);
        usleep(200);
    }
}

static uint64_t sum_lost(const struct capture_counters *counters) {
    uint64_t sum = 0;
    for (int cpu = 0; cpu < CAPTURE_MAX_CPUS; cpu++)
        for (int kind = 0; kind < CAPTURE_KINDS; kind++)
            sum += counters->lost[cpu][kind];
    return sum;
}

/* Records that find no room move no mark: the next ones, or whoever flushes, tell what they would have told.
 */
static void case_full_ring(void) {
    needs_each_call();
    struct capture_counters counters;

    set_up_with(4096);
    struct actor *client = new_actor(1), *server = new_actor(1);
    client_part = send_many;
    server_part = drink;
    start(server, play_server, listen_tcp(&pair_port));
    start(client, play_client, -1);
    reached_unread(client, 1);
    while (server->told->received < client->told->sent) /* its records would take the room that we make */
        usleep(200);
    EQUAL(ring_fill(&test.reader) > 4096 - 2 * RECOVERY_SLOT_BYTES, 1);
    drain(); /* room again */
    release(client, 1);
    reached_unread(client, 2);
    reached_unread(server, 1);
    const struct capture_cut_entry a = only(frozen_cut(client)), b = only(frozen_cut(server));
    EQUAL(a.sent, client->told->sent);
    EQUAL(b.received, client->told->sent);
    CHECK(tiles(client, RECOVERY_SEND, a.local, a.remote, 0, a.sent) < SENDS);
    tiles(server, RECOVERY_RECEIVE, b.local, b.remote, 0, b.received);
    EQUAL(capture_counters(test.capture, &counters, NULL), 0);
    CHECK(sum_lost(&counters) > 0);
    EQUAL(verdicts_of(client) | verdicts_of(server), 0);
}

static void flush_all(void) {
    uint64_t ids[MAX_ACTORS];
    int pending = 1;

    for (int i = 0; i < test.actor_count; i++)
        ids[i] = test.actors[i].id;
    while (pending) {
        EQUAL(capture_flush(test.capture, ids, (size_t)test.actor_count, &pending, NULL), 0);
        drain();
    }
}

/* A process that never speaks again: a flush tells what it did, also after it has ended. */
static void case_flush_of_the_silent(void) {
    set_up_with(4096);
    struct actor *client = new_actor(1), *server = new_actor(1);
    client_part = send_many;
    server_part = drink;
    start(server, play_server, listen_tcp(&pair_port));
    start(client, play_client, -1);
    reached_unread(client, 1);
    flush_all();
    const struct cut while_alive = recorded_cut(client);
    EQUAL(while_alive.count, 1);
    EQUAL(while_alive.entries[0].sent, client->told->sent);
    kill(client->pid, SIGKILL);
    CHECK(waitpid(client->pid, NULL, 0) == client->pid);
    client->pid = 0;
    flush_all();
    EQUAL(count_units(client, RECOVERY_SEND, RECOVERY_FLAG_END), 1);
    EQUAL(count_units(client, RECOVERY_SEND, RECOVERY_FLAG_FAILING), 1);
    reached(server, 1);
    flush_all();
    EQUAL(recorded_cut(server).entries[0].received, client->told->sent);
}

static void say_udp(int fd, struct told *told) {
    const struct sockaddr_in address = loopback(9);
    const int one = socket(AF_INET, SOCK_DGRAM, 0);

    (void)fd;
    for (int i = 0; i < 3; i++) {
        CHECK(sendto(one, block, 1, 0, (const struct sockaddr *)&address, sizeof(address)) == 1);
        step(told);
    }
}

/* A verdict is a flag: no full ring can lose it. */
static void case_verdict_without_room(void) {
    needs_each_call();
    set_up_with(4096);
    struct actor *client = new_actor(1), *server = new_actor(0), *udp = new_actor(1);
    client_part = send_many;
    server_part = drink;
    start(server, play_server, listen_tcp(&pair_port));
    start(client, play_client, -1);
    reached_unread(client, 1);
    start(udp, say_udp, -1);
    reached_unread(udp, 1);
    drain();
    EQUAL(count_records(udp, RECOVERY_VERDICT), 0);
    CHECK(verdicts_of(udp) & 1u << RECOVERY_VERDICT_UDP); /* where it has sent to found no room */
    EQUAL(verdicts_of(client) | verdicts_of(server), 0);
}

/* ---- closed connections without room ---- */

#define CALLS_WITH_ROOM (MAX_SPILLED - 200)
#define CALLS_WITHOUT_ROOM 600

static void call_and_hang_up(int fd, struct told *told) {
    (void)fd;
    for (unsigned i = 0; i < CALLS_WITH_ROOM; i++) {
        const int one = connect_tcp(pair_port);
        send_all(one, block, 1 + i % 7, told);
        close(one);
    }
    step(told);
    for (unsigned i = 0; i < CALLS_WITHOUT_ROOM; i++)
        close(connect_tcp(pair_port));
}

static void take_calls(int fd, struct told *told) {
    for (unsigned taken = 1;; taken++) {
        const int one = accept(fd, NULL, NULL);
        receive_rest(one, told);
        close(one);
        if (taken == CALLS_WITH_ROOM || taken == CALLS_WITH_ROOM + CALLS_WITHOUT_ROOM)
            step(told);
    }
}

/* Nobody reads the ring. What closes keeps its last records in the kernel, so many for each process; who
 * closes more pays alone. All the rest is told as soon as there is room. */
static void case_closed_without_room(void) {
    set_up_with(4096);
    struct actor *client = new_actor(1), *server = new_actor(0), *other = new_actor(1);
    uint64_t sum = 0;

    const int listener = listen_tcp(&pair_port);
    CHECK(listen(listener, 4096) == 0); /* a call that finds no place is tried again a second later */
    start(server, take_calls, listener);
    start(client, call_and_hang_up, -1);
    reached_unread(client, 1);
    reached_unread(server, 1); /* a call has ended once its end is acknowledged: 40 ms later, or as who took it hangs up, too */
    EQUAL(verdicts_of(client), 0);
    release(client, 1);
    release(server, 1);
    reached_unread(client, 2);
    reached_unread(server, 2);
    EQUAL(verdicts_of(client), 1u << RECOVERY_VERDICT_OVERFLOW);
    EQUAL(verdicts_of(other), 0);
    flush_all();
    const struct cut cut = recorded_cut(client);
    CHECK(cut.count >= MAX_SPILLED);
    for (size_t i = 0; i < cut.count; i++)
        sum += cut.entries[i].sent;
    EQUAL(sum, client->told->sent);
}

/* ---- strangers ---- */

#define STRANGE_CALLS 2000
#define STRANGE_SOCKETS 1000

static struct sockaddr_un strange_name;

static int strange_socket(int is_unix) {
    const int fd = is_unix ? socket(AF_UNIX, SOCK_STREAM, 0) : connect_tcp(pair_port);

    if (is_unix)
        CHECK(connect(fd, (struct sockaddr *)&strange_name, sizeof(strange_name)) == 0);
    return fd;
}

/* By a reset, by a close, with data and without, over both families; and it holds many at one time. */
static void come_and_go(int fd, struct told *told) {
    const struct linger reset = {.l_onoff = 1};
    static int held[STRANGE_SOCKETS];

    (void)fd;
    for (unsigned i = 0; i < STRANGE_CALLS; i++) {
        const int one = strange_socket(i % 4 == 3);
        if (i % 2 == 0)
            send_all(one, block, 10, told);
        if (i % 3 == 0)
            CHECK(setsockopt(one, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset)) == 0);
        close(one);
    }
    for (unsigned i = 0; i < STRANGE_SOCKETS; i++)
        CHECK((held[i] = socket(i % 2 ? AF_UNIX : AF_INET, SOCK_STREAM, 0)) >= 0);
    step(told);
}

static void take_all_calls(int fd, struct told *told) {
    struct pollfd listeners[] = {{.fd = fd, .events = POLLIN}, {.fd = told->value[0], .events = POLLIN}};

    for (;;) {
        CHECK(poll(listeners, 2, -1) > 0);
        for (int i = 0; i < 2; i++) {
            const int one = listeners[i].revents & POLLIN ? accept(listeners[i].fd, NULL, NULL) : -1;
            if (one >= 0 && recv(one, block, sizeof(block), 0) >= -1)
                close(one);
        }
    }
}

static void send_and_end(int fd, struct told *told) {
    send_all(fd, block, 1000, told);
    step(told);
    send_all(fd, block, 1000, told);
}

static void receive_and_end(int fd, struct told *told) {
    receive_all(fd, block, 1000, told);
    step(told);
    receive_all(fd, block, 1000, told);
}

/* Programs that nobody records do as they like, while two that are recorded hold a connection: no verdict, no record, no room taken, and their cuts are whole. */
static void case_strangers(void) {
    set_up_with(4096);
    struct actor *client = new_actor(1), *server = new_actor(1);
    const int listener = listen_tcp(&pair_port);
    const uint16_t port = pair_port;
    struct actor *calls = new_actor(0), *called = new_actor(0);

    client_part = send_and_end;
    server_part = receive_and_end;
    start(server, play_server, listener);
    start(client, play_client, -1);
    reached(client, 1);
    reached(server, 1);
    const size_t before = test.records.count;

    strange_name = (struct sockaddr_un){.sun_family = AF_UNIX};
    snprintf(strange_name.sun_path + 1, sizeof(strange_name.sun_path) - 1, "rl-strange-%d", getpid());
    const int unix_listener = socket(AF_UNIX, SOCK_STREAM, 0);
    CHECK(bind(unix_listener, (struct sockaddr *)&strange_name, sizeof(strange_name)) == 0);
    CHECK(listen(unix_listener, 64) == 0);
    called->told->value[0] = (uint64_t)unix_listener;
    start(called, take_all_calls, listen_tcp(&pair_port));
    CHECK(pair_port != port);
    start(calls, come_and_go, -1);
    reached(calls, 1);
    drain();
    EQUAL(test.records.count, before);

    release(client, 1);
    reached(client, 2);
    release(server, 1);
    reached(server, 2);
    EQUAL(only(frozen_cut(client)).sent, 2000);
    EQUAL(only(frozen_cut(server)).received, 2000);
    EQUAL(verdicts_of(client) | verdicts_of(server), 0);
    EQUAL(recorded_cut(calls).count + recorded_cut(called).count, 0);
}

/* ---- program runs that the kernel skips ---- */

static void call_and_close(int fd, struct told *told) {
    const struct linger now = {.l_onoff = 1, .l_linger = 0};
    const uint64_t end = now_ns() + 1500000000u;

    (void)fd;
    while (now_ns() < end) {
        const int one = connect_tcp(pair_port);
        send_all(one, block, 10, told);
        receive_all(one, block, 10, told);
        CHECK(setsockopt(one, SOL_SOCKET, SO_LINGER, &now, sizeof(now)) == 0);
        close(one);
        told->value[0]++;
    }
    const int last = connect_tcp(pair_port);
    CHECK(shutdown(last, SHUT_WR) == 0);
    close(last);
}

static void echo_and_close(int fd, struct told *told) {
    for (;;) {
        char bytes[10];
        const int one = accept(fd, NULL, NULL);
        CHECK(one >= 0);
        ssize_t got = recv(one, bytes, sizeof(bytes), MSG_WAITALL);
        if (got == 0)
            return;
        CHECK(got == 10);
        told->received += 10;
        send_all(one, bytes, 10, told);
        close(one);
    }
}

/* Thousands of short connections a second: state changes in bottom halves meet those in system calls, and
 * runs are left out. Every connection has its last offsets all the same. */
static void case_churn(void) {
    struct capture_counters counters;
    uint64_t sent = 0, received = 0;
    /* Where calls are only sampled a walk of another test's capture may be the last to hold a socket as its process closes it, and whose it
     * is nobody has told yet. Of walks of its own a capture knows. */
    const uint64_t unseen = sampled() ? 3 : 0;

    set_up_with(16 << 20);
    struct actor *client = new_actor(1), *server = new_actor(1);
    start(server, echo_and_close, listen_tcp(&pair_port));
    start(client, call_and_close, -1);
    reached(client, 1);
    reached(server, 1);
    EQUAL(capture_counters(test.capture, &counters, NULL), 0);
    const struct cut a = frozen_cut(client), b = frozen_cut(server);
    printf("%llu connections, %llu missed runs\n", (unsigned long long)client->told->value[0],
           (unsigned long long)counters.recursion_misses);
    for (size_t i = 0; i < a.count; i++)
        sent += a.entries[i].sent;
    for (size_t i = 0; i < b.count; i++)
        received += b.entries[i].received;
    EQUAL(verdicts_of(client) | verdicts_of(server), 0);
    EQUAL(sent, client->told->sent);
    EQUAL(a.count, client->told->value[0] + 1);
    EQUAL(count_units(client, RECOVERY_SEND, RECOVERY_FLAG_OPEN), a.count);
    EQUAL(count_units(client, RECOVERY_SEND, RECOVERY_FLAG_END), a.count);
    CHECK(server->told->received >= received && server->told->received - received <= 10 * unseen);
    const size_t ends =
        count_units(server, RECOVERY_SEND, RECOVERY_FLAG_END); /* it keeps the last one open */
    CHECK(ends <= a.count - 1 && a.count - 1 - ends <= unseen);
}

/* ---- life of an instance ---- */

static size_t open_descriptors(void) {
    size_t count = 0;
    for (int fd = 0; fd < 1024; fd++)
        count += fcntl(fd, F_GETFD) >= 0;
    return count;
}

static int try_open(const char *pins, uint32_t level, char *error) {
    const struct capture_options options = {.pin_dir = pins, .ring_bytes = 1 << 16, .cgroup_level = level};
    struct capture *capture = NULL;
    const int status = capture_open(&options, &capture, NULL, error);

    capture_close(capture);
    return status;
}

/* Opened, refused, opened again: no descriptor stays behind, on no path. */
static void case_descriptors(void) {
    char pins[300], path[400], error[CAPTURE_ERROR_BYTES];
    struct rlimit few;

    set_up();
    new_actor(1);
    snprintf(pins, sizeof(pins), "%s-second", test.pins);
    const size_t before = open_descriptors();
    EQUAL(try_open(pins, 2, error), 0);
    EQUAL(try_open(pins, 2, error), 0);
    EQUAL(try_open(pins, 3, error), -ESTALE);
    snprintf(path, sizeof(path), "%s/prog_sock_sent", pins);
    CHECK(unlink(path) == 0);
    EQUAL(try_open(pins, 2, error), -ESTALE); /* damaged: not silently made anew over what is running */
    CHECK(strstr(error, "unpin") != NULL);
    EQUAL(capture_unpin(pins, NULL), 0);
    EQUAL(access(pins, F_OK), -1);
    EQUAL(try_open("/tmp/not-a-bpf-file-system", 2, error), -EINVAL);
    for (int i = 0; i < 50; i++)
        free(take_cut(&test.actors[0]).entries);
    CHECK(getrlimit(RLIMIT_NOFILE, &few) == 0);
    const struct rlimit old = few;
    /* Places where no descriptor is left, from the first to where there are enough; each costs a load of the
     * programs, so that a run tries every seventh, and all are tried in seven runs. */
    const rlim_t first = before + (rlim_t)(getpid() % 7);
    int status = -EMFILE;
    printf("from descriptor %d\n", (int)first);
    for (rlim_t room = first; status != 0 && room < before + 200; room += 7) {
        few.rlim_cur = room;
        CHECK(setrlimit(RLIMIT_NOFILE, &few) == 0);
        status = try_open(pins, 2, error);
        CHECK(setrlimit(RLIMIT_NOFILE, &old) == 0);
        EQUAL(open_descriptors(), before);
        EQUAL(capture_unpin(pins, NULL), 0);
        if (status != 0)
            CHECK(error[0] != '\0');
    }
    EQUAL(status, 0);
    EQUAL(open_descriptors(), before);
    nothing_leaked();
}

/* What a creator left that was killed half way (no `config`) is made anew. */
static void case_half_made_instance(void) {
    char path[400], error[CAPTURE_ERROR_BYTES];

    set_up();
    ring_map_close(&test.map);
    capture_close(test.capture);
    test.capture = NULL;
    snprintf(path, sizeof(path), "%s/config", test.pins);
    CHECK(unlink(path) == 0);
    EQUAL(try_open(test.pins, 3, error), 0); /* an instance of its own: of another level than the old one */
    EQUAL(access(path, F_OK), 0);
    EQUAL(try_open(test.pins, 2, error), -ESTALE);
}

/* The pinned instance records while no process has it open; whoever opens it finds everything. */
static void case_records_while_closed(void) {
    needs_each_call();
    set_up();
    struct actor *client = new_actor(1), *server = new_actor(1);
    client_part = send_many;
    server_part = drink;
    start(server, play_server, listen_tcp(&pair_port));
    start(client, play_client, -1);
    ring_map_close(&test.map);
    capture_close(test.capture);
    test.capture = NULL;
    reached_unread(client, 1);
    open_capture(1 << 16);
    release(client, 1);
    reached(client, 2);
    reached(server, 1);
    const struct capture_cut_entry a = only(frozen_cut(client));
    EQUAL(a.sent, client->told->sent);
    EQUAL(tiles(client, RECOVERY_SEND, a.local, a.remote, 0, a.sent), SENDS + 1);
    tiles(server, RECOVERY_RECEIVE, a.remote, a.local, 0, a.sent);
}

int main(int argc, char **argv) {
    static const struct test_case cases[] = {
        {"full-ring", case_full_ring},
        {"flush-of-the-silent", case_flush_of_the_silent},
        {"verdict-without-room", case_verdict_without_room},
        {"closed-without-room", case_closed_without_room},
        {"strangers", case_strangers},
        {"churn", case_churn},
        {"descriptors", case_descriptors},
        {"half-made-instance", case_half_made_instance},
        {"records-while-closed", case_records_while_closed},
    };
    return run_cases(cases, sizeof(cases) / sizeof(cases[0]), argc, argv);
}
