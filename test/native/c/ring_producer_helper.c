/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ring_producer create PIN RING_BYTES                          makes and pins an empty kernel ring
 * ring_producer OBJECT PIN RING_BYTES COUNT PROCESS CONNECTIONS [RECORDS_PER_S]
 * fills it and prints "emitted lost seconds". Without a rate: at full speed.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <bpf/bpf.h>
#include <bpf/libbpf.h>

struct state {
    unsigned long long process, connections, serial, emitted, lost, pending, ring_bytes;
};

static int die(const char *what) {
    fprintf(stderr, "ring_producer: %s: %s\n", what, strerror(errno));
    return 1;
}

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

static int create(const char *pin, unsigned bytes) {
    const int fd = bpf_map_create(BPF_MAP_TYPE_RINGBUF, "test_ring", 0, 0, bytes, NULL);
    return fd >= 0 && bpf_obj_pin(fd, pin) == 0 ? 0 : die(pin);
}

/* Runs the program `count` times; with a rate, in portions of a millisecond. */
static int produce(int program, unsigned long long count, double rate) {
    unsigned char packet[64] = {0};
    const double start = now();
    unsigned long long done = 0;

    while (done < count) {
        unsigned long long due = rate > 0 ? (unsigned long long)((now() - start) * rate) : done + 100000;
        if (due > count)
            due = count;
        if (due > done) {
            LIBBPF_OPTS(bpf_test_run_opts, run, .data_in = packet, .data_size_in = sizeof(packet),
                        .repeat = (int)(due - done));
            if (bpf_prog_test_run_opts(program, &run) != 0)
                return -1;
            done = due;
        }
        if (rate > 0)
            nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    }
    return 0;
}

int main(int argc, char **argv) {
    const unsigned zero = 0;

    if (argc == 4 && strcmp(argv[1], "create") == 0)
        return create(argv[2], (unsigned)strtoul(argv[3], NULL, 0));
    if (argc < 7)
        return fprintf(stderr, "ring_producer: see the head of its source\n"), 2;
    struct state state = {.ring_bytes = strtoull(argv[3], NULL, 0),
                          .process = strtoull(argv[5], NULL, 0),
                          .connections = strtoull(argv[6], NULL, 0)};
    struct bpf_object *object = bpf_object__open_file(argv[1], NULL);
    if (object == NULL)
        return die(argv[1]);
    const int ring = bpf_obj_get(argv[2]);
    if (ring < 0 || bpf_map__reuse_fd(bpf_object__find_map_by_name(object, "ring"), ring) != 0 ||
        bpf_object__load(object) != 0)
        return die(argv[2]);
    const int states = bpf_object__find_map_fd_by_name(object, "states");
    const int program = bpf_program__fd(bpf_object__find_program_by_name(object, "produce"));
    bpf_map_update_elem(states, &zero, &state, BPF_ANY);
    const double start = now();
    if (produce(program, strtoull(argv[4], NULL, 0), argc > 7 ? strtod(argv[7], NULL) : 0) != 0)
        return die("test run");
    const double seconds = now() - start;
    bpf_map_lookup_elem(states, &zero, &state);
    printf("%llu %llu %.6f\n", state.emitted, state.lost, seconds);
    return 0;
}
