/* A user-mode run from its configuration to the first instruction. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "trace/trace.h"
#include "user/private.h"

static const struct user_guest *const guests[] = {
#define GUEST(name) &user_guest_##name,
#include "user/guests.def"
#undef GUEST
};

const struct user_guest *user_guest_of(u16 elf_machine)
{
    for (size_t i = 0; i < ARRAY_SIZE(guests); i++)
        if (guests[i]->elf_machine == elf_machine)
            return guests[i];
    return NULL;
}

/* Only fetches ask: guest-physical is guest-virtual. */
static int walk(struct guest_cpu *cpu, u64 gva, enum guest_access access, bool implicit, bool probe,
                struct guest_page *page)
{
    struct user_thread *t = user_current;
    int prot = mm_prot(&t->user->mm, gva);

    (void)implicit;
    if (prot >= 0 && (access != GUEST_FETCH || prot & PROT_EXEC)) {
        page->gpa = align_down(gva, MEM_PAGE_SIZE);
        page->readable = true;
        page->page_shift = MEM_PAGE_SHIFT;
        return 0;
    }
    if (probe)
        return -EFAULT;
    t->fault = (struct user_fault){.address = gva};
    t->fault.info.si_signo = SIGSEGV;
    t->fault.info.si_code = prot >= 0 ? SEGV_ACCERR : SEGV_MAPERR;
    t->fault.info.si_addr = user_ptr(gva);
    t->user->guest->fetch_fault(&t->fault, prot >= 0);
    guest_leave(cpu, USER_EXIT_FAULT);
}

static int make_dbt(struct user *user, struct err *err)
{
    struct dbt_config config = {
        .guest = &user->ops,
        .jit = user->config.jit,
        .dump_stages = user->config.dump_stages,
        .dump_first = user->config.dump_first,
        .dump_last = user->config.dump_last,
        .direct = true,
        .protect = mm_protect_code,
        .opaque = &user->mm,
    };

    user->ops = *user->guest->ops;
    user->ops.walk = walk;
    return dbt_create(&user->dbt, &config, err);
}

/* What ps and top show. */
static void set_name(const char *path)
{
    const char *slash = strrchr(path, '/');

    prctl(PR_SET_NAME, slash ? slash + 1 : path);
}

int user_run(const struct user_config *config, struct err *err)
{
    struct user *user = calloc(1, sizeof(*user));
    struct user_image image;
    struct user_thread *t;
    int status;

    if (!user || mm_init(&user->mm)) {
        err_set(err, -ENOMEM, "out of memory");
        return USER_CANNOT_RUN;
    }
    user->config = *config;
    pthread_mutex_init(&user->lock, NULL);
    status = user_load(user, &image, err);
    if (status)
        return status;
    if (make_dbt(user, err))
        return USER_CANNOT_RUN;
    t = user_thread_create(user);
    if (!t) {
        err_set(err, -ENOMEM, "out of memory");
        return USER_CANNOT_RUN;
    }
    t->tid = (pid_t)syscall(SYS_gettid);
    user->guest->start(t->cpu, image.entry, image.sp);
    set_name(user->exe);
    user_current = t;
    signal_init(user, t);
    user_thread_run(t);
    user_exit(0); /* not reached: the last thread ends the process */
}
