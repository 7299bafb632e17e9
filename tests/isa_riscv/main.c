/* Runs the cases, compares, and reports what differs. Exits with 77 when there is no qemu-riscv64
 * to compare with. */
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "isa_riscv.h"

struct options {
    unsigned cases, sequences, length, failures_shown;
    u64 seed;
    bool engine[ISA_ENGINES], illegal;
    const char *only;
};

static const char *const engines[ISA_ENGINES] = {"interpreter", "translator", "regions"};

static struct isa_case cases[ISA_BATCH];
static struct isa_area theirs[ISA_BATCH], ours[ISA_BATCH];
static struct isa_program program;
static struct isa_emulator *emulators[ISA_ENGINES]; /* NULL: not asked for */
static unsigned printed, failures;

static void show(const char *kind, unsigned n, u64 in, u64 expected, u64 got)
{
    if (expected != got)
        printf("  %s%-3u %016llx -> expected %016llx, got %016llx\n", kind, n,
               (unsigned long long)in, (unsigned long long)expected, (unsigned long long)got);
}

/* Of case @i of the program that was run last, with all stages of its translation. */
static void report(const struct isa_case *c, unsigned i, unsigned e)
{
    const struct isa_area *in = &c->in, *a = &theirs[i], *b = &ours[i];
    struct isa_emulator *dumping;

    printf("\n%s:\n", engines[e]);
    isa_dump(&program, isa_case_pc(i), c->count * 4);
    printf("  fcsr on entry %02llx\n", (unsigned long long)in->fcsr);
    for (unsigned n = 0; n < 32; n++)
        show("x", n, in->x[n], a->x[n], b->x[n]);
    for (unsigned n = 0; n < 32; n++)
        show("f", n, in->f[n], a->f[n], b->f[n]);
    for (unsigned n = 0; n < 32 && c->count < 3; n++)
        printf("  f%u = %016llx%s", n, (unsigned long long)in->f[n], n % 4 == 3 ? "\n" : "");
    show("fcsr", 0, in->fcsr, a->fcsr, b->fcsr);
    show("signal", 0, 0, a->fault, b->fault);
    for (unsigned n = 0; n < ISA_WINDOW; n++)
        show("data", n, in->data[n], a->data[n], b->data[n]);
    fflush(stdout);
    if (i)
        return;
    dumping = isa_emulator_create((enum isa_engine)e, true);
    isa_emulate(dumping, &program, ours);
    isa_emulator_destroy(dumping);
}

/* The oracle's side of a batch; exits if there is no oracle. */
static void run_oracle(const struct isa_case *c, unsigned count)
{
    int ret;

    isa_make_program(&program, c, count);
    ret = isa_oracle(&program, theirs);
    if (ret)
        exit(ret > 0 ? 77 : 1);
}

static void run_engine(unsigned e)
{
    if (isa_emulate(emulators[e], &program, ours))
        exit(1);
}

static bool differs_alone(const struct isa_case *c, unsigned e)
{
    run_oracle(c, 1);
    run_engine(e);
    return memcmp(&theirs[0], &ours[0], sizeof(ours[0])) != 0;
}

static void moved(struct isa_area *a, s64 by)
{
    for (unsigned i = 1; i < 32; i++)
        if (a->x[i] - ISA_DATA < ISA_DATA_SIZE)
            a->x[i] += (u64)by;
}

static void test_cases(const struct options *o)
{
    for (unsigned done = 0, batch = 0; done < o->cases; batch++) {
        unsigned count = o->cases - done < ISA_BATCH ? o->cases - done : ISA_BATCH;

        for (unsigned i = 0; i < count; i++)
            isa_generate(&cases[i], i, o->only, o->illegal);
        run_oracle(cases, count);
        for (unsigned e = 0; e < ISA_ENGINES; e++) {
            if (!emulators[e])
                continue;
            run_engine(e);
            for (unsigned i = 0; i < count; i++) {
                if (!memcmp(&theirs[i], &ours[i], sizeof(theirs[i])))
                    continue;
                failures++;
                if (printed++ < o->failures_shown) {
                    printf("case %u of batch %u, seed %llu:", i, batch,
                           (unsigned long long)o->seed);
                    report(&cases[i], i, e);
                }
            }
        }
        done += count;
    }
}

/* Leaves out all that is not needed for a difference: halves, quarters, ... single instructions. */
static void shrink(struct isa_sequence *s, unsigned e)
{
    static struct isa_item saved[ISA_ITEMS];

    for (unsigned part = s->count / 2; part; part = part > 1 ? (part + 1) / 2 : 0) {
        for (unsigned first = 0; first < s->count; first += part) {
            memcpy(saved, s->items, sizeof(saved));
            for (unsigned i = first; i < first + part && i < s->count; i++) {
                s->items[i].off = true;
                for (unsigned k = 0; s->items[i].group && k < s->count; k++)
                    s->items[k].off |= s->items[k].group == s->items[i].group;
            }
            if (!isa_assemble(s) || !differs_alone(&s->c, e))
                memcpy(s->items, saved, sizeof(saved));
        }
    }
    isa_assemble(s);
}

static void report_sequence(struct isa_sequence *s, unsigned number, unsigned e)
{
    /* Alone it is the first case: its pointers go there. */
    moved(&s->c.in, (s64)(isa_area_address(0) - isa_area_address(number)));
    if (differs_alone(&s->c, e))
        shrink(s, e);
    else
        printf("\nnot reproduced alone:\n");
    differs_alone(&s->c, e);
    report(&s->c, 0, e);
}

static void test_sequences(const struct options *o)
{
    struct isa_sequence *sequences;
    unsigned batch;

    isa_words = o->length > 300 ? ISA_TEXT_WORDS : ISA_TEXT_WORDS / 4;
    batch = 0xf0000u / (isa_words * 4 + 16); /* JAL reaches so far */
    sequences = calloc(batch, sizeof(*sequences));
    if (!sequences)
        exit(2);
    for (unsigned done = 0; done < o->sequences;) {
        unsigned count = 0;
        bool good = true;

        while (count < batch && done + count < o->sequences) {
            struct isa_sequence *s = &sequences[count];

            if (isa_generate_sequence(s, count, 10 + isa_random(o->length - 9)))
                cases[count++] = s->c;
        }
        run_oracle(cases, count);
        for (unsigned e = 0; e < ISA_ENGINES && good; e++) {
            if (!emulators[e])
                continue;
            run_engine(e);
            for (unsigned i = 0; i < count && good; i++) {
                if (!memcmp(&theirs[i], &ours[i], sizeof(theirs[i])))
                    continue;
                failures++;
                if (printed++ < o->failures_shown) {
                    report_sequence(&sequences[i], i, e);
                    good = false; /* results are no longer those of the batch */
                }
            }
        }
        done += count;
    }
    free(sequences);
}

static int parse(int argc, char **argv, struct options *o)
{
    static const struct option longs[] = {{"cases", required_argument, NULL, 'c'},
                                          {"sequences", required_argument, NULL, 'q'},
                                          {"length", required_argument, NULL, 'l'},
                                          {"seed", required_argument, NULL, 's'},
                                          {"engine", required_argument, NULL, 'e'},
                                          {"only", required_argument, NULL, 'o'},
                                          {"show", required_argument, NULL, 'f'},
                                          {"illegal", no_argument, NULL, 'i'},
                                          {0}};
    int c;

    while ((c = getopt_long(argc, argv, "", longs, NULL)) != -1) {
        if (c == 'c')
            o->cases = (unsigned)strtoul(optarg, NULL, 0);
        else if (c == 'q')
            o->sequences = (unsigned)strtoul(optarg, NULL, 0);
        else if (c == 'l')
            o->length = (unsigned)strtoul(optarg, NULL, 0);
        else if (c == 's')
            o->seed = strtoull(optarg, NULL, 0);
        else if (c == 'f')
            o->failures_shown = (unsigned)strtoul(optarg, NULL, 0);
        else if (c == 'o')
            o->only = optarg;
        else if (c == 'i')
            o->illegal = true;
        for (unsigned e = 0; e < ISA_ENGINES && c == 'e'; e++)
            o->engine[e] = !strcmp(optarg, engines[e]);
        if (c == '?' || o->length < 10 || o->length > ISA_ITEMS - 100) {
            fprintf(stderr,
                    "usage: test_isa_riscv [--cases N] [--seed N] [--only PREFIX] [--illegal] "
                    "[--show N] [--engine interpreter|translator|regions] "
                    "[--sequences N [--length 10..%u]]\n",
                    ISA_ITEMS - 100);
            return -1;
        }
    }
    return 0;
}

int main(int argc, char **argv)
{
    struct options o = {.cases = 20000,
                        .length = 300,
                        .failures_shown = 5,
                        .seed = 1,
                        .engine = {true, true, true}};

    if (parse(argc, argv, &o))
        return 2;
    isa_seed(o.seed);
    for (unsigned e = 0; e < ISA_ENGINES; e++)
        if (o.engine[e] && (e != ISA_REGIONS || o.sequences))
            emulators[e] = isa_emulator_create((enum isa_engine)e, false);
    if (o.sequences)
        test_sequences(&o);
    else
        test_cases(&o);
    for (unsigned e = 0; e < ISA_ENGINES; e++)
        if (emulators[e])
            isa_emulator_destroy(emulators[e]);
    printf("%u %s, %u differ; seed %llu\n", o.sequences ? o.sequences : o.cases,
           o.sequences ? "sequences" : "cases", failures, (unsigned long long)o.seed);
    return failures != 0;
}
