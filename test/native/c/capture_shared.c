/* SPDX-License-Identifier: Apache-2.0 */
/* One connection in more than one hand: threads, forks, nested cgroups, passed descriptors, late selection.
 */
#include "harness.h"

#include <pthread.h>

#define THREADS 4

static char block[1 << 20];

/* ---- threads ---- */

struct worker {
    int fd;
    unsigned seed;
    uint64_t done;
};

/* Small pieces mostly, now and then one that waits for room and lets the others in between. */
static void *send_pieces(void *context) {
    struct worker *worker = context;

    for (int i = 0; i < 150; i++) {
        const size_t size = 1 + (size_t)rand_r(&worker->seed) % (i % 10 == 0 ? 400000 : 900);
        const ssize_t sent = send(worker->fd, block, size, MSG_NOSIGNAL);
        CHECK(sent > 0);
        worker->done += (uint64_t)sent;
    }
    return NULL;
}

static void *receive_pieces(void *context) {
    struct worker *worker = context;
    static __thread char bytes[70000];
    ssize_t got;

    while ((got = recv(worker->fd, bytes, 1 + (size_t)rand_r(&worker->seed) % sizeof(bytes), 0)) > 0)
        worker->done += (uint64_t)got;
    CHECK(got == 0);
    return NULL;
}

static uint64_t in_threads(int fd, void *(*work)(void *)) {
    struct worker workers[THREADS];
    pthread_t threads[THREADS];
    uint64_t sum = 0;

    for (unsigned i = 0; i < THREADS; i++) {
        workers[i] = (struct worker){.fd = fd, .seed = i + 1};
        CHECK(pthread_create(&threads[i], NULL, work, &workers[i]) == 0);
    }
    for (int i = 0; i < THREADS; i++) {
        pthread_join(threads[i], NULL);
        sum += workers[i].done;
    }
    return sum;
}

static void send_in_threads(int fd, struct told *told) {
    told->sent += in_threads(fd, send_pieces);
    shutdown(fd, SHUT_WR);
}

static void receive_in_threads(int fd, struct told *told) {
    told->received += in_threads(fd, receive_pieces);
}

/* Whoever comes first records what both did: the process has done it. */
static void case_threads(void) {
    needs_each_call();
    set_up_with(16 << 20);
    const struct pair pair = run_pair(send_in_threads, receive_in_threads);
    CHECK(count_records(pair.client, RECOVERY_SEND) > THREADS);
    CHECK(count_records(pair.client, RECOVERY_SEND) <= THREADS * 150);
}

/* ---- forks ---- */

static void send_from_two(int fd, struct told *told) {
    const pid_t child = fork();
    int status;

    CHECK(child >= 0);
    for (int i = 0; i < 300; i++)
        send_all(fd, block, 1 + (size_t)(i * 37 % 5000), &(struct told){0});
    if (child == 0)
        _exit(0);
    CHECK(waitpid(child, &status, 0) == child && status == 0);
    for (int i = 0; i < 300; i++)
        told->sent += 2 * (1 + (uint64_t)(i * 37 % 5000));
    shutdown(fd, SHUT_WR);
}

static void drink(int fd, struct told *told) {
    receive_rest(fd, told);
}

static void case_fork(void) {
    set_up();
    run_pair(send_from_two, drink);
}

/* A child in a cgroup below the process's own is the same process: frozen with it, recorded as it. */
static void send_from_nested(int fd, struct told *told) {
    char cgroup[600];
    int status;

    snprintf(cgroup, sizeof(cgroup), "%s/nested", test.actors[0].cgroup);
    CHECK(mkdir(cgroup, 0755) == 0);
    const pid_t child = fork();
    if (child == 0) {
        enter_cgroup(cgroup);
        send_all(fd, block, 1000, &(struct told){0});
        _exit(0);
    }
    CHECK(waitpid(child, &status, 0) == child && status == 0);
    told->sent += 1000;
    send_all(fd, block, 10, told);
    shutdown(fd, SHUT_WR);
}

static void case_nested_cgroup(void) {
    set_up();
    run_pair(send_from_nested, drink);
}

/* ---- passed descriptors ---- */

static int hand_over[2]; /* an AF_UNIX pair made by the test before anything is recorded */

static void pass_fd(int over, int fd) {
    char byte = 'x', control[CMSG_SPACE(sizeof(int))] = {0};
    struct iovec part = {&byte, 1};
    struct msghdr message = {
        .msg_iov = &part, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof(control)};
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);

    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(header), &fd, sizeof(fd));
    CHECK(sendmsg(over, &message, 0) == 1);
}

static int take_fd(int over) {
    char byte, control[CMSG_SPACE(sizeof(int))];
    struct iovec part = {&byte, 1};
    struct msghdr message = {
        .msg_iov = &part, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof(control)};
    int fd;

    CHECK(recvmsg(over, &message, 0) == 1 && CMSG_FIRSTHDR(&message) != NULL);
    memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof(fd));
    return fd;
}

static const struct capture_cut_entry *tcp_entry(const struct cut *cut) {
    for (size_t i = 0; i < cut->count; i++)
        if ((cut->entries[i].flags & RECOVERY_FLAG_UNIX) == 0)
            return &cut->entries[i];
    return NULL;
}

static void accept_and_pass(int fd, struct told *told) {
    (void)told;
    pass_fd(hand_over[0], accept_one(fd));
}

static void serve_passed(int fd, struct told *told) {
    const int one = take_fd(hand_over[1]);
    (void)fd;
    receive_all(one, block, 500, told);
    send_all(one, block, 300, told);
    close(one);
}

static void call_once(int fd, struct told *told) {
    const int one = connect_tcp(pair_port);
    (void)fd;
    send_all(one, block, 500, told);
    receive_all(one, block, 300, told);
}

/* A dispatcher accepts, a worker in another unit of recovery does all the talking: the connection is its own.
 */
static void case_accept_here_use_there(void) {
    needs_each_call();
    set_up();
    CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, hand_over) == 0);
    struct actor *client = new_actor(1), *dispatcher = new_actor(1), *worker = new_actor(1);
    start(worker, serve_passed, -1);
    start(dispatcher, accept_and_pass, listen_tcp(&pair_port));
    start(client, call_once, -1);
    reached(client, 1);
    reached(worker, 1);
    reached(dispatcher, 1);
    const struct capture_cut_entry mine = only(frozen_cut(client));
    const struct cut theirs = frozen_cut(worker), nothing = frozen_cut(dispatcher);
    CHECK(tcp_entry(&theirs) != NULL && tcp_entry(&nothing) == NULL);
    EQUAL(tcp_entry(&theirs)->received, 500);
    EQUAL(tcp_entry(&theirs)->sent, 300);
    tiles(worker, RECOVERY_RECEIVE, mine.remote, mine.local, 0, 500);
    tiles(worker, RECOVERY_SEND, mine.remote, mine.local, 0, 300);
    EQUAL(count_records(worker, RECOVERY_VERDICT) + count_records(dispatcher, RECOVERY_VERDICT), 0);
}

static void listen_accept_and_pass(int fd, struct told *told) {
    uint16_t port;
    const int listener = listen_tcp(&port);
    (void)fd;
    told->sent = port;
    step(told);
    const int one = accept_one(listener);
    pass_fd(hand_over[0], one);
    close(one);
}

static void use_and_pass(int fd, struct told *told) {
    const int one = accept_one(fd);
    receive_all(one, block, 200, told);
    send_all(one, block, 100, told);
    pass_fd(hand_over[0], one);
    close(one);
}

static void use_further(int fd, struct told *told) {
    step(told);
    const int one = take_fd(hand_over[1]);
    (void)fd;
    receive_all(one, block, 300, told);
    send_all(one, block, 200, told);
    close(one);
}

static void shares_with(const struct actor *actor, const struct actor *other,
                        const struct capture_cut_entry *entry) {
    struct capture_verdict *all;
    size_t count, found = 0;

    EQUAL(capture_verdicts(test.capture, &all, &count, NULL), 0);
    for (size_t i = 0; i < count; i++) {
        if (all[i].cgroup_id != actor->id)
            continue;
        EQUAL(all[i].bits, 1u << RECOVERY_VERDICT_SHARED_SOCKET);
        EQUAL(all[i].incarnation, 1);
        EQUAL(all[i].other, other->id);
        EQUAL(all[i].local, entry->local);
        EQUAL(all[i].remote, entry->remote);
        found++;
    }
    EQUAL(found, 1);
    free(all);
}

static void both_share(const struct actor *a, const struct actor *b, const struct capture_cut_entry *entry) {
    shares_with(a, b, entry);
    shares_with(b, a, entry);
}

/* Two units of recovery talk on one end: nobody can say whose bytes are whose, so both get a verdict that
 * names the other and the socket. In between the socket sits in a message, behind no descriptor: the cut
 * still knows it. */
static void case_two_owners(void) {
    needs_each_call();
    set_up();
    CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, hand_over) == 0);
    struct actor *client = new_actor(1), *first = new_actor(1), *second = new_actor(1);
    start(second, use_further, -1);
    start(first, use_and_pass, listen_tcp(&pair_port));
    start(client, call_once, -1);
    reached(first, 1);
    const struct cut flying = frozen_cut(first);
    CHECK(tcp_entry(&flying) != NULL);
    EQUAL(tcp_entry(&flying)->live, 0);
    EQUAL(tcp_entry(&flying)->received, 200);
    EQUAL(tcp_entry(&flying)->sent, 100);
    EQUAL(tcp_entry(&flying)->queued, 300);
    release(second, 1);
    reached(second, 2);
    reached(client, 1);
    both_share(first, second, tcp_entry(&flying));
}

/* Whoever accepts knows that the other has connected, also if it never reads a byte. */
static void case_accept_own_use_there(void) {
    needs_each_call();
    set_up();
    CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, hand_over) == 0);
    struct actor *client = new_actor(1), *dispatcher = new_actor(1), *worker = new_actor(1);
    start(worker, serve_passed, -1);
    start(dispatcher, listen_accept_and_pass, -1);
    reached(dispatcher, 1);
    pair_port = (uint16_t)dispatcher->told->sent;
    start(client, call_once, -1);
    release(dispatcher, 1);
    reached(client, 1);
    reached(worker, 1);
    const struct capture_cut_entry mine = only(frozen_cut(client));
    const struct capture_cut_entry theirs = {.local = mine.remote, .remote = mine.local};
    both_share(dispatcher, worker, &theirs);
}

static void nest(const struct actor *actor) {
    char cgroup[600];

    snprintf(cgroup, sizeof(cgroup), "%s/nested", actor->cgroup);
    CHECK(mkdir(cgroup, 0755) == 0);
    enter_cgroup(cgroup);
}

static void nest_accept_and_pass(int fd, struct told *told) {
    nest(&test.actors[1]);
    listen_accept_and_pass(fd, told);
}

static void listen_nested_accept_here(int fd, struct told *told) {
    uint16_t port;
    (void)fd;
    nest(&test.actors[1]);
    const int listener = listen_tcp(&port);
    enter_cgroup(test.actors[1].cgroup);
    told->value[0] = port;
    step(told);
    const int one = accept_one(listener);
    receive_all(one, block, 500, told);
    send_all(one, block, 300, told);
    close(one);
}

/* What a cgroup below a process's own has made is that process's: no other may use it, ... */
static void case_accept_nested_use_there(void) {
    needs_each_call();
    set_up();
    CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, hand_over) == 0);
    struct actor *client = new_actor(1), *dispatcher = new_actor(1), *worker = new_actor(1);
    start(worker, serve_passed, -1);
    start(dispatcher, nest_accept_and_pass, -1);
    reached(dispatcher, 1);
    pair_port = (uint16_t)dispatcher->told->sent;
    start(client, call_once, -1);
    release(dispatcher, 1);
    reached(client, 1);
    reached(worker, 1);
    const struct capture_cut_entry mine = only(frozen_cut(client));
    const struct capture_cut_entry theirs = {.local = mine.remote, .remote = mine.local};
    both_share(dispatcher, worker, &theirs);
}

/* ... and it may itself, from wherever it is. */
static void case_accept_nested_use_here(void) {
    set_up();
    struct actor *client = new_actor(1), *server = new_actor(1);
    start(server, listen_nested_accept_here, -1);
    reached(server, 1);
    pair_port = (uint16_t)server->told->value[0];
    start(client, call_once, -1);
    release(server, 1);
    reached(client, 1);
    reached(server, 2);
    const struct capture_cut_entry mine = only(frozen_cut(client));
    tiles(server, RECOVERY_RECEIVE, mine.remote, mine.local, 0, 500);
    tiles(server, RECOVERY_SEND, mine.remote, mine.local, 0, 300);
    EQUAL(verdicts_of(server) | verdicts_of(client), 0);
}

static int inherited;

static void send_inherited(int fd, struct told *told) {
    (void)fd;
    send_all(inherited, block, 100, told);
}

/* A connection made before the programs were loaded: its own numbers tell its name, and what went over it. */
static void case_old_connection(void) {
    const int listener = listen_tcp(&pair_port);
    inherited = connect_tcp(pair_port);
    const int other = accept_one(listener);

    set_up();
    struct actor *client = new_actor(1);
    start(client, send_inherited, -1);
    reached(client, 1);
    EQUAL(verdicts_of(client),
          sampled() ? 1u << RECOVERY_VERDICT_OTHER_SOCKET : 0); /* not made by its own cgroup */
    const struct cut cut = frozen_cut(client);                  /* it inherited the other end, too */
    EQUAL(cut.complete, 1);
    /* Before it there may be its verdict, and the opening where a run was left out and the cut told all. */
    const struct recovery_record *record = test.records.items;
    while (record->kind != RECOVERY_SEND || record->flags != RECOVERY_FLAG_OPEN)
        CHECK(++record < test.records.items + test.records.count);
    tiles(client, RECOVERY_SEND, record->local, record->remote, 0, 100);
    close(other);
}

/* ---- selected late, or anew ---- */

#define FOUR_GIB (4ull << 30)

static void pour_gigabytes(int fd, struct told *told) {
    while (told->sent < FOUR_GIB + 300000)
        send_all(fd, block, sizeof(block), told);
    step(told);
    send_all(fd, block, 1000, told);
    shutdown(fd, SHUT_WR);
}

static void discard_gigabytes(int fd, struct told *told) {
    while (told->received < FOUR_GIB + 300000) {
        const ssize_t got = recv(fd, NULL, 16 << 20, MSG_TRUNC);
        CHECK(got > 0);
        told->received += (uint64_t)got;
    }
    step(told);
    receive_rest(fd, told);
}

/* More than 2^32 bytes: the sequence numbers have gone all the way around, and what was received before the
 * selection does not fit one record. */
static void case_selected_late_after_4_gib(void) {
    set_up();
    struct actor *client = new_actor(0), *server = new_actor(0);
    client_part = pour_gigabytes;
    server_part = discard_gigabytes;
    start(server, play_server, listen_tcp(&pair_port));
    start(client, play_client, -1);
    reached(client, 1);
    reached(server, 1);
    const uint64_t before = client->told->sent;
    EQUAL(test.records.count, 0);
    select_actor(client, 1);
    select_actor(server, 1);
    release(client, 1);
    release(server, 1);
    reached(client, 2);
    reached(server, 2);
    const struct capture_cut_entry a = only(frozen_cut(client)), b = only(frozen_cut(server));
    EQUAL(a.sent, before + 1000);
    EQUAL(b.received, before + 1000);
    CHECK(tiles(client, RECOVERY_SEND, a.local, a.remote, 0, before + 1000) >= 2);
    CHECK(tiles(server, RECOVERY_RECEIVE, b.local, b.remote, 0, before + 1000) >= 2);
}

static char large[8 << 20];

static void send_slowly(int fd, struct told *told) {
    send_all(fd, large, sizeof(large), told); /* one call that waits until the server reads */
    step(told);
    send_all(fd, block, 5000, told);
    step(told);
}

static void wait_then_drink(int fd, struct told *told) {
    step(told);
    receive_all(fd, large, sizeof(large), told);
    receive_all(fd, block, 5000, told);
}

/* A send that began in one selection ends outside of any: the next one's first record tells it. */
static void case_selected_anew(void) {
    set_up();
    struct actor *client = new_actor(1), *server = new_actor(1);
    client_part = send_slowly;
    server_part = wait_then_drink;
    start(server, play_server, listen_tcp(&pair_port));
    start(client, play_client, -1);
    reached(server, 1);
    usleep(50000); /* the client fills the connection and waits in its call */
    EQUAL(client->told->stage, 0);
    select_actor(client, 0);
    release(server, 1);
    reached(client, 1);
    select_actor(client, 1);
    release(client, 1);
    reached(client, 2);
    reached(server, 2);
    const struct capture_cut_entry a = only(frozen_cut(client));
    EQUAL(a.sent, sizeof(large) + 5000);
    tiles(client, RECOVERY_SEND, a.local, a.remote, 0, sizeof(large) + 5000);
}

static void send_in_steps(int fd, struct told *told) {
    for (int i = 0; i < 3; i++) {
        send_all(fd, block, 100, told);
        step(told);
    }
}

/* Deselected, nothing is recorded, and nothing of the process is left in the kernel. */
static void case_deselected(void) {
    needs_each_call();
    set_up();
    struct actor *client = new_actor(1), *server = new_actor(0);
    client_part = send_in_steps;
    server_part = drink;
    start(server, play_server, listen_tcp(&pair_port));
    start(client, play_client, -1);
    reached(client, 1);
    EQUAL(count_records(client, RECOVERY_SEND), 1);
    select_actor(client, 0);
    select_actor(client, 0); /* idempotent */
    release(client, 1);
    reached(client, 2);
    EQUAL(count_records(client, RECOVERY_SEND), 1);
    select_actor(client, 1);
    select_actor(client, 1);
    release(client, 2);
    reached(client, 3);
    EQUAL(count_records(client, RECOVERY_SEND), 2);
    EQUAL(test.records.items[test.records.count - 1].begin, 100);
    EQUAL(count_records(server, RECOVERY_RECEIVE), 0);
}

/* A cgroup like a selected one in what the programs look at first (shared.h, CAPTURE_FILTER_ENTRIES). */
static struct actor *look_alike(const struct actor *selected) {
    struct actor *actor = &test.actors[test.actor_count];

    for (int i = 0; i < 20000; i++) { /* ids are given out in turn */
        new_actor(0);
        if (actor->id % 8192 == selected->id % 8192)
            return actor;
        CHECK(rmdir(actor->cgroup) == 0);
        CHECK(munmap(actor->told, sizeof(*actor->told)) == 0);
        test.actor_count--;
    }
    FAIL("no cgroup has an id like %llu", (unsigned long long)selected->id);
}

/* Who only looks like a recorded process is none, and can become one. */
static void case_look_alike(void) {
    needs_each_call();
    set_up();
    struct actor *server = new_actor(1), *client = look_alike(server);
    client_part = send_in_steps;
    server_part = drink;
    CHECK(client->id != server->id);
    start(server, play_server, listen_tcp(&pair_port));
    start(client, play_client, -1);
    reached(client, 1);
    select_actor(client, 1);
    release(client, 1);
    reached(client, 2);
    EQUAL(count_records(client, RECOVERY_SEND), 1);
    release(client, 2);
    reached(client, 3);
    EQUAL(count_records(client, RECOVERY_SEND), 2);
    release(client, 4);
    ended(client);
    reached(server, 1);
    CHECK(count_records(server, RECOVERY_RECEIVE) > 0);
}

int main(int argc, char **argv) {
    static const struct test_case cases[] = {
        {"threads", case_threads},
        {"fork", case_fork},
        {"nested-cgroup", case_nested_cgroup},
        {"accept-here-use-there", case_accept_here_use_there},
        {"accept-own-use-there", case_accept_own_use_there},
        {"accept-nested-use-there", case_accept_nested_use_there},
        {"accept-nested-use-here", case_accept_nested_use_here},
        {"two-owners", case_two_owners},
        {"old-connection", case_old_connection},
        {"selected-late-after-4-gib", case_selected_late_after_4_gib},
        {"selected-anew", case_selected_anew},
        {"deselected", case_deselected},
        {"look-alike", case_look_alike},
    };
    return run_cases(cases, sizeof(cases) / sizeof(cases[0]), argc, argv);
}
