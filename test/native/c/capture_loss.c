/* SPDX-License-Identifier: Apache-2.0 */
/* Nothing is missing without being declared: a full ring, full maps, missed program runs, a killed creator.
 */
#include "harness.h"

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

static uint64_t declared(const struct actor *actor) {
    uint64_t lost = 0;
    for (size_t i = 0; i < test.records.count; i++)
        if (test.records.items[i].process == actor->id)
            lost += test.records.items[i].lost_before;
    return lost;
}

static uint64_t take_lost(const struct actor *actor) {
    uint64_t lost;
    EQUAL(capture_take_lost(test.capture, actor->id, &lost, NULL), 0);
    return lost;
}

static uint64_t sum_lost(const struct capture_counters *counters) {
    uint64_t sum = 0;
    for (int cpu = 0; cpu < CAPTURE_MAX_CPUS; cpu++)
        for (int kind = 0; kind < CAPTURE_KINDS; kind++)
            sum += counters->lost[cpu][kind];
    return sum;
}

/* Produced = read + told by lost_before + still in the process's own count, for each process by itself. */
static void case_full_ring(void) {
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
    drain(); /* room again: the next records tell the loss */
    release(client, 1);
    reached_unread(client, 2);
    reached_unread(server, 1);
    drain();
    const size_t sent = count_records(client, RECOVERY_SEND);
    CHECK(sent >= 1 && sent < SENDS);
    CHECK(declared(client) > 0);
    EQUAL(sent + declared(client), SENDS + 1);
    EQUAL(take_lost(client), 0);
    const uint64_t server_lost = declared(server) + take_lost(server);
    EQUAL(capture_counters(test.capture, &counters, NULL), 0);
    EQUAL(sum_lost(&counters), declared(client) + server_lost);
    EQUAL(counters.committed[RECOVERY_SEND], sent);
    EQUAL(counters.committed[RECOVERY_RECEIVE], count_records(server, RECOVERY_RECEIVE));
    /* However many are lost, the cut is exact. */
    EQUAL(only(frozen_cut(client)).sent, client->told->sent);
    EQUAL(only(frozen_cut(server)).received, client->told->sent);
}

/* A process that never speaks again keeps its count until it is taken, once. */
static void case_loss_of_the_silent(void) {
    set_up_with(4096);
    struct actor *client = new_actor(1), *server = new_actor(0);
    client_part = send_many;
    server_part = drink;
    start(server, play_server, listen_tcp(&pair_port));
    start(client, play_client, -1);
    reached_unread(client, 1);
    const uint64_t lost = take_lost(client);
    CHECK(lost > 0);
    EQUAL(take_lost(client), 0);
    drain();
    EQUAL(count_records(client, RECOVERY_SEND) + lost, SENDS);
    EQUAL(declared(client), 0);
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

/* A verdict that finds no room is passed again at the next chance: it must not be lost for good. */
static void case_verdict_without_room(void) {
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
    release(udp, 1);
    reached(udp, 2);
    CHECK(has_unmatched(udp, RECOVERY_VERDICT_UDP));
    EQUAL(declared(udp), 1);
    release(udp, 2);
    reached(udp, 3);
    EQUAL(count_records(udp, RECOVERY_VERDICT), 1);
}

/* ---- closed connections without room ---- */

#define CLOSED_ENTRIES (1 << 18)

static void use_many_pairs(int fd, struct told *told) {
    (void)fd;
    for (int i = 0; i < CLOSED_ENTRIES / 2; i++) {
        int ends[2];
        CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, ends) == 0);
        CHECK(send(ends[0], block, 1, 0) == 1 && recv(ends[1], block, 1, 0) == 1);
        close(ends[0]);
        close(ends[1]);
    }
    step(told);
    for (int i = 0; i < 2; i++) {
        int ends[2];
        CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, ends) == 0);
        CHECK(send(ends[0], block, 1, 0) == 1 && recv(ends[1], block, 1, 0) == 1);
        step(told);
    }
}

/* The last offsets of 2^18 closed connections fit. One more: the cut says that it is partial, and only the
 * cut of the process it happened to. Forgetting makes room. */
static void case_full_map_of_closed(void) {
    set_up_with(64 << 20);
    struct actor *actor = new_actor(1), *other = new_actor(1);
    start(actor, use_many_pairs, -1);
    reached(actor, 1);
    const struct cut full = frozen_cut(actor);
    EQUAL(full.count, CLOSED_ENTRIES);
    EQUAL(full.complete, 1);
    for (size_t i = 0; i < full.count; i++)
        EQUAL(full.entries[i].sent + full.entries[i].received, 1);
    release(actor, 1);
    reached(actor, 2);
    const struct cut over = frozen_cut(actor);
    EQUAL(over.complete, 0);
    EQUAL(take_cut(other).complete, 1);
    EQUAL(capture_forget_closed(test.capture, actor->id, full.entries, full.count, NULL), 0);
    select_actor(actor, 0);
    select_actor(actor, 1);
    release(actor, 2);
    reached(actor, 3);
    const struct cut fresh = frozen_cut(actor);
    EQUAL(fresh.complete, 1);
    CHECK(fresh.count >= 2 && fresh.count <= 4);
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

/* Thousands of short connections a second: state changes in bottom halves meet those in system calls. Either
 * every connection has its last offsets, or the cut says that it is partial. */
static void case_churn(void) {
    struct capture_counters counters;
    uint64_t sent = 0, received = 0;

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
    const bool unnamed =
        count_records(client, RECOVERY_VERDICT) + count_records(server, RECOVERY_VERDICT) > 0;
    if (a.complete && b.complete && !unnamed) {
        EQUAL(sent, client->told->sent);
        EQUAL(received, server->told->received);
        EQUAL(a.count, client->told->value[0] + 1);
    } else {
        CHECK(counters.recursion_misses > 0);
    }
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
    for (rlim_t room = before; room < before + 40; room++) { /* every place where no descriptor is left */
        few.rlim_cur = room;
        CHECK(setrlimit(RLIMIT_NOFILE, &few) == 0);
        const int status = try_open(pins, 2, error);
        CHECK(setrlimit(RLIMIT_NOFILE, &old) == 0);
        EQUAL(open_descriptors(), before);
        EQUAL(capture_unpin(pins, NULL), 0);
        if (status != 0)
            CHECK(error[0] != '\0');
    }
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
    open_capture(1 << 16, 0);
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
        {"loss-of-the-silent", case_loss_of_the_silent},
        {"verdict-without-room", case_verdict_without_room},
        {"full-map-of-closed", case_full_map_of_closed},
        {"churn", case_churn},
        {"descriptors", case_descriptors},
        {"half-made-instance", case_half_made_instance},
        {"records-while-closed", case_records_while_closed},
    };
    return run_cases(cases, sizeof(cases) / sizeof(cases[0]), argc, argv);
}
