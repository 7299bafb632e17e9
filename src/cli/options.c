/* Parsing of `triode run`'s options and of their values. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "cli/cli.h"
#include "dbt/dbt.h"

static const struct {
    const char *name;
    bool takes_argument;
} table[] = {
#define X(constant, name, argument, help) {name, argument != NULL},
#include "cli/options.def"
#undef X
};

const char *cli_option_name(enum cli_option option)
{
    return table[option].name;
}

static int find(const char *name, size_t len)
{
    for (int i = 0; i < CLI_OPTIONS; i++)
        if (strlen(table[i].name) == len && !strncmp(table[i].name, name, len))
            return i;
    return -1;
}

int cli_parse_options(int argc, char **argv, struct cli_options *options, struct err *err)
{
    memset(options, 0, sizeof(*options));
    for (int i = 1; i < argc; i++) {
        const char *word = argv[i], *value = NULL;
        size_t len;
        int option;

        if (!strcmp(word, "-h"))
            word = "--help";
        if (strncmp(word, "--", 2))
            return err_set(err, -EINVAL, "\"%s\" is not an option; see triode run --help", word);
        word += 2;
        len = strcspn(word, "=");
        option = find(word, len);
        if (option < 0)
            return err_set(err, -EINVAL, "there is no option --%.*s; see triode run --help",
                           (int)len, word);
        if (word[len])
            value = word + len + 1;
        if (!table[option].takes_argument) {
            if (value)
                return err_set(err, -EINVAL, "--%s takes no argument", table[option].name);
            value = "";
        } else if (!value) {
            if (i + 1 == argc)
                return err_set(err, -EINVAL, "--%s needs an argument", table[option].name);
            value = argv[++i];
        }
        options->value[option] = value;
        if (option == CLI_OPTION_DISK) {
            if (options->disk_count == CLI_MAX_DISKS)
                return err_set(err, -EINVAL, "--disk: more than %u disks", CLI_MAX_DISKS);
            options->disks[options->disk_count++] = value;
        }
    }
    return 0;
}

int cli_parse_switch(const char *name, const char *text, bool *value, struct err *err)
{
    if (!text)
        return 0;
    if (strcmp(text, "on") && strcmp(text, "off"))
        return err_set(err, -EINVAL, "--%s takes on or off, not \"%s\"", name, text);
    *value = !strcmp(text, "on");
    return 0;
}

static bool cut_suffix(char *text, const char *suffix)
{
    size_t len = strlen(text), end = strlen(suffix);

    if (len < end || strcmp(text + len - end, suffix))
        return false;
    text[len - end] = '\0';
    return true;
}

/* Words are taken off the end, so that a path may have commas. */
int cli_parse_disk(char *text, bool *read_only, bool *ide, struct err *err)
{
    *read_only = *ide = false;
    for (;;) {
        if (cut_suffix(text, ",ro"))
            *read_only = true;
        else if (cut_suffix(text, ",if=ide"))
            *ide = true;
        else if (cut_suffix(text, ",if=virtio"))
            *ide = false;
        else
            break;
    }
    return *text ? 0 : err_set(err, -EINVAL, "--disk needs a path");
}

int cli_parse_size(const char *name, const char *text, u64 *bytes, struct err *err)
{
    static const char suffixes[] = "KMGT";
    const char *suffix = "M";
    u64 number, unit;
    char *end;

    errno = 0;
    number = strtoull(text, &end, 10);
    if (end == text || *text < '0' || *text > '9' || errno)
        return err_set(err, -EINVAL, "--%s: \"%s\" is not a size", name, text);
    if (*end) {
        char upper = (char)(*end & ~0x20);

        suffix = strchr(suffixes, upper);
        if (!suffix || end[1])
            return err_set(err, -EINVAL, "--%s: \"%s\" is not a size (suffixes are K, M, G, T)",
                           name, text);
    }
    unit = KiB;
    for (const char *s = suffixes; *s != *suffix; s++)
        unit *= KiB;
    if (__builtin_mul_overflow(number, unit, bytes))
        return err_set(err, -EINVAL, "--%s: %s is more than 64 bits can count", name, text);
    return 0;
}

static int parse_stage(const char *name, size_t len, u32 *stages, struct err *err)
{
    static const struct {
        const char *name;
        u32 bits;
    } known[] = {
        {"guest", DBT_DUMP_GUEST},
        {"lift", DBT_DUMP_LIFT},
        {"opt", DBT_DUMP_OPT},
        {"host", DBT_DUMP_HOST},
        {"all", DBT_DUMP_GUEST | DBT_DUMP_LIFT | DBT_DUMP_OPT | DBT_DUMP_HOST},
    };

    for (size_t i = 0; i < ARRAY_SIZE(known); i++) {
        if (strlen(known[i].name) == len && !strncmp(known[i].name, name, len)) {
            *stages |= known[i].bits;
            return 0;
        }
    }
    return err_set(err, -EINVAL, "--dump: there is no stage \"%.*s\" (guest, lift, opt, host, all)",
                   (int)len, name);
}

int cli_parse_dump(const char *text, u32 *stages, u64 *first, u64 *last, struct err *err)
{
    const char *at = text;
    char *end;

    *stages = 0;
    *first = 0;
    *last = ~0ull;
    for (;;) {
        size_t len = strcspn(at, ",:");
        int ret = parse_stage(at, len, stages, err);

        if (ret)
            return ret;
        at += len;
        if (*at != ',')
            break;
        at++;
    }
    if (!*at)
        return 0;
    errno = 0;
    *first = *last = strtoull(at + 1, &end, 16);
    if (end != at + 1 && *end == '-') {
        at = end;
        *last = strtoull(at + 1, &end, 16);
    }
    if (end == at + 1 || *end || errno || *last < *first)
        return err_set(err, -EINVAL,
                       "--dump: \"%s\" does not end in ADDRESS or ADDRESS-ADDRESS, "
                       "hexadecimal",
                       text);
    return 0;
}
