/* Compares two ends of a case, and prints what differs. */
#include "isa.h"

#include <stdio.h>

#include "guest/x86/x86.h"

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

/* Linux says "present" of all its own half. */
static bool same_error(const struct isa_result *host, const struct isa_result *ours)
{
    const u32 with_error = 1u << X86_DF | 1u << X86_TS | 1u << X86_NP | 1u << X86_SS_FAULT |
                           1u << X86_GP | 1u << X86_PF | 1u << X86_AC;
    u32 compared = host->vector == X86_PF && host->address >= 0x7ffffffff000 ? ~1u : ~0u;

    return host->vector >= 32 || !(with_error >> host->vector & 1) ||
           !((host->error ^ ours->error) & compared);
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

void isa_note_data(const struct isa_case *c, u8 *data, struct isa_result *r)
{
    u64 at = c->patch_at ? c->patch_at - ISA_DATA : 0, patched;

    memcpy(&patched, data + at, 8);
    r->changed = c->patch_at && patched != c->patch;
    if (c->patch_at)
        memcpy(data + at, isa_pattern + at, 8);
    r->changed |= memcmp(data, isa_pattern, ISA_WRITABLE) != 0;
    if (!r->changed)
        return;
    memcpy(r->data, data, ISA_WRITABLE);
    if (c->patch_at)
        memcpy(r->data + at, &patched, 8);
    memcpy(data, isa_pattern, ISA_WRITABLE);
}

/* The first byte of memory that differs, -1 if none; what each has there. */
static int data_differs(const struct isa_case *c, const struct isa_result *a,
                        const struct isa_result *b, u8 *in_a, u8 *in_b)
{
    u8 initial[ISA_WRITABLE];
    const u8 *x = a->changed ? a->data : initial, *y = b->changed ? b->data : initial;

    if (!a->changed && !b->changed)
        return -1;
    if (!a->changed || !b->changed)
        isa_initial_data(c, initial);
    if (!memcmp(x, y, ISA_WRITABLE))
        return -1;
    for (unsigned i = 0; i < ISA_WRITABLE; i++) {
        if (x[i] == y[i] || ignored(c, i))
            continue;
        *in_a = x[i];
        *in_b = y[i];
        return (int)i;
    }
    return -1;
}

bool isa_same(const struct isa_case *c, const struct isa_result *a, const struct isa_result *b)
{
    u64 flags = FLAGS_COMPARED & ~c->undefined;
    u8 x, y;

    if (a->vector != X86_BP)
        flags &= ~c->fault_undefined;
    return same_vector(c, a->vector, b->vector) && same_error(a, b) && a->out.rip == b->out.rip &&
           (a->vector != X86_PF || same_address(c, a->address, b->address)) &&
           !((a->out.rflags ^ b->out.rflags) & flags) &&
           !memcmp(a->out.gpr, b->out.gpr, sizeof(a->out.gpr)) &&
           data_differs(c, a, b, &x, &y) < 0 && fx_differs(c, &a->out, &b->out) < 0;
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

void isa_print_code(const struct isa_case *c)
{
    u32 mode = c->bits == 64 ? X86_MODE_CODE64 : c->bits == 32 ? X86_MODE_CODE32 : X86_MODE_CODE16;

    const u8 *code = c->text ? c->text : c->code;
    unsigned size = c->text ? c->text_size : ISA_SLOT;

    for (unsigned at = 0; at < size && (c->text || code[at] != 0xcc);) {
        char text[96];
        int n = x86_guest_ops.disassemble(mode, c->in.rip + at, code + at,
                                          c->text ? c->text_slot - at : ISA_SLOT - at, text,
                                          sizeof(text));

        fprintf(stderr, "    %-40s", text);
        for (int i = 0; i < n; i++)
            fprintf(stderr, " %02x", code[at + (unsigned)i]);
        fputc('\n', stderr);
        at += (unsigned)n;
    }
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

void isa_print_difference(const struct isa_case *c, const struct isa_result *host,
                          const struct isa_result *ours)
{
    int fx = fx_differs(c, &host->out, &ours->out), at;
    u8 x, y;

    if (host->vector != ours->vector || !same_error(host, ours))
        fprintf(stderr, "  vector: host %u error %x, ours %u error %x\n", host->vector, host->error,
                ours->vector, ours->error);
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
    at = data_differs(c, host, ours, &x, &y);
    if (at >= 0)
        fprintf(stderr, "  memory at %llx: host %02x ours %02x\n", ISA_DATA + (unsigned)at, x, y);
    if (fx >= 0)
        print_fx(c, host, ours);
    if (c->patch_at)
        fprintf(stderr, "  memory before at %" PRIx64 ": %016" PRIx64 "\n", c->patch_at, c->patch);
}
