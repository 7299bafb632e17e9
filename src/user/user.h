/*
 * User mode: a Linux program of a guest CPU as a process of the host. The guest's memory is the
 * host's at the same addresses, its threads are host threads, its signals go through the host's
 * kernel; the translator runs its instructions and src/user answers its system calls.
 */
#ifndef TRIODE_USER_H
#define TRIODE_USER_H

#include "base/err.h"
#include "base/types.h"

struct user_config {
    char **argv;       /* of the program: argv[0] is its path; NULL at the end */
    const char *argv0; /* what the program sees as argv[0]; NULL: the path */
    char **envp;
    const char *sysroot; /* where the ELF interpreter of dynamic programs is looked for; or NULL */
    bool jit;
    u32 dump_stages; /* DBT_DUMP_* */
    u64 dump_first, dump_last;
    /* Words to put behind "triode user" when the program executes another. */
    const char *const *options;
    unsigned noptions;
};

/* Answers of user_run beside the sentence: shells' exit statuses. */
enum { USER_CANNOT_RUN = 126, USER_NOT_FOUND = 127 };

/* Runs the program. It ends the process itself, by the guest's exit status or signal: what is
 * answered is an exit status when it could not be started, with @err set. */
int user_run(const struct user_config *config, struct err *err);

#endif
