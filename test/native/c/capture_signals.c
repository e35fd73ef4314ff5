/* SPDX-License-Identifier: Apache-2.0 */
/* Loading takes the verifier a while, and it gives up with EAGAIN as soon as a signal is pending. */
#include "harness.h"
#include "../../../native/loader/userfault.h"

#include <sys/time.h>

static volatile sig_atomic_t signals;

static void count_signal(int number) {
    (void)number;
    signals++;
}

/* A signal each millisecond, as a profiler sends them. */
static void set_timer(long us) {
    const struct itimerval every = {.it_interval = {.tv_usec = us}, .it_value = {.tv_usec = us}};
    const struct sigaction action = {.sa_handler = count_signal, .sa_flags = SA_RESTART};

    CHECK(sigaction(SIGALRM, &action, NULL) == 0 && setitimer(ITIMER_REAL, &every, NULL) == 0);
}

static void require_signals_open(void) {
    sigset_t blocked;
    CHECK(sigprocmask(SIG_SETMASK, NULL, &blocked) == 0 && sigismember(&blocked, SIGALRM) == 0);
}

static void case_load(void) {
    set_timer(1000);
    set_up();
    set_timer(0);
    CHECK(signals > 0); /* held back, and delivered */
    require_signals_open();
}

static void case_load_userfault(void) {
    char error[CAPTURE_ERROR_BYTES] = "";
    struct userfault *userfault = NULL;

    set_up();
    set_timer(1000);
    const int status = userfault_open(test.capture, &userfault, error);
    set_timer(0);
    if (status == -ENOTSUP)
        SKIP("%s", error);
    EQUAL(status, 0);
    require_signals_open();
    userfault_close(userfault);
}

int main(int argc, char **argv) {
    static const struct test_case cases[] = {
        {"load", case_load},
        {"load-userfault", case_load_userfault},
    };
    return run_cases(cases, sizeof(cases) / sizeof(cases[0]), argc, argv);
}
