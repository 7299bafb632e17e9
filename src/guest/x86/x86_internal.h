/*
 * What the parts of guest/x86 that hold the system side (paging, events, segments, control
 * registers) offer each other and guest_x86.c.
 */
#ifndef TRIODE_X86_INTERNAL_H
#define TRIODE_X86_INTERNAL_H

#include <errno.h>
#include <string.h>

#include "guest/x86/helpers.h"
#include "guest/x86/insn.h"
#include "guest/x86/x86.h"

/* Functions of struct guest_ops. */
int x86_walk(struct guest_cpu *cpu, u64 gva, enum guest_access access, bool implicit, bool probe,
             struct guest_page *page);
u64 x86_pc(const struct guest_cpu *cpu);
void x86_jumped(struct guest_cpu *cpu, u64 from);
void x86_mmio_read(struct guest_cpu *cpu, u64 gpa, void *buf, unsigned bytes);
void x86_mmio_write(struct guest_cpu *cpu, u64 gpa, const void *buf, unsigned bytes);

/* Features that change what the CPU does (struct x86_cpu.features). */
#define X86_FEATURE_VALID BIT(0)
#define X86_FEATURE_VME BIT(1)
#define X86_FEATURE_MONITOR BIT(2)
#define X86_FEATURE_VMX BIT(3)
#define X86_FEATURE_PCID BIT(4)
#define X86_FEATURE_XSAVE BIT(5)
#define X86_FEATURE_RDRAND BIT(6)
#define X86_FEATURE_FSGSBASE BIT(7)
#define X86_FEATURE_SMEP BIT(8)
#define X86_FEATURE_INVPCID BIT(9)
#define X86_FEATURE_RDSEED BIT(10)
#define X86_FEATURE_SMAP BIT(11)
#define X86_FEATURE_UMIP BIT(12)
#define X86_FEATURE_PKU BIT(13)
#define X86_FEATURE_LA57 BIT(14)
#define X86_FEATURE_XSAVEOPT BIT(15)
#define X86_FEATURE_XSAVEC BIT(16)
#define X86_FEATURE_XSAVES BIT(17)
#define X86_FEATURE_NX BIT(18)
#define X86_FEATURE_PAGE1GB BIT(19)
#define X86_FEATURE_RDTSCP BIT(20)
#define X86_FEATURE_LM BIT(21)
#define X86_FEATURE_SYSCALL BIT(22)
#define X86_FEATURE_SEP BIT(23)
#define X86_FEATURE_PSE BIT(24)
#define X86_FEATURE_PAE BIT(25)
#define X86_FEATURE_PGE BIT(26)
#define X86_FEATURE_FXSR BIT(27)
#define X86_FEATURE_RDPID BIT(28)
#define X86_FEATURE_PMU BIT(29)
#define X86_FEATURE_CLFLUSHOPT BIT(30)
#define X86_FEATURE_CLWB BIT(31)
#define X86_FEATURE_MOVBE BIT(32)
#define X86_FEATURE_ADX BIT(33)
#define X86_FEATURE_MOVDIRI BIT(34)
#define X86_FEATURE_WAITPKG BIT(35)
#define X86_FEATURE_SSE3 BIT(48)
#define X86_FEATURE_SSSE3 BIT(49)
#define X86_FEATURE_SSE4_1 BIT(50)
#define X86_FEATURE_SSE4_2 BIT(51)
#define X86_FEATURE_POPCNT BIT(52)
#define X86_FEATURE_CX16 BIT(53)
#define X86_FEATURE_LAHF BIT(54)
#define X86_FEATURE_PKS BIT(55)
/* What x86-64-v2 adds to x86-64, as x86_extension has it. */
#define X86_FEATURES_V2                                                                            \
    (X86_FEATURE_SSE3 | X86_FEATURE_SSSE3 | X86_FEATURE_SSE4_1 | X86_FEATURE_SSE4_2 |              \
     X86_FEATURE_POPCNT | X86_FEATURE_CX16 | X86_FEATURE_LAHF)

static inline bool x86_has(const struct x86_cpu *cpu, u64 feature)
{
    if (unlikely(!cpu->features)) /* only a memory of what CPUID says: const to who asks */
        x86_update_features((struct x86_cpu *)cpu);
    return cpu->features & feature;
}

/* Event types (SDM vol. 3 25.8.3). */
enum {
    X86_EVENT_EXTERNAL = 0,
    X86_EVENT_NMI = 2,
    X86_EVENT_HARDWARE = 3,
    X86_EVENT_SOFT_INT = 4,
    X86_EVENT_ICEBP = 5,
    X86_EVENT_SOFT_EXCEPTION = 6,
};

/* Basic exit reasons (SDM vol. 3 appendix C) of the instructions here. */
enum {
    X86_REASON_TASK_SWITCH = 9,
    X86_REASON_CPUID = 10,
    X86_REASON_HLT = 12,
    X86_REASON_INVD = 13,
    X86_REASON_INVLPG = 14,
    X86_REASON_RDPMC = 15,
    X86_REASON_RDTSC = 16,
    X86_REASON_VMCALL = 18,
    X86_REASON_VMCLEAR = 19,
    X86_REASON_VMLAUNCH = 20,
    X86_REASON_VMPTRLD = 21,
    X86_REASON_VMPTRST = 22,
    X86_REASON_VMREAD = 23,
    X86_REASON_VMRESUME = 24,
    X86_REASON_VMWRITE = 25,
    X86_REASON_VMXOFF = 26,
    X86_REASON_VMXON = 27,
    X86_REASON_CR = 28,
    X86_REASON_DR = 29,
    X86_REASON_IO = 30,
    X86_REASON_RDMSR = 31,
    X86_REASON_WRMSR = 32,
    X86_REASON_MWAIT = 36,
    X86_REASON_MONITOR = 39,
    X86_REASON_PAUSE = 40,
    X86_REASON_GDTR_IDTR = 46,
    X86_REASON_LDTR_TR = 47,
    X86_REASON_INVEPT = 50,
    X86_REASON_RDTSCP = 51,
    X86_REASON_INVVPID = 53,
    X86_REASON_WBINVD = 54,
    X86_REASON_XSETBV = 55,
    X86_REASON_RDRAND = 57,
    X86_REASON_INVPCID = 58,
    X86_REASON_VMFUNC = 59,
    X86_REASON_RDSEED = 61,
    X86_REASON_XSAVES = 63,
    X86_REASON_XRSTORS = 64,
    X86_REASON_UMWAIT = 67,
    X86_REASON_TPAUSE = 68,
    X86_REASON_RDPID = 0x10000, /* no exit reason, but a control enables it */
    X86_REASON_UMONITOR,        /* so here */
};

static inline void x86_intercept(struct x86_cpu *cpu, u32 reason, u64 qualification, u32 insn_len,
                                 u64 linear, u64 insn_info)
{
    if (cpu->hooks && cpu->hooks->intercept)
        cpu->hooks->intercept(cpu, reason, qualification, insn_len, linear, insn_info);
}

static inline bool x86_exits_inside(const struct x86_cpu *cpu, u32 reason, u64 qualification)
{
    return unlikely(cpu->common.mode & X86_MODE_NONROOT) &&
           cpu->hooks->exits_inside(cpu, reason, qualification);
}

/* #UD, before any other exception, if VMX has the instruction with exit reason @reason disabled. */
static inline void x86_need_enabled(struct x86_cpu *cpu, u32 reason)
{
    if (unlikely(cpu->common.mode & X86_MODE_NONROOT) && !cpu->hooks->enabled(cpu, reason))
        x86_raise(cpu, X86_UD);
}

static inline bool x86_long_mode(const struct x86_cpu *cpu)
{
    return cpu->efer & X86_EFER_LMA;
}

static inline bool x86_code64(const struct x86_cpu *cpu)
{
    return x86_long_mode(cpu) && cpu->seg[X86_CS].access & X86_SEG_L;
}

static inline bool x86_protected(const struct x86_cpu *cpu)
{
    return cpu->cr0 & X86_CR0_PE;
}

static inline bool x86_vm86(const struct x86_cpu *cpu)
{
    return cpu->eflags & X86_FLAG_VM;
}

static inline unsigned x86_iopl(const struct x86_cpu *cpu)
{
    return cpu->eflags >> 12 & 3;
}

/* @address is canonical for the width of linear addresses in force (SDM vol. 1 3.3.7.1). */
static inline bool x86_canonical(const struct x86_cpu *cpu, u64 address)
{
    return (u64)sign_extend(address, cpu->cr4 & X86_CR4_LA57 ? 57 : 48) == address;
}

/* Canonical for 57 bits if the CPU has 5-level paging at all: what is checked when a base register
 * is loaded, by WRMSR, LGDT, LLDT, WRFSBASE ..., and by INVPCID, whatever CR4.LA57. */
static inline bool x86_canonical_any(const struct x86_cpu *cpu, u64 address)
{
    return (u64)sign_extend(address, x86_has(cpu, X86_FEATURE_LA57) ? 57 : 48) == address;
}

static inline void x86_load_implicit(struct x86_cpu *cpu, u64 gva, void *buf, unsigned bytes)
{
    cpu->own_bytes = (u8)bytes;
    cpu->common.memory->load_implicit(&cpu->common, gva, buf, bytes);
}

static inline void x86_store_implicit(struct x86_cpu *cpu, u64 gva, const void *buf, unsigned bytes)
{
    cpu->own_bytes = (u8)bytes;
    cpu->common.memory->store_implicit(&cpu->common, gva, buf, bytes);
}

/* Should the run loop look for events before the next instruction, if they may come in now? What
 * waited when it last looked, or came since: of this very block too, by a write to the local
 * APIC. */
static inline bool x86_events_wait(const struct x86_cpu *cpu)
{
    return !cpu->quiet || __atomic_load_n(&cpu->common.request, __ATOMIC_RELAXED) & GUEST_REQ_EVENT;
}

/* At the end of an instruction that may have let interrupts or NMIs in, state complete: leaves for
 * the run loop to look, unless the engine says that nothing waits. Not for blocks of stepping
 * modes, whose ends have debug traps to raise and leave anyway. @before: the mode word when it
 * began, whose code would have counted it; @branch: it is one. */
static inline void x86_check_events(struct x86_cpu *cpu, u32 before, bool branch)
{
    if (!x86_events_wait(cpu))
        return;
    x86_pmu_retired(cpu, before, branch);
    guest_leave(&cpu->common, X86_EXIT_HALT_CHECK);
}

/* Full x86_update_mode and x86_update_mmu after a change of CPL, CS, SS or flags. */
static inline void x86_update(struct x86_cpu *cpu)
{
    x86_update_mode(cpu);
    x86_update_mmu(cpu);
}

/* The same at the end of a far transfer. An instruction counts where it ends: if only there
 * counters count, its own code does not know. */
static inline void x86_update_far(struct x86_cpu *cpu)
{
    u32 before = cpu->common.mode;

    x86_update(cpu);
    if (unlikely(cpu->common.mode & ~before & X86_MODE_COUNT))
        x86_pmu_retired(cpu, ~before, true);
}

/* A near branch that was counted is taken back. */
static inline void x86_pmu_unretired(struct x86_cpu *cpu)
{
    cpu->pmu.insns_left += cpu->common.mode & X86_MODE_COUNT_INSNS ? 1 : 0;
    cpu->pmu.branches_left += cpu->common.mode & X86_MODE_COUNT_BRANCHES ? 1 : 0;
}

/* DR6 above the breakpoints' bits (SDM vol. 3 18.2.3). */
#define X86_DR6_BD BIT(13)
#define X86_DR6_BS BIT(14)
#define X86_DR6_BT BIT(15)

/* event.c: #DB with these bits for DR6. */
void x86_raise_debug(struct x86_cpu *cpu, u64 dr6_bits) NORETURN;

/* Raises #DB if the instruction at lip, not yet fetched, has a breakpoint. */
void x86_code_breakpoint(struct x86_cpu *cpu);

/* The repeated string instruction at lip has iterations left: what interrupts it here sees RF set
 * (SDM vol. 3 18.3.1.1). */
static inline void x86_between_iterations(struct x86_cpu *cpu)
{
    cpu->eflags |= X86_FLAG_RF;
    cpu->rf_lip = cpu->lip;
}

/* stack.c: pushes and pops whose effect on RSP and SS is the caller's to commit, so that a fault in
 * the middle leaves the state as it was. */
struct x86_stack {
    struct x86_cpu *cpu;
    struct x86_seg ss;
    u64 sp, mask;
    unsigned width; /* bytes of each push or pop: 2, 4, 8 */
    bool code64;    /* no segmentation */
    bool system;    /* with supervisor rights whatever the current privilege */
    u32 error;      /* error code of #SS */
};

/* The current stack, for pushes and pops of @width bytes. */
void x86_stack_init(struct x86_stack *s, struct x86_cpu *cpu, unsigned width);
void x86_push(struct x86_stack *s, u64 value);
u64 x86_pop(struct x86_stack *s);
/* Makes s->sp the CPU's. */
void x86_stack_commit(const struct x86_stack *s);

/* seg.c */

/* A descriptor as it stands in GDT or LDT, with the upper half of the 16-byte ones. */
struct x86_descriptor {
    u64 raw, high;
};

/* Reads the descriptor of @selector; false when it lies beyond its table's limit (or the LDT is
 * unusable). @wide: 16 bytes, as system descriptors in long mode. Page faults raise. */
bool x86_read_descriptor(struct x86_cpu *cpu, u16 selector, bool wide, struct x86_descriptor *d);

/* Segment register contents of a descriptor (base 32 bits). */
struct x86_seg x86_unpack_descriptor(u16 selector, u64 raw);

/* Sets the accessed bit in memory and in @raw if it is not set. */
void x86_set_accessed(struct x86_cpu *cpu, u16 selector, u64 *raw);

/* MOV/POP/LxS to a segment register other than CS, with all checks; raises. Mode is updated. */
void x86_load_segment(struct x86_cpu *cpu, unsigned reg, u16 selector);

/* Sets @reg as real and virtual-8086 mode do. */
void x86_load_segment_real(struct x86_cpu *cpu, unsigned reg, u16 selector);

/* Stack for a transfer to an inner level @dpl from the TSS: SS:ESP/SP, checked, or in long mode RSP
 * and a null SS; with @ist 1..7 from the interrupt stack table. @ext is or-ed into error codes.
 * Widths and whose rights are the caller's to set. */
void x86_stack_from_tss(struct x86_stack *s, struct x86_cpu *cpu, unsigned dpl, unsigned ist,
                        u32 ext);

/* The null selector @selector in SS at privilege @cpl: unusable, but its DPL is the CPL. */
struct x86_seg x86_null_ss(u16 selector, unsigned cpl);

/* task.c: what causes a task switch, as in the exit qualification (SDM vol. 3 table 28-2). */
enum x86_task_source { X86_TASK_CALL, X86_TASK_IRET, X86_TASK_JMP, X86_TASK_GATE };

/* CALL, JMP or IRET switches to the task of TSS @selector, leaving with X86_EXIT_HALT_CHECK, or
 * raises what is wrong with it. In VMX non-root operation it is a VM exit. */
void x86_task_switch(struct x86_cpu *cpu, u16 selector, enum x86_task_source source,
                     u32 insn_len) NORETURN;

/* Delivers @event through a task gate for TSS @selector; @rip and @flags are what the old task
 * saves. @ext is or-ed into error codes. Answers whether a debug trap (DR6.BT) is due. */
bool x86_task_gate(struct x86_cpu *cpu, u16 selector, const struct x86_event *event, u64 rip,
                   u64 flags, u32 ext);

/* Linear address of @bytes at @offset in segment @reg with limit, type and canonical checks; raises
 * #GP(0) or #SS(0). */
u64 x86_segment_linear(struct x86_cpu *cpu, unsigned reg, u64 offset, unsigned bytes, bool write);

/* True if [@offset, @offset + @bytes) is within @seg's limit (expand-down too). */
bool x86_within_limit(const struct x86_seg *seg, u32 offset, unsigned bytes);

static inline u64 x86_stack_mask(const struct x86_cpu *cpu)
{
    if (x86_code64(cpu))
        return ~0ull;
    return cpu->seg[X86_SS].access & X86_SEG_DB ? 0xffffffffull : 0xffffull;
}

/* cr.c: the reserved bits of CR4, and loading PDPTEs: false if one is malformed (#GP). */
u64 x86_cr4_valid(const struct x86_cpu *cpu);
bool x86_load_pdptes(struct x86_cpu *cpu, u64 cr3);

/* The space key for x86_update_mmu and for flushes, were CR3 @cr3. */
u64 x86_space_key(const struct x86_cpu *cpu, u64 cr3);

/* operand.c: the instruction at lip, decoded; false if it cannot be read or is none. */
bool x86_decode_at_lip(struct x86_cpu *cpu, struct x86_insn *in);
/* Instructions that push or pop. */
bool x86_uses_stack(const struct x86_insn *in);

/* The operand of the instruction at lip, before it changed anything, that holds the byte at
 * @gva. */
struct x86_memory_operand {
    u64 linear; /* of its first byte */
    unsigned bytes;
    bool stack;    /* faults are #SS */
    bool outside;  /* it passes the end of its segment's 4 GiB, or is not all canonical */
    bool modified; /* read to be written: accessed as a write from the start */
};
bool x86_find_memory_operand(struct x86_cpu *cpu, u64 gva, struct x86_memory_operand *m);
/* Decides between #SS and #GP for non-canonical addresses. */
bool x86_access_is_stack(struct x86_cpu *cpu, u64 gva);

/* fpu_state.c: after a load of MXCSR: host environment and mode bit. */
void x86_mxcsr_loaded(struct x86_cpu *cpu);
/* helpers_sse.c: stores those of @n bytes whose mask byte has its top bit set, all or, if one
 * cannot be written, none. */
void x86_store_masked(struct x86_cpu *cpu, u64 address, const u8 *from, const u8 *mask, unsigned n);

/* rflags.c: what POPF and IRET may change at the current privilege with operands of @width bytes
 * (VM, VIF and VIP aside). */
u64 x86_flags_writable(const struct x86_cpu *cpu, unsigned width);

/* What POPF and IRET popped in virtual-8086 mode below IOPL 3, with VIF as IF says; #GP(0) for TF,
 * and for IF while VIP is set (SDM vol. 3 21.3.3.4). */
u64 x86_vme_flags(struct x86_cpu *cpu, u64 image);

#endif
