/* The x86 guest to the translator: its helper table and operations. */
#include "guest/x86/disasm.h"
#include "guest/x86/driver.h"
#include "guest/x86/helpers.h"
#include "guest/x86/x86_internal.h"

static const struct ir_helper helpers[X86_HELPERS] = {
#define X(name, nargs, flags) {#name, (void *)x86_helper_##name, nargs, flags},
#include "guest/x86/all_helpers.def"
#undef X
};

/* Rounding, FTZ, DAZ and the flags so far; unmasked exceptions are the lifters' business. FTZ has
 * no effect while underflow is unmasked (SDM vol. 1 10.2.3.3). */
static u32 fp_enter(const struct guest_cpu *cpu)
{
    const u32 flush_to_zero = 0x8000, underflow_mask = 0x800;
    u32 mxcsr = ((const struct x86_cpu *)cpu)->mxcsr;

    if (!(mxcsr & underflow_mask))
        mxcsr &= ~flush_to_zero;
    return mxcsr | 0x1f80;
}

static void fp_leave(struct guest_cpu *cpu, u32 mxcsr)
{
    x86_cpu(cpu)->mxcsr |= mxcsr & 0x3f;
}

const struct guest_ops x86_guest_ops = {
    .name = "x86",
    .helpers = helpers,
    .nhelpers = X86_HELPERS,
    .pc_slot = X86_SLOT(lip),
    .state_size = sizeof(struct x86_cpu),
    .lift = x86_lift,
    .pc = x86_pc,
    .jumped = x86_jumped,
    .walk = x86_walk,
    .mmio_read = x86_mmio_read,
    .mmio_write = x86_mmio_write,
    .fp_enter = fp_enter,
    .fp_leave = fp_leave,
    .disassemble = x86_disassemble,
};
