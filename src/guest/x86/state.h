/*
 * The x86-64 CPU's state. IR slots are offsetof(struct x86_cpu, field). What a VMCS guest-state
 * area holds is here in the VMCS's own format (segment access rights and so on): this is the hot
 * home of it while the CPU runs.
 */
#ifndef TRIODE_X86_STATE_H
#define TRIODE_X86_STATE_H

#include "base/bits.h"
#include "guest/guest.h"

enum { X86_RAX, X86_RCX, X86_RDX, X86_RBX, X86_RSP, X86_RBP, X86_RSI, X86_RDI };
enum { X86_ES, X86_CS, X86_SS, X86_DS, X86_FS, X86_GS, X86_LDTR, X86_TR, X86_SEGS };

/* SDM vol. 3 25.4.1: access rights as in the VMCS. */
struct x86_seg {
    u64 base;
    u32 limit;  /* in bytes, granularity applied */
    u32 access; /* type 3:0, S 4, DPL 6:5, P 7, AVL 12, L 13, D/B 14, G 15, unusable 16 */
    u16 selector;
};
#define X86_SEG_TYPE(a) ((a)&15)
#define X86_SEG_S (1u << 4)
#define X86_SEG_DPL(a) (((a) >> 5) & 3)
#define X86_SEG_P (1u << 7)
#define X86_SEG_L (1u << 13)
#define X86_SEG_DB (1u << 14)
#define X86_SEG_G (1u << 15)
#define X86_SEG_UNUSABLE (1u << 16)

/* Interruptibility state, SDM vol. 3 table 25-3. */
#define X86_SHADOW_STI (1u << 0)
#define X86_SHADOW_MOV_SS (1u << 1)
#define X86_SHADOW (X86_SHADOW_STI | X86_SHADOW_MOV_SS)
#define X86_BLOCKED_BY_NMI (1u << 3)

/* Activity state, SDM vol. 3 25.4.2. */
enum { X86_ACTIVE, X86_HALTED, X86_SHUTDOWN, X86_WAITS_FOR_SIPI };

struct x86_table { /* GDTR, IDTR */
    u64 base;
    u32 limit;
};

/* An exception, interrupt or other event on its way to delivery. Type as in VM-entry interruption
 * information (SDM vol. 3 25.8.3). */
struct x86_event {
    bool valid;
    u8 vector;
    u8 type; /* 0 external, 2 NMI, 3 hardware exception, 4 software interrupt, 5 privileged software
              * exception (ICEBP), 6 software exception (INT3, INTO) */
    bool has_error;
    u32 error;
    u32 insn_len; /* types 4..6: RIP pushed is RIP + this */
    u64 payload;  /* #PF: the address for CR2; #DB: the DR6 bits */
    bool has_payload;
    /* By a VM entry: DR7 and IA32_DEBUGCTL stay, and IOPL does not forbid INT n (SDM vol. 3
     * 27.6.1.1). */
    bool injected;
};

/* A VM exit asked for by an instruction or event; consumed by vmx/soft. */
struct x86_vmexit {
    u32 reason; /* basic exit reason, SDM vol. 3 appendix C */
    u32 insn_len;
    u64 qualification;
    u64 linear;   /* guest-linear address */
    u64 physical; /* guest-physical address */
    u64 insn_info;
};

struct x86_hooks;

/* A debugger's breakpoints, beside the guest's own and unseen by it. Instruction breakpoints cost
 * something only where an address could be one (X86_MODE_BREAK_MASK); pages with watched data are
 * kept out of the soft TLB. */
struct x86_debugger {
    u64 dr[4];  /* linear addresses; */
    u32 dr7;    /* what they mean, as in DR7; 0: nothing is set */
    u32 hits;   /* DR6 bits met and not yet reported */
    bool alone; /* instructions run one by one: hits are noted, the access is not left before */
};

/* x87 data registers are kept as 80-bit values in 16-byte slots, physical numbering: ST(i) is
 * fpr[(top + i) & 7]; the MMX register i is the low 64 bits of fpr[i]. */
struct x86_fpr {
    u64 mantissa;
    u16 sign_exponent;
    u16 pad[3];
};

/* Performance counters (SDM vol. 3 chapter 20): general ones first, then the fixed ones. */
#define X86_PMU_GENERAL 4
#define X86_PMU_FIXED 3
#define X86_PMU_WIDTH 48
enum x86_pmu_event {
    X86_PMU_NONE,
    X86_PMU_CYCLES,
    X86_PMU_INSNS,
    X86_PMU_BRANCHES,
    X86_PMU_EVENTS
};

struct x86_pmu {
    /* How many until a counter overflows, which lifted code counts down in modes X86_MODE_COUNT,
     * and where they stood when the counters were last up to date. */
    s64 insns_left, branches_left;
    s64 insns_from, branches_from;
    u64 cycles_from;
    u64 value[X86_PMU_GENERAL + X86_PMU_FIXED];
    u64 select[X86_PMU_GENERAL]; /* IA32_PERFEVTSELx */
    u64 fixed_control, global_control, global_status;
    u32 counting[X86_PMU_EVENTS]; /* which counters count an event now */
    u32 mode;                     /* X86_MODE_COUNT bits */
    bool on;                      /* some counter counts, at this privilege level or another */
    bool by_level;                /* one counts at some levels only, */
    bool user;                    /* and this is for CPL 1 to 3 */
    bool halted;                  /* no cycles pass */
    bool alarm_gone_off;          /* set by any thread */
    u64 alarm;                    /* the engine was asked to call at this many cycles; 0: not */
};

/* Where the last branches came from and went to, linear addresses (SDM vol. 3 18.5, vol. 4 table
 * 2-4). */
#define X86_LBR_ENTRIES 8
struct x86_lbr {
    u64 from[X86_LBR_ENTRIES], to[X86_LBR_ENTRIES];
    u64 top;                          /* number of the last */
    u64 exception_from, exception_to; /* the last before an exception or interrupt */
};

struct x86_cpu {
    struct guest_cpu common;

    u64 gpr[16];
    u64 lip; /* pc slot: linear address of the next instruction = CS base + RIP */

    /* Arithmetic flags CF PF AF ZF SF OF, lazily: see guest/x86/cc.h. */
    u64 cc_dst, cc_src, cc_src2;
    u8 cc_op;
    u64 df;     /* 1 or -1 */
    u64 eflags; /* all other bits; arithmetic flags and DF are 0 here */

    struct x86_seg seg[X86_SEGS];
    struct x86_table gdtr, idtr;
    u64 cr0, cr2, cr3, cr4, cr8, efer, xcr0, xss;
    u64 dr[8]; /* 0..3, 6, 7 used */
    /* Data and I/O breakpoints (DR6 bits) that this instruction met: #DB at its end, or behind the
     * next one if this loads SS (SDM vol. 3 6.8.3). */
    u32 debug_hits;
    u8 own_bytes;    /* of the CPU's own access that is under way: implicit ones, and */
    bool delivering; /* all while an event is delivered */
    /* EFLAGS.RF holds only while lip is rf_lip: nothing has to clear it when the instruction is
     * done. x86_rflags knows. */
    u64 rf_lip;
    struct x86_debugger debugger;
    u32 pkru, pkrs; /* rights by protection key: of user pages, of supervisor pages */
    u8 cpl;
    bool loading_pdptes; /* second_level is asked for MOV to CR's sake: no linear address */
    u8 walk_rights;      /* of the last finished walk: bit 0 user, 1 writable, 2 execute-disable */
    bool iret_keeps_nmi; /* VMX: IRET leaves blocking by NMI alone (SDM vol. 3 26.3) */
    bool nmi_unblocked;  /* by the IRET under way, should it fault */

    u64 xmm[16][2] __attribute__((aligned(16)));
    u64 ymm_hi[16][2];
    u32 mxcsr;
    u16 fcw, fsw; /* fsw with TOP 0 */
    u8 ftop;
    u8 ftag; /* abridged: bit i set = physical register i not empty (FXSAVE form) */
    u16 fop;
    u64 fip, fdp;
    u16 fcs, fds;
    struct x86_fpr fpr[8] __attribute__((aligned(16)));

    /* MSRs that the CPU itself works with; the rest live with the engine. */
    u64 msr_star, msr_lstar, msr_cstar, msr_fmask, msr_kernel_gs_base;
    u64 msr_sysenter_cs, msr_sysenter_esp, msr_sysenter_eip;
    u64 msr_tsc_aux, msr_pat;
    u64 msr_debugctl; /* IA32_DEBUGCTL */
    struct x86_lbr lbr;
    struct x86_pmu pmu;

    /* X86_SHADOW holds only while lip is shadow_lip: nothing has to clear it when the instruction
     * in the shadow is done. Read it through x86_interruptibility. */
    u32 interruptibility;
    u32 activity;
    u64 shadow_lip;
    /* Set by the engine while no interrupt or NMI waits for leave to come in: STI, POPF, IRET ...
     * then go on without X86_EXIT_HALT_CHECK. (What arrives later sets a request bit.) */
    bool quiet;

    struct x86_event pending;  /* raised, not yet delivered or intercepted */
    u64 cr_operand;            /* what MOV to CR or LMSW is about to write, for intercept */
    struct x86_vmexit vmexit;  /* valid with exit code X86_EXIT_VMEXIT */
    u64 tsc_offset, tsc_scale; /* guest TSC = host TSC * scale / 2^48 + offset */
    bool monitor_armed;        /* what a wait is for does not matter: it may end at any time */
    u64 pdpte[4];   /* PAE paging: the PDPTE registers, loaded with CR3 (SDM vol. 3 4.4.1) */
    u64 space_key;  /* what memory->switch_space was last told, */
    u32 space_priv; /* valid while common.tlb is not NULL */
    u64 features;   /* X86_FEATURE_*, from CPUID by x86_update_features; 0: not yet */
    bool pkey_used; /* a walk met a protection key other than 0: WRPKRU must flush */
    u8 random_left; /* unused bytes at the end of random[], for RDRAND and RDSEED */
    u8 random[128];
    u64 phys_mask; /* addresses at or above are reserved: 1 << MAXPHYADDR, minus 1 */
    const struct x86_hooks *hooks;
    void *engine;                  /* the soft vCPU behind the hooks */
    const struct x86_model *model; /* CPUID feature model, guest/x86/model.h */
};

static inline struct x86_cpu *x86_cpu(struct guest_cpu *cpu)
{
    return (struct x86_cpu *)cpu;
}

/* Exit codes of x86 lifted code and helpers (IR exit, exit_if, guest_leave). */
enum {
    X86_EXIT_EVENT = IR_EXIT_GUEST, /* cpu->pending is set: exception to deliver */
    X86_EXIT_VMEXIT,                /* cpu->vmexit is set */
    X86_EXIT_STATE,                 /* mode or address space changed: just go on */
    X86_EXIT_HALT_CHECK,            /* STI, POP SS, IRET ...: look for interrupts, then go on */
    X86_EXIT_UNIMPLEMENTED,         /* decoded but not implemented: a loud report with the bytes */
    X86_EXIT_DEBUGGER,    /* before an instruction at a breakpoint of the debugger's (hits is
                                     * set), or that is about to touch watched data (it is not) */
    X86_EXIT_COUNTER,     /* before an instruction: a performance counter has overflowed */
    X86_EXIT_VECTOR = 64, /* + vector: exception with error code 0 if it has one */
};

/* mode word (struct guest_cpu.mode): everything that changes what code means. */
enum {
    X86_MODE_CODE16 = 0,
    X86_MODE_CODE32 = 1,
    X86_MODE_CODE64 = 2,
    X86_MODE_CODE_MASK = 3,
    X86_MODE_SS32 = 1 << 2, /* SS.B: 32-bit stack pointer (64-bit mode: not used) */
    X86_MODE_CPL_SHIFT = 3, /* 2 bits */
    X86_MODE_CPL_MASK = 3 << 3,
    X86_MODE_PE = 1 << 5, /* protected mode */
    X86_MODE_VM86 = 1 << 6,
    X86_MODE_LMA = 1 << 7,
    X86_MODE_FLAT = 1 << 8,    /* CS DS ES SS have base 0 and no limit, are readable/writable */
    X86_MODE_FLAT_CS = 1 << 9, /* CS has base 0 and no limit */
    X86_MODE_TF = 1 << 10,
    X86_MODE_FPU_TRAP = 1 << 11, /* CR0.EM or CR0.TS: x87/MMX need #NM checks by helper */
    X86_MODE_SSE_TRAP = 1 << 12, /* CR0.EM, CR0.TS or !CR4.OSFXSR: SSE needs checks by helper */
    X86_MODE_FP_UNMASKED =
        1 << 13, /* MXCSR exception unmasked: SSE arithmetic by checking helpers */
    X86_MODE_NONROOT =
        1 << 14, /* in VMX non-root operation of a guest's VMCS (not the root VMCS) */
    X86_MODE_IOPL_OK = 1 << 15, /* CPL <= IOPL (or real mode): CLI/STI/IN/OUT allowed without TSS */
    X86_MODE_AC = 1 << 16,      /* alignment checks on: CPL 3, CR0.AM, EFLAGS.AC */
    X86_MODE_DR = 1 << 17,      /* a breakpoint is enabled: checks around every instruction */
    X86_MODE_PAUSE = 1 << 18,   /* the root VMCS may ask for PAUSE; set once, before the CPU runs */
    X86_MODE_COUNT_INSNS = 1 << 19, /* a performance counter counts instructions here, */
    X86_MODE_BREAK_SHIFT =
        20, /* bit x86_break_hash(address) for each instruction breakpoint of the */
    X86_MODE_BREAK_MASK = 0xff << 20,  /* debugger's: code at such addresses has a check */
    X86_MODE_LA57 = 1 << 28,           /* 57 bits of a linear address count */
    X86_MODE_COUNT_BRANCHES = 1 << 29, /* or branches */
    X86_MODE_LBR = 1 << 30,            /* branches are recorded */
};

/* CPUID lacks some of what x86-64-v2 has: its instructions check. */
#define X86_MODE_REDUCED (1u << 31)

/* Modes in which every instruction is a block of its own, with debug checks around it. */
#define X86_MODE_STEPPING (X86_MODE_TF | X86_MODE_DR)
#define X86_MODE_COUNT (X86_MODE_COUNT_INSNS | X86_MODE_COUNT_BRANCHES)

/* Of the offset in the page only: blocks are shared between mappings. */
static inline u32 x86_break_hash(u64 address)
{
    u32 a = address & 0xfff;

    return (a ^ a >> 3 ^ a >> 6 ^ a >> 9) & 7;
}

#define X86_CR0_PE BIT(0)
#define X86_CR0_MP BIT(1)
#define X86_CR0_EM BIT(2)
#define X86_CR0_TS BIT(3)
#define X86_CR0_ET BIT(4)
#define X86_CR0_NE BIT(5)
#define X86_CR0_WP BIT(16)
#define X86_CR0_AM BIT(18)
#define X86_CR0_NW BIT(29)
#define X86_CR0_CD BIT(30)
#define X86_CR0_PG BIT(31)
#define X86_CR4_VME BIT(0)
#define X86_CR4_PVI BIT(1)
#define X86_CR4_TSD BIT(2)
#define X86_CR4_DE BIT(3)
#define X86_CR4_PSE BIT(4)
#define X86_CR4_PAE BIT(5)
#define X86_CR4_MCE BIT(6)
#define X86_CR4_PGE BIT(7)
#define X86_CR4_PCE BIT(8)
#define X86_CR4_OSFXSR BIT(9)
#define X86_CR4_OSXMMEXCPT BIT(10)
#define X86_CR4_UMIP BIT(11)
#define X86_CR4_LA57 BIT(12)
#define X86_CR4_VMXE BIT(13)
#define X86_CR4_FSGSBASE BIT(16)
#define X86_CR4_PCIDE BIT(17)
#define X86_CR4_OSXSAVE BIT(18)
#define X86_CR4_SMEP BIT(20)
#define X86_CR4_SMAP BIT(21)
#define X86_CR4_PKE BIT(22)
#define X86_CR4_PKS BIT(24)
#define X86_DEBUGCTL_LBR BIT(0)
#define X86_DEBUGCTL_BTF BIT(1)
#define X86_DEBUGCTL_FREEZE_LBRS BIT(11)
#define X86_DEBUGCTL_FREEZE_PERFMON BIT(12)
#define X86_EFER_SCE BIT(0)
#define X86_EFER_LME BIT(8)
#define X86_EFER_LMA BIT(10)
#define X86_EFER_NXE BIT(11)

#define X86_FLAG_CF BIT(0)
#define X86_FLAG_PF BIT(2)
#define X86_FLAG_AF BIT(4)
#define X86_FLAG_ZF BIT(6)
#define X86_FLAG_SF BIT(7)
#define X86_FLAG_TF BIT(8)
#define X86_FLAG_IF BIT(9)
#define X86_FLAG_DF BIT(10)
#define X86_FLAG_OF BIT(11)
#define X86_FLAG_IOPL (3ull << 12)
#define X86_FLAG_NT BIT(14)
#define X86_FLAG_RF BIT(16)
#define X86_FLAG_VM BIT(17)
#define X86_FLAG_AC BIT(18)
#define X86_FLAG_VIF BIT(19)
#define X86_FLAG_VIP BIT(20)
#define X86_FLAG_ID BIT(21)
#define X86_FLAGS_ARITH                                                                            \
    (X86_FLAG_CF | X86_FLAG_PF | X86_FLAG_AF | X86_FLAG_ZF | X86_FLAG_SF | X86_FLAG_OF)

enum {
    X86_DE,
    X86_DB,
    X86_NMI,
    X86_BP,
    X86_OF,
    X86_BR,
    X86_UD,
    X86_NM,
    X86_DF,
    X86_TS = 10,
    X86_NP,
    X86_SS_FAULT,
    X86_GP,
    X86_PF,
    X86_MF = 16,
    X86_AC,
    X86_MC,
    X86_XM,
    X86_VE,
    X86_CP,
};

#endif
