/* The RISC-V guest to the translator: its helper table and operations. */
#include <string.h>

#include "base/bits.h"
#include "guest/riscv/driver.h"
#include "guest/riscv/lift.h"

static const struct ir_helper helpers[RISCV_HELPERS] = {
#define X(name, nargs, flags) {#name, (void *)riscv_helper_##name, nargs, flags},
#include "guest/riscv/helpers.def"
#undef X
};

void riscv_set_fcsr(struct riscv_cpu *cpu, u32 fcsr)
{
    cpu->fcsr = fcsr & RISCV_FCSR_MASK;
    cpu->common.mode = cpu->fcsr >> RISCV_FCSR_FRM_SHIFT & RISCV_MODE_FRM;
}

void riscv_reset(struct riscv_cpu *cpu, u64 pc)
{
    memset(cpu->x, 0, sizeof(cpu->x));
    memset(cpu->f, 0, sizeof(cpu->f));
    cpu->pc = pc;
    cpu->reserved_address = RISCV_NO_RESERVATION;
    cpu->reserved_value = 0;
    cpu->tval = 0;
    riscv_set_fcsr(cpu, 0);
    if (cpu->common.memory && cpu->common.memory->switch_space)
        cpu->common.memory->switch_space(&cpu->common, 0, 0);
}

static u64 get_pc(const struct guest_cpu *cpu)
{
    return ((const struct riscv_cpu *)cpu)->pc;
}

static int walk(struct guest_cpu *cpu, u64 gva, enum guest_access access, bool implicit, bool probe,
                struct guest_page *page)
{
    (void)cpu, (void)access, (void)implicit, (void)probe;
    *page = (struct guest_page){
        .gpa = align_down(gva, MEM_PAGE_SIZE),
        .readable = true,
        .writable = true,
        .page_shift = MEM_PAGE_SHIFT,
    };
    return 0;
}

static void mmio_read(struct guest_cpu *cpu, u64 gpa, void *buf, unsigned bytes)
{
    (void)buf, (void)bytes;
    riscv_cpu(cpu)->tval = gpa;
    guest_leave(cpu, RISCV_EXIT_LOAD_FAULT);
}

static void mmio_write(struct guest_cpu *cpu, u64 gpa, const void *buf, unsigned bytes)
{
    (void)buf, (void)bytes;
    riscv_cpu(cpu)->tval = gpa;
    guest_leave(cpu, RISCV_EXIT_STORE_FAULT);
}

/*
 * MXCSR's rounding field is nearest, down, up, zero. RMM is computed on integers, and so is what
 * names its own rounding mode; the flags so far stay in fcsr.
 */
static u32 fp_enter(const struct guest_cpu *cpu)
{
    static const u8 rounding[8] = {0, 3, 1, 2, 0, 0, 0, 0};
    u32 fcsr = ((const struct riscv_cpu *)cpu)->fcsr;

    return 0x1f80 | (u32)rounding[fcsr >> RISCV_FCSR_FRM_SHIFT & 7] << 13;
}

static void fp_leave(struct guest_cpu *cpu, u32 mxcsr)
{
    u32 flags = 0;

    flags |= mxcsr & 1 << 0 ? RISCV_NV : 0;
    flags |= mxcsr & 1 << 2 ? RISCV_DZ : 0;
    flags |= mxcsr & 1 << 3 ? RISCV_OF : 0;
    flags |= mxcsr & 1 << 4 ? RISCV_UF : 0;
    flags |= mxcsr & 1 << 5 ? RISCV_NX : 0;
    riscv_cpu(cpu)->fcsr |= flags;
}

const struct guest_ops riscv_guest_ops = {
    .name = "riscv64",
    .helpers = helpers,
    .nhelpers = RISCV_HELPERS,
    .pc_slot = RISCV_SLOT(pc),
    .state_size = sizeof(struct riscv_cpu),
    .fenced_fetch = true, /* volume I, chapter 5 */
    .lift = riscv_lift,
    .pc = get_pc,
    .walk = walk,
    .mmio_read = mmio_read,
    .mmio_write = mmio_write,
    .fp_enter = fp_enter,
    .fp_leave = fp_leave,
    .disassemble = riscv_disassemble,
};
