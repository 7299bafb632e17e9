/*
 * test_isa_riscv --engine interpreter|translator [--cases N] [--seed N] [--only PREFIX] [--illegal]
 * Exits with 77 when there is no qemu-riscv64 to compare with.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "isa_riscv.h"

static struct isa_case cases[ISA_BATCH];
static struct isa_area theirs[ISA_BATCH], ours[ISA_BATCH];
static struct isa_program program;
static unsigned printed;

static void show(const char *kind, unsigned n, u64 in, u64 expected, u64 got)
{
    if (expected != got)
        printf("  %s%-3u %016llx -> expected %016llx, got %016llx\n", kind, n,
               (unsigned long long)in, (unsigned long long)expected, (unsigned long long)got);
}

static void report(unsigned i, u64 seed, unsigned batch)
{
    const struct isa_area *in = &cases[i].in, *a = &theirs[i], *b = &ours[i];

    printf("case %u of batch %u, seed %llu:\n", i, batch, (unsigned long long)seed);
    isa_dump(&program, isa_case_pc(i), cases[i].count * 4);
    printf("  fcsr on entry %02llx\n", (unsigned long long)in->fcsr);
    for (unsigned n = 0; n < 32; n++)
        show("x", n, in->x[n], a->x[n], b->x[n]);
    for (unsigned n = 0; n < 32; n++)
        show("f", n, in->f[n], a->f[n], b->f[n]);
    for (unsigned n = 0; n < 32 && cases[i].count < 3; n++)
        printf("  f%u = %016llx%s", n, (unsigned long long)in->f[n], n % 4 == 3 ? "\n" : "");
    show("fcsr", 0, in->fcsr, a->fcsr, b->fcsr);
    show("signal", 0, 0, a->fault, b->fault);
    for (unsigned n = 0; n < ISA_WINDOW; n++)
        show("data", n, in->data[n], a->data[n], b->data[n]);
}

static unsigned compare(unsigned count, u64 seed, unsigned batch)
{
    unsigned bad = 0;

    for (unsigned i = 0; i < count; i++) {
        if (!memcmp(&theirs[i], &ours[i], sizeof(theirs[i])))
            continue;
        bad++;
        if (printed++ < 5)
            report(i, seed, batch);
    }
    return bad;
}

int main(int argc, char **argv)
{
    unsigned total = 20000, batch = 0, bad = 0;
    bool jit = true, illegal = false;
    const char *only = NULL;
    struct isa_emulator *e;
    u64 seed = 1;

    for (int i = 1; i < argc; i++) {
        const char *value = i + 1 < argc ? argv[i + 1] : "";

        if (!strcmp(argv[i], "--illegal")) {
            illegal = true;
            continue;
        }
        if (!strcmp(argv[i], "--engine"))
            jit = !strcmp(value, "translator");
        else if (!strcmp(argv[i], "--cases"))
            total = (unsigned)strtoul(value, NULL, 0);
        else if (!strcmp(argv[i], "--seed"))
            seed = strtoull(value, NULL, 0);
        else if (!strcmp(argv[i], "--only"))
            only = value;
        i++;
    }
    isa_seed(seed);
    e = isa_emulator_create(jit);
    for (unsigned done = 0; done < total; batch++) {
        unsigned count = total - done < ISA_BATCH ? total - done : ISA_BATCH;
        int ret;

        for (unsigned i = 0; i < count; i++)
            isa_generate(&cases[i], i, only, illegal);
        isa_make_program(&program, cases, count);
        ret = isa_oracle(&program, theirs);
        if (ret > 0)
            return 77;
        if (ret || isa_emulate(e, &program, ours))
            return 1;
        bad += compare(count, seed, batch);
        done += count;
    }
    isa_emulator_destroy(e);
    printf("%u cases, %u differ\n", total, bad);
    return bad != 0;
}
