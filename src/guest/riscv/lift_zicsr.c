/* Zicsr (RISC-V volume I, chapter 6), with the registers of F and Zicntr. */
#include "base/clock.h"
#include "guest/riscv/driver.h"
#include "guest/riscv/lift.h"

enum {
    CSR_FFLAGS = 0x001,
    CSR_FRM = 0x002,
    CSR_FCSR = 0x003,
    CSR_CYCLE = 0xc00,
    CSR_TIME = 0xc01,
    CSR_INSTRET = 0xc02,
    CSR_READ_ONLY = 0xc00, /* these two bits of the number (volume II, 2.1) */
};

#define TIME_NS 100 /* a tick of time: 10 MHz */

u64 riscv_helper_csr_read(struct riscv_cpu *cpu, u64 csr)
{
    switch (csr) {
    case CSR_TIME:
        return clock_mono_ns() / TIME_NS;
    case CSR_CYCLE:
    case CSR_INSTRET: /* as if one instruction were done a nanosecond */
        return clock_mono_ns();
    default:
        break;
    }
    cpu->common.memory->fp_sync(&cpu->common);
    if (csr == CSR_FFLAGS)
        return cpu->fcsr & RISCV_FCSR_FLAGS;
    return csr == CSR_FRM ? cpu->fcsr >> RISCV_FCSR_FRM_SHIFT : cpu->fcsr;
}

u64 riscv_helper_csr_write(struct riscv_cpu *cpu, u64 csr, u64 value)
{
    u32 flags = RISCV_FCSR_FLAGS;

    cpu->common.memory->fp_sync(&cpu->common);
    if (csr == CSR_FFLAGS)
        value = (cpu->fcsr & ~flags) | (value & flags);
    else if (csr == CSR_FRM)
        value = (cpu->fcsr & flags) | value << RISCV_FCSR_FRM_SHIFT;
    riscv_set_fcsr(cpu, (u32)value);
    cpu->common.memory->fp_load(&cpu->common);
    return 0;
}

static bool exists(unsigned csr)
{
    return (csr >= CSR_FFLAGS && csr <= CSR_FCSR) || (csr >= CSR_CYCLE && csr <= CSR_INSTRET);
}

/* @op: IR_NOP for the write of @operand itself. @writes: false when the operand's field is 0. */
static void access(struct riscv_lift *l, enum ir_op op, ir_ref operand, bool reads, bool writes)
{
    unsigned csr = (unsigned)l->in.imm;
    ir_ref number = ir_const(l->u, IR_I64, csr), old = IR_NONE;

    if (!exists(csr) || (writes && (csr & CSR_READ_ONLY) == CSR_READ_ONLY)) {
        riscv_leave(l, RISCV_EXIT_ILLEGAL);
        return;
    }
    if (reads)
        old = LIFT_CALL(l, IR_I64, csr_read, number, IR_NONE, IR_NONE, IR_NONE);
    if (writes) {
        if (op == IR_and)
            operand = ir_not(l->u, operand);
        if (op != IR_NOP)
            operand = ir_emit(l->u, op, IR_I64, old, operand, 0, 0, 0);
        LIFT_CALL(l, IR_VOID, csr_write, number, operand, IR_NONE, IR_NONE);
    }
    if (reads)
        set_rd(l, old);
    /* What is behind depends on frm. */
    if (writes && csr != CSR_FFLAGS)
        riscv_end(l);
}

static ir_ref zimm(struct riscv_lift *l)
{
    return ir_const(l->u, IR_I64, l->in.rs1);
}

LIFT(csrrw)
{
    access(l, IR_NOP, rs1(l), l->in.rd, true);
}

LIFT(csrrs)
{
    access(l, IR_or, rs1(l), true, l->in.rs1);
}

LIFT(csrrc)
{
    access(l, IR_and, rs1(l), true, l->in.rs1);
}

LIFT(csrrwi)
{
    access(l, IR_NOP, zimm(l), l->in.rd, true);
}

LIFT(csrrsi)
{
    access(l, IR_or, zimm(l), true, l->in.rs1);
}

LIFT(csrrci)
{
    access(l, IR_and, zimm(l), true, l->in.rs1);
}
