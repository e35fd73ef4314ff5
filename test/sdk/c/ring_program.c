/* SPDX-License-Identifier: Apache-2.0 */
/* The program of ring-program.mjs in C; both kinds play in one ring. Same arguments. */
#include "../../../native/dsm/sha256.h"
#include "../../../native/sdk/recovery_sdk.h"

#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#define MAX_NAMES 16
#define TEXT_BYTES 256

struct state {
    char hash[65];
    unsigned count, done;
    int started, stopped;
};

static struct rl_node *node;
static struct state state;
static const char *me, *others[MAX_NAMES], *first;
static unsigned other_count, tokens, hops, every;
static volatile sig_atomic_t ended;

static void must(int status) {
    if (status == RL_OK)
        return;
    printf("failed: %s\n", rl_error(node));
    rl_close(node);
    exit(1);
}

static void send_text(const char *to, const char *text) {
    must(rl_send(node, to, text, strlen(text)));
}

static void checkpoint(void) {
    char text[TEXT_BYTES];
    const int size = snprintf(text, sizeof(text), "%s %u %u %d %d", state.hash[0] ? state.hash : "-",
                              state.count, state.done, state.started, state.stopped);

    must(rl_mark_checkpoint(node, text, size, NULL));
}

static void restore(void) {
    size_t size;
    const void *saved = rl_restored(node, &size);
    char text[TEXT_BYTES] = "";

    if (saved == NULL)
        return;
    memcpy(text, saved, size);
    if (sscanf(text, "%64s %u %u %d %d", state.hash, &state.count, &state.done, &state.started,
               &state.stopped) != 5)
        abort();
    if (state.hash[0] == '-')
        state.hash[0] = 0;
}

/* The first process counts the tokens that have ended; with the last one it stops everybody. */
static void finished(void) {
    if (++state.done < (other_count + 1) * tokens)
        return;
    for (unsigned i = 0; i < other_count; i++)
        send_text(others[i], "{\"stop\":true}");
    state.stopped = 1;
}

static void pass_on(const char token[100], unsigned left) {
    char chance[4], text[TEXT_BYTES];
    unsigned random, prefix;

    if (getrandom(&random, sizeof(random), 0) != sizeof(random))
        abort();
    snprintf(chance, sizeof(chance), "%3u", 100 + random % 900);
    must(rl_record(node, chance, 3));
    chance[3] = 0;
    sscanf(state.hash, "%6x", &prefix);
    snprintf(text, sizeof(text), "{\"token\":\"%s\",\"hops\":%u,\"chance\":%s}", token, left - 1, chance);
    send_text(others[(prefix + (unsigned)atoi(chance)) % other_count], text);
}

static void act(const char *payload) {
    char token[100], text[TEXT_BYTES];
    unsigned left;

    if (strstr(payload, "\"stop\"") != NULL)
        state.stopped = 1;
    else if (strstr(payload, "\"done\"") != NULL)
        finished();
    else if (sscanf(payload, "{\"token\":\"%99[^\"]\",\"hops\":%u", token, &left) != 2)
        abort();
    else if (left > 0)
        pass_on(token, left);
    else if (strcmp(me, first) == 0)
        finished();
    else {
        snprintf(text, sizeof(text), "{\"done\":\"%s\"}", token);
        send_text(first, text);
    }
}

static void take(const struct rl_message *message) {
    struct sha256 sum;
    char head[TEXT_BYTES];

    snprintf(head, sizeof(head), "%s %s %" PRIu64 " ", state.hash, message->from, message->sequence);
    sha256_begin(&sum);
    sha256_add(&sum, head, strlen(head));
    sha256_add(&sum, message->bytes, message->size);
    sha256_end(&sum, state.hash);
    state.count++;
    act((const char *)message->bytes);
    if (state.count % every == 0)
        checkpoint();
}

static void start(void) {
    char text[TEXT_BYTES];

    if (state.started)
        return;
    for (unsigned token = 0; token < tokens; token++) {
        snprintf(text, sizeof(text), "{\"token\":\"%s.%u\",\"hops\":%u}", me, token, hops);
        send_text(others[token % other_count], text);
    }
    state.started = 1;
}

static void on_term(int signal) {
    (void)signal;
    ended = 1;
}

int main(int argc, char **argv) {
    struct rl_message message;

    if (argc != 7)
        return 2;
    setlinebuf(stdout);
    me = argv[2];
    tokens = (unsigned)atoi(argv[4]);
    hops = (unsigned)atoi(argv[5]);
    every = (unsigned)atoi(argv[6]);
    must(rl_join(&node, "ring", me, argv[1]));
    for (char *name = strtok(argv[3], ","); name != NULL; name = strtok(NULL, ",")) {
        first = first == NULL ? name : first;
        if (strcmp(name, me) == 0)
            continue;
        others[other_count++] = name;
        must(rl_connect(node, name));
    }
    restore();
    printf("joined %u\n", rl_incarnation(node));
    start();
    while (!state.stopped) {
        must(rl_receive(node, &message));
        take(&message);
    }
    checkpoint();
    must(rl_released(node, -1));
    signal(SIGTERM, on_term);
    printf("result {\"hash\":\"%s\",\"count\":%u}\n", state.hash, state.count);
    while (!ended)
        must(rl_poll(node, 20));
    return rl_close(node) == RL_OK ? 0 : 1;
}
