/* SPDX-License-Identifier: Apache-2.0 */
/*
 * dsm-kernels KERNEL [--processes P] [--n N] [--iterations I] [--trace DIR | --collector SOCKET]
 * [--application NAME]
 *             [--ring-bytes B] [--images DIR] [--every STEPS] [--pause-us US] [--timeout-ms MS] [--hold]
 *             [--restore LINE] [--unchecked]
 *
 * Starts P processes that are connected over 127.0.0.1 and prints JSON lines: one a process with its pid,
 * then the result; firstStep is the one that rank 0 began with. Exit code: 0 correct, 1 wrong result, 2 wrong
 * use, 70 a process failed or died (the others tell which one is gone).
 *
 * LINE is the checkpoint of every entity, "p0:3,h0:2,…" in any order (0 or left out: initial state): all
 * processes go on from the images in DIR, with the options they had.
 */
#define _GNU_SOURCE
#include "kernels.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static const struct kernel *const kernels[] = {&sor_kernel, &lu_kernel, &matmul_kernel, &radix_kernel,
                                               &tsp_kernel};
#define KERNELS (sizeof(kernels) / sizeof(*kernels))

struct options {
    const struct kernel *kernel;
    unsigned long processes, n, iterations, every, pause_us, ring_bytes, timeout_ms;
    const char *trace, *images, *collector, *application, *restore;
    uint32_t line[2 * DSM_MAX_PROCESSES];
};

/* ---- what kernels.h promises */

/* With --hold: the state of a survivor stays as it is, for whoever recovers the application. */
static bool hold;
/* With --unchecked: no sequential run, for whoever measures. */
static bool unchecked;
static unsigned own_rank;

static void give_up(const char *error) {
    char text[320];
    const int length = snprintf(text, sizeof(text), "dsm: process p%u: %s\n", own_rank, error);

    while (write(STDERR_FILENO, text, (size_t)length) < 0 && errno == EINTR)
        ;
    while (hold)
        pause();
    _exit(DSM_EXIT_FAILED);
}

static void must(const struct run *run, int status) {
    if (status < 0)
        give_up(dsm_error(run->dsm));
}

void run_barrier(struct run *run) {
    must(run, dsm_barrier(run->dsm));
}
void run_lock(struct run *run, unsigned id) {
    must(run, dsm_lock(run->dsm, id));
}
void run_unlock(struct run *run, unsigned id) {
    must(run, dsm_unlock(run->dsm, id));
}

/* Entity e of all 2 * size is due in steps that are e / (2 * size) of the way between its neighbours: nobody
 * waits for anybody. */
static bool due(const struct run *run, unsigned entity) {
    return run->every != 0 && (run->kept.step + entity * run->every / (2 * run->size)) % run->every == 0;
}

void run_step(struct run *run) {
    run->kept.step++;
    if (due(run, 2 * run->rank))
        must(run, dsm_checkpoint(run->dsm));
    if (due(run, 2 * run->rank + 1))
        must(run, dsm_checkpoint_home(run->dsm));
    if (run->pause_us != 0)
        usleep(run->pause_us);
}

void run_share(const struct run *run, size_t count, size_t *from, size_t *to) {
    *from = count * run->rank / run->size;
    *to = count * (run->rank + 1) / run->size;
}

uint32_t run_random(uint32_t index) {
    uint32_t x = index * 2654435769u + 12345u;

    x = (x ^ x >> 16) * 0x85ebca6bu;
    x = (x ^ x >> 13) * 0xc2b2ae35u;
    return x ^ x >> 16;
}

void *run_allocate(size_t bytes) {
    void *memory = calloc(1, bytes);

    if (memory == NULL) {
        fprintf(stderr, "out of memory\n");
        exit(1);
    }
    return memory;
}

/* ---- one process */

static double seconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

/* Of both threads of this process. */
static double cpu_seconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static void print_result(const struct options *options, const struct run *run, unsigned first_step,
                         double took, double cpu, bool correct) {
    struct dsm_counters c;

    dsm_count(run->dsm, &c);
    printf("{\"kernel\":\"%s\",\"processes\":%u,\"n\":%zu,\"iterations\":%u,\"firstStep\":%u,"
           "\"seconds\":%.6f,\"cpuSeconds\":%.6f,\"correct\":%s,"
           "\"readFaults\":%llu,\"writeFaults\":%llu,\"copiesReceived\":%llu,\"invalidations\":%llu,"
           "\"records\":%llu,"
           "\"recordsLost\":%llu}\n",
           options->kernel->name, run->size, run->n, run->iterations, first_step, took, cpu,
           unchecked ? "null"
           : correct ? "true"
                     : "false",
           (unsigned long long)c.read_faults, (unsigned long long)c.write_faults,
           (unsigned long long)c.copies_received, (unsigned long long)c.invalidations,
           (unsigned long long)c.records, (unsigned long long)c.records_lost);
    fflush(stdout);
}

static struct run make_run(const struct options *options, unsigned rank) {
    return (struct run){.rank = rank,
                        .size = (unsigned)options->processes,
                        .n = options->n,
                        .iterations = (unsigned)options->iterations,
                        .every = (unsigned)options->every,
                        .pause_us = (unsigned)options->pause_us};
}

static int one_process(const struct options *options, struct dsm_config config) {
    struct run run = make_run(options, config.rank);
    char why[256], trace[4096];
    bool correct = true;

    if (options->trace != NULL) {
        snprintf(trace, sizeof(trace), "%s/rank-%u.jsonl", options->trace, config.rank);
        config.trace_path = trace;
    }
    own_rank = config.rank;
    config.gave_up = give_up;
    config.pages = (options->kernel->bytes(&run) + DSM_PAGE_BYTES - 1) / DSM_PAGE_BYTES;
    if (config.pages < config.size)
        config.pages = config.size;
    if (dsm_open(&run.dsm, &config, why) != DSM_OK) {
        fprintf(stderr, "dsm: process p%u: %s\n", config.rank, why);
        return DSM_EXIT_FAILED;
    }
    run.memory = dsm_memory(run.dsm);
    must(&run, dsm_restored(run.dsm, &run.kept, sizeof(run.kept)));
    must(&run, dsm_register_state(run.dsm, &run.kept, sizeof(run.kept)));
    if (run.kept.step == 0)
        run_barrier(&run);
    const unsigned first_step = run.kept.step;
    const double start = seconds(), cpu = cpu_seconds();
    options->kernel->compute(&run);
    const double took = seconds() - start, used = cpu_seconds() - cpu;
    if (run.rank == 0) {
        correct = unchecked || options->kernel->correct(&run);
        print_result(options, &run, first_step, took, used, correct);
    }
    return dsm_close(run.dsm) != DSM_OK ? DSM_EXIT_FAILED : correct ? 0 : 1;
}

/* ---- all processes */

static int listen_anywhere(uint16_t *port) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof(address);
    const int fd = socket(AF_INET, SOCK_STREAM, 0);

    if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof(address)) != 0 || listen(fd, 16) != 0 ||
        getsockname(fd, (struct sockaddr *)&address, &length) != 0) {
        perror("listening on 127.0.0.1");
        exit(DSM_EXIT_FAILED);
    }
    *port = ntohs(address.sin_port);
    return fd;
}

/* The first failure ends everything else after a moment in which the others may say what they saw. */
static int wait_for_all(unsigned count) {
    int worst = 0;

    for (unsigned done = 0; done < count; done++) {
        int status;
        if (wait(&status) < 0)
            break;
        const int code = WIFEXITED(status) ? WEXITSTATUS(status) : DSM_EXIT_FAILED;
        worst = code > worst ? code : worst;
    }
    return worst;
}

static int start(const struct options *options) {
    uint16_t ports[DSM_MAX_PROCESSES];
    int listeners[DSM_MAX_PROCESSES];
    struct dsm_config config = {.size = (unsigned)options->processes,
                                .ports = ports,
                                .timeout_ms = (unsigned)options->timeout_ms,
                                .collector = options->collector,
                                .application = options->application,
                                .ring_bytes = options->ring_bytes,
                                .image_dir = options->images,
                                .restore = options->restore == NULL ? NULL : options->line};
    const pid_t parent = getpid();

    if (getrandom(config.token, sizeof(config.token), 0) != sizeof(config.token))
        return DSM_EXIT_FAILED;
    for (unsigned rank = 0; rank < options->processes; rank++)
        listeners[rank] = listen_anywhere(&ports[rank]);
    for (unsigned rank = 0; rank < options->processes; rank++) {
        const pid_t pid = fork();
        if (pid == 0) {
            prctl(PR_SET_PDEATHSIG, SIGKILL);
            if (getppid() != parent)
                _exit(DSM_EXIT_FAILED);
            for (unsigned other = 0; other < options->processes; other++)
                if (other != rank)
                    close(listeners[other]);
            config.rank = rank;
            config.listener = listeners[rank];
            exit(one_process(options, config));
        }
        printf("{\"rank\":%u,\"pid\":%d}\n", rank, (int)pid);
        fflush(stdout);
    }
    for (unsigned rank = 0; rank < options->processes; rank++)
        close(listeners[rank]);
    return wait_for_all((unsigned)options->processes);
}

static void usage(const char *what, const char *value) {
    fprintf(stderr,
            "dsm-kernels: %s %s\nusage: dsm-kernels KERNEL [--processes P] [--n N] [--iterations I] [--trace "
            "DIR]\n",
            what, value);
    for (size_t i = 0; i < KERNELS; i++)
        fprintf(stderr, "  %-8s %s\n", kernels[i]->name, kernels[i]->about);
    exit(2);
}

static unsigned long number(const char *name, const char *text, unsigned long least, unsigned long most) {
    char *end;
    const unsigned long value = strtoul(text, &end, 10);

    if (*text < '0' || *text > '9' || *end != 0 || value < least || value > most)
        usage(name, text);
    return value;
}

static void parse_option(struct options *options, const char *name, const char *value) {
    const struct {
        const char *name;
        unsigned long *into, least, most;
    } numbers[] = {{"--processes", &options->processes, DSM_MIN_PROCESSES, DSM_MAX_PROCESSES},
                   {"--n", &options->n, 4, options->kernel->max_n},
                   {"--iterations", &options->iterations, 1, 1000000},
                   {"--every", &options->every, 1, 1000000},
                   {"--pause-us", &options->pause_us, 0, 10000000},
                   {"--ring-bytes", &options->ring_bytes, 4096, 64u << 20},
                   {"--timeout-ms", &options->timeout_ms, 1, 3600000}};
    const struct {
        const char *name, **into;
    } texts[] = {{"--trace", &options->trace},
                 {"--images", &options->images},
                 {"--restore", &options->restore},
                 {"--collector", &options->collector},
                 {"--application", &options->application}};

    if (value == NULL)
        usage("a value is missing after", name);
    for (size_t i = 0; i < sizeof(numbers) / sizeof(*numbers); i++)
        if (strcmp(name, numbers[i].name) == 0) {
            *numbers[i].into = number(name, value, numbers[i].least, numbers[i].most);
            return;
        }
    for (size_t i = 0; i < sizeof(texts) / sizeof(*texts); i++)
        if (strcmp(name, texts[i].name) == 0) {
            *texts[i].into = value;
            return;
        }
    usage("unknown option", name);
}

/* "p0:3,h0:2" into 2 * rank + (1 for homes). */
static void parse_line(struct options *options) {
    const char *at = options->restore;

    while (at != NULL && *at != 0) {
        char name, more;
        unsigned rank, checkpoint;
        const int fields = sscanf(at, "%c%u:%u%c", &name, &rank, &checkpoint, &more);
        if (fields < 3 || (name != 'p' && name != 'h') || rank >= options->processes ||
            (fields == 4 && more != ','))
            usage("--restore", options->restore);
        options->line[2 * rank + (name == 'h')] = checkpoint;
        at = strchr(at, ',');
        at = at == NULL ? NULL : at + 1;
    }
}

int main(int argc, char **argv) {
    struct options options = {.processes = 4};

    for (size_t i = 0; argc > 1 && i < KERNELS; i++)
        if (strcmp(argv[1], kernels[i]->name) == 0)
            options.kernel = kernels[i];
    if (options.kernel == NULL)
        usage("unknown kernel", argc > 1 ? argv[1] : "(none)");
    options.n = options.kernel->n;
    options.iterations = options.kernel->iterations;
    for (int i = 2; i < argc; i++)
        if (strcmp(argv[i], "--hold") == 0)
            hold = true;
        else if (strcmp(argv[i], "--unchecked") == 0)
            unchecked = true;
        else
            parse_option(&options, argv[i], argv[i + 1]), i++;
    if (options.every != 0 && options.images == NULL)
        usage("--every needs", "--images DIR");
    if (options.restore != NULL && options.images == NULL)
        usage("--restore needs", "--images DIR");
    parse_line(&options);
    return start(&options);
}
