/*
 * System instructions. Most are a call of the helper that does the work on the state; what is left
 * here is operands, and whether the block can go on. Segments are in lift_seg.c.
 */
#include "guest/x86/lift_sys.h"

/* If @look (i64) is not 0, to the run loop for events before the next instruction. */
static void check_events_if(struct x86_lift *l, ir_ref look)
{
    if (l->mode & X86_MODE_STEPPING)
        return; /* the run loop comes next anyway */
    ir_put(l->u, X86_SLOT(lip), lift_next_pc(l));
    lift_count(l);
    ir_exit_if(l->u, ir_ne(l->u, look, imm(l, 0)), X86_EXIT_HALT_CHECK);
}

/* --- Control and debug registers --- */

/* #UD for what is no register comes before the privilege. */
static bool valid_cr(struct x86_lift *l)
{
    bool exists = BIT(l->in->reg) & (BIT(0) | BIT(2) | BIT(3) | BIT(4) | BIT(8));

    if (exists && !(l->mode & X86_MODE_CPL_MASK))
        return true;
    lift_raise(l, exists ? X86_GP : X86_UD);
    return false;
}

/* The register numbers as the helpers want them. */
static ir_ref cr_regs(struct x86_lift *l)
{
    return imm(l, l->in->reg | (u64)l->in->rm << 8);
}

static void write_system(struct x86_lift *l, ir_ref value)
{
    unsigned size = l->in->op[0].size;

    if (size < 8)
        value = ir_trunc(l->u, lift_int_type(size), value);
    lift_set_reg(l, l->in->rm, size, false, value);
}

void lift_mov_from_cr(struct x86_lift *l)
{
    static const u32 slots[] = {
        [0] = X86_SLOT(cr0), [2] = X86_SLOT(cr2), [3] = X86_SLOT(cr3), [4] = X86_SLOT(cr4)};

    if (!valid_cr(l))
        return;
    /* Only a guest's own VMCS has read shadows or intercepts reads of CR3. */
    if (l->in->reg != 8 && !(l->mode & X86_MODE_NONROOT))
        write_system(l, ir_get(l->u, IR_I64, slots[l->in->reg]));
    else
        write_system(l, VALUE2(l, read_cr, cr_regs(l), imm(l, length(l))));
}

void lift_mov_to_cr(struct x86_lift *l)
{
    if (!valid_cr(l))
        return;
    CALL3(l, write_cr, cr_regs(l), zext64(l, lift_read(l, 1)), imm(l, length(l)));
    lift_end_state(l);
}

void lift_mov_from_dr(struct x86_lift *l)
{
    write_system(l, VALUE2(l, read_dr, cr_regs(l), imm(l, length(l))));
}

void lift_mov_to_dr(struct x86_lift *l)
{
    CALL3(l, write_dr, cr_regs(l), zext64(l, lift_read(l, 1)), imm(l, length(l)));
    lift_end_state(l);
}

void lift_smsw(struct x86_lift *l)
{
    const struct x86_insn *in = l->in;
    ir_ref value = VALUE0(l, smsw);

    if (in->mod != 3)
        ir_st(l->u, lift_linear(l, 2, true), 0, ir_trunc(l->u, IR_I16, value));
    else
        lift_set_reg(
            l, in->rm, in->operand_size, false,
            in->operand_size == 8 ? value : ir_trunc(l->u, lift_int_type(in->operand_size), value));
}

void lift_lmsw(struct x86_lift *l)
{
    bool memory = l->in->op[0].kind == X86_OP_MEM;
    ir_ref at = memory ? lift_address(l, 0, false) : imm(l, 0);
    ir_ref value = memory ? ir_ld(l->u, IR_I16, at, 0) : lift_read(l, 0);

    LIFT_CALL(l, IR_VOID, lmsw, zext64(l, value), imm(l, length(l)), at, imm(l, memory));
    lift_end_state(l);
}

void lift_clts(struct x86_lift *l)
{
    CALL1(l, clts, imm(l, length(l)));
    lift_end_state(l);
}

void lift_invlpg(struct x86_lift *l)
{
    /* The address is not an access: no segment checks. */
    ir_ref offset = lift_ea(l);
    unsigned segment = l->in->segment;

    if (!lift_is64(l) || segment == X86_FS || segment == X86_GS) {
        u32 slot = X86_SLOT(seg) + segment * (u32)sizeof(struct x86_seg);

        offset =
            ir_add(l->u, offset, ir_get(l->u, IR_I64, slot + (u32)offsetof(struct x86_seg, base)));
        if (!lift_is64(l))
            offset = ir_and(l->u, offset, imm(l, 0xffffffff));
    }
    CALL2(l, invlpg, offset, imm(l, length(l)));
    lift_end_state(l);
}

void lift_invpcid(struct x86_lift *l)
{
    ir_ref type = lift_reg(l, l->in->reg, lift_is64(l) ? 8 : 4, false);
    /* For the exit qualification: the displacement, which of RIP-relative ones is all the
     * address. */
    u64 displacement = l->in->base == -2 ? BIT(8) : (u64)l->in->disp << 32;

    LIFT_CALL(l, IR_VOID, invpcid, zext64(l, type), lift_linear(l, 16, false),
              imm(l, exit_info(l->in)), imm(l, length(l) | displacement));
    lift_end_state(l);
}

/* The soft TLB in use changes, the mode word does not: the block goes on. */
void lift_clac(struct x86_lift *l)
{
    CALL1(l, stac, imm(l, 0));
}

void lift_stac(struct x86_lift *l)
{
    CALL1(l, stac, imm(l, 1));
}

/* --- Interrupt flag, halt, I/O --- */

void lift_cli(struct x86_lift *l)
{
    ir_ref flags;

    if (!(l->mode & X86_MODE_IOPL_OK)) {
        CALL0(l, cli);
        return;
    }
    flags = ir_get(l->u, IR_I64, X86_SLOT(eflags));
    ir_put(l->u, X86_SLOT(eflags), ir_and(l->u, flags, imm(l, ~X86_FLAG_IF)));
}

void lift_sti(struct x86_lift *l)
{
    check_events_if(l, VALUE1(l, sti, imm(l, length(l))));
}

void lift_hlt(struct x86_lift *l)
{
    CALL1(l, hlt, imm(l, length(l)));
    ir_exit(l->u, X86_EXIT_STATE);
    l->ended = true;
}

static void port_io(struct x86_lift *l, bool in)
{
    const struct x86_operand *data = &l->in->op[in ? 0 : 1], *port = &l->in->op[in ? 1 : 0];
    bool immediate = port->kind == X86_OP_IMM;
    ir_ref number =
        immediate ? imm(l, port->value & 0xff) : zext64(l, lift_reg(l, X86_RDX, 2, false));
    ir_ref what = imm(l, data->size | (immediate ? 256u : 0));

    if (in)
        CALL3(l, in, number, what, imm(l, length(l)));
    else
        CALL3(l, out, number, what, imm(l, length(l)));
    lift_end_state(l);
}

void lift_in(struct x86_lift *l)
{
    port_io(l, true);
}

void lift_out(struct x86_lift *l)
{
    port_io(l, false);
}

static ir_ref string_io(struct x86_lift *l, unsigned bytes, unsigned segment)
{
    bool repeated = l->in->rep || l->in->repne;

    return imm(l, bytes | (u64)l->in->address_size << 8 | (u64)segment << 16 | (u64)repeated << 24);
}

void lift_ins(struct x86_lift *l)
{
    CALL2(l, ins, string_io(l, l->in->op[0].size, X86_ES), imm(l, length(l)));
    lift_end_state(l);
}

void lift_outs(struct x86_lift *l)
{
    CALL2(l, outs, string_io(l, l->in->op[1].size, l->in->segment), imm(l, length(l)));
    lift_end_state(l);
}

/* --- Processor --- */

void lift_cpuid(struct x86_lift *l)
{
    CALL1(l, cpuid, imm(l, length(l)));
    lift_end_state(l);
}

void lift_rdtsc(struct x86_lift *l)
{
    CALL1(l, rdtsc, imm(l, length(l)));
}

void lift_rdtscp(struct x86_lift *l)
{
    CALL1(l, rdtscp, imm(l, length(l)));
}

void lift_rdpmc(struct x86_lift *l)
{
    CALL1(l, rdpmc, imm(l, length(l)));
}

void lift_rdmsr(struct x86_lift *l)
{
    CALL1(l, rdmsr, imm(l, length(l)));
}

void lift_wrmsr(struct x86_lift *l)
{
    CALL1(l, wrmsr, imm(l, length(l)));
    lift_end_state(l);
}

void lift_invd(struct x86_lift *l)
{
    CALL2(l, intercept, imm(l, X86_REASON_INVD), imm(l, length(l)));
}

void lift_wbinvd(struct x86_lift *l)
{
    CALL2(l, intercept, imm(l, X86_REASON_WBINVD), imm(l, length(l)));
}

void lift_monitor(struct x86_lift *l)
{
    ir_ref at = lift_reg(l, X86_RAX, l->in->address_size, false);

    at = lift_segment(l, l->in->segment, zext64(l, at), 1, false);
    CALL2(l, monitor, at, imm(l, length(l)));
}

void lift_mwait(struct x86_lift *l)
{
    CALL1(l, mwait, imm(l, length(l)));
    lift_end_state(l);
}

void lift_umonitor(struct x86_lift *l)
{
    ir_ref at = lift_reg(l, l->in->rm, l->in->address_size, false);

    CALL1(l, umonitor, lift_segment(l, l->in->segment, zext64(l, at), 1, false));
}

static void user_wait(struct x86_lift *l, u64 reason)
{
    CALL3(l, user_wait, imm(l, reason), imm(l, l->in->rm), imm(l, length(l)));
    lift_set_eflags_arith(l, imm(l, 0));
    lift_end_state(l);
}

void lift_umwait(struct x86_lift *l)
{
    user_wait(l, X86_REASON_UMWAIT);
}

void lift_tpause(struct x86_lift *l)
{
    user_wait(l, X86_REASON_TPAUSE);
}

static void random_number(struct x86_lift *l, u64 reason)
{
    unsigned size = l->in->operand_size;
    u64 info = (u64)l->in->rm << 3 | (u64)(size >> 2) << 11;
    ir_ref value =
        LIFT_CALL(l, IR_I64, random, imm(l, reason), imm(l, info), imm(l, length(l)), IR_NONE);

    if (size < 8)
        value = ir_trunc(l->u, lift_int_type(size), value);
    lift_set_reg(l, l->in->rm, size, false, value);
    lift_set_eflags_arith(l, imm(l, X86_FLAG_CF));
}

void lift_rdrand(struct x86_lift *l)
{
    random_number(l, X86_REASON_RDRAND);
}

void lift_rdpid(struct x86_lift *l)
{
    write_system(l, VALUE0(l, rdpid));
}

/* That it faults as a load does is all there is to see: caches are coherent. */
static void touch_line(struct x86_lift *l)
{
    ir_ld(l->u, IR_I8, lift_linear(l, 1, false), 0);
}

void lift_clflush(struct x86_lift *l)
{
    touch_line(l);
}

void lift_clflushopt(struct x86_lift *l)
{
    lift_need_feature(l, X86_FEATURE_CLFLUSHOPT);
    touch_line(l);
}

void lift_clwb(struct x86_lift *l)
{
    lift_need_feature(l, X86_FEATURE_CLWB);
    touch_line(l);
}

void lift_rdseed(struct x86_lift *l)
{
    random_number(l, X86_REASON_RDSEED);
}

void lift_swapgs(struct x86_lift *l)
{
    u32 base = X86_SLOT(seg[X86_GS].base), kernel = X86_SLOT(msr_kernel_gs_base);
    ir_ref old = ir_get(l->u, IR_I64, base);

    ir_put(l->u, base, ir_get(l->u, IR_I64, kernel));
    ir_put(l->u, kernel, old);
}

static void read_base(struct x86_lift *l, u32 slot)
{
    unsigned size = l->in->op[0].size;
    ir_ref value;

    CALL0(l, fsgsbase);
    value = ir_get(l->u, IR_I64, slot);
    lift_set_reg(l, l->in->rm, size, false, size == 8 ? value : ir_trunc(l->u, IR_I32, value));
}

void lift_rdfsbase(struct x86_lift *l)
{
    read_base(l, X86_SLOT(seg[X86_FS].base));
}

void lift_rdgsbase(struct x86_lift *l)
{
    read_base(l, X86_SLOT(seg[X86_GS].base));
}

void lift_wrfsbase(struct x86_lift *l)
{
    CALL2(l, write_fsgsbase, imm(l, X86_FS), zext64(l, lift_read(l, 0)));
}

void lift_wrgsbase(struct x86_lift *l)
{
    CALL2(l, write_fsgsbase, imm(l, X86_GS), zext64(l, lift_read(l, 0)));
}

void lift_rsm(struct x86_lift *l)
{
    lift_raise(l, X86_UD); /* never in system-management mode */
}

/* --- FPU and extended state --- */

static bool rex_w(const struct x86_lift *l)
{
    return l->in->rex & 8;
}

void lift_fxsave(struct x86_lift *l)
{
    CALL2(l, fxsave, lift_linear(l, 512, true), imm(l, rex_w(l)));
}

void lift_fxrstor(struct x86_lift *l)
{
    CALL2(l, fxrstor, lift_linear(l, 512, false), imm(l, rex_w(l)));
    lift_end_state(l);
}

/* Form: 0 XSAVE, 1 XSAVEOPT, 2 XSAVEC, 3 XSAVES; + 16 with REX.W. */
static void xsave(struct x86_lift *l, u64 form)
{
    CALL3(l, xsave, lift_linear(l, 576, true), imm(l, form + (rex_w(l) ? 16 : 0)),
          imm(l, length(l)));
}

void lift_xsave(struct x86_lift *l)
{
    xsave(l, 0);
}

void lift_xsaveopt(struct x86_lift *l)
{
    xsave(l, 1);
}

void lift_xsavec(struct x86_lift *l)
{
    xsave(l, 2);
}

void lift_xsaves(struct x86_lift *l)
{
    xsave(l, 3);
}

static void xrstor(struct x86_lift *l, u64 form)
{
    CALL3(l, xrstor, lift_linear(l, 576, false), imm(l, form + (rex_w(l) ? 16 : 0)),
          imm(l, length(l)));
    lift_end_state(l);
}

void lift_xrstor(struct x86_lift *l)
{
    xrstor(l, 0);
}

void lift_xrstors(struct x86_lift *l)
{
    xrstor(l, 3);
}

void lift_xgetbv(struct x86_lift *l)
{
    CALL0(l, xgetbv);
}

void lift_xsetbv(struct x86_lift *l)
{
    CALL1(l, xsetbv, imm(l, length(l)));
    lift_end_state(l);
}

void lift_rdpkru(struct x86_lift *l)
{
    CALL0(l, rdpkru);
}

void lift_wrpkru(struct x86_lift *l)
{
    CALL0(l, wrpkru);
    lift_end_state(l);
}

/* --- VMX --- */

/* Linear address of the memory operand, 0 if it is a register or there is none. The displacement of
 * a RIP-relative operand counts from address 0 (SDM vol. 3 28.2.1). */
static void vmx(struct x86_lift *l, u64 reason, unsigned bytes)
{
    bool memory = l->in->has_modrm && l->in->mod != 3 && bytes;
    ir_ref linear = memory ? lift_linear(l, bytes, false) : imm(l, 0);
    ir_ref displacement = l->in->base == -2 && memory ? linear : imm(l, (u64)l->in->disp);

    LIFT_CALL(l, IR_VOID, vmx, imm(l, reason | length(l) << 16), imm(l, exit_info(l->in)),
              displacement, linear);
    lift_end_state(l);
}

void lift_vmcall(struct x86_lift *l)
{
    CALL1(l, vmcall, imm(l, length(l)));
    lift_end_state(l);
}

#define VMX_INSTRUCTION(name, REASON, bytes)                                                       \
    void lift_##name(struct x86_lift *l)                                                           \
    {                                                                                              \
        vmx(l, X86_REASON_##REASON, bytes);                                                        \
    }
VMX_INSTRUCTION(vmlaunch, VMLAUNCH, 0)
VMX_INSTRUCTION(vmresume, VMRESUME, 0)
VMX_INSTRUCTION(vmxoff, VMXOFF, 0)
VMX_INSTRUCTION(vmfunc, VMFUNC, 0)
VMX_INSTRUCTION(vmread, VMREAD, 8)
VMX_INSTRUCTION(vmwrite, VMWRITE, 8)
VMX_INSTRUCTION(vmptrld, VMPTRLD, 8)
VMX_INSTRUCTION(vmclear, VMCLEAR, 8)
VMX_INSTRUCTION(vmxon, VMXON, 8)
VMX_INSTRUCTION(vmptrst, VMPTRST, 8)
VMX_INSTRUCTION(invept, INVEPT, 16)
VMX_INSTRUCTION(invvpid, INVVPID, 16)
