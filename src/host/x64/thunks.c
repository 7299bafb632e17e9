/*
 * The code that all units share: the way in, the ways out, and the bridge from a unit's slow path
 * to C. A unit runs with rsp at its struct host_frame, rbp at guest state and r12 at its page.
 */
#include <cpuid.h>

#include "host/x64/lower.h"

#define THUNK_BYTES 2048

static const u8 pushed[] = {RBX, RBP, R12, R13, R14, R15};

static void push(struct x64 *c, unsigned reg)
{
    if (reg >= 8)
        x64_byte(c, 0x41);
    x64_byte(c, 0x50 | (reg & 7));
}

static void pop(struct x64 *c, unsigned reg)
{
    if (reg >= 8)
        x64_byte(c, 0x41);
    x64_byte(c, 0x58 | (reg & 7));
}

static void ret(struct x64 *c)
{
    x64_byte(c, 0xc3);
}

static void call_c(struct x64 *c, u64 fn)
{
    x64_mov_ri(c, RAX, fn);
    x64_rr(c, 0xff, 2, RAX);
}

/* What the entry stub takes off the stack: the frame, and 8 bytes that make it 16-byte aligned
 * below the return address and six pushes. */
#define ENTRY_BYTES ((s32)sizeof(struct host_frame) + 8)

static void emit_enter(struct x64 *c, const struct host_abi *abi)
{
    for (unsigned i = 0; i < ARRAY_SIZE(pushed); i++)
        push(c, pushed[i]);
    x64_alu_ri(c, ALU_SUB, 8, RSP, ENTRY_BYTES);
    x64_lea(c, 8, STATE_REG, x64_at(RDI, STATE_BIAS));
    x64_mov_rr(c, 8, BASE_REG, RDX);
    if (abi->host_frame)
        x64_store(c, 8, slot_mem(abi->host_frame), RSP);
    x64_rr(c, 0xff, 4, RSI);
}

/* Answers rax from enter. */
static void emit_leave(struct x64 *c)
{
    x64_alu_ri(c, ALU_ADD, 8, RSP, ENTRY_BYTES);
    for (unsigned i = ARRAY_SIZE(pushed); i--;)
        pop(c, pushed[i]);
    ret(c);
}

/* @extra: how far rsp is below the frame. */
static void frame_registers(struct x64 *c, s32 extra, bool save, bool vectors)
{
    for (unsigned r = 0; r < 16; r++) {
        struct x64_mem m =
            x64_at(RSP, extra + (s32)offsetof(struct host_frame, saved) + 8 * (s32)r);

        if (r == RSP)
            continue;
        if (save)
            x64_store(c, 8, m, r);
        else
            x64_load(c, 8, r, m);
    }
    for (unsigned r = 0; vectors && r < 16; r++) {
        struct x64_mem m =
            x64_at(RSP, extra + (s32)offsetof(struct host_frame, vector) + 16 * (s32)r);

        x64_rm(c, save ? X64_MOVAPS_ST : X64_MOVAPS, r, m);
    }
}

/*
 * Called by a unit; behind the call is the distance to the site record. Goes on at the record's
 * resume address by ret, so that the CPU's return predictor stays in step.
 */
static void emit_site(struct x64 *c, const struct host_callbacks *callbacks, u64 leave,
                      bool vectors)
{
    u8 *left;

    frame_registers(c, 8, true, vectors);
    x64_load(c, 8, RAX, x64_at(RSP, 0));
    x64_movsx_m(c, 4, 8, RBX, x64_at(RAX, 0));
    x64_alu_rr(c, ALU_ADD, 8, RBX, RAX);
    x64_lea(c, 8, RDI, slot_mem(0));
    x64_lea(c, 8, RSI, x64_at(RSP, 8));
    x64_mov_rr(c, 8, RDX, RBX);
    x64_alu_ri(c, ALU_SUB, 8, RSP, 8);
    call_c(c, (u64)callbacks->site);
    x64_alu_ri(c, ALU_ADD, 8, RSP, 8);
    x64_test_rr(c, 8, RAX, RAX);
    left = x64_jcc_later(c, CC_NE);
    x64_movsx_m(c, 4, 8, RAX, x64_at(RBX, offsetof(struct host_site, resume)));
    x64_alu_rr(c, ALU_ADD, 8, RAX, RBX);
    x64_store(c, 8, x64_at(RSP, 0), RAX);
    frame_registers(c, 8, false, vectors);
    ret(c);

    x64_land(c, left);
    x64_alu_ri(c, ALU_ADD, 8, RSP, 8);
    x64_jmp(c, leave);
}

/*
 * Called when an access misses the first way of the TLB: rax is where its entry would be, rdx the
 * page. Answers equal, and the entry in rax, if one of the others has it.
 */
static void emit_ways(struct x64 *c, const struct host_abi *abi, u32 tag)
{
    s32 way = (s32)(abi->tlb_entry_bytes << abi->tlb_bits);
    u8 *next, *impatient;

    x64_alu_mi(c, ALU_SUB, 4, slot_mem(abi->tlb_patience), 1);
    impatient = x64_jcc_later(c, CC_S);
    for (s32 i = 1; i < (s32)abi->tlb_ways; i++) {
        x64_alu_rm(c, ALU_CMP, 8, RDX, x64_at(RAX, i * way + (s32)tag));
        next = x64_jcc_later(c, CC_NE);
        x64_lea(c, 8, RAX, x64_at(RAX, i * way)); /* leaves the flags alone */
        ret(c);
        x64_land(c, next);
    }
    x64_land(c, impatient); /* not equal on both ways here: below 0, or none was */
    ret(c);
}

/* Destination in rax, link in rdx, or that is 0 and the guest instruction in rcx. */
static void emit_goto(struct x64 *c, const struct host_abi *abi,
                      const struct host_callbacks *callbacks, u64 leave)
{
    x64_store(c, 8, slot_mem(abi->pc_slot), RAX);
    x64_lea(c, 8, RDI, slot_mem(0));
    x64_mov_rr(c, 8, RSI, RDX);
    x64_mov_rr(c, 8, RDX, RCX);
    call_c(c, (u64)callbacks->missed);
    x64_test_rr(c, 8, RAX, RAX);
    x64_jcc(c, CC_E, leave);
    x64_load(c, 8, BASE_REG, slot_mem(abi->pc_slot));
    x64_alu_ri(c, ALU_AND, 8, BASE_REG, -4096);
    x64_rr(c, 0xff, 4, RAX);
}

/* From the jump cache's entry at rcx. */
static void emit_counted(struct x64 *c, const struct host_abi *abi)
{
    s32 more = (s32)abi->jump_more;
    u8 *often;

    x64_alu_mi(c, ALU_SUB, 8, x64_at(RCX, more + (s32)offsetof(struct host_jump_more, left)), 1);
    often = x64_jcc_later(c, CC_S);
    x64_rm(c, 0xff, 4, x64_at(RCX, more + (s32)offsetof(struct host_jump_more, code)));
    x64_land(c, often);
    x64_load(c, 8, RAX, x64_at(RCX, offsetof(struct host_jump, gva)));
    x64_mov_ri(c, RDX, HOST_LINK_COUNTED);
    x64_jmp(c, abi->thunk_goto);
}

/* The entry beside the one at rcx, or else what emit_goto wants. No value is in a register here. */
static void emit_miss(struct x64 *c, const struct host_abi *abi)
{
    u8 *missed[3];
    unsigned n = 0;

    x64_alu_ri(c, ALU_XOR, 8, RCX, sizeof(struct host_jump));
    x64_lea(c, 8, RSI, x64_at_index(BASE_REG, RDX, 0, 0));
    x64_alu_rm(c, ALU_CMP, 8, RAX, x64_at(RCX, offsetof(struct host_jump, gva)));
    missed[n++] = x64_jcc_later(c, CC_NE);
    while (compare_space(c, abi, n - 1))
        missed[n++] = x64_jcc_later(c, CC_NE);
    x64_load(c, 8, BASE_REG, x64_at(RCX, offsetof(struct host_jump, base)));
    x64_rm(c, 0xff, 4, x64_at(RCX, offsetof(struct host_jump, code)));
    while (n)
        x64_land(c, missed[--n]);
    x64_mov_rr(c, 8, RCX, RSI);
    x64_alu_rr(c, ALU_XOR, 4, RDX, RDX);
}

static u32 detect_features(void)
{
    u32 a, b, c, d, features = 0;

    if (__get_cpuid_count(7, 0, &a, &b, &c, &d)) {
        features |= b & bit_BMI ? HOST_FEATURE_BMI1 : 0;
        features |= b & bit_BMI2 ? HOST_FEATURE_BMI2 : 0;
    }
    if (__get_cpuid(0x80000001, &a, &b, &c, &d))
        features |= c & bit_LZCNT ? HOST_FEATURE_LZCNT : 0;
    if (__builtin_cpu_supports("fma")) /* looks at XCR0 as well */
        features |= HOST_FEATURE_FMA;
    return features;
}

static void align_code(struct x64 *c)
{
    while (x64_here(c) & 15)
        x64_byte(c, 0xcc);
}

size_t host_make_thunks(u8 *buf, u64 exec_addr, size_t size, struct host_abi *abi,
                        const struct host_callbacks *callbacks,
                        u64 (**enter)(void *state, void *code, u64 base))
{
    struct x64 c = {.p = buf, .start = buf, .limit = buf + size, .exec = exec_addr};
    u64 leave;

    if (size < THUNK_BYTES)
        return 0;
    abi->features = detect_features();
    align_code(&c);
    *enter = (u64(*)(void *, void *, u64))x64_here(&c);
    emit_enter(&c, abi);

    align_code(&c);
    abi->thunk_exit = x64_here(&c);
    x64_load(&c, 4, RAX, slot_mem(abi->exit_code));
    leave = x64_here(&c);
    emit_leave(&c);

    align_code(&c);
    abi->thunk_miss = x64_here(&c);
    emit_miss(&c, abi);
    abi->thunk_goto = x64_here(&c);
    emit_goto(&c, abi, callbacks, leave);

    if (abi->jump_more) {
        align_code(&c);
        abi->thunk_counted = x64_here(&c);
        emit_counted(&c, abi);
    }

    if (abi->memory == HOST_MEMORY_TLB) {
        align_code(&c);
        abi->thunk_read = x64_here(&c);
        emit_ways(&c, abi, abi->tlb_read_tag);
        align_code(&c);
        abi->thunk_write = x64_here(&c);
        emit_ways(&c, abi, abi->tlb_write_tag);
    }

    align_code(&c);
    abi->thunk_site = x64_here(&c);
    emit_site(&c, callbacks, leave, true);

    align_code(&c);
    abi->thunk_site_general = x64_here(&c);
    emit_site(&c, callbacks, leave, false);
    return (size_t)(c.p - c.start);
}

void host_fp_enter(u32 mxcsr)
{
    __builtin_ia32_ldmxcsr(mxcsr);
}

u32 host_fp_leave(void)
{
    return __builtin_ia32_stmxcsr();
}
