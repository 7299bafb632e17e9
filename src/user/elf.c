/* Loading a program: its ELF file, its interpreter's, and the stack it starts with. */
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/entropy.h"
#include "user/private.h"

#define MAX_HEADERS 64
#define MAX_SCRIPTS 4 /* interpreters of interpreters, as Linux has it */
#define STACK_DEFAULT (8 * MiB)
#define STACK_MOST (64 * MiB)
#define STACK_GUARD MiB
#define INTERPRETER_ABOVE (64 * GiB) /* of a PIE's base: room for its heap */

struct file {
    const char *path;
    int fd;
    u64 size;
    Elf64_Ehdr head;
    Elf64_Phdr segments[MAX_HEADERS];
    char interpreter[PATH_MAX];
    u64 bias, first, last; /* where it was loaded */
    u64 entry, headers;    /* addresses */
};

static int not_executable(struct err *err, const char *path, const char *why)
{
    err_set(err, -ENOEXEC, "%s: %s", path, why);
    return USER_CANNOT_RUN;
}

static int open_file(struct file *f, const char *path, struct err *err)
{
    struct stat st;

    f->path = path;
    f->fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* no waiting for a pipe's writer */
    if (f->fd < 0) {
        int error = errno;

        err_set(err, -error, "%s: %s%s", path, strerror(error),
                strchr(path, '/') ? "" : " (a path is meant, $PATH is not searched)");
        return error == ENOENT || error == ENOTDIR ? USER_NOT_FOUND : USER_CANNOT_RUN;
    }
    if (fstat(f->fd, &st) || !S_ISREG(st.st_mode))
        return not_executable(err, path, "not a regular file");
    f->size = (u64)st.st_size;
    return 0;
}

static int read_segments(struct file *f, struct err *err)
{
    size_t bytes = f->head.e_phnum * sizeof(Elf64_Phdr);

    if (f->head.e_phentsize != sizeof(Elf64_Phdr) || !f->head.e_phnum ||
        f->head.e_phnum > MAX_HEADERS)
        return not_executable(err, f->path,
                              "its ELF program headers are of a strange size or number");
    if (pread(f->fd, f->segments, bytes, (off_t)f->head.e_phoff) != (ssize_t)bytes)
        return not_executable(err, f->path,
                              "the file is truncated: its program headers are missing");
    f->first = ~0ull;
    f->last = 0;
    for (unsigned i = 0; i < f->head.e_phnum; i++) {
        const Elf64_Phdr *p = &f->segments[i];

        if (p->p_type != PT_LOAD && p->p_type != PT_INTERP)
            continue;
        if (p->p_offset > f->size || p->p_filesz > f->size - p->p_offset)
            return not_executable(err, f->path, "the file is truncated: a segment is missing");
        if (p->p_type == PT_INTERP) {
            if (p->p_filesz < 2 || p->p_filesz > sizeof(f->interpreter) ||
                pread(f->fd, f->interpreter, p->p_filesz, (off_t)p->p_offset) !=
                    (ssize_t)p->p_filesz ||
                f->interpreter[p->p_filesz - 1])
                return not_executable(err, f->path, "the name of its interpreter is damaged");
            continue;
        }
        if (p->p_memsz < p->p_filesz || p->p_vaddr > BIT(47) || p->p_memsz > BIT(46) ||
            ((p->p_vaddr ^ p->p_offset) & (MEM_PAGE_SIZE - 1)))
            return not_executable(err, f->path, "a segment's address or size makes no sense");
        if (align_down(p->p_vaddr, MEM_PAGE_SIZE) < f->first)
            f->first = align_down(p->p_vaddr, MEM_PAGE_SIZE);
        if (align_up(p->p_vaddr + p->p_memsz, MEM_PAGE_SIZE) > f->last)
            f->last = align_up(p->p_vaddr + p->p_memsz, MEM_PAGE_SIZE);
    }
    if (f->first >= f->last)
        return not_executable(err, f->path, "it has nothing to load");
    return 0;
}

static int read_head(struct file *f, struct err *err)
{
    ssize_t n = pread(f->fd, &f->head, sizeof(f->head), 0);

    if (n < SELFMAG || memcmp(f->head.e_ident, ELFMAG, SELFMAG))
        return not_executable(err, f->path, "not an ELF file");
    if (n != sizeof(f->head))
        return not_executable(err, f->path, "the file is truncated: its ELF header is incomplete");
    if (f->head.e_ident[EI_CLASS] != ELFCLASS64 || f->head.e_ident[EI_DATA] != ELFDATA2LSB)
        return not_executable(err, f->path, "not a 64-bit little-endian ELF file");
    if (f->head.e_type != ET_EXEC && f->head.e_type != ET_DYN)
        return not_executable(err, f->path, "an ELF file, but not a program");
    if (!user_guest_of(f->head.e_machine)) {
        err_set(err, -ENOEXEC, "%s: a program for a CPU that Triode does not have (ELF machine %u)",
                f->path, f->head.e_machine);
        return USER_CANNOT_RUN;
    }
    return read_segments(f, err);
}

/* --- mapping ------------------------------------------------------------------------------ */

static int prot_of(const Elf64_Phdr *p)
{
    return (p->p_flags & PF_R ? PROT_READ : 0) | (p->p_flags & PF_W ? PROT_WRITE : 0) |
           (p->p_flags & PF_X ? PROT_EXEC : 0);
}

/* What lies behind the file's bytes is zero: the rest of their last page, and pages of its own. */
static bool map_segment(struct user *user, const struct file *f, const Elf64_Phdr *p)
{
    u64 start = f->bias + align_down(p->p_vaddr, MEM_PAGE_SIZE);
    u64 file_end = f->bias + p->p_vaddr + p->p_filesz, end = f->bias + p->p_vaddr + p->p_memsz;
    u64 mapped = p->p_filesz ? align_up(file_end, MEM_PAGE_SIZE) : start;
    int prot = prot_of(p);

    if (p->p_filesz && mm_map(user, start, mapped - start, prot, MAP_PRIVATE | MAP_FIXED, f->fd,
                              align_down(p->p_offset, MEM_PAGE_SIZE)) < 0)
        return false;
    if (p->p_filesz && end > file_end && mapped > file_end) {
        mprotect(user_ptr(mapped - MEM_PAGE_SIZE), MEM_PAGE_SIZE, PROT_READ | PROT_WRITE);
        memset(user_ptr(file_end), 0, mapped - file_end);
        mprotect(user_ptr(mapped - MEM_PAGE_SIZE), MEM_PAGE_SIZE, mm_host_prot(prot));
    }
    return align_up(end, MEM_PAGE_SIZE) <= mapped ||
           mm_map(user, mapped, align_up(end, MEM_PAGE_SIZE) - mapped, prot,
                  MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) >= 0;
}

static int map_file(struct user *user, struct file *f, u64 base, struct err *err)
{
    u64 want = f->head.e_type == ET_DYN ? base : f->first;
    s64 got = mm_map(user, want, f->last - f->first, PROT_NONE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE, -1, 0);

    if (got < 0) {
        err_set(err, (int)got, "%s: the addresses from %#" PRIx64 " on that it wants are not free",
                f->path, want);
        return USER_CANNOT_RUN;
    }
    f->bias = want - f->first;
    for (unsigned i = 0; i < f->head.e_phnum; i++) {
        const Elf64_Phdr *p = &f->segments[i];

        if (p->p_type == PT_PHDR)
            f->headers = f->bias + p->p_vaddr;
        if (p->p_type != PT_LOAD)
            continue;
        if (!f->headers && f->head.e_phoff >= p->p_offset &&
            f->head.e_phoff < p->p_offset + p->p_filesz)
            f->headers = f->bias + p->p_vaddr + (f->head.e_phoff - p->p_offset);
        if (p->p_memsz && !map_segment(user, f, p))
            return not_executable(err, f->path, "no memory for its segments");
    }
    f->entry = f->bias + f->head.e_entry;
    return 0;
}

/* --- scripts ------------------------------------------------------------------------------ */

/* "#! interpreter argument": the words in @line, or false. */
static bool read_script(int fd, char line[256], char **interpreter, char **argument)
{
    ssize_t n = pread(fd, line, 255, 0);
    char *end;

    if (n < 3 || line[0] != '#' || line[1] != '!')
        return false;
    line[n] = '\0';
    line[strcspn(line, "\n")] = '\0';
    *interpreter = line + 2 + strspn(line + 2, " \t");
    end = *interpreter + strcspn(*interpreter, " \t");
    *argument = NULL;
    if (*end) {
        *end++ = '\0';
        end += strspn(end, " \t");
        for (size_t len = strlen(end); len && strchr(" \t", end[len - 1]); len--)
            end[len - 1] = '\0';
        if (*end)
            *argument = end;
    }
    return **interpreter;
}

/* Puts the script's interpreter in front of the arguments. */
static char **script_arguments(char **argv, const char *script, const char *interpreter,
                               const char *argument)
{
    size_t n = 0, at = 0;
    char **all;

    while (argv[n])
        n++;
    all = calloc(n + 4, sizeof(*all));
    if (!all)
        return NULL;
    all[at++] = strdup(interpreter);
    if (argument)
        all[at++] = strdup(argument);
    all[at++] = strdup(script);
    for (size_t i = 1; i < n; i++)
        all[at++] = argv[i];
    return all;
}

static int open_program(struct user *user, struct file *f, struct err *err)
{
    for (unsigned i = 0; i <= MAX_SCRIPTS; i++) {
        char line[256], *interpreter, *argument;
        int status = open_file(f, user->config.argv[0], err);

        if (status)
            return status;
        if (!read_script(f->fd, line, &interpreter, &argument))
            return read_head(f, err);
        close(f->fd);
        user->config.argv = script_arguments(user->config.argv, f->path, interpreter, argument);
        user->config.argv0 = NULL;
        if (!user->config.argv)
            return not_executable(err, f->path, "no memory for its arguments");
    }
    return not_executable(err, f->path, "a script whose interpreter is a script, and so on");
}

int user_check_executable(const struct user *user, const char *path)
{
    struct file *f = calloc(1, sizeof(*f));
    char line[256], *interpreter, *argument;
    struct stat st;
    int ret = 0;

    if (!f)
        return -ENOMEM;
    f->fd = -1;
    if (access(path, F_OK))
        ret = -errno;
    else if (stat(path, &st) || !S_ISREG(st.st_mode) || access(path, X_OK))
        ret = -EACCES;
    else if (open_file(f, path, NULL))
        ret = -EACCES;
    else if (!read_script(f->fd, line, &interpreter, &argument) && read_head(f, NULL))
        ret = -ENOEXEC;
    if (!ret && f->head.e_phnum && *f->interpreter && access(f->interpreter, F_OK) &&
        !user->config.sysroot)
        ret = -ENOENT;
    if (f->fd >= 0)
        close(f->fd);
    free(f);
    return ret;
}

/* --- the stack ---------------------------------------------------------------------------- */

struct stack {
    u64 sp;
};

static u64 push_bytes(struct stack *s, const void *bytes, size_t len)
{
    s->sp -= len;
    memcpy(user_ptr(s->sp), bytes, len);
    return s->sp;
}

static u64 push_string(struct stack *s, const char *text)
{
    return push_bytes(s, text, strlen(text) + 1);
}

struct auxv {
    u64 pair[24][2];
    size_t count;
};

static void add(struct auxv *aux, u64 type, u64 value)
{
    aux->pair[aux->count][0] = type;
    aux->pair[aux->count++][1] = value;
}

static void fill_auxv(struct auxv *aux, const struct user *user, const struct file *program,
                      const struct file *interpreter)
{
    add(aux, AT_PHDR, program->headers);
    add(aux, AT_PHENT, sizeof(Elf64_Phdr));
    add(aux, AT_PHNUM, program->head.e_phnum);
    add(aux, AT_PAGESZ, MEM_PAGE_SIZE);
    add(aux, AT_BASE, interpreter ? interpreter->bias : 0);
    add(aux, AT_FLAGS, 0);
    add(aux, AT_ENTRY, program->entry);
    add(aux, AT_UID, getuid());
    add(aux, AT_EUID, geteuid());
    add(aux, AT_GID, getgid());
    add(aux, AT_EGID, getegid());
    add(aux, AT_SECURE, getauxval(AT_SECURE));
    add(aux, AT_CLKTCK, (u64)sysconf(_SC_CLK_TCK));
    add(aux, AT_HWCAP, user->guest->hwcap);
    add(aux, AT_HWCAP2, user->guest->hwcap2);
}

static size_t count(char *const *words)
{
    size_t n = 0;

    while (words && words[n])
        n++;
    return n;
}

static size_t bytes_of(char *const *words)
{
    size_t n = 0;

    for (; words && *words; words++)
        n += strlen(*words) + 9;
    return n;
}

static u64 stack_size(const struct user *user)
{
    struct rlimit limit;
    u64 size = STACK_DEFAULT;

    if (!getrlimit(RLIMIT_STACK, &limit))
        size = limit.rlim_cur > STACK_MOST ? STACK_MOST : limit.rlim_cur;
    size += bytes_of(user->config.argv) + bytes_of(user->config.envp) + 64 * KiB;
    return align_up(size, MEM_PAGE_SIZE);
}

/* From high to low: strings, random bytes, auxv, envp, argv, argc (System V ABI, process
 * initialization). */
static u64 fill_stack(struct user *user, struct stack *s, struct auxv *aux)
{
    char **argv = user->config.argv, **envp = user->config.envp;
    size_t argc = count(argv), envc = count(envp), words, at = 0;
    u8 random[16];
    u64 *out;

    add(aux, AT_EXECFN, push_string(s, argv[0]));
    add(aux, AT_PLATFORM, push_string(s, user->guest->machine));
    entropy_fill(random, sizeof(random));
    add(aux, AT_RANDOM, push_bytes(s, random, sizeof(random)));
    add(aux, AT_NULL, 0);
    words = 1 + argc + 1 + envc + 1 + 2 * aux->count;
    out = calloc(words, sizeof(*out));
    if (!out)
        return 0;
    out[at++] = argc;
    for (size_t i = 0; i < argc; i++)
        out[at++] = push_string(s, !i && user->config.argv0 ? user->config.argv0 : argv[i]);
    at++;
    for (size_t i = 0; i < envc; i++)
        out[at++] = push_string(s, envp[i]);
    at++;
    memcpy(&out[at], aux->pair, aux->count * sizeof(aux->pair[0]));
    s->sp = align_down(s->sp - words * 8, 16);
    memcpy(user_ptr(s->sp), out, words * 8);
    free(out);
    return s->sp;
}

static u64 make_stack(struct user *user, const struct file *program, const struct file *interpreter)
{
    u64 size = stack_size(user);
    s64 base = mm_map(user, 0, STACK_GUARD + size, PROT_NONE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    struct stack s = {(u64)base + STACK_GUARD + size - 64};
    struct auxv aux = {0};

    if (base < 0 || mm_map(user, (u64)base + STACK_GUARD, size, PROT_READ | PROT_WRITE,
                           MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0) < 0)
        return 0;
    mm_note(&user->mm, (u64)base, (u64)base + STACK_GUARD, -1); /* nobody's, and nobody gets it */
    fill_auxv(&aux, user, program, interpreter);
    return fill_stack(user, &s, &aux);
}

/* --- all of it ---------------------------------------------------------------------------- */

static int load_interpreter(struct user *user, const struct file *program, struct file *f,
                            struct err *err)
{
    char *path = NULL;
    const char *sysroot = user->config.sysroot;
    int status;

    if (sysroot && asprintf(&path, "%s%s", sysroot, program->interpreter) < 0)
        path = NULL;
    if (path && access(path, R_OK)) {
        free(path);
        path = NULL;
    }
    status = open_file(f, path ? path : program->interpreter, err);
    if (!status)
        status = read_head(f, err);
    if (!status && f->head.e_machine != program->head.e_machine)
        status =
            not_executable(err, f->path, "an ELF interpreter for another CPU than the program");
    if (!status)
        status = map_file(user, f, user->guest->pie_base + INTERPRETER_ABOVE, err);
    if (status)
        err_context(err, status, "%s needs its ELF interpreter", program->path);
    free(path);
    return status;
}

int user_load(struct user *user, struct user_image *image, struct err *err)
{
    struct file *program = calloc(2, sizeof(*program));
    struct file *interpreter = program ? program + 1 : NULL;
    bool dynamic = false;
    int status;

    if (!program)
        return not_executable(err, user->config.argv[0], "out of memory");
    program->fd = interpreter->fd = -1;
    status = open_program(user, program, err);
    if (!status) {
        user->guest = user_guest_of(program->head.e_machine);
        if (!realpath(program->path, user->exe))
            snprintf(user->exe, sizeof(user->exe), "%s", program->path);
        status = map_file(user, program, user->guest->pie_base, err);
    }
    if (!status) {
        mm_set_brk(&user->mm, program->bias + program->last);
        dynamic = *program->interpreter;
        if (dynamic)
            status = load_interpreter(user, program, interpreter, err);
    }
    if (!status) {
        image->entry = dynamic ? interpreter->entry : program->entry;
        image->sp = make_stack(user, program, dynamic ? interpreter : NULL);
        if (!image->sp)
            status = not_executable(err, program->path, "no memory for its stack");
    }
    if (program->fd >= 0)
        close(program->fd);
    if (interpreter->fd >= 0)
        close(interpreter->fd);
    free(program);
    return status;
}
