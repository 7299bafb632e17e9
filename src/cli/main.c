/* Entry: which command. */
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "cli/cli.h"

static const struct {
    const char *name;
    int (*run)(int argc, char **argv);
} commands[] = {
#define X(suffix, name, arguments, help) {name, cli_cmd_##suffix},
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

int main(int argc, char **argv)
{
    const char *word = argc > 1 ? argv[1] : NULL;

    open_standard_fds();
    if (!word) {
        cli_print_help(stderr);
        return CLI_USAGE;
    }
    if (!strcmp(word, "--help") || !strcmp(word, "-h") || !strcmp(word, "help")) {
        cli_print_help(stdout);
        return CLI_OK;
    }
    if (!strcmp(word, "--version")) {
        printf("triode %s\n", TRIODE_VERSION);
        return CLI_OK;
    }
    for (size_t i = 0; i < ARRAY_SIZE(commands); i++)
        if (!strcmp(word, commands[i].name))
            return commands[i].run(argc - 1, argv + 1);
    log_error("there is no command \"%s\"; see triode --help", word);
    return CLI_USAGE;
}
