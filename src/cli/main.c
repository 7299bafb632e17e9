/* Entry: which command. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "cli/cli.h"

static const struct {
    const char *name, *arguments;
    int (*run)(int argc, char **argv);
} commands[] = {
#define X(suffix, name, arguments, help) {name, arguments, cli_cmd_##suffix},
#include "cli/commands.def"
#undef X
};

/* A closed standard descriptor would be the number of the next file opened, and that file would get
 * what is meant for the terminal. */
static void open_standard_fds(void)
{
    for (int fd = 0; fd <= 2; fd++)
        if (fcntl(fd, F_GETFD) < 0 && open("/dev/null", O_RDWR) != fd)
            _exit(CLI_FAILURE);
}

/* A command that takes none was given some. */
static int refuse_arguments(char **argv)
{
    if (strcmp(argv[1], "--help") && strcmp(argv[1], "-h")) {
        log_error("%s takes no arguments, got \"%s\"", argv[0], argv[1]);
        return CLI_USAGE;
    }
    cli_print_command_help(stdout, argv[0]);
    return CLI_OK;
}

static int run_command(int argc, char **argv)
{
    for (size_t i = 0; i < ARRAY_SIZE(commands); i++) {
        if (strcmp(argv[0], commands[i].name))
            continue;
        if (argc > 1 && !*commands[i].arguments)
            return refuse_arguments(argv);
        return commands[i].run(argc, argv);
    }
    log_error("there is no command \"%s\"; see triode --help", argv[0]);
    return CLI_USAGE;
}

static int run(int argc, char **argv)
{
    const char *word = argc > 1 ? argv[1] : NULL;

    if (!word) {
        cli_print_help(stderr);
        return CLI_USAGE;
    }
    if (!strcmp(word, "help") && argc > 2)
        return run_command(2, (char *[]){argv[2], "--help", NULL});
    if (!strcmp(word, "--help") || !strcmp(word, "-h") || !strcmp(word, "help")) {
        cli_print_help(stdout);
        return CLI_OK;
    }
    if (!strcmp(word, "--version")) {
        printf("triode %s\n", TRIODE_VERSION);
        return CLI_OK;
    }
    return run_command(argc - 1, argv + 1);
}

int main(int argc, char **argv)
{
    int status;

    open_standard_fds();
    status = run(argc, argv);
    if (fflush(stdout) || ferror(stdout)) {
        log_error("cannot write standard output: %s", strerror(errno));
        return status ? status : CLI_FAILURE;
    }
    return status;
}
