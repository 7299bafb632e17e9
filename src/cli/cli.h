/* The command line: commands, options, exit statuses, the terminal. */
#ifndef TRIODE_CLI_H
#define TRIODE_CLI_H

#include <stdio.h>

#include "base/err.h"
#include "base/types.h"

enum cli_status {
#define X(constant, number, meaning) CLI_##constant = number,
#include "cli/exit_status.def"
#undef X
    CLI_SIGNAL = 128,
};

/* Commands get argv from their own name on and answer an exit status. */
#define X(suffix, name, arguments, help) int cli_cmd_##suffix(int argc, char **argv);
#include "cli/commands.def"
#undef X

/* ---- Options of run ------------------------------------------------------------------------ */

enum cli_option {
#define X(constant, name, argument, help) CLI_OPTION_##constant,
#include "cli/options.def"
#undef X
    CLI_OPTIONS
};

#define CLI_MAX_DISKS 8

/* What the user gave: NULL without the option, "" for one without argument. Points into argv. */
struct cli_options {
    const char *value[CLI_OPTIONS];
    const char *disks[CLI_MAX_DISKS]; /* every --disk, in order */
    unsigned disk_count;
};

/* "--name VALUE" or "--name=VALUE"; an option given twice counts the last time. -EINVAL. */
int cli_parse_options(int argc, char **argv, struct cli_options *options, struct err *err);

const char *cli_option_name(enum cli_option option); /* without its dashes */

/* "on" or "off" into *@value, which keeps its value for NULL. @name is for the sentence. */
int cli_parse_switch(const char *name, const char *text, bool *value, struct err *err);
/* "FILE[,ro]": cuts the path out of @text. */
int cli_parse_disk(char *text, bool *read_only, bool *ide, struct err *err);
/* "512" (MiB), "512M", "2G", ... in bytes. */
int cli_parse_size(const char *name, const char *text, u64 *bytes, struct err *err);
/* "lift,host:0x1000-0x1fff" into DBT_DUMP_* bits and addresses; all addresses without any. */
int cli_parse_dump(const char *text, u32 *stages, u64 *first, u64 *last, struct err *err);

/* ---- Help ----------------------------------------------------------------------------------- */

void cli_print_help(FILE *out);
/* The help of one command: its options, if it has any, and what goes with them. */
void cli_print_command_help(FILE *out, const char *command);

/* ---- The terminal ---------------------------------------------------------------------------- */

/* If @fd is a terminal and we are its foreground job, makes it raw: keys go to the guest one by one
 * and unchanged. It is restored by terminal_restore, at exit, and when a fault kills us. Answers
 * whether it is raw now. */
bool terminal_raw(int fd);

/* Puts the terminal back as it was. Harmless without terminal_raw; may be called in a signal
 * handler. */
void terminal_restore(void);

/* Ctrl-A keys in what is typed. */
struct terminal_keys {
    bool prefix; /* the last key was Ctrl-A */
    void (*quit)(void *opaque);
    void (*line_break)(void *opaque);
    void *opaque;
};

/* Takes Ctrl-A sequences out of @data and acts on them; answers how many bytes are left. */
size_t terminal_filter(void *keys, u8 *data, size_t len);

#endif
