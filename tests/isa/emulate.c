/* Our CPU: a vCPU in user mode, code and data mapped as natively. */
#include "isa.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "dbt/dbt.h"
#include "guest/x86/x86_internal.h"
#include "mem/mem.h"

#define RAM_SIZE (ISA_DATA - ISA_CODE + 8 * ISA_DATA_SIZE)
#define MAX_LEAVES 100000 /* returns to the run loop that a case may need */

struct isa_emulator {
    struct x86_cpu cpu;
    struct x86_hooks hooks;
    struct mem *mem;
    struct mem_ram ram;
    struct dbt *dbt;
};

/* Page tables behind the data: code can be written, data cannot be executed. */
#define TABLES (ISA_DATA - ISA_CODE + ISA_DATA_SIZE)
enum { PML4, PDPT, PD, PT_CODE, PT_DATA, TABLE_PAGES };
enum { PRESENT = 1, WRITABLE = 2, USER = 4 };

static u64 *table(struct isa_emulator *e, unsigned which)
{
    return (u64 *)(e->ram.hva + TABLES + which * MEM_PAGE_SIZE);
}

static u64 entry(unsigned which)
{
    return (TABLES + which * MEM_PAGE_SIZE) | PRESENT | WRITABLE | USER;
}

static void map(struct isa_emulator *e, unsigned which, u64 gva, u64 size, u64 flags)
{
    for (u64 at = 0; at < size; at += MEM_PAGE_SIZE)
        table(e, which)[(gva + at) >> 12 & 511] = (gva + at - ISA_CODE) | PRESENT | USER | flags;
    table(e, PD)[gva >> 21 & 511] = entry(which);
}

static void make_tables(struct isa_emulator *e)
{
    table(e, PML4)[0] = entry(PDPT);
    table(e, PDPT)[0] = entry(PD);
    map(e, PT_CODE, ISA_CODE, ISA_CODE_SIZE, WRITABLE);
    map(e, PT_DATA, ISA_DATA, ISA_WRITABLE, WRITABLE | 1ull << 63);
    map(e, PT_DATA, ISA_DATA + ISA_WRITABLE, ISA_DATA_SIZE - ISA_WRITABLE, 1ull << 63);
}

/* What the rows' functions ask for, whatever the host has: isa_testable knows about the host. */
static void cpuid(struct x86_cpu *cpu, u32 leaf, u32 subleaf, u32 out[4])
{
    (void)cpu;
    (void)subleaf;
    memset(out, 0, 4 * sizeof(*out));
    if (leaf == 0) {
        out[0] = 7;
    } else if (leaf == 1) {
        out[2] = 0x00f82201; /* x86-64-v2, MOVBE */
    } else if (leaf >> 31) {
        out[0] = 0x80000001;
        out[2] = 1; /* LAHF */
    } else if (leaf == 7) {
        out[1] = 1u << 19; /* ADX */
        out[2] = 1u << 27; /* MOVDIRI */
    }
}

struct isa_emulator *isa_emulator_create(enum isa_engine engine, bool dump)
{
    struct isa_emulator *e = NULL;
    struct dbt_config config = isa_dbt_config(&x86_guest_ops, engine, dump);
    struct err err;

    if (posix_memalign((void **)&e, 64, sizeof(*e)))
        abort();
    memset(e, 0, sizeof(*e));
    e->mem = config.mem = mem_create();
    if (!e->mem || mem_ram_alloc(&e->ram, RAM_SIZE, &err) ||
        mem_set_slot(e->mem, 0, 0, 0, RAM_SIZE, e->ram.hva) || dbt_create(&e->dbt, &config, &err)) {
        fprintf(stderr, "cannot make an emulator\n");
        exit(1);
    }
    e->cpu.common.ops = &x86_guest_ops;
    e->cpu.common.mem = e->mem;
    e->hooks.cpuid = cpuid;
    e->cpu.hooks = &e->hooks;
    mem_reader_online(e->mem, 0);
    if (dbt_attach(e->dbt, &e->cpu.common)) {
        fprintf(stderr, "cannot attach\n");
        exit(1);
    }
    make_tables(e);
    e->cpu.phys_mask = (1ull << 40) - 1;
    e->cpu.cr3 = TABLES;
    return e;
}

u64 isa_emulator_regions(struct isa_emulator *e)
{
    struct dbt_stats stats;

    dbt_get_stats(e->dbt, &stats);
    return stats.regions;
}

void isa_emulator_destroy(struct isa_emulator *e)
{
    dbt_detach(&e->cpu.common);
    dbt_destroy(e->dbt);
    mem_reader_offline(e->mem, 0);
    mem_destroy(e->mem);
    mem_ram_free(&e->ram);
    free(e);
}

static void set_mode(struct x86_cpu *cpu, unsigned bits)
{
    u32 data = 0xf3 | X86_SEG_DB | X86_SEG_G;

    cpu->cr0 =
        X86_CR0_PE | X86_CR0_MP | X86_CR0_ET | X86_CR0_NE | X86_CR0_WP | X86_CR0_AM | X86_CR0_PG;
    cpu->cr4 = X86_CR4_PAE | X86_CR4_OSFXSR | X86_CR4_OSXMMEXCPT;
    cpu->efer = X86_EFER_LME | X86_EFER_LMA | X86_EFER_SCE | X86_EFER_NXE;
    cpu->cpl = 3;
    for (unsigned i = 0; i < X86_SEGS; i++)
        cpu->seg[i] = (struct x86_seg){0, 0xffffffff, data, 0x2b};
    cpu->seg[X86_CS] = (struct x86_seg){
        0, 0xffffffff, 0xfb | X86_SEG_G | (bits == 64 ? X86_SEG_L : X86_SEG_DB), 0x33};
    if (bits == 16) {
        cpu->seg[X86_CS] = (struct x86_seg){ISA_CODE, ISA_CODE16_LIMIT, 0xfb, 7};
        cpu->seg[X86_DS] = (struct x86_seg){ISA_DATA, ISA_DATA_SIZE - 1, 0xf3, 15};
        cpu->seg[X86_ES] = cpu->seg[X86_SS] = cpu->seg[X86_DS];
    }
}

static void load_state(struct x86_cpu *cpu, const struct isa_state *s)
{
    u8 fx[512] = {0};

    memcpy(cpu->gpr, s->gpr, sizeof(s->gpr));
    x86_set_rflags(cpu, s->rflags | 0x202);
    memcpy(fx, s->fx, ISA_FX);
    x86_fxrstor(cpu, fx, true);
    x86_set_rip(cpu, s->rip);
    cpu->pending.valid = false;
}

static void store_state(struct x86_cpu *cpu, struct isa_state *s)
{
    u8 fx[512];

    memcpy(s->gpr, cpu->gpr, sizeof(s->gpr));
    s->rflags = x86_rflags(cpu);
    x86_fxsave(cpu, fx, true);
    memcpy(s->fx, fx, ISA_FX);
    s->rip = x86_rip(cpu);
}

/* Runs until an exception; its vector, or 255 for what should not happen. */
static void run(struct isa_emulator *e, struct isa_result *r)
{
    struct x86_cpu *cpu = &e->cpu;
    u32 code = 0;

    r->vector = 255;
    r->error = 0;
    for (unsigned i = 0; i < MAX_LEAVES; i++) {
        code = dbt_run(&cpu->common);
        if (code >= X86_EXIT_VECTOR || code == X86_EXIT_EVENT)
            break;
        if (code != X86_EXIT_STATE && code != X86_EXIT_HALT_CHECK)
            break;
    }
    store_state(cpu, &r->out);
    if (code >= X86_EXIT_VECTOR) {
        r->vector = (u8)(code - X86_EXIT_VECTOR);
    } else if (code == X86_EXIT_EVENT) {
        r->vector = cpu->pending.vector;
        r->error = cpu->pending.error;
        r->address = cpu->pending.payload;
        /* Software exceptions push the address behind the instruction. */
        if (cpu->pending.type >= 4)
            r->out.rip += cpu->pending.insn_len;
        cpu->pending.valid = false;
    } else {
        fprintf(stderr, "left with exit code %u\n", code);
    }
}

void isa_emulate(struct isa_emulator *e, const struct isa_case *cases, unsigned count,
                 struct isa_result *results)
{
    u8 *data = e->ram.hva + (ISA_DATA - ISA_CODE);

    for (unsigned i = 0; i < count; i++)
        isa_place(&cases[i], e->ram.hva);
    memcpy(data, isa_pattern, ISA_DATA_SIZE);
    mem_wrote(e->mem, 0, ISA_CODE_SIZE);
    for (unsigned i = 0; i < count; i++) {
        const struct isa_case *c = &cases[i];

        if (c->patch_at)
            memcpy(data + (c->patch_at - ISA_DATA), &c->patch, 8);
        set_mode(&e->cpu, c->bits);
        load_state(&e->cpu, &c->in);
        x86_update_mode(&e->cpu);
        x86_update_mmu(&e->cpu);
        results[i].died = false;
        run(e, &results[i]);
        isa_note_data(c, data, &results[i]);
    }
}
