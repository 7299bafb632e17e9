/*
 * A host back end: IR unit -> host machine code. Knows no guest and no translator: all that lies
 * outside a unit reaches it through struct host_abi.
 */
#ifndef TRIODE_HOST_H
#define TRIODE_HOST_H

#include "ir/ir.h"

/*
 * The frame all translated code of one vCPU runs in, on the vCPU thread's stack; made by the entry
 * stub, shared by all units (units jump to each other, they do not call). spill[] holds spilled
 * values while a unit runs. saved[]/vector[] are filled by the slow-path and exit thunks: the host
 * registers as they were at the trapping instruction.
 */
#define HOST_SPILLS 512
struct host_frame {
    u64 spill[HOST_SPILLS * 2]; /* 16-byte granules, 16-byte aligned */
    u64 vector[16][2];
    u64 saved[16];
};

/* Where a value is, for restoring guest state from a host_site. */
enum host_loc_kind {
    HOST_LOC_REG,
    HOST_LOC_VECTOR,
    HOST_LOC_SPILL,
    HOST_LOC_CONST,
    HOST_LOC_BASE,
    HOST_LOC_STATE,
};
struct host_put {
    u16 slot; /* state byte offset */
    u8 type;  /* enum ir_type */
    u8 kind;
    s32 where; /* register number, spill granule, low part of constant; BASE: offset from base reg;
                * STATE: of 8 bytes of state, from the host's state register */
};

/*
 * One trapping instruction of a unit: what its slow path or side exit must do. Thunks get the
 * address of this record; the sites of a unit lie behind its code.
 */
struct host_site {
    u8 op;   /* enum ir_op: ld st acas axchg aadd aand aor axor poll exit_if */
    u8 type; /* access type; for stores the type of the value */
    u8 addr_kind, result_kind, operand_kind, operand2_kind; /* enum host_loc_kind */
    u16 nputs;
    s32 addr, result, operand, operand2;
    s32 disp;               /* added to the address */
    u32 exit_code;          /* exit_if, poll */
    s32 resume;             /* ld, st, atomics: code to go on with, relative to this record */
    struct host_put puts[]; /* dputs in effect; 64-bit constants use two consecutive entries: the
                             * second holds the high half in where and slot 0xffff */
};

/* A place in emitted code that a direct jump leaves by; dbt chains it. */
struct host_link {
    u32 patch;    /* offset in code of the 4-byte-aligned rel32 to overwrite atomically */
    u32 unlinked; /* offset in code that the rel32 leads to when not chained */
    s64 offset;   /* guest destination: base + offset */
    /* A jump backwards that is counted: */
    u32 counting; /* offset of code that counts down, then goes on by */
    u32 onward;   /* this rel32; at less than 0 it goes where an unlinked jump goes */
    s32 *counter; /* NULL: not counted */
};
#define HOST_MAX_LINKS 40
#define HOST_MAX_COUNTERS 2

/* An entry of the jump cache. An address is in the entry of its index or in the one beside it: of
 * index ^ 1, in the same line of the host's cache. */
struct host_jump {
    u64 gva;
    u32 space, mode;
    void *code;
    u64 base; /* the page of gva */
};

/* What else is known of an entry; the tables of both lie abi.jump_more apart. An entry whose code
 * is thunk_counted goes on to @code from there, and counts. */
struct host_jump_more {
    void *code;
    s64 left; /* jumps until the missed callback is to know; it is asked when this gets below 0 */
    void *block;    /* the run time's */
    u64 generation; /* the run time's */
};
_Static_assert(sizeof(struct host_jump) == sizeof(struct host_jump_more), "they have one index");

/* Where the jump cache of 1 << @bits entries keeps @gva: one multiplication by 33 gives gva + gva /
 * 32 in units of the entry's size. */
static inline u32 host_jump_index(u64 gva, unsigned bits)
{
    return (u32)gva * (sizeof(struct host_jump) + 1) / sizeof(struct host_jump) &
           ((1u << bits) - 1);
}

/* Guest memory as emitted code reaches it. */
enum host_memory { HOST_MEMORY_TLB, HOST_MEMORY_DIRECT };

struct host_abi {
    enum host_memory memory;
    /* Byte offsets from the state pointer. */
    u32 request, tlb, jump_cache, space, mode, pc_slot, insns, exit_code;
    u32 host_frame; /* u64, set to the frame's address on entry; 0: nowhere */
    /* TLB geometry (struct tlb in guest.h), and the offset of an s32 that counts down with each
     * access that misses the first way, which goes to the slow path when it gets below 0. */
    u32 tlb_bits, tlb_entry_bytes, tlb_read_tag, tlb_write_tag, tlb_addend, tlb_ways, tlb_patience;
    u32 jump_cache_bits; /* of the jump cache: struct host_jump[1 << bits], */
    u32 jump_more;       /* and so far behind it struct host_jump_more[1 << bits]; 0: nowhere */
    u64 direct_base;     /* HOST_MEMORY_DIRECT: host address of guest address 0 */
    bool direct_pages;   /* true: a goto to any offset may be chained; false: only in the page */
    bool count_insns;
    /* HOST_MAX_COUNTERS for jumps backwards of the next unit; NULL: they do not count. */
    s32 *counters;
    /* Of the next unit: so far behind the beginning of its code lies what runs seldom, and the site
     * records, so that what runs often lies close together; 0: they follow the code. */
    u32 cold;
    /* Made by host_make_thunks: code addresses (in the executable mapping) of the thunks, and what
     * the host CPU can do beyond the baseline. */
    u64 thunk_site;              /* call'ed by slow paths and side exits with a host_site behind */
    u64 thunk_site_general;      /* the same for units that use no vector registers */
    u64 thunk_read, thunk_write; /* call'ed by accesses that miss the first way of the TLB */
    u64 thunk_goto;              /* unchained goto: destination in rax, link in rdx */
    u64 thunk_miss; /* the entry at rcx is not of the address in rax; instruction's offset in rdx */
    u64 thunk_counted; /* code of jump cache entries that count */
    u64 thunk_exit;    /* exit_code is written */
    u32 features;      /* HOST_FEATURE_* */
};

enum {
    HOST_FEATURE_BMI1 = 1 << 0,
    HOST_FEATURE_BMI2 = 1 << 1,
    HOST_FEATURE_LZCNT = 1 << 2,
    HOST_FEATURE_FMA = 1 << 3,
};

#define HOST_LINK_COUNTED 1

/* C functions the thunks call. */
struct host_callbacks {
    /* Slow path or side exit: does all (applies puts with host_restore if it leaves), writes the
     * result into frame->saved/vector/spill and answers 0 to go on at site->resume, else the value
     * that host_enter answers. */
    u64 (*site)(void *state, struct host_frame *frame, const struct host_site *site);
    /* A link or the jump cache missed: the pc slot is written. Answers code to jump to, or NULL to
     * leave to the run loop. @link is the address of the link's patch field in the code; or 0, and
     * @from is the address of the guest instruction; or HOST_LINK_COUNTED when a jump cache entry
     * has counted to its end. */
    void *(*missed)(void *state, u64 link, u64 from);
};

/* Emits the entry stub and thunks at @buf (executable address @exec_addr), fills the addresses in
 * @abi; answers bytes used. *@enter is `u64 enter(void *state, void *code, u64 base)`: runs until
 * an exit or miss; answers the IR exit code, or 0 when the run loop is to look up the pc. */
size_t host_make_thunks(u8 *buf, u64 exec_addr, size_t size, struct host_abi *abi,
                        const struct host_callbacks *callbacks,
                        u64 (**enter)(void *state, void *code, u64 base));

/* Result of compiling a unit. */
struct host_code {
    /* All from the start of the buffer: where what runs often ends, where what runs seldom begins,
     * where instructions end, and where the sites behind them, aligned, do. */
    size_t hot_bytes, cold, code_bytes, total_bytes;
    u32 nlinks, ncounters;
    struct host_link links[HOST_MAX_LINKS];
};

/* Compiles @unit into @buf, to run at @exec_addr. @size bytes may be used there, and, if abi->cold
 * is not 0, as many at @buf + abi->cold. -ENOSPC when @size is too small (nothing is patched
 * elsewhere; call again with more room), -ENOMEM, -E2BIG when the unit needs more spills or links
 * than there are (dbt then lifts fewer instructions). */
int host_compile(const struct ir_unit *unit, const struct host_abi *abi, u8 *buf, u64 exec_addr,
                 size_t size, struct host_code *code);

/* Makes state in memory precise at @site, from the frame the thunk filled. */
void host_restore(void *state, const struct host_frame *frame, const struct host_site *site);

/* Reads or writes a location named by a site, as raw bits. */
u64 host_read_location(const struct host_frame *frame, u8 kind, s32 where);

/* The same with the upper half of a vector; a scalar's bits above its type are undefined. */
void host_read_operand(const struct host_frame *frame, u8 kind, s32 where, u64 value[2]);

/* Puts the result of a load or atomic where @site wants it: zero-extended to 64 bits; a vector in
 * two halves, f32 and f64 by their bits. */
void host_write_result(struct host_frame *frame, const struct host_site *site, const u64 value[2]);

/* HOST_MEMORY_DIRECT, where each memory access has a record but no slow path: the one of the access
 * that faulted at @pc in the unit at @code_exec; NULL if none did. Only op, type and puts are
 * filled; the caller makes a host_frame from the registers of the fault (its spill part is where
 * rsp points) and restores. */
const struct host_site *host_find_site(const u8 *code_exec, const struct host_code *code, u64 pc);

/* What a signal handler's ucontext says of the host's fault. */
struct host_fault {
    u64 pc;
    u32 mxcsr;
    bool write;
};
void host_read_fault(const void *ucontext, struct host_fault *fault);

/* The frame of the unit that faulted, its registers filled from @ucontext. */
struct host_frame *host_fault_frame(const void *ucontext);

/* Points the link's jump at @to (an executable address), or back when @to is 0. Atomic against CPUs
 * that execute it. @code_rw/@code_exec: the unit's code in its two mappings. */
void host_patch_link(u8 *code_rw, u64 code_exec, const struct host_link *link, u64 to);

/* The same for a jump that has a counter: it counts on its way to @to. */
void host_count_link(u8 *code_rw, u64 code_exec, const struct host_link *link, u64 to);

/* The host's floating-point environment: enter with the guest's rounding mode and all exceptions
 * masked, leave with the sticky flags. In x86 MXCSR format. */
void host_fp_enter(u32 mxcsr);
u32 host_fp_leave(void);

/* Listing of emitted code for --dump=host. */
void host_disassemble(const u8 *code, size_t bytes, u64 exec_addr, FILE *out);

#endif
