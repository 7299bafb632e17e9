/* Runs the cases, compares, and prints what differs with the instruction's IR. */
#include "isa.h"

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "base/arena.h"
#include "guest/x86/x86.h"

struct options {
    unsigned cases; /* a row, engine and code size */
    u64 seed;
    const char *row;
    bool jit, interpret, bits64, bits32, bits16;
    unsigned failures_shown;
    unsigned sequences, length; /* instead of rows, for each code size */
};

static const char *const names64[16] = {"rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi",
                                        "r8",  "r9",  "r10", "r11", "r12", "r13", "r14", "r15"};

/* RF comes and goes with signals, which do not set ID back; IF is the kernel's. */
#define FLAGS_COMPARED (X86_FLAGS_ARITH | X86_FLAG_DF | X86_FLAG_AC | X86_FLAG_NT)

/* The FXSAVE bytes that count: not the last-instruction pointers, reserved bytes, MXCSR_MASK. */
static bool fx_compared(unsigned at)
{
    if (at >= 160)
        return true;
    if (at >= 32)
        return (at & 15) < 10;
    return at < 5 || (at >= 24 && at < 28);
}

static u32 mxcsr_of(const struct isa_state *s)
{
    u32 mxcsr;

    memcpy(&mxcsr, s->fx + 24, 4);
    return mxcsr;
}

/* A difference in PE alone, with overflow or underflow raised and unmasked: docs/correctness.md. */
static bool only_precision(const struct isa_state *a, const struct isa_state *b)
{
    const u32 pe = 0x20, ou = 0x18;
    u32 mxcsr = mxcsr_of(a);

    return mxcsr & ou & ~(mxcsr >> 7) && (mxcsr ^ mxcsr_of(b)) == pe;
}

static int fx_differs(const struct isa_case *c, const struct isa_state *a,
                      const struct isa_state *b)
{
    for (unsigned i = 0; i < ISA_FX; i++) {
        u8 differing = a->fx[i] ^ b->fx[i];

        if (i == 2 || i == 3)
            differing &= (u8) ~(c->x87_undefined >> 8 * (i - 2));
        if (differing && fx_compared(i) && !(i == 24 && only_precision(a, b)))
            return (int)i;
    }
    return -1;
}

/* Of a misaligned operand that also passes the segment's limit either fault may come first. */
static bool same_vector(const struct isa_case *c, u8 a, u8 b)
{
    bool either = (a == X86_GP || a == X86_SS_FAULT) && (b == X86_GP || b == X86_SS_FAULT);

    return a == b || (either && c->bits == 16 && c->row->flags & (X86_ROW_SSE | X86_ROW_SSEFP));
}

/* The page is all that paging decides; of a long operand CPUs report any byte in it. */
static bool same_address(const struct isa_case *c, u64 a, u64 b)
{
    return c->fault_page_only ? a >> 12 == b >> 12 : a == b;
}

static bool ignored(const struct isa_case *c, unsigned at)
{
    return ISA_DATA + at - c->ignored_at < c->ignored_bytes;
}

/* The first byte of memory that differs, -1 if none. */
static int data_differs(const struct isa_case *c, const u8 *a, const u8 *b)
{
    if (!memcmp(a, b, ISA_DATA_SIZE))
        return -1;
    for (unsigned i = 0; i < ISA_DATA_SIZE; i++)
        if (a[i] != b[i] && !ignored(c, i))
            return (int)i;
    return -1;
}

static bool same(const struct isa_case *c, const struct isa_result *a, const struct isa_result *b)
{
    u64 flags = FLAGS_COMPARED & ~c->undefined;

    if (a->vector != X86_BP)
        flags &= ~c->fault_undefined;
    return same_vector(c, a->vector, b->vector) && a->out.rip == b->out.rip &&
           (a->vector != X86_PF || same_address(c, a->address, b->address)) &&
           !((a->out.rflags ^ b->out.rflags) & flags) &&
           !memcmp(a->out.gpr, b->out.gpr, sizeof(a->out.gpr)) &&
           data_differs(c, a->data, b->data) < 0 && fx_differs(c, &a->out, &b->out) < 0;
}

static void print_flags(const char *what, u64 flags)
{
    static const struct {
        u64 flag;
        char letter;
    } letters[] = {{X86_FLAG_OF, 'O'}, {X86_FLAG_DF, 'D'}, {X86_FLAG_SF, 'S'}, {X86_FLAG_ZF, 'Z'},
                   {X86_FLAG_AF, 'A'}, {X86_FLAG_PF, 'P'}, {X86_FLAG_CF, 'C'}};

    fprintf(stderr, "  %s ", what);
    for (unsigned i = 0; i < ARRAY_SIZE(letters); i++)
        fputc(flags & letters[i].flag ? letters[i].letter : '-', stderr);
}

static void print_code(const struct isa_case *c)
{
    u32 mode = c->bits == 64 ? X86_MODE_CODE64 : c->bits == 32 ? X86_MODE_CODE32 : X86_MODE_CODE16;

    const u8 *code = c->text ? c->text : c->code;
    unsigned size = c->text ? c->text_size : ISA_SLOT;

    for (unsigned at = 0; at < size && (c->text || code[at] != 0xcc);) {
        char text[96];
        int n = x86_guest_ops.disassemble(mode, c->in.rip + at, code + at,
                                          c->text ? ISA_LONG_SLOT - at : ISA_SLOT - at, text,
                                          sizeof(text));

        fprintf(stderr, "    %-40s", text);
        for (int i = 0; i < n; i++)
            fprintf(stderr, " %02x", code[at + (unsigned)i]);
        fputc('\n', stderr);
        at += (unsigned)n;
    }
}

static void print_ir(const struct isa_case *c)
{
    u32 flat = X86_MODE_FLAT | X86_MODE_FLAT_CS;
    u32 mode = X86_MODE_PE | X86_MODE_LMA | X86_MODE_CPL_MASK |
               (c->bits == 64   ? X86_MODE_CODE64 | flat
                : c->bits == 32 ? X86_MODE_CODE32 | X86_MODE_SS32 | flat
                                : X86_MODE_CODE16);
    struct arena arena = {0};
    struct ir_unit unit;
    struct guest_lift lift = {
        .unit = &unit,
        .pc = c->in.rip,
        .code = c->text ? c->text : c->code,
        .avail = c->text ? ISA_LONG_SLOT : ISA_SLOT,
        .mode = mode,
        .max_insns = c->text ? 64 : 8,
    };

    ir_init(&unit, &arena, x86_guest_ops.helpers, x86_guest_ops.nhelpers, x86_guest_ops.pc_slot);
    if (!x86_guest_ops.lift(&lift))
        ir_print(&unit, stderr);
    arena_free(&arena);
}

static void print_fx_line(const char *name, unsigned at, const struct isa_case *c,
                          const struct isa_result *host, const struct isa_result *ours)
{
    const u8 *images[3] = {c->in.fx + at, host->out.fx + at, ours->out.fx + at};
    static const char *const whose[3] = {"", " host ", " ours "};
    u64 words[2];
    bool differs = false;

    fprintf(stderr, "    %s%-2u", name,
            at >= 160  ? (at - 160) / 16
            : at >= 32 ? (at - 32) / 16
                       : at);
    for (unsigned i = 0; i < 3; i++) {
        memcpy(words, images[i], 16);
        fprintf(stderr, "%s %016" PRIx64 "_%016" PRIx64, whose[i], words[1], words[0]);
    }
    for (unsigned i = 0; i < 16; i++)
        differs |= images[1][i] != images[2][i] && fx_compared(at + i);
    fprintf(stderr, "%s\n", differs ? "  <--" : "");
}

static void print_fx(const struct isa_case *c, const struct isa_result *host,
                     const struct isa_result *ours)
{
    bool fpu = c->row->flags & (X86_ROW_FPU | X86_ROW_MMX);

    print_fx_line("fx", 0, c, host, ours);
    print_fx_line("fx", 16, c, host, ours);
    for (unsigned at = fpu ? 32 : 160; at < (fpu ? 160 : ISA_FX); at += 16)
        print_fx_line(fpu ? "st" : "xmm", at, c, host, ours);
}

static void print_difference(const struct isa_case *c, const struct isa_result *host,
                             const struct isa_result *ours)
{
    int fx = fx_differs(c, &host->out, &ours->out), at;

    if (host->vector != ours->vector)
        fprintf(stderr, "  vector: host %u, ours %u\n", host->vector, ours->vector);
    if (host->vector == X86_PF && host->address != ours->address)
        fprintf(stderr, "  fault address: host %" PRIx64 ", ours %" PRIx64 "\n", host->address,
                ours->address);
    if (host->out.rip != ours->out.rip)
        fprintf(stderr, "  rip: host %" PRIx64 ", ours %" PRIx64 "\n", host->out.rip,
                ours->out.rip);
    print_flags("flags before", c->in.rflags);
    print_flags("host", host->out.rflags);
    print_flags("ours", ours->out.rflags);
    print_flags("undefined", c->undefined);
    fprintf(stderr, "  all: host %" PRIx64 " ours %" PRIx64 "\n", host->out.rflags,
            ours->out.rflags);
    for (unsigned i = 0; i < 16; i++)
        fprintf(stderr, "  %-3s %016" PRIx64 " host %016" PRIx64 " ours %016" PRIx64 "%s\n",
                names64[i], c->in.gpr[i], host->out.gpr[i], ours->out.gpr[i],
                host->out.gpr[i] == ours->out.gpr[i] ? "" : "  <--");
    at = data_differs(c, host->data, ours->data);
    if (at >= 0)
        fprintf(stderr, "  memory at %llx: host %02x ours %02x\n", ISA_DATA + (unsigned)at,
                host->data[at], ours->data[at]);
    if (fx >= 0)
        print_fx(c, host, ours);
    if (c->patch_at)
        fprintf(stderr, "  memory before at %" PRIx64 ": %016" PRIx64 "\n", c->patch_at, c->patch);
}

static void report(const struct isa_case *c, const struct isa_result *host,
                   const struct isa_result *ours, const char *engine)
{
    fprintf(stderr, "\n%s, %u-bit, %s:\n", c->row->name, c->bits, engine);
    print_code(c);
    print_difference(c, host, ours);
    print_ir(c);
}

struct run {
    const struct options *options;
    struct isa_native *native;
    struct isa_emulator *emulator[2]; /* interpreter, translator */
    struct isa_case cases[ISA_BATCH];
    unsigned count;
    struct isa_result host[ISA_BATCH], ours[ISA_BATCH];
    unsigned done, failures, died, reports;
    unsigned ended;              /* sequences without an exception */
    const struct x86_row *shown; /* one report a row is enough */
};

static void compare(struct run *run, const char *engine)
{
    for (unsigned i = 0; i < run->count; i++) {
        const struct isa_case *c = &run->cases[i];

        if (run->host[i].died || same(c, &run->host[i], &run->ours[i]))
            continue;
        run->failures++;
        if (run->shown == c->row || run->reports++ >= run->options->failures_shown)
            continue;
        run->shown = c->row;
        report(c, &run->host[i], &run->ours[i], engine);
    }
}

static void flush(struct run *run)
{
    static const char *const engines[] = {"interpreter", "translator"};

    if (!run->count)
        return;
    isa_native_run(run->native, run->cases, run->count, run->host);
    for (unsigned i = 0; i < run->count; i++) {
        if (run->host[i].died) {
            fprintf(stderr, "the host did not survive:\n");
            print_code(&run->cases[i]);
            run->died++;
        }
    }
    for (unsigned e = 0; e < 2; e++) {
        if (!run->emulator[e])
            continue;
        isa_emulate(run->emulator[e], run->cases, run->count, run->ours);
        compare(run, engines[e]);
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

/*
 * Sequences
 */

static bool sequence_differs(struct run *run, struct isa_sequence *s, struct isa_emulator *emulator)
{
    if (!isa_assemble(s))
        return false;
    isa_native_run(run->native, &s->c, 1, run->host);
    if (run->host->died)
        return false;
    isa_emulate(emulator, &s->c, 1, run->ours);
    return !same(&s->c, run->host, run->ours);
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
static void shrink(struct run *run, struct isa_sequence *s, struct isa_emulator *emulator)
{
    struct isa_item items[ISA_ITEMS];

    for (unsigned part = s->count / 2; part; part = part > 1 ? (part + 1) / 2 : 0) {
        for (unsigned first = 0; first < s->count; first += part) {
            memcpy(items, s->items, sizeof(items));
            leave_out(s, first, part);
            if (!sequence_differs(run, s, emulator))
                memcpy(s->items, items, sizeof(items));
        }
    }
    if (!sequence_differs(run, s, emulator))
        fprintf(stderr, "\nnot reproduced alone:\n");
}

/* False if some differ: then results and code are no longer those of the batch. */
static bool compare_sequences(struct run *run, struct isa_sequence *sequences, unsigned e)
{
    static const char *const engines[] = {"interpreter", "translator"};
    bool failed[ISA_LONG_BATCH], good = true;

    isa_emulate(run->emulator[e], run->cases, run->count, run->ours);
    for (unsigned i = 0; i < run->count; i++)
        failed[i] = !run->host[i].died && !same(&run->cases[i], &run->host[i], &run->ours[i]);
    for (unsigned i = 0; i < run->count; i++) {
        if (!failed[i])
            continue;
        good = false;
        run->failures++;
        if (run->reports++ >= run->options->failures_shown)
            continue;
        shrink(run, &sequences[i], run->emulator[e]);
        report(&sequences[i].c, run->host, run->ours, engines[e]);
    }
    return good;
}

static void test_sequences(struct run *run, struct isa_sequence *sequences, unsigned bits)
{
    for (unsigned done = 0; done < run->options->sequences; done += run->count) {
        run->count = 0;
        while (run->count < ISA_LONG_BATCH && done + run->count < run->options->sequences) {
            struct isa_sequence *s = &sequences[run->count];
            unsigned length = 10 + isa_random(run->options->length - 9);

            if (isa_generate_sequence(s, bits, length, run->count))
                run->cases[run->count++] = s->c;
        }
        isa_native_run(run->native, run->cases, run->count, run->host);
        for (unsigned i = 0; i < run->count; i++) {
            const struct isa_case *c = &run->cases[i];

            run->died += run->host[i].died;
            run->ended += run->host[i].vector == X86_BP &&
                          run->host[i].out.rip == c->in.rip + c->text_size + 1;
        }
        for (unsigned e = 0; e < 2; e++)
            if (run->emulator[e] && !compare_sequences(run, sequences, e))
                break;
        run->done += run->count;
    }
    run->count = 0;
}

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
        {"cases", required_argument, NULL, 'c'},
        {"seed", required_argument, NULL, 's'},
        {"row", required_argument, NULL, 'r'},
        {"bits", required_argument, NULL, 'b'},
        {"engine", required_argument, NULL, 'e'},
        {"show", required_argument, NULL, 'f'},
        {"sequences", required_argument, NULL, 'q'},
        {"length", required_argument, NULL, 'l'},
        {0},
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
            o->jit = *optarg != 'i';
            o->interpret = *optarg == 'i';
            break;
        case 'f':
            o->failures_shown = (unsigned)strtoul(optarg, NULL, 0);
            break;
        case 'q':
            o->sequences = (unsigned)strtoul(optarg, NULL, 0);
            break;
        case 'l':
            o->length = (unsigned)strtoul(optarg, NULL, 0);
            if (o->length < 10 || o->length > ISA_ITEMS - 60)
                return -1;
            break;
        default:
            fprintf(stderr,
                    "usage: test_isa [--cases N] [--seed N|random] [--row NAME] "
                    "[--bits 16|32|64] [--engine interpreter|translator] [--show N] "
                    "[--sequences N [--length 10..%u]]\n",
                    ISA_ITEMS - 60);
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
        .jit = true,
        .interpret = true,
        .bits64 = true,
        .bits32 = true,
        .bits16 = true,
        .failures_shown = 20,
        .length = 300,
    };
    struct isa_sequence *sequences = calloc(ISA_LONG_BATCH, sizeof(*sequences));
    struct run *run = calloc(1, sizeof(*run));

    if (!run || !sequences || parse(argc, argv, &options))
        return 2;
    isa_seed(options.seed);
    isa_make_pattern();
    run->options = &options;
    run->native = isa_native_create();
    if (options.interpret)
        run->emulator[0] = isa_emulator_create(false);
    if (options.jit)
        run->emulator[1] = isa_emulator_create(true);
    for (unsigned bits = 16; options.sequences && bits <= 64; bits *= 2)
        if (bits == 64 ? options.bits64 : bits == 32 ? options.bits32 : options.bits16)
            test_sequences(run, sequences, bits);
    for (unsigned r = 0; !options.sequences && r < x86_rows_count; r++) {
        if (!isa_testable(&x86_rows[r]) || (options.row && strcmp(options.row, x86_rows[r].name)))
            continue;
        if (options.bits64)
            test_row(run, &x86_rows[r], 64);
        if (options.bits32)
            test_row(run, &x86_rows[r], 32);
        if (options.bits16)
            test_row(run, &x86_rows[r], 16);
    }
    flush(run);
    printf("%u cases, %u differ, %u not run natively; seed %" PRIu64 "\n", run->done, run->failures,
           run->died, options.seed);
    if (options.sequences)
        printf("%u sequences ran to their end\n", run->ended);
    for (unsigned e = 0; e < 2; e++)
        if (run->emulator[e])
            isa_emulator_destroy(run->emulator[e]);
    isa_native_destroy(run->native);
    return run->failures || run->died || !run->done;
}
