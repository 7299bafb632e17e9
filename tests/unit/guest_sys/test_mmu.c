/* Page walks on made-up tables: permissions in every combination against the sentences of SDM
 * vol. 3 4.6 and 4.7, reserved bits, accessed and dirty flags, sizes. */
#include "fixture.h"

#include <stdio.h>

#define P 1ull
#define W 2ull
#define U 4ull
#define A 0x20ull
#define D 0x40ull
#define PS 0x80ull
#define G 0x100ull
#define NX BIT(63)

enum { T0 = 0x20000, T1 = 0x21000, T2 = 0x22000, T3 = 0x23000, T4 = 0x24000, PAGE_AT = 0x400000 };

enum paging { PAGING_32, PAGING_PAE, PAGING_4, PAGING_5 };

/* Address of the entry at each level for GVA, from the leaf (0) up, and the tables linked. */
#define GVA 0x40201000ull /* 1 GiB + 2 MiB + 4 KiB */

struct tables {
    u64 entry[5]; /* gpa of the entry for GVA, leaf level (4 KiB) first */
    unsigned levels;
    bool wide;
};

static void put_entry(struct fixture *f, const struct tables *t, unsigned level, u64 value)
{
    if (t->wide)
        *ram64(f, t->entry[level]) = value;
    else
        *ram32(f, t->entry[level]) = (u32)value;
}

static u64 get_entry(struct fixture *f, const struct tables *t, unsigned level)
{
    return t->wide ? *ram64(f, t->entry[level]) : *ram32(f, t->entry[level]);
}

/* Paging of the kind on, all of GVA's entries present, writable, user. */
static struct tables make(struct fixture *f, enum paging kind)
{
    static const u64 at[] = {T0, T1, T2, T3, T4};
    struct tables t = {.wide = kind != PAGING_32};
    struct x86_cpu *cpu = &f->cpu;

    t.levels = kind == PAGING_32 || kind == PAGING_PAE ? 2 : kind == PAGING_4 ? 4 : 5;
    cpu->cr0 = X86_CR0_PE | X86_CR0_PG | X86_CR0_ET | X86_CR0_WP;
    cpu->cr4 = kind == PAGING_32 ? X86_CR4_PSE : X86_CR4_PAE;
    if (kind == PAGING_5)
        cpu->cr4 |= X86_CR4_LA57;
    cpu->efer = kind >= PAGING_4     ? X86_EFER_LMA | X86_EFER_LME | X86_EFER_NXE
                : kind == PAGING_PAE ? X86_EFER_NXE
                                     : 0;
    cpu->eflags = 2;
    cpu->pkru = 0;
    memset(f->ram.hva + T0, 0, 0x5000);
    for (unsigned i = 0; i < t.levels; i++) {
        unsigned shift = t.wide ? 12 + 9 * i : 12 + 10 * i;
        u64 index = GVA >> shift & (t.wide ? 511 : 1023);

        t.entry[i] = at[i] + index * (t.wide ? 8 : 4);
        put_entry(f, &t, i, (i ? at[i - 1] : PAGE_AT) | P | W | U);
    }
    cpu->cr3 = at[t.levels - 1];
    if (kind == PAGING_PAE)
        cpu->pdpte[GVA >> 30 & 3] = at[1] | P;
    return t;
}

static int walk(struct fixture *f, u64 gva, enum guest_access access, bool implicit,
                struct guest_page *page)
{
    struct guest_page local;

    return (int)TRY(f,
                    x86_walk(&f->cpu.common, gva, access, implicit, false, page ? page : &local));
}

/* What the SDM says of an access to a page of rights u, w, nx (all levels combined). 0: allowed;
 * else the error code. */
static u32 expected(struct fixture *f, enum guest_access access, bool user, bool implicit, bool u,
                    bool w, bool nx, unsigned key_rights)
{
    const struct x86_cpu *cpu = &f->cpu;
    bool wp = cpu->cr0 & X86_CR0_WP, smep = cpu->cr4 & X86_CR4_SMEP;
    bool smap = cpu->cr4 & X86_CR4_SMAP, ac = cpu->eflags & X86_FLAG_AC;
    bool pae_nx = cpu->cr4 & X86_CR4_PAE && cpu->efer & X86_EFER_NXE;
    bool user_mode = user && !implicit, ok = true, key_bad = false;
    u32 error = 1;

    /* 4.6.1: a supervisor may read all supervisor-mode addresses; user-mode ones unless SMAP. */
    if (!user_mode && access != GUEST_FETCH) {
        if (u && smap && (implicit || !ac))
            ok = false;
        if (access == GUEST_WRITE && wp && !w)
            ok = false;
    }
    if (!user_mode && access == GUEST_FETCH && ((u && smep) || nx))
        ok = false;
    if (user_mode && !u)
        ok = false;
    if (user_mode && access == GUEST_WRITE && !w)
        ok = false;
    if (user_mode && access == GUEST_FETCH && nx)
        ok = false;
    /* 4.6.2 */
    if (cpu->cr4 & X86_CR4_PKE && cpu->efer & X86_EFER_LMA && u && access != GUEST_FETCH) {
        if (key_rights & 1)
            key_bad = true;
        if (access == GUEST_WRITE && key_rights & 2 && (user_mode || wp))
            key_bad = true;
    }
    if (ok && !key_bad)
        return 0;
    error |= access == GUEST_WRITE ? 2 : 0;
    error |= user_mode ? 4 : 0;
    error |= access == GUEST_FETCH && (smep || pae_nx) ? 16 : 0;
    error |= key_bad ? 32 : 0;
    return error;
}

static void check_combination(struct fixture *f, const struct tables *t, u64 low, u64 high,
                              unsigned cr, unsigned key)
{
    struct x86_cpu *cpu = &f->cpu;
    bool nx_on = t->wide;

    cpu->cr0 = (cpu->cr0 & ~X86_CR0_WP) | (cr & 1 ? X86_CR0_WP : 0);
    cpu->cr4 &= ~(X86_CR4_SMEP | X86_CR4_SMAP | X86_CR4_PKE);
    cpu->cr4 |= (cr & 2 ? X86_CR4_SMEP : 0) | (cr & 4 ? X86_CR4_SMAP : 0);
    cpu->cr4 |= key ? X86_CR4_PKE : 0;
    cpu->eflags = 2 | (cr & 8 ? X86_FLAG_AC : 0);
    cpu->pkru = key << 10;                   /* of key 5 */
    for (unsigned who = 0; who < 3; who++) { /* supervisor, user, implicit from user mode */
        for (enum guest_access access = GUEST_READ; access <= GUEST_FETCH; access++) {
            struct guest_page page;
            bool u = low & high & U, w = low & high & W, nx = nx_on && (low | high) & NX;
            u32 error, code;

            if (who == 2 && access == GUEST_FETCH)
                continue;
            put_entry(f, t, 0, PAGE_AT | P | low | (cpu->efer & X86_EFER_LMA ? 5ull << 59 : 0));
            put_entry(f, t, 1, (get_entry(f, t, 1) & ~(NX | W | U)) | high);
            cpu->cpl = who ? 3 : 0;
            error = expected(f, access, who, who == 2, u, w, nx, key);
            code = (u32)walk(f, GVA + 0x123, access, who == 2, &page);
            if (!error) {
                assert_int_equal(code, 0);
                assert_int_equal(page.gpa, PAGE_AT);
                assert_int_equal(page.readable,
                                 !expected(f, GUEST_READ, who, who == 2, u, w, nx, key));
                assert_int_equal(page.writable, access == GUEST_WRITE);
            } else {
                assert_int_equal(code, X86_EXIT_EVENT);
                assert_fault(f, X86_PF, error);
                assert_int_equal(cpu->pending.payload, GVA + 0x123);
            }
        }
    }
}

static void test_permissions(void **state)
{
    struct fixture *f = *state;

    for (enum paging kind = PAGING_32; kind <= PAGING_5; kind++) {
        struct tables t = make(f, kind);

        for (unsigned bits = 0; bits < 64; bits++) {
            u64 low = (bits & 1 ? W : 0) | (bits & 2 ? U : 0);
            u64 high = (bits & 4 ? W : 0) | (bits & 8 ? U : 0);

            if (bits & 48 && !t.wide)
                continue;
            low |= bits & 16 ? NX : 0;
            high |= bits & 32 ? NX : 0;
            for (unsigned cr = 0; cr < 16; cr++)
                for (unsigned key = 0; key < (kind >= PAGING_4 ? 4 : 1); key++)
                    check_combination(f, &t, low, high, cr, key);
        }
    }
}

static void test_not_present(void **state)
{
    struct fixture *f = *state;

    for (enum paging kind = PAGING_32; kind <= PAGING_5; kind++) {
        for (unsigned level = 0; level < make(f, kind).levels; level++) {
            struct tables t = make(f, kind);

            /* All other bits set: none of them matters. */
            put_entry(f, &t, level, ~P);
            f->cpu.cpl = 0;
            assert_int_equal(walk(f, GVA, GUEST_READ, false, NULL), X86_EXIT_EVENT);
            assert_fault(f, X86_PF, 0);
            f->cpu.cpl = 3;
            assert_int_equal(walk(f, GVA, GUEST_WRITE, false, NULL), X86_EXIT_EVENT);
            assert_fault(f, X86_PF, 6);
            assert_int_equal(walk(f, GVA, GUEST_FETCH, false, NULL), X86_EXIT_EVENT);
            assert_fault(f, X86_PF, kind == PAGING_32 ? 4 : 0x14);
            f->cpu.cpl = 0;
        }
    }
    make(f, PAGING_PAE);
    f->cpu.pdpte[GVA >> 30 & 3] = 0;
    assert_int_equal(walk(f, GVA, GUEST_READ, false, NULL), X86_EXIT_EVENT);
    assert_fault(f, X86_PF, 0);
}

/* Is @bit reserved in a present entry at @level (0: maps 4 KiB)? SDM vol. 3 tables 4-5 to 4-20 with
 * MAXPHYADDR 40. */
static bool reserved(enum paging kind, unsigned level, bool large, unsigned bit, bool nxe)
{
    if (kind == PAGING_32) {
        /* A 4-MiB page has address bits 39:32 in 20:13, and 21 reserved. */
        return level == 1 && large && bit == 21;
    }
    if (bit == 63)
        return !nxe;
    if (bit >= 40 && bit <= 51)
        return true;
    if (bit >= 52)
        return kind == PAGING_PAE;
    if (bit == 7 && level >= 3)
        return true;
    if (large && level == 1)
        return bit >= 13 && bit <= 20;
    if (large && level == 2)
        return bit >= 13 && bit <= 29;
    return false;
}

static void check_reserved_bit(struct fixture *f, enum paging kind, unsigned level, bool large,
                               unsigned bit, bool nxe)
{
    struct tables t = make(f, kind);
    u64 value = get_entry(f, &t, level);
    bool wrong = reserved(kind, level, large, bit, nxe);

    if (!nxe)
        f->cpu.efer &= ~X86_EFER_NXE;
    if (large)
        value = 0x40000000 | P | W | U | PS;
    if (value & BIT(bit) && wrong)
        value = 0; /* cannot happen: the tables use no reserved bit */
    assert_true(value & P);
    put_entry(f, &t, level, value | BIT(bit));
    /* A moved address bit leads anywhere; only entries that end the walk, or reserved bits, say
     * something. */
    if (!wrong && !large && level && bit >= 12 && bit < 52)
        return;
    if (!wrong && kind != PAGING_32 && level && !large && bit == 7)
        return;
    if (kind == PAGING_32 && level && !large && bit == 7)
        return;
    if (wrong) {
        assert_int_equal(walk(f, GVA, GUEST_READ, false, NULL), X86_EXIT_EVENT);
        assert_fault(f, X86_PF, 9);
    } else {
        assert_int_equal(walk(f, GVA, GUEST_READ, false, NULL), 0);
    }
}

static void test_reserved_bits(void **state)
{
    struct fixture *f = *state;

    for (enum paging kind = PAGING_32; kind <= PAGING_5; kind++) {
        unsigned bits = kind == PAGING_32 ? 32 : 64, levels = make(f, kind).levels;

        for (unsigned level = 0; level < levels; level++) {
            for (unsigned bit = 1; bit < bits; bit++) {
                for (unsigned nxe = 0; nxe < (kind == PAGING_32 ? 1 : 2); nxe++) {
                    check_reserved_bit(f, kind, level, false, bit, nxe);
                    if (level == 1 || level == 2)
                        check_reserved_bit(f, kind, level, true, bit, nxe);
                }
            }
        }
    }
}

/* Without 1-GiB pages bit 7 of a PDPTE is reserved. */
static void test_no_1g_pages(void **state)
{
    struct fixture *f = *state;
    struct tables t = make(f, PAGING_4);

    put_entry(f, &t, 2, 0x40000000 | P | W | U | PS);
    assert_int_equal(walk(f, GVA, GUEST_READ, false, NULL), 0);
    f->features_off = X86_FEATURE_PAGE1GB;
    x86_update_features(&f->cpu);
    assert_int_equal(walk(f, GVA, GUEST_READ, false, NULL), X86_EXIT_EVENT);
    assert_fault(f, X86_PF, 9);
}

static void test_accessed_dirty(void **state)
{
    struct fixture *f = *state;

    for (enum paging kind = PAGING_32; kind <= PAGING_5; kind++) {
        struct tables t = make(f, kind);
        struct guest_page page;

        f->cpu.cpl = 0;
        assert_int_equal(x86_walk(&f->cpu.common, GVA, GUEST_WRITE, false, true, &page), 0);
        for (unsigned i = 0; i < t.levels; i++)
            assert_false(get_entry(f, &t, i) & (A | D)); /* a probe leaves no trace */

        assert_int_equal(walk(f, GVA, GUEST_READ, false, &page), 0);
        assert_false(page.writable);
        for (unsigned i = 0; i < t.levels; i++)
            assert_int_equal(get_entry(f, &t, i) & (A | D), A);

        assert_int_equal(walk(f, GVA, GUEST_WRITE, false, &page), 0);
        assert_true(page.writable);
        for (unsigned i = 0; i < t.levels; i++)
            assert_int_equal(get_entry(f, &t, i) & (A | D), i ? A : A | D);

        assert_int_equal(walk(f, GVA, GUEST_READ, false, &page), 0);
        assert_true(page.writable); /* dirty already: the next write need not ask */

        /* A refused write sets nothing. */
        put_entry(f, &t, 0, PAGE_AT | P | U);
        assert_int_equal(walk(f, GVA, GUEST_WRITE, false, &page), X86_EXIT_EVENT);
        assert_int_equal(get_entry(f, &t, 0), PAGE_AT | P | U);
    }
}

/* Setting a flag in a page that translated code was made from is a write to it. */
static unsigned code_writes;
static u64 code_write_gpa;

static void hear_code(void *opaque, u64 gpa, u64 len)
{
    (void)opaque, (void)len;
    code_writes++;
    code_write_gpa = gpa;
}

static void test_flags_are_writes(void **state)
{
    struct fixture *f = *state;
    struct mem_hooks hooks = {.code_written = hear_code};
    struct tables t = make(f, PAGING_4);
    u64 bitmap[RAM_SIZE / 4096 / 64];

    mem_set_hooks(f->mem, &hooks);
    assert_int_equal(mem_set_slot(f->mem, 0, MEM_LOG_DIRTY, 0, RAM_SIZE, f->ram.hva), 0);
    mem_find(f->mem, T0)->code[T0 >> 12] = 1;
    code_writes = 0;
    assert_int_equal(walk(f, GVA, GUEST_READ, false, NULL), 0);
    assert_int_equal(code_writes, 1);
    assert_int_equal(code_write_gpa, t.entry[0]);
    assert_int_equal(mem_get_dirty(f->mem, 0, bitmap, sizeof(bitmap)), 0);
    assert_int_equal(bitmap[0], BIT(T0 >> 12) | BIT(T1 >> 12) | BIT(T2 >> 12) | BIT(T3 >> 12));
    assert_int_equal(walk(f, GVA, GUEST_READ, false, NULL), 0); /* nothing left to set */
    assert_int_equal(code_writes, 1);
}

static void test_large_pages(void **state)
{
    static const struct {
        enum paging kind;
        unsigned level, shift;
        u64 entry, gpa;
    } rows[] = {
        {PAGING_32, 1, 22, 0x00800000, 0x00a01000},
        {PAGING_32, 1, 22, 0x00800000 | 0x5a << 13, 0x5a00a01000}, /* PSE-36 */
        {PAGING_PAE, 1, 21, 0x1200600000, 0x1200601000},
        {PAGING_4, 1, 21, 0x1200600000, 0x1200601000},
        {PAGING_4, 2, 30, 0x5640000000, 0x5640201000},
        {PAGING_5, 1, 21, 0x1200600000, 0x1200601000},
        {PAGING_5, 2, 30, 0x5640000000, 0x5640201000},
    };
    struct fixture *f = *state;

    for (unsigned i = 0; i < ARRAY_SIZE(rows); i++) {
        struct tables t = make(f, rows[i].kind);
        struct guest_page page;

        f->cpu.cr4 |= X86_CR4_PGE;
        put_entry(f, &t, rows[i].level, rows[i].entry | P | W | U | PS | G);
        assert_int_equal(walk(f, GVA, GUEST_READ, false, &page), 0);
        assert_int_equal(page.gpa, rows[i].gpa);
        assert_int_equal(page.page_shift, rows[i].shift);
        assert_true(page.global);
        f->cpu.cr4 &= ~X86_CR4_PGE;
        assert_int_equal(walk(f, GVA, GUEST_READ, false, &page), 0);
        assert_false(page.global);
    }
    /* Without CR4.PSE, PS of a 32-bit PDE means nothing. */
    struct tables t = make(f, PAGING_32);
    struct guest_page page;

    f->cpu.cr4 = 0;
    put_entry(f, &t, 1, T0 | P | W | U | PS);
    assert_int_equal(walk(f, GVA, GUEST_READ, false, &page), 0);
    assert_int_equal(page.gpa, PAGE_AT);
    assert_int_equal(page.page_shift, 12);
}

/* Non-canonical: #GP(0), or #SS(0) if the instruction's access is the stack's. */
static void test_non_canonical(void **state)
{
    static const struct {
        u8 code[6];
        u8 vector;
    } rows[] = {
        {{0x48, 0x8b, 0x00}, X86_GP},             /* mov rax, [rax] */
        {{0x48, 0x8b, 0x45, 0x00}, X86_SS_FAULT}, /* mov rax, [rbp] */
        {{0x48, 0x8b, 0x04, 0x24}, X86_SS_FAULT}, /* mov rax, [rsp] */
        {{0x50}, X86_SS_FAULT},                   /* push rax */
        {{0xc3}, X86_SS_FAULT},                   /* ret */
        {{0x64, 0x48, 0x8b, 0x45, 0x00}, X86_GP}, /* mov rax, fs:[rbp] */
        {{0xff, 0x30}, X86_GP},                   /* push [rax], the load */
        {{0xa4}, X86_GP},                         /* movsb */
    };
    struct fixture *f = *state;

    enter_long(f);
    f->cpu.lip = 0x5000;
    f->cpu.gpr[X86_RSP] = 0x9000;
    for (unsigned i = 0; i < ARRAY_SIZE(rows); i++) {
        memcpy(f->ram.hva + 0x5000, rows[i].code, sizeof(rows[i].code));
        assert_int_equal(walk(f, 0x800000000000, GUEST_READ, false, NULL), X86_EXIT_EVENT);
        assert_fault(f, rows[i].vector, 0);
    }
    memcpy(f->ram.hva + 0x5000, "\xff\x30", 2);
    f->cpu.gpr[X86_RSP] = 0x800000000008;
    assert_int_equal(walk(f, 0x800000000000, GUEST_WRITE, false, NULL), X86_EXIT_EVENT);
    assert_fault(f, X86_SS_FAULT, 0);
    assert_int_equal(walk(f, 0xffff7fffffffffff, GUEST_FETCH, false, NULL), X86_EXIT_EVENT);
    assert_fault(f, X86_GP, 0);
    f->cpu.cr4 |= X86_CR4_LA57;
    assert_int_equal(walk(f, 0x0100000000000000, GUEST_FETCH, false, NULL), X86_EXIT_EVENT);
    assert_fault(f, X86_GP, 0);
}

static void test_no_paging(void **state)
{
    struct fixture *f = *state;
    struct guest_page page;

    enter_protected(f);
    assert_int_equal(walk(f, 0xfee00123, GUEST_WRITE, false, &page), 0);
    assert_int_equal(page.gpa, 0xfee00000);
    assert_true(page.readable && page.writable);
}

/* Tables outside memory read as all ones, which has reserved bits set. */
static void test_tables_outside_memory(void **state)
{
    struct fixture *f = *state;

    make(f, PAGING_4);
    f->cpu.cr3 = 0x100000000;
    assert_int_equal(walk(f, GVA, GUEST_READ, false, NULL), X86_EXIT_EVENT);
    assert_fault(f, X86_PF, 9);
    make(f, PAGING_32);
    f->cpu.cr3 = 0xf0000000;
    assert_int_equal(walk(f, GVA, GUEST_READ, false, NULL), X86_EXIT_EVENT);
    assert_fault(f, X86_PF, 9);
}

/* --- Second level --- */

static unsigned second_calls, second_walk_writes;
static u64 second_denied;

/* Shifts everything down by 1 MiB; one page is not there. */
static bool second_level(struct x86_cpu *cpu, u64 gpa, u64 gva, enum guest_access access,
                         bool walk_entry, bool probe, struct guest_page *page)
{
    (void)gva;
    second_calls++;
    if (walk_entry && access == GUEST_WRITE)
        second_walk_writes++;
    if ((gpa & ~0xfffull) == second_denied) {
        if (probe)
            return false;
        guest_leave(&cpu->common, X86_EXIT_VMEXIT);
    }
    *page = (struct guest_page){.gpa = (gpa & ~0xfffull) - 0x100000,
                                .readable = true,
                                .writable = access == GUEST_WRITE,
                                .page_shift = 21};
    return true;
}

static void test_second_level(void **state)
{
    struct fixture *f = *state;
    struct tables t = make(f, PAGING_4);
    struct x86_hooks hooks = *f->cpu.hooks;
    struct guest_page page;

    /* Guest-physical addresses are 1 MiB above where the tables are. */
    for (unsigned i = 0; i < t.levels; i++)
        put_entry(f, &t, i, get_entry(f, &t, i) + 0x100000);
    f->cpu.cr3 += 0x100000;
    hooks.second_level = second_level;
    f->cpu.hooks = &hooks;
    second_denied = ~0ull;
    second_calls = second_walk_writes = 0;
    assert_int_equal(walk(f, GVA, GUEST_READ, false, &page), 0);
    assert_int_equal(page.gpa, PAGE_AT);
    assert_int_equal(page.page_shift, 12);
    assert_false(page.writable);
    assert_int_equal(second_walk_writes, 4); /* four accessed flags */
    assert_int_equal(get_entry(f, &t, 0) & A, A);
    second_denied = T1 + 0x100000;
    assert_int_equal(walk(f, GVA, GUEST_READ, false, &page), X86_EXIT_VMEXIT);
    assert_int_equal(x86_walk(&f->cpu.common, GVA, GUEST_READ, false, true, &page), -EFAULT);
    second_denied = PAGE_AT + 0x100000;
    assert_int_equal(walk(f, GVA, GUEST_READ, false, &page), X86_EXIT_VMEXIT);
}

static void test_translate(void **state)
{
    struct fixture *f = *state;
    struct tables t = make(f, PAGING_4);
    struct guest_page page;

    f->cpu.cr4 |= X86_CR4_SMAP;
    f->cpu.cpl = 0;
    assert_int_equal(x86_translate(&f->cpu, GVA, &page), 0);
    assert_int_equal(page.gpa, PAGE_AT);
    assert_int_equal(get_entry(f, &t, 0) & A, 0);
    assert_int_equal(x86_translate(&f->cpu, GVA + 0x1000, &page), -EFAULT);
    assert_true(f->cpu.cr4 & X86_CR4_SMAP);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)
    const struct CMUnitTest tests[] = {
        T(test_permissions),  T(test_not_present),    T(test_reserved_bits),
        T(test_no_1g_pages),  T(test_accessed_dirty), T(test_flags_are_writes),
        T(test_large_pages),  T(test_non_canonical),  T(test_no_paging),
        T(test_second_level), T(test_translate),      T(test_tables_outside_memory),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
