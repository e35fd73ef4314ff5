/* SPDX-License-Identifier: Apache-2.0 */
/* Who may capture and who may read: without rights, with exactly the two capabilities, and a reader with
 * none. */
#include "harness.h"

#include <grp.h>
#include <linux/capability.h>
#include <sys/mount.h>
#include <sys/prctl.h>

#define NOBODY 65534

static char pins[300];

/* Becomes nobody with only these capabilities. */
static void become_nobody(uint64_t capabilities) {
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[2] = {
        {.effective = (uint32_t)capabilities, .permitted = (uint32_t)capabilities},
        {.effective = (uint32_t)(capabilities >> 32), .permitted = (uint32_t)(capabilities >> 32)}};

    CHECK(prctl(PR_SET_KEEPCAPS, 1) == 0);
    CHECK(setgroups(0, NULL) == 0 && setresgid(NOBODY, NOBODY, NOBODY) == 0);
    CHECK(setresuid(NOBODY, NOBODY, NOBODY) == 0);
    CHECK(syscall(SYS_capset, &header, data) == 0);
}

/* A bpf file system of its own that anybody may write; in a namespace, so nothing of it stays. */
static void own_bpffs(void) {
    test.owner = getpid();
    if (getuid() != 0)
        SKIP("this test changes users and needs root");
    CHECK(unshare(CLONE_NEWNS) == 0 && mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0);
    if (mount("bpf", "/sys/fs/bpf", "bpf", 0, "mode=0777") != 0)
        SKIP("no bpf file system of one's own: %s", strerror(errno));
    snprintf(pins, sizeof(pins), "/sys/fs/bpf/test");
}

static int open_instance(struct capture **capture, char *error) {
    const struct capture_options options = {.pin_dir = pins, .ring_bytes = 1 << 16, .cgroup_level = 2};
    return capture_open(&options, capture, NULL, error);
}

static int run_as(uint64_t capabilities, void (*work)(void)) {
    int status;
    const pid_t child = fork();

    if (child == 0) {
        become_nobody(capabilities);
        work();
        _exit(0);
    }
    CHECK(waitpid(child, &status, 0) == child && WIFEXITED(status));
    return WEXITSTATUS(status);
}

static void be_refused(void) {
    char error[CAPTURE_ERROR_BYTES] = "";
    struct capture *capture = NULL;
    struct capture_capability found[16];
    const int count = capture_probe(found, 16);

    EQUAL(open_instance(&capture, error), -EPERM);
    CHECK(strstr(error, "CAP_BPF") != NULL);
    CHECK(capture == NULL);
    for (int i = 0; i < count; i++)
        if (strcmp(found[i].name, "permission") == 0) {
            EQUAL(found[i].supported, 0);
            CHECK(strstr(found[i].reason, "CAP_BPF") != NULL);
            return;
        }
    FAIL("the probe says nothing about permission");
}

static void case_no_rights(void) {
    own_bpffs();
    EQUAL(run_as(0, be_refused), 0);
    EQUAL(run_as(1ull << CAP_BPF, be_refused), 0);
    EQUAL(access(pins, F_OK), -1); /* nothing was begun */
}

static uint64_t chosen;

static void capture_with_two(void) {
    char error[CAPTURE_ERROR_BYTES] = "";
    struct capture *capture = NULL;
    struct capture_cut_entry *entries = NULL;
    size_t count;
    int complete, status = open_instance(&capture, error), pending;

    if (status != 0)
        FAIL("capture_open: %d %s", status, error);
    status = capture_select(capture, chosen, 1, 1, error);
    if (status != 0)
        FAIL("capture_select: %d %s", status, error);
    status = capture_cut(capture, chosen, &entries, &count, &complete, &pending, error);
    if (status != 0)
        FAIL("capture_cut: %d %s", status, error);
    EQUAL(complete, 1);
    free(entries);
    capture_close(capture);
    EQUAL(capture_unpin(pins, error), 0);
}

static void case_two_capabilities(void) {
    struct stat status;

    own_bpffs();
    find_cgroup2(test.root, sizeof(test.root) - 32);
    snprintf(test.root + strlen(test.root), 32, "/recovery-line-test-%d", (int)getpid());
    CHECK(mkdir(test.root, 0755) == 0);
    const struct actor *actor = new_actor(0);
    CHECK(stat(actor->cgroup, &status) == 0);
    chosen = status.st_ino;
    EQUAL(run_as(1ull << CAP_BPF | 1ull << CAP_PERFMON, capture_with_two), 0);
}

/* The programs fill the ring, root put it there: a reader needs no right but that to the pin. */
static void read_pinned_ring(void) {
    char path[400];
    union {
        char bytes[128];
        struct {
            uint64_t path;
            uint32_t fd, flags;
        } object;
    } attr = {0};
    struct ring_map map;

    snprintf(path, sizeof(path), "%s/ring", pins);
    attr.object.path = (uint64_t)(uintptr_t)path;
    const int fd = (int)syscall(SYS_bpf, 7 /* BPF_OBJ_GET */, &attr, sizeof(attr));
    if (fd < 0)
        FAIL("the pinned ring cannot be opened: %s", strerror(errno));
    EQUAL(ring_map_open(&map, fd, 1 << 16), 0);
    struct pollfd ready = {.fd = fd, .events = POLLIN};
    CHECK(poll(&ready, 1, 0) == 0);
    ring_map_close(&map);
}

static void case_reader_without_rights(void) {
    char error[CAPTURE_ERROR_BYTES] = "", path[400];
    struct capture *capture = NULL;

    own_bpffs();
    const int status = open_instance(&capture, error);
    if (status == -EPERM || status == -ENOTSUP)
        SKIP("%s", error);
    EQUAL(status, 0);
    snprintf(path, sizeof(path), "%s/ring", pins);
    CHECK(run_as(0, read_pinned_ring) != 0); /* the directory is root's */
    CHECK(chmod(pins, 0711) == 0 && chmod(path, 0666) == 0);
    EQUAL(run_as(0, read_pinned_ring), 0);
    capture_close(capture);
    EQUAL(capture_unpin(pins, error), 0);
}

int main(int argc, char **argv) {
    static const struct test_case cases[] = {
        {"no-rights", case_no_rights},
        {"two-capabilities", case_two_capabilities},
        {"reader-without-rights", case_reader_without_rights},
    };
    return run_cases(cases, sizeof(cases) / sizeof(cases[0]), argc, argv);
}
