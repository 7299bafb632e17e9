/*
 * I/O instructions (exit reason 30): ports of the engine's own chips, or KVM_EXIT_IO. Repeated
 * string instructions go up in pieces of up to a page.
 */
#include <string.h>

#include "base/log.h"
#include "soft/private.h"
#include "trace/trace.h"

/* Exit qualification, SDM table 28-5. */
#define QUAL_SIZE(q) (((u32)(q)&7) + 1)
#define QUAL_IN BIT(3)
#define QUAL_STRING BIT(4)
#define QUAL_REP BIT(5)
#define QUAL_PORT(q) ((u16)((q) >> 16))

/* --- ports inside --- */

static bool inside(const struct soft_vm *vm, u16 port)
{
    return pic_port(port) || (vm->has_pit && pit_port(port));
}

static u8 read_port(struct soft_vm *vm, u16 port)
{
    if (pic_port(port))
        return pic_read(&vm->pic, port);
    if (vm->has_pit && pit_port(port))
        return pit_read(&vm->pit, port);
    return 0xff;
}

static void write_port(struct soft_vm *vm, u16 port, u8 value)
{
    if (pic_port(port))
        pic_write(&vm->pic, port, value);
    else if (vm->has_pit && pit_port(port))
        pit_write(&vm->pit, port, value);
}

/* Wider accesses are byte cycles at consecutive ports, as the ISA bus does them. (The trace of all
 * others is the machine's.) */
static void access_inside(struct soft_vcpu *vcpu, u16 port, bool in, u8 *data, u32 size)
{
    struct soft_vm *vm = vcpu->id.vm;
    u32 value = 0;

    for (u32 i = 0; i < size; i++) {
        if (in)
            data[i] = read_port(vm, (u16)(port + i));
        else
            write_port(vm, (u16)(port + i), data[i]);
    }
    memcpy(&value, data, size);
    trace_emit(PIO, pio, (int)vcpu->id.vcpu.index, .op = in ? "in" : "out", .port = port,
               .size = size, .value = value);
}

/* --- registers --- */

static void set_rax(struct x86_cpu *cpu, const u8 *data, u32 size)
{
    u64 value = 0;

    memcpy(&value, data, size);
    if (size == 4)
        cpu->gpr[X86_RAX] = value;
    else
        cpu->gpr[X86_RAX] = (cpu->gpr[X86_RAX] & ~mask_low(8 * size)) | value;
}

/* Address size of a string instruction, SDM table 28-13: bits 9:7 are 0, 1, 2 for 16, 32, 64. */
static u64 address_mask(u64 insn_info)
{
    return mask_low(16u << (insn_info >> 7 & 3));
}

static u64 masked_add(u64 reg, s64 delta, u64 mask)
{
    u64 sum = (reg + (u64)delta) & mask;

    return mask == 0xffff ? (reg & ~mask) | sum : sum;
}

/* After @count elements: index register, counter and, when all are done, RIP. */
static void advance_string(struct soft_vcpu *vcpu)
{
    const struct soft_pio *pio = &vcpu->priv.pio;
    struct x86_cpu *cpu = &vcpu->cpu;
    u64 mask = address_mask(pio->insn_info);
    s64 bytes = (s64)cpu->df * pio->count * QUAL_SIZE(pio->qualification);
    unsigned index = pio->qualification & QUAL_IN ? X86_RDI : X86_RSI;

    soft_mmio_done(vcpu);
    cpu->gpr[index] = masked_add(cpu->gpr[index], bytes, mask);
    if (pio->qualification & QUAL_REP) {
        cpu->gpr[X86_RCX] = masked_add(cpu->gpr[X86_RCX], -(s64)pio->count, mask);
        if (cpu->gpr[X86_RCX] & mask) {
            x86_debug_trap(cpu, true);
            return;
        }
    }
    soft_skip(vcpu, pio->insn_len);
}

/* --- string instructions --- */

/* How many elements go at once: to the end of the page, so that a page fault comes between. With
 * breakpoints or TF each has debug traps of its own, and outside of RAM each is an access of its
 * own. Faults if the first cannot be accessed: what is read from a port is gone, so the store must
 * not. */
static u32 piece(struct soft_vcpu *vcpu, u64 linear)
{
    const struct soft_pio *pio = &vcpu->priv.pio;
    struct guest_cpu *cpu = &vcpu->cpu.common;
    enum guest_access access = pio->qualification & QUAL_IN ? GUEST_WRITE : GUEST_READ;
    bool ram = cpu->memory->host(cpu, linear, access);
    u32 size = QUAL_SIZE(pio->qualification);
    u64 left = vcpu->cpu.gpr[X86_RCX] & address_mask(pio->insn_info);
    u64 in_page = (MEM_PAGE_SIZE - (linear & (MEM_PAGE_SIZE - 1))) / size;

    if (!in_page)
        cpu->memory->host(cpu, align_up(linear, MEM_PAGE_SIZE), access);
    if (!(pio->qualification & QUAL_REP) || (s64)vcpu->cpu.df < 0 || in_page == 0 || !ram ||
        vcpu->cpu.common.mode & X86_MODE_STEPPING || vcpu->cpu.debug_hits)
        return 1;
    return (u32)(left < in_page ? left : in_page);
}

/* Moves the piece between guest memory and @data; may leave with a page fault. */
static void move_string(struct soft_vcpu *vcpu, u8 *data)
{
    const struct soft_pio *pio = &vcpu->priv.pio;
    struct guest_cpu *cpu = &vcpu->cpu.common;
    u32 size = QUAL_SIZE(pio->qualification);

    for (u32 i = 0; i < pio->count; i++) {
        if (pio->qualification & QUAL_IN)
            cpu->memory->store(cpu, pio->linear + (u64)i * size, data + i * size, size);
        else
            cpu->memory->load(cpu, pio->linear + (u64)i * size, data + i * size, size);
    }
}

/* What a port has just given. */
static void store_string(struct soft_vcpu *vcpu, u8 *data)
{
    const struct soft_pio *pio = &vcpu->priv.pio;

    if (pio->count == 1)
        soft_mmio_note_port(vcpu, QUAL_PORT(pio->qualification), data,
                            QUAL_SIZE(pio->qualification));
    move_string(vcpu, data);
}

static u8 *record_data(struct soft_vcpu *vcpu)
{
    return (u8 *)soft_record(vcpu) + MEM_PAGE_SIZE;
}

static int hand_up(struct soft_vcpu *vcpu)
{
    struct soft_pio *pio = &vcpu->priv.pio;
    struct kvm_run *run = soft_record(vcpu);

    run->exit_reason = KVM_EXIT_IO;
    run->io.direction = pio->qualification & QUAL_IN ? KVM_EXIT_IO_IN : KVM_EXIT_IO_OUT;
    run->io.size = (u8)QUAL_SIZE(pio->qualification);
    run->io.port = QUAL_PORT(pio->qualification);
    run->io.count = pio->count;
    run->io.data_offset = MEM_PAGE_SIZE;
    pio->lip = vcpu->cpu.lip;
    pio->waiting = true;
    return SOFT_HAND_UP;
}

static int string_io(struct soft_vcpu *vcpu)
{
    struct soft_pio *pio = &vcpu->priv.pio;
    u16 port = QUAL_PORT(pio->qualification);
    u32 size = QUAL_SIZE(pio->qualification);
    bool in = pio->qualification & QUAL_IN;
    u8 *data = record_data(vcpu);

    if (pio->qualification & QUAL_REP && !(vcpu->cpu.gpr[X86_RCX] & address_mask(pio->insn_info))) {
        soft_skip(vcpu, pio->insn_len);
        return SOFT_RESUME;
    }
    pio->count = piece(vcpu, pio->linear);
    if (in && soft_mmio_recall_port(vcpu, port, data, size)) {
        pio->count = 1;
        move_string(vcpu, data);
        advance_string(vcpu);
        return SOFT_RESUME;
    }
    if (!in)
        move_string(vcpu, data);
    if (!inside(vcpu->id.vm, port))
        return hand_up(vcpu);
    for (u32 i = 0; i < pio->count; i++)
        access_inside(vcpu, port, in, data + i * size, size);
    vcpu->priv.stats.pio_inside++;
    if (in)
        store_string(vcpu, data);
    advance_string(vcpu);
    return SOFT_RESUME;
}

int soft_exit_io(struct soft_vcpu *vcpu, const struct x86_vmexit *exit)
{
    struct soft_pio *pio = &vcpu->priv.pio;
    u16 port = QUAL_PORT(exit->qualification);
    u32 size = QUAL_SIZE(exit->qualification);
    u8 *data = record_data(vcpu);

    pio->qualification = exit->qualification;
    pio->insn_info = exit->insn_info;
    pio->insn_len = exit->insn_len;
    pio->linear = exit->linear;
    pio->count = 1;
    x86_debug_io(&vcpu->cpu, port, size);
    if (exit->qualification & QUAL_STRING)
        return string_io(vcpu);
    if (!(exit->qualification & QUAL_IN))
        memcpy(data, &vcpu->cpu.gpr[X86_RAX], size);
    if (!inside(vcpu->id.vm, port))
        return hand_up(vcpu);
    access_inside(vcpu, port, exit->qualification & QUAL_IN, data, size);
    vcpu->priv.stats.pio_inside++;
    if (exit->qualification & QUAL_IN)
        set_rax(&vcpu->cpu, data, size);
    soft_skip(vcpu, exit->insn_len);
    return SOFT_RESUME;
}

/* The next vcpu_run after KVM_EXIT_IO. Whoever moved RIP meanwhile (a reset) is right. */
int soft_finish_io(struct soft_vcpu *vcpu)
{
    struct soft_pio *pio = &vcpu->priv.pio;
    u8 *data = record_data(vcpu);

    pio->waiting = false;
    if (vcpu->cpu.lip != pio->lip)
        return SOFT_RESUME;
    if (pio->qualification & QUAL_STRING) {
        if (pio->qualification & QUAL_IN)
            store_string(vcpu, data);
        advance_string(vcpu);
        return SOFT_RESUME;
    }
    if (pio->qualification & QUAL_IN)
        set_rax(&vcpu->cpu, data, QUAL_SIZE(pio->qualification));
    soft_skip(vcpu, pio->insn_len);
    return SOFT_RESUME;
}
