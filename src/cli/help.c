/* Help texts and the manual page, from the tables. */
#include <ctype.h>
#include <string.h>

#include "cli/cli.h"
#include "machine/machine.h"
#include "trace/trace.h"

#define WIDTH 80
#define INDENT 6

#define STAGES "guest, lift, opt, host, all"
#define USER_STATUS                                                                                \
    "the program's; 2 bad usage, 126 the program cannot be run, 127 it is not there. A program "   \
    "killed by a signal takes Triode with it."

static const struct {
    const char *name, *arguments, *help;
} commands[] = {
#define X(suffix, name, arguments, help) {name, arguments, help},
#include "cli/commands.def"
#undef X
};

struct option {
    const char *name, *argument, *help;
};

static const struct option run_options[] = {
#define X(constant, name, argument, help) {name, argument, help},
#include "cli/options.def"
#undef X
};

static const struct option user_options[] = {
#define X(constant, name, argument, help) {name, argument, help},
#include "cli/user_options.def"
#undef X
};

static const struct {
    int number;
    const char *meaning;
} statuses[] = {
#define X(constant, number, meaning) {number, meaning},
#include "cli/exit_status.def"
#undef X
};

/* @text in lines of WIDTH characters, indented. */
static void wrap(FILE *out, const char *text)
{
    size_t column = 0;

    while (*text) {
        size_t len = strcspn(text, " ");

        if (column && column + 1 + len > WIDTH) {
            fputc('\n', out);
            column = 0;
        }
        if (!column)
            column = (size_t)fprintf(out, "%*s", INDENT, "");
        else
            column += (size_t)fprintf(out, " ");
        column += (size_t)fprintf(out, "%.*s", (int)len, text);
        text += len;
        while (*text == ' ')
            text++;
    }
    fputc('\n', out);
}

static void print_statuses(FILE *out)
{
    fprintf(out, "Exit status:\n");
    for (size_t i = 0; i < ARRAY_SIZE(statuses); i++)
        fprintf(out, "  %d      %s\n", statuses[i].number, statuses[i].meaning);
    fprintf(out, "  128+N  signal N ended the run\n");
}

void cli_print_help(FILE *out)
{
    fprintf(out, "Triode %s, a virtual machine monitor with its own x86-64 CPU\n\nUsage:\n",
            TRIODE_VERSION);
    for (size_t i = 0; i < ARRAY_SIZE(commands); i++)
        fprintf(out, "  triode %s%s%s\n      %s\n", commands[i].name,
                *commands[i].arguments ? " " : "", commands[i].arguments, commands[i].help);
    fprintf(out,
            "  triode --version\n  triode --help\n  triode COMMAND --help\n"
            "      all options of a command; \"triode man | man -l -\" shows the manual page\n\n");
    print_statuses(out);
}

static void print_options(FILE *out, const struct option *options, size_t n)
{
    fprintf(out, "\nOptions:\n");
    for (size_t i = 0; i < n; i++) {
        fprintf(out, "  --%s%s%s\n", options[i].name, options[i].argument ? " " : "",
                options[i].argument ? options[i].argument : "");
        wrap(out, options[i].help);
    }
}

static void print_run_help(FILE *out)
{
    print_options(out, run_options, ARRAY_SIZE(run_options));
    fprintf(out, "\nEvents for --trace, besides all:\n");
    for (unsigned i = 0; trace_name(i); i++)
        fprintf(out, "  %-10s %s\n", trace_name(i), trace_help(i));
    fprintf(out, "\nStages for --dump: " STAGES "\n\n"
                 "While a guest runs on the terminal: Ctrl-A X quits, Ctrl-A H lists keys.\n\n");
    print_statuses(out);
}

static void print_user_help(FILE *out)
{
    print_options(out, user_options, ARRAY_SIZE(user_options));
    fprintf(out,
            "\n\"triode run --help\" lists the events for --trace and the stages for --dump.\n\n"
            "Exit status:\n");
    wrap(out, USER_STATUS);
}

void cli_print_command_help(FILE *out, const char *command)
{
    for (size_t i = 0; i < ARRAY_SIZE(commands); i++)
        if (!strcmp(commands[i].name, command))
            fprintf(out, "Usage: triode %s%s%s\n\n%c%s.\n", command,
                    *commands[i].arguments ? " " : "", commands[i].arguments,
                    toupper(*commands[i].help), commands[i].help + 1);
    if (!strcmp(command, "run"))
        print_run_help(out);
    if (!strcmp(command, "user"))
        print_user_help(out);
}

/* Text of a manual page: a dash is not a hyphen, and a line must not start with a dot. */
static void roff(FILE *out, const char *text)
{
    for (; *text; text++) {
        if (*text == '-')
            fputs("\\-", out);
        else if (*text == '\\')
            fputs("\\e", out);
        else
            fputc(*text, out);
    }
    fputc('\n', out);
}

static void man_options(const char *title, const struct option *options, size_t n)
{
    printf(".SH %s\n", title);
    for (size_t i = 0; i < n; i++) {
        printf(".TP\n.B \\-\\-%s", options[i].name);
        if (options[i].argument) {
            printf(" \\fI");
            for (const char *c = options[i].argument; *c; c++)
                *c == '-' ? printf("\\-") : putchar(*c);
            printf("\\fR");
        }
        putchar('\n');
        roff(stdout, options[i].help);
    }
}

int cli_cmd_man(int argc, char **argv)
{
    (void)argc, (void)argv;
    printf(".TH TRIODE 1 \"\" \"Triode %s\" \"User Commands\"\n"
           ".SH NAME\ntriode \\- virtual machine monitor with its own x86\\-64 CPU\n"
           ".SH SYNOPSIS\n",
           TRIODE_VERSION);
    for (size_t i = 0; i < ARRAY_SIZE(commands); i++)
        printf(".B triode %s\n%s%s.br\n", commands[i].name, commands[i].arguments,
               *commands[i].arguments ? "\n" : "");
    printf(".SH COMMANDS\n");
    for (size_t i = 0; i < ARRAY_SIZE(commands); i++) {
        printf(".TP\n.B %s\n", commands[i].name);
        roff(stdout, commands[i].help);
    }
    man_options("OPTIONS OF RUN", run_options, ARRAY_SIZE(run_options));
    man_options("OPTIONS OF USER", user_options, ARRAY_SIZE(user_options));
    printf(".SH TRACE EVENTS\n");
    for (unsigned i = 0; trace_name(i); i++) {
        printf(".TP\n.B %s\n", trace_name(i));
        roff(stdout, trace_help(i));
    }
    printf(".TP\n.B all\nall of these\n.SH DUMP STAGES\n" STAGES "\n"
           ".SH KEYS\nOn a terminal: Ctrl\\-A X quits, Ctrl\\-A B sends a break, Ctrl\\-A H lists "
           "the keys, Ctrl\\-A Ctrl\\-A sends Ctrl\\-A.\n.SH EXIT STATUS\n");
    for (size_t i = 0; i < ARRAY_SIZE(statuses); i++) {
        printf(".TP\n.B %d\n", statuses[i].number);
        roff(stdout, statuses[i].meaning);
    }
    printf(".TP\n.B 128+N\nsignal N ended the run\n.PP\nOf user: ");
    roff(stdout, USER_STATUS);
    printf(".SH ENVIRONMENT\n.TP\n.B TRIODE_GUESTS\nfolder with the default guest\n");
    return CLI_OK;
}
