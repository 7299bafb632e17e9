/*
 * Page walks (SDM vol. 3 chapter 4): no paging, 32-bit, PAE, 4-level and 5-level paging. The second
 * level of translation (EPT), when there is one, is folded into every step.
 */
#include "guest/x86/x86_internal.h"

#define PTE_P BIT(0)
#define PTE_W BIT(1)
#define PTE_U BIT(2)
#define PTE_A BIT(5)
#define PTE_D BIT(6)
#define PTE_PS BIT(7)
#define PTE_G BIT(8)
#define PTE_NX BIT(63)
#define PTE_ADDRESS (mask_low(52) & ~0xfffull)

/* Page-fault error code (SDM vol. 3 4.7). */
#define PF_P BIT(0)
#define PF_W BIT(1)
#define PF_U BIT(2)
#define PF_RSVD BIT(3)
#define PF_FETCH BIT(4)
#define PF_PK BIT(5)

enum walk_result { WALK_OK, WALK_FAULT, WALK_AGAIN };

/* A paging-structure entry that the walk went through. */
struct step {
    u8 *hva; /* NULL: not RAM */
    u64 gpa; /* of the entry, as the guest knows it, */
    u64 hpa; /* and as memslots do */
    u64 value;
    const struct mem_slot *slot;
};

struct walk {
    struct x86_cpu *cpu;
    u64 gva;
    enum guest_access access;
    bool user; /* a user-mode access */
    bool smap; /* SMAP is in force for it */
    bool probe;
    bool wide;    /* entries of 8 bytes */
    u64 reserved; /* bits that are reserved in every entry */
    u64 u, w, nx; /* combined rights of all levels */
    u32 error;    /* for #PF */
    unsigned nsteps;
    struct step step[5];
};

/* Guest-physical to what memslots speak of. False: probing, and there is no such mapping. */
static bool second_level(struct walk *walk, u64 *gpa, enum guest_access access)
{
    struct x86_cpu *cpu = walk->cpu;
    struct guest_page page;

    if (likely(!cpu->hooks || !cpu->hooks->second_level))
        return true;
    if (!cpu->hooks->second_level(cpu, *gpa, walk->gva, access, true, walk->probe, &page))
        return false;
    *gpa = page.gpa | (*gpa & 0xfff);
    return true;
}

/* Reads the entry at @gpa and notes it as the next step. */
static bool read_entry(struct walk *walk, u64 gpa, u64 *value)
{
    struct step *step = &walk->step[walk->nsteps++];

    step->gpa = gpa;
    if (!second_level(walk, &gpa, GUEST_READ))
        return false;
    step->hpa = gpa;
    step->slot = mem_find(walk->cpu->common.mem, gpa);
    if (!step->slot) {
        step->hva = NULL;
        step->value = walk->wide ? ~0ull : 0xffffffff; /* as an undriven bus reads */
    } else {
        step->hva = step->slot->hva + (gpa - step->slot->gpa);
        step->value = walk->wide ? __atomic_load_n((u64 *)step->hva, __ATOMIC_ACQUIRE)
                                 : __atomic_load_n((u32 *)step->hva, __ATOMIC_ACQUIRE);
    }
    *value = step->value;
    return true;
}

/* Writes @value over the entry of @step if nobody else did meanwhile. */
static enum walk_result update_entry(struct walk *walk, struct step *step, u64 value)
{
    const struct mem_slot *slot = step->slot;
    u64 gpa = step->gpa, hpa = step->hpa;
    bool done;

    if (!step->hva || slot->flags & MEM_READONLY)
        return WALK_OK;
    if (!second_level(walk, &gpa, GUEST_WRITE))
        return WALK_FAULT;
    if (walk->wide) {
        u64 old = step->value;

        done = __atomic_compare_exchange_n((u64 *)step->hva, &old, value, false, __ATOMIC_SEQ_CST,
                                           __ATOMIC_SEQ_CST);
    } else {
        u32 old = (u32)step->value;

        done = __atomic_compare_exchange_n((u32 *)step->hva, &old, (u32)value, false,
                                           __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
    }
    if (!done)
        return WALK_AGAIN;
    if (slot->dirty ||
        __atomic_load_n(&slot->code[(hpa - slot->gpa) >> MEM_PAGE_SHIFT], __ATOMIC_RELAXED))
        mem_wrote(walk->cpu->common.mem, hpa, walk->wide ? 8 : 4);
    step->value = value;
    return WALK_OK;
}

/* Sets accessed flags in every entry used, and the dirty flag of the last one for a write. */
static enum walk_result update_flags(struct walk *walk)
{
    for (unsigned i = 0; i < walk->nsteps; i++) {
        struct step *step = &walk->step[i];
        u64 value = step->value | PTE_A;

        if (i == walk->nsteps - 1 && walk->access == GUEST_WRITE)
            value |= PTE_D;
        if (value != step->value) {
            enum walk_result result = update_entry(walk, step, value);

            if (result != WALK_OK)
                return result;
        }
    }
    return WALK_OK;
}

/* Access and write-disable rights of the page's protection key (SDM vol. 3 4.6.2). */
static bool key_allows(const struct walk *walk, u64 leaf, bool write)
{
    struct x86_cpu *cpu = walk->cpu;
    unsigned key = bits(leaf, 62, 59);
    u32 rights;

    if (!x86_long_mode(cpu) || !(cpu->cr4 & (walk->u ? X86_CR4_PKE : X86_CR4_PKS)))
        return true;
    if (key)
        cpu->pkey_used = true;
    rights = (walk->u ? cpu->pkru : cpu->pkrs) >> 2 * key;
    if (rights & 1)
        return false;
    return !(write && rights & 2 && (walk->user || cpu->cr0 & X86_CR0_WP));
}

/* May data be read from (or written to) a page of the combined rights? Keys aside. */
static bool data_allowed(const struct walk *walk, bool write)
{
    if (walk->user)
        return walk->u && (!write || walk->w);
    if (walk->u && walk->smap)
        return false;
    return !write || walk->w || !(walk->cpu->cr0 & X86_CR0_WP);
}

static bool fetch_allowed(const struct walk *walk)
{
    if (walk->nx)
        return false;
    if (walk->user)
        return walk->u;
    return !(walk->u && walk->cpu->cr4 & X86_CR4_SMEP);
}

static enum walk_result fault(struct walk *walk, u32 bits_known)
{
    struct x86_cpu *cpu = walk->cpu;

    walk->error = bits_known;
    if (walk->access == GUEST_WRITE)
        walk->error |= PF_W;
    if (walk->user)
        walk->error |= PF_U;
    if (walk->access == GUEST_FETCH &&
        (cpu->cr4 & X86_CR4_SMEP || (cpu->cr4 & X86_CR4_PAE && cpu->efer & X86_EFER_NXE)))
        walk->error |= PF_FETCH;
    return WALK_FAULT;
}

/* The walk reached @leaf, which maps 1 << @shift bytes at @base. */
static enum walk_result finish(struct walk *walk, u64 leaf, u64 base, unsigned shift,
                               struct guest_page *page)
{
    struct x86_cpu *cpu = walk->cpu;
    bool write = walk->access == GUEST_WRITE;
    bool key_ok = walk->access == GUEST_FETCH || key_allows(walk, leaf, write);

    if (!key_ok || !(walk->access == GUEST_FETCH ? fetch_allowed(walk) : data_allowed(walk, write)))
        return fault(walk, PF_P | (key_ok ? 0 : PF_PK));
    if (!walk->probe) {
        enum walk_result result = update_flags(walk);

        if (result != WALK_OK)
            return result;
        leaf = walk->step[walk->nsteps - 1].value;
    }
    page->gpa = (base & ~mask_low(shift)) | (walk->gva & mask_low(shift) & ~0xfffull);
    page->page_shift = (u8)shift;
    page->global = leaf & PTE_G && cpu->cr4 & X86_CR4_PGE;
    page->readable = data_allowed(walk, false) && key_allows(walk, leaf, false);
    page->writable = leaf & PTE_D && data_allowed(walk, true) && key_allows(walk, leaf, true);
    return WALK_OK;
}

static enum walk_result walk_32bit(struct walk *walk, struct guest_page *page)
{
    struct x86_cpu *cpu = walk->cpu;
    u64 entry;

    if (!read_entry(walk, (cpu->cr3 & 0xfffff000) | (walk->gva >> 20 & 0xffc), &entry))
        return WALK_FAULT;
    if (!(entry & PTE_P))
        return fault(walk, 0);
    walk->u = entry & PTE_U;
    walk->w = entry & PTE_W;
    if (entry & PTE_PS && cpu->cr4 & X86_CR4_PSE) {
        u64 base = (entry & 0xffc00000) | bits(entry, 20, 13) << 32;

        if (entry & BIT(21) || base & ~cpu->phys_mask)
            return fault(walk, PF_P | PF_RSVD);
        return finish(walk, entry, base, 22, page);
    }
    if (!read_entry(walk, (entry & 0xfffff000) | (walk->gva >> 10 & 0xffc), &entry))
        return WALK_FAULT;
    if (!(entry & PTE_P))
        return fault(walk, 0);
    walk->u &= entry;
    walk->w &= entry;
    return finish(walk, entry, entry & 0xfffff000, 12, page);
}

/* The levels that PAE, 4-level and 5-level paging have in common: from the table at @table, whose
 * entries each map 1 << @shift bytes, down. */
static enum walk_result walk_wide(struct walk *walk, u64 table, unsigned shift,
                                  struct guest_page *page)
{
    struct x86_cpu *cpu = walk->cpu;
    bool large_1g = x86_has(cpu, X86_FEATURE_PAGE1GB);
    u64 entry;

    for (;; shift -= 9) {
        u64 reserved = walk->reserved;
        bool leaf;

        if (!read_entry(walk, (table & PTE_ADDRESS) | (walk->gva >> shift & 0x1ff) << 3, &entry))
            return WALK_FAULT;
        if (!(entry & PTE_P))
            return fault(walk, 0);
        leaf = shift == 12 || (entry & PTE_PS && (shift == 21 || (shift == 30 && large_1g)));
        if (!leaf && shift >= 30)
            reserved |= PTE_PS;
        else if (leaf && shift > 12)
            reserved |= mask_low(shift) & ~mask_low(13);
        if (entry & reserved)
            return fault(walk, PF_P | PF_RSVD);
        walk->u &= entry;
        walk->w &= entry;
        walk->nx |= entry & PTE_NX;
        if (leaf)
            return finish(walk, entry, entry & PTE_ADDRESS, shift, page);
        table = entry;
    }
}

static enum walk_result walk_tables(struct walk *walk, struct guest_page *page)
{
    struct x86_cpu *cpu = walk->cpu;

    walk->nsteps = 0;
    walk->u = PTE_U;
    walk->w = PTE_W;
    walk->nx = 0;
    if (!(cpu->cr4 & X86_CR4_PAE)) {
        walk->wide = false;
        return walk_32bit(walk, page);
    }
    walk->wide = true;
    walk->reserved = PTE_ADDRESS & ~cpu->phys_mask;
    if (!(cpu->efer & X86_EFER_NXE))
        walk->reserved |= PTE_NX;
    if (!x86_long_mode(cpu)) {
        u64 pdpte = cpu->pdpte[walk->gva >> 30 & 3];

        walk->reserved |= bits(~0ull, 62, 52) << 52;
        if (!(pdpte & PTE_P))
            return fault(walk, 0);
        return walk_wide(walk, pdpte, 21, page);
    }
    return walk_wide(walk, cpu->cr3, cpu->cr4 & X86_CR4_LA57 ? 48 : 39, page);
}

/* The final page through the second level; rights and size become the lesser of both. */
static bool finish_second_level(struct walk *walk, struct guest_page *page)
{
    struct x86_cpu *cpu = walk->cpu;
    struct guest_page second;

    if (likely(!cpu->hooks || !cpu->hooks->second_level))
        return true;
    cpu->walk_rights = (u8)((walk->u ? 1 : 0) | (walk->w ? 2 : 0) | (walk->nx ? 4 : 0));
    if (!cpu->hooks->second_level(cpu, page->gpa | (walk->gva & 0xfff), walk->gva, walk->access,
                                  false, walk->probe, &second))
        return false;
    page->gpa = second.gpa;
    page->readable &= second.readable;
    page->writable &= second.writable;
    if (second.page_shift < page->page_shift)
        page->page_shift = second.page_shift;
    return true;
}

/* --- Breakpoints on data --- */

/* Bytes of a memory access of the CPU's own, if that is what it is, or of the instruction at lip;
 * the largest if it has several. */
static unsigned access_bytes(struct x86_cpu *cpu, bool implicit)
{
    unsigned bytes = 1;
    struct x86_insn in;

    if (implicit || cpu->delivering)
        return cpu->own_bytes;
    if (!x86_decode_at_lip(cpu, &in))
        return 8;
    if (x86_uses_stack(&in))
        bytes = in.operand_size;
    for (unsigned i = 0; i < 3; i++) {
        const struct x86_operand *op = &in.op[i];
        bool memory = op->kind == X86_OP_MEM || op->kind == X86_OP_MOFFS ||
                      op->kind == X86_OP_STR_SRC || op->kind == X86_OP_STR_DST;

        if (memory && op->size > bytes)
            bytes = op->size;
    }
    return bytes;
}

/* Which of the four data breakpoints in @dr, @dr7 an access at [gva, gva+bytes) meets. */
static u32 data_hits(const u64 dr[4], u32 dr7, u64 gva, unsigned bytes, enum guest_access access)
{
    static const u8 lengths[] = {1, 2, 8, 4};
    u32 hits = 0;

    for (unsigned i = 0; i < 4; i++) {
        unsigned control = dr7 >> (16 + 4 * i) & 15, type = control & 3;
        u64 length = lengths[control >> 2], first = dr[i] & ~(length - 1);

        if (dr7 >> 2 * i & 3 && (type == 3 || (type == 1 && access == GUEST_WRITE)) &&
            gva < first + length && first < gva + bytes)
            hits |= 1u << i;
    }
    return hits;
}

/* Data breakpoints (SDM vol. 3 18.2.4): notes which of them the access at @gva meets. The page is
 * kept out of the soft TLB so that the next access comes here too. */
static void note_access(struct x86_cpu *cpu, u64 gva, enum guest_access access, bool implicit,
                        struct guest_page *page)
{
    page->readable = page->writable = false;
    cpu->debug_hits |=
        data_hits(cpu->dr, (u32)cpu->dr[7], gva, access_bytes(cpu, implicit), access);
}

/* The debugger's, which watches only the pages it must. An access of the instruction's own is not
 * let happen unless the instruction runs alone; one of the CPU's (a push by an interrupt, a
 * descriptor) is reported soon after. */
static void note_watched(struct x86_cpu *cpu, u64 gva, enum guest_access access, bool implicit,
                         struct guest_page *page)
{
    struct x86_debugger *debugger = &cpu->debugger;
    u64 start = align_down(gva, 4096);
    u32 hits;

    if (!data_hits(debugger->dr, debugger->dr7, start, 4096, GUEST_WRITE))
        return;
    page->readable = page->writable = false;
    hits = data_hits(debugger->dr, debugger->dr7, gva, access_bytes(cpu, implicit), access);
    if (!hits)
        return;
    if (!implicit && !debugger->alone)
        guest_leave(&cpu->common, X86_EXIT_DEBUGGER);
    debugger->hits |= hits;
    __atomic_fetch_or(&cpu->common.request, GUEST_REQ_EVENT, __ATOMIC_SEQ_CST); /* leave soon */
}

/* --- The walk as others see it --- */

/* A breakpoint on the instruction comes before what its fetch meets (SDM vol. 3 table 6-2). */
static void fetch_fails(struct x86_cpu *cpu)
{
    if (cpu->common.mode & X86_MODE_DR)
        x86_code_breakpoint(cpu);
}

/* A stack access outside the canonical range is #SS(0), any other #GP(0). */
static void raise_non_canonical(struct x86_cpu *cpu, u64 gva, enum guest_access access)
{
    if (access == GUEST_FETCH)
        fetch_fails(cpu);
    else if (x86_access_is_stack(cpu, gva))
        x86_raise_error(cpu, X86_SS_FAULT, 0);
    x86_raise_error(cpu, X86_GP, 0);
}

/* SDM vol. 3 4.10.4.1: a page fault invalidates what is cached for its address. A page that is not
 * there was not cached. */
static NORETURN void raise_pf(struct walk *walk)
{
    struct x86_cpu *cpu = walk->cpu;

    if (walk->error & PF_P)
        cpu->common.memory->flush_page(&cpu->common, walk->gva);
    x86_raise_pf(cpu, walk->gva, walk->error);
}

/*
 * The page fault of an access at @walk->gva, or what comes before it: the instruction's operand
 * lies partly outside the address space; or it is read only to be written, and so fails as a write,
 * perhaps already with its first byte.
 */
static NORETURN void raise_fault(struct walk *walk, bool implicit)
{
    struct x86_cpu *cpu = walk->cpu;
    struct x86_memory_operand m;
    struct guest_page page;

    if (walk->access == GUEST_FETCH)
        fetch_fails(cpu);
    if (implicit || walk->access == GUEST_FETCH || !x86_find_memory_operand(cpu, walk->gva, &m))
        raise_pf(walk);
    if (m.outside)
        x86_raise_error(cpu, m.stack ? X86_SS_FAULT : X86_GP, 0);
    if (m.modified && walk->access == GUEST_READ) {
        walk->access = GUEST_WRITE;
        walk->error |= PF_W;
        if (m.linear >> 12 != walk->gva >> 12) {
            u64 second = walk->gva;

            walk->gva = m.linear;
            walk->probe = true;
            if (walk_tables(walk, &page) == WALK_OK) {
                walk->gva = second;
                walk_tables(walk, &page);
            }
        }
    }
    raise_pf(walk);
}

/* The linear address wraps outside 64-bit code, unless it was the offset that passed 4 GiB. */
static u64 wrap_linear(struct x86_cpu *cpu, u64 gva)
{
    struct x86_memory_operand m;

    if (x86_find_memory_operand(cpu, gva, &m) && m.outside)
        x86_raise_error(cpu, m.stack ? X86_SS_FAULT : X86_GP, 0);
    return (u32)gva;
}

/* guest_ops.walk. -EFAULT only when @probe. */
int x86_walk(struct guest_cpu *common, u64 gva, enum guest_access access, bool implicit, bool probe,
             struct guest_page *page)
{
    struct x86_cpu *cpu = x86_cpu(common);
    struct walk walk = {
        .cpu = cpu,
        .gva = gva,
        .access = access,
        .user = cpu->cpl == 3 && !implicit,
        .probe = probe,
    };
    enum walk_result result;

    walk.smap = cpu->cr4 & X86_CR4_SMAP && (implicit || !(cpu->eflags & X86_FLAG_AC));
    if (unlikely(gva >> 32) && !x86_code64(cpu) && !implicit && !probe && access != GUEST_FETCH)
        walk.gva = wrap_linear(cpu, gva);
    else if (x86_long_mode(cpu) && !x86_canonical(cpu, gva)) {
        if (!probe)
            raise_non_canonical(cpu, gva, access);
        return -EFAULT;
    }
    if (!(cpu->cr0 & X86_CR0_PG)) {
        walk.u = walk.w = 1;
        *page = (struct guest_page){
            .gpa = walk.gva & 0xfffff000, .readable = true, .writable = true, .page_shift = 30};
    } else {
        do
            result = walk_tables(&walk, page);
        while (result == WALK_AGAIN);
        if (result == WALK_FAULT) {
            if (!probe)
                raise_fault(&walk, implicit);
            return -EFAULT;
        }
    }
    if (unlikely(walk.gva != gva)) /* flushes know it by its other address */
        page->readable = page->writable = false;
    if (!finish_second_level(&walk, page))
        return -EFAULT;
    if (unlikely(cpu->common.mode & X86_MODE_DR) && !probe && access != GUEST_FETCH)
        note_access(cpu, gva, access, implicit, page);
    if (unlikely(cpu->debugger.dr7) && !probe && access != GUEST_FETCH)
        note_watched(cpu, gva, access, implicit, page);
    return 0;
}

int x86_translate(struct x86_cpu *cpu, u64 gva, struct guest_page *page)
{
    /* As a supervisor that may read everything: what a debugger wants to see. */
    u64 cr4 = cpu->cr4;
    int error;

    cpu->cr4 &= ~(X86_CR4_SMAP | X86_CR4_PKE | X86_CR4_PKS);
    error = x86_walk(&cpu->common, gva, GUEST_READ, true, true, page);
    cpu->cr4 = cr4;
    return error;
}

u64 x86_pc(const struct guest_cpu *cpu)
{
    return ((const struct x86_cpu *)cpu)->lip;
}

void x86_mmio_read(struct guest_cpu *common, u64 gpa, void *buf, unsigned bytes)
{
    struct x86_cpu *cpu = x86_cpu(common);

    cpu->hooks->mmio_read(cpu, gpa, buf, bytes);
}

void x86_mmio_write(struct guest_cpu *common, u64 gpa, const void *buf, unsigned bytes)
{
    struct x86_cpu *cpu = x86_cpu(common);

    cpu->hooks->mmio_write(cpu, gpa, buf, bytes);
}
