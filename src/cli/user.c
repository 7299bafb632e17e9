/* `triode user`: a Linux program of a guest CPU as a process of this host. */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "cli/cli.h"
#include "trace/trace.h"
#include "user/user.h"

enum {
#define X(constant, name, argument, help) OPTION_##constant,
#include "cli/user_options.def"
#undef X
    OPTIONS
};

static const struct {
    const char *name, *argument;
} table[] = {
#define X(constant, name, argument, help) {name, argument},
#include "cli/user_options.def"
#undef X
};

struct user_options {
    const char *value[OPTIONS];
};

static int find(const char *name, size_t len)
{
    for (int i = 0; i < OPTIONS; i++)
        if (strlen(table[i].name) == len && !strncmp(table[i].name, name, len))
            return i;
    return -1;
}

/* Answers the index of the program in @argv, or -EINVAL. */
static int parse(int argc, char **argv, struct user_options *options, struct err *err)
{
    int i = 1;

    for (; i < argc && argv[i][0] == '-'; i++) {
        const char *word = strcmp(argv[i], "-h") ? argv[i] : "--help", *value = "";
        size_t len;
        int option;

        if (!strcmp(word, "--"))
            return i + 1;
        if (strncmp(word, "--", 2))
            return err_set(err, -EINVAL, "there is no option %s; see triode user --help", word);
        len = strcspn(word + 2, "=");
        option = find(word + 2, len);
        if (option < 0)
            return err_set(err, -EINVAL, "there is no option %.*s; see triode user --help",
                           (int)len + 2, word);
        if (word[2 + len]) {
            if (!table[option].argument)
                return err_set(err, -EINVAL, "--%s takes no argument", table[option].name);
            value = word + 2 + len + 1;
        } else if (table[option].argument) {
            if (i + 1 == argc)
                return err_set(err, -EINVAL, "--%s needs an argument", table[option].name);
            value = argv[++i];
        }
        options->value[option] = value;
    }
    return i;
}

/* What a program that this one executes is run with, in words. */
static unsigned inherited(const struct user_options *options, const char *words[2 * OPTIONS])
{
    static const char *const names[OPTIONS] = {
        [OPTION_SYSROOT] = "--sysroot", [OPTION_JIT] = "--jit", [OPTION_TRACE] = "--trace"};
    unsigned n = 0;

    for (int i = 0; i < OPTIONS; i++) {
        /* A file would be made anew by each program. */
        if (!names[i] || !options->value[i] ||
            (i == OPTION_TRACE && strchr(options->value[i], ':')))
            continue;
        words[n++] = names[i];
        words[n++] = options->value[i];
    }
    return n;
}

static int configure(const struct user_options *options, struct user_config *config,
                     struct err *err)
{
    int ret = cli_parse_switch("jit", options->value[OPTION_JIT], &config->jit, err);

    config->argv0 = options->value[OPTION_ARGV0];
    config->sysroot = options->value[OPTION_SYSROOT];
    if (!ret && config->sysroot && access(config->sysroot, F_OK))
        ret = err_set(err, -errno, "--sysroot %s: %s", config->sysroot, strerror(errno));
    if (!ret && options->value[OPTION_DUMP])
        ret = cli_parse_dump(options->value[OPTION_DUMP], &config->dump_stages, &config->dump_first,
                             &config->dump_last, err);
    if (!ret && options->value[OPTION_TRACE])
        ret = trace_open(options->value[OPTION_TRACE], err);
    return ret;
}

int cli_cmd_user(int argc, char **argv)
{
    struct user_options options = {0};
    const char *words[2 * OPTIONS];
    struct user_config config = {.envp = environ, .jit = true, .options = words};
    struct err err = {0};
    int program = parse(argc, argv, &options, &err), status;

    if (program >= 0 && options.value[OPTION_HELP]) {
        cli_print_command_help(stdout, "user");
        return CLI_OK;
    }
    if (program >= argc)
        program = err_set(&err, -EINVAL, "no program given; see triode user --help");
    if (program < 0 || configure(&options, &config, &err)) {
        log_error("%s", err.text);
        return CLI_USAGE;
    }
    config.argv = argv + program;
    config.noptions = inherited(&options, words);
    status = user_run(&config, &err);
    log_error("%s", err.text);
    return status;
}
