/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Loading programs although signals come: the verifier gives up with EAGAIN as soon as one is pending.
 * Signals wait meanwhile (of this thread; others take what is for the process), and what can't be held back,
 * like the freezer's stop, is met by trying again, LOAD_TRIES times at most.
 *
 *   LOAD_UNDISTURBED(status, status = load(...));
 */
#ifndef RECOVERY_UNDISTURBED_H
#define RECOVERY_UNDISTURBED_H

#include <errno.h>
#include <pthread.h>
#include <signal.h>

#define LOAD_TRIES 20

#define LOAD_UNDISTURBED(status, attempt)                                                                    \
    do {                                                                                                     \
        sigset_t all_, before_;                                                                              \
        sigfillset(&all_);                                                                                   \
        pthread_sigmask(SIG_BLOCK, &all_, &before_);                                                         \
        int tries_ = 0;                                                                                      \
        do {                                                                                                 \
            attempt;                                                                                         \
        } while ((status) == -EAGAIN && ++tries_ < LOAD_TRIES);                                              \
        pthread_sigmask(SIG_SETMASK, &before_, NULL);                                                        \
    } while (0)

#endif
