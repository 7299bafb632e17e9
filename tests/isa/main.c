/* Runs the cases, compares, and reports what differs. */
#include "isa.h"

#include <dirent.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "guest/x86/x86.h"

struct options {
    unsigned cases; /* a row, engine and code size */
    u64 seed;
    const char *row;
    bool engine[ISA_ENGINES], bits64, bits32, bits16;
    unsigned failures_shown;
    unsigned sequences, length; /* instead of rows, for each code size */
    const char *regressions;    /* a folder, instead of both */
    const char *keep;           /* where what differs is written to */
    bool coverage;
};

/* Of a row, for each code size: cases, and those that ended behind the instruction. */
struct covered {
    unsigned cases[3], ended[3];
};

static const char *const engines[ISA_ENGINES] = {"interpreter", "translator", "regions"};

struct run {
    const struct options *options;
    struct isa_native *native;
    struct isa_emulator *emulator[ISA_ENGINES]; /* NULL: not asked for */
    struct isa_case cases[ISA_BATCH];
    unsigned count;
    const struct isa_result *host; /* of the batch, until a single case is run */
    struct isa_result ours[ISA_BATCH];
    u64 done, failures, died;
    u64 unsteady; /* the host itself gave two answers */
    unsigned reports, kept;
    u64 ended;                   /* sequences without an exception */
    const struct x86_row *shown; /* one report a row is enough */
    struct covered *covered;
    struct isa_result host1, ours1; /* of the case that is being looked at */
};

static unsigned bits_index(unsigned bits)
{
    return bits == 64 ? 2 : bits == 32;
}

/* --- a case that differs -------------------------------------------------------------------- */

static bool differs(struct run *run, const struct isa_case *c, unsigned e)
{
    run->host1 = *isa_native_run(run->native, c, 1);
    if (run->host1.died)
        return false;
    isa_emulate(run->emulator[e], c, 1, &run->ours1);
    return !isa_same(c, &run->host1, &run->ours1);
}

/* Zeroes what is not needed for a difference: memory by ever smaller pieces, registers. */
static void shrink_state(struct run *run, struct isa_case *c, unsigned e)
{
    u8 saved[ISA_DATA_SIZE];

    for (unsigned part = 4096; part >= 32; part /= 4) {
        for (unsigned at = 0; at < ISA_DATA_SIZE; at += part) {
            memcpy(saved, isa_pattern, ISA_DATA_SIZE);
            memset(isa_pattern + at, 0, part);
            if (memcmp(saved, isa_pattern, ISA_DATA_SIZE) != 0 && !differs(run, c, e))
                memcpy(isa_pattern, saved, ISA_DATA_SIZE);
        }
    }
    for (unsigned i = 0; i < 16; i++) {
        u64 was = c->in.gpr[i];

        c->in.gpr[i] = 0;
        if (was && !differs(run, c, e))
            c->in.gpr[i] = was;
    }
    for (unsigned at = 32; at < ISA_FX; at += 16) {
        u8 was[16];

        memcpy(was, c->in.fx + at, 16);
        memset(c->in.fx + at, 0, 16);
        if (!differs(run, c, e))
            memcpy(c->in.fx + at, was, 16);
    }
    differs(run, c, e);
}

static void keep(struct run *run, const struct isa_case *c, unsigned e)
{
    char path[512], comment[200];

    if (!run->options->keep)
        return;
    snprintf(path, sizeof(path), "%s/%s-%u-%" PRIu64 "-%u", run->options->keep, c->row->name,
             c->bits, run->options->seed, run->kept++);
    snprintf(comment, sizeof(comment), "%s, %u-bit code, by the %s", c->row->name, c->bits,
             engines[e]);
    if (isa_save(c, path, comment))
        fprintf(stderr, "  kept as %s\n", path);
}

/* What the engine makes of it, stage by stage. */
static void dump(const struct isa_case *c, unsigned e)
{
    struct isa_emulator *emulator = isa_emulator_create((enum isa_engine)e, true);
    static struct isa_result result;

    isa_emulate(emulator, c, 1, &result);
    isa_emulator_destroy(emulator);
}

static void report(struct run *run, struct isa_case *c, unsigned e)
{
    u8 pattern[ISA_DATA_SIZE];

    memcpy(pattern, isa_pattern, ISA_DATA_SIZE);
    if (differs(run, c, e))
        shrink_state(run, c, e);
    else
        fprintf(stderr, "\nnot reproduced alone:\n");
    fprintf(stderr, "\n%s, %u-bit, %s:\n", c->row->name, c->bits, engines[e]);
    isa_print_code(c);
    isa_print_difference(c, &run->host1, &run->ours1);
    dump(c, e);
    keep(run, c, e);
    memcpy(isa_pattern, pattern, ISA_DATA_SIZE);
}

/* --- rows ----------------------------------------------------------------------------------- */

static void compare(struct run *run, unsigned e)
{
    for (unsigned i = 0; i < run->count; i++) {
        struct isa_case *c = &run->cases[i];

        if (run->host[i].died || isa_same(c, &run->host[i], &run->ours[i]))
            continue;
        run->host1 = run->host[i];
        run->host = isa_native_run(run->native, run->cases, run->count);
        if (isa_same(c, &run->host[i], &run->ours[i])) {
            fprintf(stderr, "\n%s: the host (here \"ours\") answers otherwise when asked again:\n",
                    c->row->name);
            isa_print_code(c);
            isa_print_difference(c, &run->host1, &run->host[i]);
            run->unsteady++;
            continue;
        }
        run->failures++;
        if (run->shown == c->row || run->reports++ >= run->options->failures_shown)
            continue;
        run->shown = c->row;
        run->host1 = run->host[i];
        run->ours1 = run->ours[i];
        report(run, c, e);
        run->host = isa_native_run(run->native, run->cases, run->count);
    }
}

static void flush(struct run *run)
{
    if (!run->count)
        return;
    run->host = isa_native_run(run->native, run->cases, run->count);
    for (unsigned i = 0; i < run->count; i++) {
        const struct isa_case *c = &run->cases[i];
        struct covered *covered = &run->covered[c->row - x86_rows];

        if (run->host[i].died) {
            fprintf(stderr, "the host did not survive:\n");
            isa_print_code(c);
            run->died++;
        }
        covered->cases[bits_index(c->bits)]++;
        covered->ended[bits_index(c->bits)] += run->host[i].vector == X86_BP;
    }
    for (unsigned e = 0; e < ISA_ENGINES; e++) {
        if (!run->emulator[e])
            continue;
        isa_emulate(run->emulator[e], run->cases, run->count, run->ours);
        compare(run, e);
    }
    run->done += run->count;
    run->count = 0;
}

static void test_row(struct run *run, const struct x86_row *row, unsigned bits)
{
    unsigned made = 0;

    if (row->flags & (bits == 64 ? X86_ROW_I64 : X86_ROW_O64))
        return;
    for (unsigned tries = 0; tries < run->options->cases * 8 && made < run->options->cases;
         tries++) {
        if (!isa_generate(&run->cases[run->count], row, bits, run->count))
            continue;
        made++;
        if (++run->count == ISA_BATCH)
            flush(run);
    }
    if (!made)
        fprintf(stderr, "no case for %s (opcode %02x) in %u-bit code\n", row->name, row->opcode,
                bits);
}

static void test_rows(struct run *run)
{
    const struct options *o = run->options;

    for (unsigned r = 0; r < x86_rows_count; r++) {
        if (!isa_testable(&x86_rows[r]) || (o->row && strcmp(o->row, x86_rows[r].name) != 0))
            continue;
        if (o->bits64)
            test_row(run, &x86_rows[r], 64);
        if (o->bits32)
            test_row(run, &x86_rows[r], 32);
        if (o->bits16)
            test_row(run, &x86_rows[r], 16);
    }
    flush(run);
}

/* Which rows were covered by how many cases, and how many of these did what they are for. */
static void print_coverage(const struct run *run)
{
    static const char *const maps[X86_MAPS] = {"", "0f ", "0f38 ", "0f3a "};
    unsigned rows = 0, system = 0, never = 0;

    printf("%-24s %10s %10s %10s %10s %10s %10s\n", "row", "16", "done", "32", "done", "64",
           "done");
    for (unsigned r = 0; r < x86_rows_count; r++) {
        const struct x86_row *row = &x86_rows[r];
        const struct covered *c = &run->covered[r];
        char name[64];

        if (!isa_testable(row)) {
            system++;
            continue;
        }
        rows++;
        never += !(c->ended[0] + c->ended[1] + c->ended[2]);
        snprintf(name, sizeof(name), "%s%02x %s", maps[row->map], row->opcode, row->name);
        printf("%-24s", name);
        for (unsigned b = 0; b < 3; b++)
            printf(" %10u %10u", c->cases[b], c->ended[b]);
        putchar('\n');
    }
    printf("%u rows; %u of them never ran to their end; %u more are of the system\n", rows, never,
           system);
}

/* --- kept cases ----------------------------------------------------------------------------- */

static int not_hidden(const struct dirent *entry)
{
    return entry->d_name[0] != '.';
}

static void test_kept(struct run *run, const char *path)
{
    struct isa_case *c = &run->cases[0];

    if (!isa_load(c, path)) {
        run->failures++;
        return;
    }
    run->done++;
    for (unsigned e = 0; e < ISA_ENGINES; e++) {
        if (!run->emulator[e] || !differs(run, c, e))
            continue;
        run->failures++;
        fprintf(stderr, "\n%s, %s:\n", path, engines[e]);
        isa_print_code(c);
        isa_print_difference(c, &run->host1, &run->ours1);
        dump(c, e);
    }
    run->died += run->host1.died;
    free((void *)c->text);
}

static void test_regressions(struct run *run, const char *folder)
{
    struct dirent **entries;
    int n = scandir(folder, &entries, not_hidden, alphasort);

    if (n < 0) {
        perror(folder);
        return;
    }
    for (int i = 0; i < n; i++) {
        char path[512];

        snprintf(path, sizeof(path), "%s/%s", folder, entries[i]->d_name);
        test_kept(run, path);
        free(entries[i]);
    }
    free(entries);
}

/* --- sequences ------------------------------------------------------------------------------ */

static bool sequence_differs(struct run *run, struct isa_sequence *s, unsigned e)
{
    return isa_assemble(s) && differs(run, &s->c, e);
}

static void leave_out(struct isa_sequence *s, unsigned first, unsigned count)
{
    for (unsigned i = first; i < first + count && i < s->count; i++) {
        s->items[i].off = true;
        for (unsigned k = 0; s->items[i].group && k < s->count; k++)
            s->items[k].off |= s->items[k].group == s->items[i].group;
    }
}

/* Leaves out all that is not needed for a difference: halves, quarters, ... single instructions. */
static void shrink(struct run *run, struct isa_sequence *s, unsigned e)
{
    static struct isa_item items[ISA_ITEMS];

    for (unsigned part = s->count / 2; part; part = part > 1 ? (part + 1) / 2 : 0) {
        for (unsigned first = 0; first < s->count; first += part) {
            memcpy(items, s->items, sizeof(items));
            leave_out(s, first, part);
            if (!sequence_differs(run, s, e))
                memcpy(s->items, items, sizeof(items));
        }
    }
    isa_assemble(s);
}

/* False if some differ: then results and code are no longer those of the batch. */
static bool compare_sequences(struct run *run, struct isa_sequence *sequences, unsigned e)
{
    bool failed[ISA_LONG_BATCH], good = true;

    isa_emulate(run->emulator[e], run->cases, run->count, run->ours);
    for (unsigned i = 0; i < run->count; i++)
        failed[i] = !run->host[i].died && !isa_same(&run->cases[i], &run->host[i], &run->ours[i]);
    for (unsigned i = 0; i < run->count; i++) {
        if (!failed[i])
            continue;
        good = false;
        run->failures++;
        if (run->reports++ >= run->options->failures_shown)
            continue;
        run->host1 = run->host[i];
        run->ours1 = run->ours[i];
        shrink(run, &sequences[i], e);
        report(run, &sequences[i].c, e);
    }
    return good;
}

static void test_sequences(struct run *run, struct isa_sequence *sequences, unsigned bits)
{
    /* 16-bit code has 64 KiB for all. */
    unsigned slot = run->options->length > 300 ? ISA_LONG_SLOT : ISA_LONG_SLOT / 4;
    unsigned batch = bits == 16 ? ISA_CODE16_LIMIT / slot : ISA_LONG_BATCH;

    for (unsigned done = 0; done < run->options->sequences; done += run->count) {
        run->count = 0;
        while (run->count < batch && done + run->count < run->options->sequences) {
            struct isa_sequence *s = &sequences[run->count];
            unsigned length = 10 + isa_random(run->options->length - 9);

            if (isa_generate_sequence(s, bits, length, slot, run->count))
                run->cases[run->count++] = s->c;
        }
        run->host = isa_native_run(run->native, run->cases, run->count);
        for (unsigned i = 0; i < run->count; i++) {
            const struct isa_case *c = &run->cases[i];

            run->died += run->host[i].died;
            run->ended += run->host[i].vector == X86_BP &&
                          run->host[i].out.rip == c->in.rip + c->text_size + 1;
        }
        for (unsigned e = 0; e < ISA_ENGINES; e++)
            if (run->emulator[e] && !compare_sequences(run, sequences, e))
                break;
        run->done += run->count;
    }
    run->count = 0;
}

static void test_all_sequences(struct run *run)
{
    const struct options *o = run->options;
    struct isa_sequence *sequences = calloc(ISA_LONG_BATCH, sizeof(*sequences));

    if (!sequences)
        exit(2);
    if (o->bits16)
        test_sequences(run, sequences, 16);
    if (o->bits32)
        test_sequences(run, sequences, 32);
    if (o->bits64)
        test_sequences(run, sequences, 64);
    free(sequences);
}

/* --- options -------------------------------------------------------------------------------- */

static u64 entropy(void)
{
    u64 v = 1;

    if (getrandom(&v, 4, 0) != 4)
        perror("getrandom");
    return v;
}

static int parse(int argc, char **argv, struct options *o)
{
    static const struct option longs[] = {
        {"cases", required_argument, NULL, 'c'},       {"seed", required_argument, NULL, 's'},
        {"row", required_argument, NULL, 'r'},         {"bits", required_argument, NULL, 'b'},
        {"engine", required_argument, NULL, 'e'},      {"show", required_argument, NULL, 'f'},
        {"sequences", required_argument, NULL, 'q'},   {"length", required_argument, NULL, 'l'},
        {"regressions", required_argument, NULL, 'R'}, {"keep", required_argument, NULL, 'k'},
        {"coverage", no_argument, NULL, 'C'},          {0},
    };
    int c;

    while ((c = getopt_long(argc, argv, "", longs, NULL)) != -1) {
        switch (c) {
        case 'c':
            o->cases = (unsigned)strtoul(optarg, NULL, 0);
            break;
        case 's':
            o->seed = strcmp(optarg, "random") ? strtoull(optarg, NULL, 0) : entropy();
            break;
        case 'r':
            o->row = optarg;
            break;
        case 'b':
            o->bits64 = atoi(optarg) == 64;
            o->bits32 = atoi(optarg) == 32;
            o->bits16 = atoi(optarg) == 16;
            break;
        case 'e':
            for (unsigned e = 0; e < ISA_ENGINES; e++)
                o->engine[e] = !strcmp(optarg, engines[e]);
            break;
        case 'f':
            o->failures_shown = (unsigned)strtoul(optarg, NULL, 0);
            break;
        case 'q':
            o->sequences = (unsigned)strtoul(optarg, NULL, 0);
            break;
        case 'l':
            o->length = (unsigned)strtoul(optarg, NULL, 0);
            if (o->length < 10 || o->length > ISA_ITEMS - 100)
                return -1;
            break;
        case 'R':
            o->regressions = optarg;
            break;
        case 'k':
            o->keep = optarg;
            break;
        case 'C':
            o->coverage = true;
            break;
        default:
            fprintf(stderr,
                    "usage: test_isa [--cases N] [--seed N|random] [--row NAME] "
                    "[--bits 16|32|64] [--engine interpreter|translator|regions] [--show N] "
                    "[--sequences N [--length 10..%u]] [--regressions FOLDER] [--keep FOLDER] "
                    "[--coverage]\n",
                    ISA_ITEMS - 100);
            return -1;
        }
    }
    return 0;
}

int main(int argc, char **argv)
{
    struct options options = {
        .cases = 60,
        .seed = 1,
        .engine = {true, true, true},
        .bits64 = true,
        .bits32 = true,
        .bits16 = true,
        .failures_shown = 20,
        .length = 300,
    };
    struct run *run = calloc(1, sizeof(*run));

    if (!run || parse(argc, argv, &options))
        return 2;
    run->covered = calloc(x86_rows_count, sizeof(*run->covered));
    if (!run->covered)
        return 2;
    isa_seed(options.seed);
    isa_make_pattern();
    run->options = &options;
    run->native = isa_native_create();
    for (unsigned e = 0; e < ISA_ENGINES; e++)
        if (options.engine[e] && (e != ISA_REGIONS || options.sequences || options.regressions))
            run->emulator[e] = isa_emulator_create((enum isa_engine)e, false);
    if (options.regressions)
        test_regressions(run, options.regressions);
    else if (options.sequences)
        test_all_sequences(run);
    else
        test_rows(run);
    if (options.coverage)
        print_coverage(run);
    printf("%" PRIu64 " cases, %" PRIu64 " differ, %" PRIu64 " not run natively; seed %" PRIu64
           "\n",
           run->done, run->failures, run->died, options.seed);
    if (run->unsteady)
        printf("%" PRIu64 " times the host gave two answers\n", run->unsteady);
    if (options.sequences)
        printf("%" PRIu64 " sequences ran to their end\n", run->ended);
    if (run->emulator[ISA_REGIONS])
        printf("%" PRIu64 " regions\n", isa_emulator_regions(run->emulator[ISA_REGIONS]));
    for (unsigned e = 0; e < ISA_ENGINES; e++)
        if (run->emulator[e])
            isa_emulator_destroy(run->emulator[e]);
    isa_native_destroy(run->native);
    return run->failures || run->died || !run->done;
}
