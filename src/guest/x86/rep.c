/*
 * Repeated string instructions: runs of elements in one page of RAM by host pointers, single
 * elements where that cannot be. Registers are up to date before each access that may fault, and
 * between runs the request word is looked at, so that the instruction can be left and run again at
 * any element. SDM vol. 2 REP.
 */
#include "guest/x86/cc.h"
#include "guest/x86/helpers.h"
#include "guest/x86/x86_internal.h"

#define PAGE_SIZE 4096u

struct rep {
    struct x86_cpu *cpu;
    unsigned size, width, segment; /* element, address size, source segment */
    bool repne, once;
    u64 mask; /* of addresses and count */
    s64 step;
};

/* A run of elements at one side: of the next element its linear and host address (NULL: not
 * RAM). */
struct side {
    u64 linear;
    u8 *host;
};

static struct rep unpack(struct x86_cpu *cpu, u64 how)
{
    struct rep r = {
        .cpu = cpu,
        .size = how & 255,
        .width = how >> 8 & 255,
        .segment = how >> 16 & 255,
        .repne = how >> 24 & 1,
        /* Watched data: each element's own access is to be seen. */
        .once = how >> 25 & 1 || cpu->common.insn_limit || cpu->debugger.dr7 >> 16 & 0x3333,
    };

    r.mask = mask_low(r.width * 8);
    r.step = (s64)cpu->df * (s64)r.size;
    return r;
}

static u64 reg(const struct rep *r, unsigned number)
{
    return r->cpu->gpr[number] & r->mask;
}

static void set_reg(struct rep *r, unsigned number, u64 value)
{
    u64 *gpr = &r->cpu->gpr[number];

    value &= r->mask;
    *gpr = r->width == 2 ? (*gpr & ~r->mask) | value : value;
}

/* @n elements are done on the sides given by the index registers @a and @b (or -1). */
static void advance(struct rep *r, u64 n, int a, int b)
{
    set_reg(r, X86_RCX, reg(r, X86_RCX) - n);
    if (a >= 0)
        set_reg(r, (unsigned)a, reg(r, (unsigned)a) + (u64)r->step * n);
    if (b >= 0)
        set_reg(r, (unsigned)b, reg(r, (unsigned)b) + (u64)r->step * n);
}

/* How many elements from @offset on lie in one page and, outside flat code, in the segment; at
 * least 1. */
static u64 run_length(const struct rep *r, unsigned segment, u64 offset, u64 linear, u64 count)
{
    u64 in_page = linear & (PAGE_SIZE - 1), n, first = offset;
    const struct x86_seg *seg = &r->cpu->seg[segment];

    if (in_page + r->size > PAGE_SIZE)
        return 1;
    n = r->step > 0 ? (PAGE_SIZE - in_page) / r->size : in_page / r->size + 1;
    if (n > count)
        n = count;
    if (r->step > 0 ? offset + n * r->size - 1 > r->mask : offset < (n - 1) * r->size)
        return 1;
    if (r->step < 0)
        first = offset - (n - 1) * r->size;
    if (!x86_code64(r->cpu) && !x86_within_limit(seg, (u32)first, (unsigned)(n * r->size)))
        return 1;
    return n;
}

/* Finds the side's next element, shortens *@n to the run; faults raise. */
static struct side find(const struct rep *r, unsigned segment, unsigned index, bool write, u64 *n)
{
    struct guest_cpu *cpu = &r->cpu->common;
    u64 offset = reg(r, index), length;
    struct side s = {x86_segment_linear(r->cpu, segment, offset, r->size, write), NULL};

    if (cpu->mode & X86_MODE_AC)
        x86_helper_check_alignment(r->cpu, s.linear, r->size);
    length = run_length(r, segment, offset, s.linear, *n);
    if (length < *n)
        *n = length;
    if ((s.linear & (PAGE_SIZE - 1)) + r->size <= PAGE_SIZE)
        s.host = cpu->memory->host(cpu, s.linear, write ? GUEST_WRITE : GUEST_READ);
    return s;
}

static u64 host_load(const u8 *at, unsigned size)
{
    u64 v = 0;

    memcpy(&v, at, size);
    return v;
}

static u64 load(const struct rep *r, const struct side *s)
{
    struct guest_cpu *cpu = &r->cpu->common;
    u64 v = 0;

    if (s->host)
        return host_load(s->host, r->size);
    cpu->memory->load(cpu, s->linear, &v, r->size);
    return v;
}

static bool wanted(const struct rep *r)
{
    return __atomic_load_n(&r->cpu->common.request, __ATOMIC_RELAXED);
}

/* After a break between elements: is there work left? */
static bool left(const struct rep *r)
{
    if (!reg(r, X86_RCX))
        return false;
    x86_between_iterations(r->cpu);
    return true;
}

/* Copies as if element by element: where the ranges overlap in the direction of the copy, what was
 * written is read again. */
static void copy(const struct rep *r, u8 *to, const u8 *from, u64 n)
{
    u64 bytes = n * r->size;
    u8 *to_low = r->step > 0 ? to : to - (bytes - r->size);
    const u8 *from_low = r->step > 0 ? from : from - (bytes - r->size);

    if (r->step > 0 ? to_low <= from_low || to_low >= from_low + bytes
                    : to_low >= from_low || from_low >= to_low + bytes) {
        memmove(to_low, from_low, bytes);
        return;
    }
    for (; n; n--, to += r->step, from += r->step) {
        u64 v = host_load(from, r->size);

        memcpy(to, &v, r->size);
    }
}

u64 x86_helper_rep_movs(struct x86_cpu *cpu, u64 how)
{
    struct rep r = unpack(cpu, how);
    u64 n;

    while ((n = reg(&r, X86_RCX))) {
        struct side from, to;
        u64 v;

        if (r.once)
            n = 1;
        from = find(&r, r.segment, X86_RSI, false, &n);
        v = load(&r, &from); /* faults before the destination does */
        to = find(&r, X86_ES, X86_RDI, true, &n);
        if (from.host && to.host) {
            copy(&r, to.host, from.host, n);
        } else {
            n = 1;
            cpu->common.memory->store(&cpu->common, to.linear, &v, r.size);
        }
        advance(&r, n, X86_RSI, X86_RDI);
        if (r.once || wanted(&r))
            break;
    }
    return left(&r);
}

static void fill(const struct rep *r, u8 *at, u64 n, u64 value)
{
    u8 *low = r->step > 0 ? at : at - (n - 1) * r->size;
    u64 byte = value & 255;

    if (value == (byte * 0x0101010101010101ull & mask_low(r->size * 8))) {
        memset(low, (int)byte, n * r->size);
        return;
    }
    for (; n; n--, low += r->size)
        memcpy(low, &value, r->size);
}

u64 x86_helper_rep_stos(struct x86_cpu *cpu, u64 how)
{
    struct rep r = unpack(cpu, how);
    u64 value = cpu->gpr[X86_RAX] & mask_low(r.size * 8), n;

    while ((n = reg(&r, X86_RCX))) {
        struct side to;

        if (r.once)
            n = 1;
        to = find(&r, X86_ES, X86_RDI, true, &n);
        if (to.host) {
            fill(&r, to.host, n, value);
        } else {
            n = 1;
            cpu->common.memory->store(&cpu->common, to.linear, &value, r.size);
        }
        advance(&r, n, -1, X86_RDI);
        if (r.once || wanted(&r))
            break;
    }
    return left(&r);
}

u64 x86_helper_rep_lods(struct x86_cpu *cpu, u64 how)
{
    struct rep r = unpack(cpu, how);

    while (reg(&r, X86_RCX)) {
        u64 n = 1, v;
        struct side from = find(&r, r.segment, X86_RSI, false, &n);
        u64 keep = r.size < 4 ? ~mask_low(r.size * 8) : 0;

        v = load(&r, &from);
        cpu->gpr[X86_RAX] = (cpu->gpr[X86_RAX] & keep) | v;
        advance(&r, 1, X86_RSI, -1);
        if (r.once || wanted(&r))
            break;
    }
    return left(&r);
}

static void set_compared(struct rep *r, u64 a, u64 b)
{
    r->cpu->cc_dst = a;
    r->cpu->cc_src = b;
    r->cpu->cc_op = (u8)(X86_CC_SUB << 2 | __builtin_ctz(r->size));
}

/* Compares @n elements, or up to the one that ends the repetition; answers how many were compared,
 * the last ones in *@x and *@y. */
static u64 compare(const struct rep *r, const struct side *a, const struct side *b, u64 n, u64 *x,
                   u64 *y)
{
    u64 done = 0;

    if ((a && !a->host) || !b->host) {
        if (a)
            *x = load(r, a);
        *y = load(r, b);
        return 1;
    }
    while (done < n) {
        s64 at = (s64)done * r->step;

        if (a)
            *x = host_load(a->host + at, r->size);
        *y = host_load(b->host + at, r->size);
        done++;
        if ((*x == *y) == r->repne)
            break;
    }
    return done;
}

/* CMPS and SCAS (no source side: rAX). */
static u64 rep_compare(struct rep *r, bool cmps)
{
    u64 x = r->cpu->gpr[X86_RAX] & mask_low(r->size * 8), y = 0, n;

    while ((n = reg(r, X86_RCX))) {
        struct side a, b;

        if (r->once)
            n = 1;
        if (cmps) {
            a = find(r, r->segment, X86_RSI, false, &n);
            x = load(r, &a); /* faults before the other side does */
        }
        b = find(r, X86_ES, X86_RDI, false, &n);
        n = compare(r, cmps ? &a : NULL, &b, n, &x, &y);
        advance(r, n, cmps ? X86_RSI : -1, X86_RDI);
        if ((x == y) == r->repne || !reg(r, X86_RCX)) {
            set_compared(r, x, y);
            return 0;
        }
        if (r->once || wanted(r)) {
            set_compared(r, x, y);
            return left(r);
        }
    }
    return 0;
}

u64 x86_helper_rep_cmps(struct x86_cpu *cpu, u64 how)
{
    struct rep r = unpack(cpu, how);

    return rep_compare(&r, true);
}

u64 x86_helper_rep_scas(struct x86_cpu *cpu, u64 how)
{
    struct rep r = unpack(cpu, how);

    return rep_compare(&r, false);
}
