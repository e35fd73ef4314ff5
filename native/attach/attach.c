/* SPDX-License-Identifier: Apache-2.0 */
/*
 * recovery-line-attach: one process becomes two. Root starts
 *
 *   recovery-line-attach --user NAME --pin-dir DIR --ring-bytes N --level N [--below NAME] [--userfaults]
 *     [--capture VARIANT] -- COMMAND …
 *
 *   the helper, a child        opens the capture as root with CAP_BPF and CAP_PERFMON alone, then becomes
 *                              NAME with these two; serves protocol.h until the other end closes. Pins stay.
 *   the caller's own process   becomes NAME with no capability, none to be had again, and executes COMMAND
 *                              with one end of the socket, whose number is in $RECOVERY_LINE_ATTACHED.
 *
 * Nothing that COMMAND executes has ever held a right: a program that gives its rights away itself keeps what
 * its threads, rings and memory got before (Node's setuid and libuv's io_uring: CVE-2024-22017).
 */
#define _GNU_SOURCE
#include "serve.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <grp.h>
#include <limits.h>
#include <linux/capability.h>
#include <pwd.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define EXIT_REFUSED 1
#define EXIT_USAGE 2
#define BIT(capability) (1ull << (capability))
#define CAPTURING (BIT(CAP_BPF) | BIT(CAP_PERFMON))
#define CHANGING (BIT(CAP_SETUID) | BIT(CAP_SETGID))

struct settings {
    const char *user, *pin_dir, *below;
    const char *variant; /* capture_options.variant; NULL: the best */
    const char *reads;   /* a file that COMMAND needs; NULL: none is known */
    uint32_t ring_bytes, level;
    bool userfaults;
    char **command;
};

struct identity {
    const char *name, *home;
    uid_t uid;
    gid_t gid;
};

__attribute__((noreturn)) static void die(int code, const char *what, const char *why) {
    fprintf(stderr, "recovery-line: %s: %s\n", what, why);
    exit(code);
}

/* ---- rights ---- */

static int set_capabilities(uint64_t kept) {
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    const struct __user_cap_data_struct data[2] = {
        {.effective = (uint32_t)kept, .permitted = (uint32_t)kept},
        {.effective = (uint32_t)(kept >> 32), .permitted = (uint32_t)(kept >> 32)}};

    return syscall(SYS_capset, &header, data) == 0 ? 0 : -errno;
}

static bool has_exactly(uint64_t kept) {
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[2] = {0};

    if (syscall(SYS_capget, &header, data) != 0)
        return false;
    return data[0].effective == (uint32_t)kept && data[1].effective == (uint32_t)(kept >> 32) &&
           data[0].permitted == (uint32_t)kept && data[1].permitted == (uint32_t)(kept >> 32) &&
           data[0].inheritable == 0 && data[1].inheritable == 0;
}

/* No program executed from here on, set-uid or with file capabilities, gives anything back. */
static int renounce(void) {
    for (int capability = 0; capability < 64; capability++)
        if (prctl(PR_CAPBSET_READ, capability, 0, 0, 0) == 1 &&
            prctl(PR_CAPBSET_DROP, capability, 0, 0, 0) != 0)
            return -errno;
    if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) != 0 ||
        prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0)
        return -errno;
    return 0;
}

/* Becomes the user, holding `kept` and nothing else. The bounding set must have been emptied before. */
static int become(const struct identity *user, uint64_t kept, bool with_groups) {
    if (prctl(PR_SET_KEEPCAPS, kept != 0, 0, 0, 0) != 0)
        return -errno;
    if ((with_groups ? initgroups(user->name, user->gid) : setgroups(0, NULL)) != 0 ||
        setresgid(user->gid, user->gid, user->gid) != 0 || setresuid(user->uid, user->uid, user->uid) != 0)
        return -errno;
    const int status = set_capabilities(kept);
    if (status != 0)
        return status;
    return has_exactly(kept) && getuid() == user->uid && geteuid() == user->uid ? 0 : -EPERM;
}

/* ---- the helper ---- */

/* One reader a ring (src/host/reader-lock.ts): the lock goes to the collector with the ring, and is let go
 * when both have ended. */
static int lock_reader(const char *pin_dir, struct attach_service *service) {
    char path[PATH_MAX];

    if (snprintf(path, sizeof(path), "%s/reader", pin_dir) >= (int)sizeof(path))
        return -ENAMETOOLONG;
    if (mkdir(path, 0700) != 0 && errno != EEXIST)
        return -errno;
    service->reader_lock = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (service->reader_lock < 0)
        return -errno;
    return flock(service->reader_lock, LOCK_EX | LOCK_NB) == 0 ? 0 : -errno;
}

static int open_all(const struct settings *settings, struct attach_service *service) {
    const struct capture_options options = {.pin_dir = settings->pin_dir,
                                            .ring_bytes = settings->ring_bytes,
                                            .cgroup_level = settings->level,
                                            .variant = settings->variant};
    int status = capture_open(&options, &service->capture, &service->created, service->error);
    if (status != 0)
        return status;
    status = lock_reader(settings->pin_dir, service);
    if (status != 0) {
        snprintf(service->error, sizeof(service->error), "the ring in %.128s cannot be read alone: %s",
                 settings->pin_dir, status == -EWOULDBLOCK ? "another process reads it" : strerror(-status));
        return status;
    }
    return settings->userfaults ? userfault_open(service->capture, &service->userfault, service->error) : 0;
}

/* A terminal's or a service manager's signals are for the collector; the helper ends when that has. */
static void stand_apart(void) {
    static const int ignored[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2, SIGPIPE, SIGTSTP};
    const struct rlimit none = {0, 0};
    const int nowhere = open("/dev/null", O_RDWR | O_CLOEXEC);

    for (size_t i = 0; i < sizeof(ignored) / sizeof(ignored[0]); i++)
        signal(ignored[i], SIG_IGN);
    for (int fd = 0; fd <= 2; fd++)
        dup2(nowhere, fd);
    if (nowhere > 2)
        close(nowhere);
    setrlimit(RLIMIT_CORE, &none);
    prctl(PR_SET_NAME, "rl-attach", 0, 0, 0);
}

__attribute__((noreturn)) static void help(const struct settings *settings, const struct identity *user,
                                           int socket) {
    static struct attach_service service;
    int status;

    stand_apart();
    service = (struct attach_service){.below = settings->below, .reader_lock = -1};
    status = set_capabilities(CAPTURING | CHANGING | BIT(CAP_SETPCAP));
    if (status == 0)
        status = renounce();
    if (status == 0)
        status = set_capabilities(CAPTURING | CHANGING);
    if (status != 0)
        snprintf(service.error, sizeof(service.error), "rights cannot be given up: %s", strerror(-status));
    else /* files of root's, the pins among them, can be opened until `become`; with no right to pass over
            modes */
        status = open_all(settings, &service);
    const int became = become(user, CAPTURING, false);
    if (status == 0 && became != 0) {
        status = became;
        snprintf(service.error, sizeof(service.error), "the helper cannot become %.64s: %s", user->name,
                 strerror(-became));
    }
    prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
    if (status != 0) {
        capture_close(service.capture);
        service.capture = NULL;
        service.status = status;
    }
    attach_serve(socket, &service);
    userfault_close(service.userfault);
    capture_close(service.capture);
    exit(0);
}

/* ---- the collector ---- */

__attribute__((noreturn)) static void collect(const struct settings *settings, const struct identity *user,
                                              int socket) {
    char number[16];
    int status = renounce();

    if (status == 0)
        status = become(user, 0, true);
    if (status != 0)
        die(EXIT_REFUSED, "rights cannot be given up", strerror(-status));
    if (access(".", X_OK) != 0 && chdir("/") != 0)
        die(EXIT_REFUSED, "/", strerror(errno));
    if (settings->reads != NULL && access(settings->reads, R_OK) != 0)
        die(EXIT_REFUSED, settings->reads,
            "the user cannot read the program; install it where everybody can");
    snprintf(number, sizeof(number), "%d", socket);
    if (fcntl(socket, F_SETFD, 0) != 0 || setenv("RECOVERY_LINE_ATTACHED", number, 1) != 0 ||
        setenv("HOME", user->home, 1) != 0 || setenv("USER", user->name, 1) != 0 ||
        setenv("LOGNAME", user->name, 1) != 0)
        die(EXIT_REFUSED, "the environment", strerror(errno));
    execvp(settings->command[0], settings->command);
    die(EXIT_REFUSED, settings->command[0], strerror(errno));
}

/* ---- beginning ---- */

static uint32_t number_of(const char *text, const char *option) {
    char *end;

    errno = 0;
    const unsigned long value = strtoul(text, &end, 10);
    if (errno != 0 || *text < '0' || *text > '9' || *end != '\0' || value > UINT32_MAX)
        die(EXIT_USAGE, option, "is no number");
    return (uint32_t)value;
}

static const struct option OPTIONS[] = {
    {"user", required_argument, NULL, 'u'},
    {"pin-dir", required_argument, NULL, 'p'},
    {"below", required_argument, NULL, 'b'},
    {"ring-bytes", required_argument, NULL, 'r'},
    {"level", required_argument, NULL, 'l'},
    {"userfaults", no_argument, NULL, 'f'},
    {"reads", required_argument, NULL, 'R'},
    {"capture", required_argument, NULL, 'c'},
    {NULL, 0, NULL, 0},
};

static void read_option(struct settings *settings, int option) {
    switch (option) {
    case 'u':
        settings->user = optarg;
        break;
    case 'p':
        settings->pin_dir = optarg;
        break;
    case 'b':
        settings->below = optarg;
        break;
    case 'R':
        settings->reads = optarg;
        break;
    case 'c':
        settings->variant = optarg;
        break;
    case 'r':
        settings->ring_bytes = number_of(optarg, "--ring-bytes");
        break;
    case 'l':
        settings->level = number_of(optarg, "--level");
        break;
    case 'f':
        settings->userfaults = true;
        break;
    default:
        exit(EXIT_USAGE);
    }
}

static struct settings read_settings(int argc, char **argv) {
    struct settings settings = {.below = "recovery-line"};
    int option;

    while ((option = getopt_long(argc, argv, "+", OPTIONS, NULL)) != -1)
        read_option(&settings, option);
    settings.command = argv + optind;
    if (settings.user == NULL || settings.pin_dir == NULL || settings.ring_bytes == 0 ||
        settings.command[0] == NULL || settings.below[0] == '\0' || strchr(settings.below, '/') != NULL)
        die(EXIT_USAGE, "recovery-line-attach",
            "--user NAME --pin-dir DIR --ring-bytes N --level N [--below NAME] [--userfaults] "
            "[--capture VARIANT] [--reads FILE] -- COMMAND …");
    return settings;
}

static struct identity find_user(const char *name) {
    const struct passwd *found = getpwnam(name);

    if (found == NULL)
        die(EXIT_USAGE, name, "there is no such user");
    if (found->pw_uid == 0)
        die(EXIT_USAGE, name, "is root, and has every right");
    return (struct identity){
        .name = name, .home = strdup(found->pw_dir), .uid = found->pw_uid, .gid = found->pw_gid};
}

int main(int argc, char **argv) {
    const struct settings settings = read_settings(argc, argv);
    const struct identity user = find_user(settings.user);
    int ends[2];

    syscall(SYS_close_range, 3u, ~0u,
            0u); /* whatever root's shell or service manager had open stays root's */
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) != 0)
        die(EXIT_REFUSED, "a pair of sockets", strerror(errno));
    const pid_t child = fork();
    if (child < 0)
        die(EXIT_REFUSED, "a process", strerror(errno));
    if (child == 0) {
        close(ends[0]);
        help(&settings, &user, ends[1]);
    }
    close(ends[1]);
    collect(&settings, &user, ends[0]);
}
