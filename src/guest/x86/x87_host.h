/*
 * 80-bit arithmetic by the x87 of the host, exact to the last bit and flag. This is the one place
 * in src/guest that knows the host; another host needs another file with these functions.
 *
 * Each primitive runs with the guest's control word, masks included: an unmasked exception leaves
 * its operands as the manual says, and the flags are read and cleared before anything could wait
 * for them, so the host never sees a pending exception.
 */
#ifndef TRIODE_X86_X87_HOST_H
#define TRIODE_X86_X87_HOST_H

#include "guest/x86/state.h"

#define X87_IE 0x01u
#define X87_DE 0x02u
#define X87_ZE 0x04u
#define X87_OE 0x08u
#define X87_UE 0x10u
#define X87_PE 0x20u
#define X87_SF 0x40u
#define X87_ES 0x80u
#define X87_B 0x8000u
#define X87_C0 0x100u
#define X87_C1 0x200u
#define X87_C2 0x400u
#define X87_C3 0x4000u
#define X87_CONDITIONS (X87_C0 | X87_C1 | X87_C2 | X87_C3)
#define X87_TOP_SHIFT 11

/* What an operation left: status word bits, TOP as the operation moved it (0 where it began with
 * its operands loaded), and up to two values. */
struct x87_result {
    struct x86_fpr value[2]; /* ST(0), ST(1) afterwards */
    u16 status;
};

#define X87_HOST_DEFAULT 0x037f

/* One operation on st0 = a (and st1 = b): loads with everything masked, runs @insn under @cw, reads
 * and clears the status, then stores what is there. @pops: values on the stack afterwards. */
#define X87_RUN(name, insn, operands, results)                                                     \
    static inline struct x87_result x87_run_##name(u16 cw, const struct x86_fpr *a,                \
                                                   const struct x86_fpr *b)                        \
    {                                                                                              \
        struct x87_result r = {0};                                                                 \
        const u16 safe = X87_HOST_DEFAULT;                                                         \
        const struct x86_fpr *below = b ? b : a;                                                   \
                                                                                                   \
        __asm__ volatile("fninit\n\t"                                                              \
                         ".if " #operands " > 1\n\t"                                               \
                         "fldt %[b]\n\t"                                                           \
                         ".endif\n\t"                                                              \
                         "fldt %[a]\n\t"                                                           \
                         "fnclex\n\t"                                                              \
                         "fldcw %[cw]\n\t" insn "\n\t"                                             \
                         "fnstsw %[status]\n\t"                                                    \
                         "fnclex\n\t"                                                              \
                         "fldcw %[safe]\n\t"                                                       \
                         "fstpt %[r0]\n\t"                                                         \
                         ".if " #results " > 1\n\t"                                                \
                         "fstpt %[r1]\n\t"                                                         \
                         ".endif\n\t"                                                              \
                         "fninit"                                                                  \
                         : [status] "=m"(r.status), [r0] "+m"(r.value[0]), [r1] "+m"(r.value[1])   \
                         : [a] "m"(*a), [b] "m"(*below), [cw] "m"(cw), [safe] "m"(safe)            \
                         : "st", "st(1)", "st(2)", "st(3)", "st(4)", "st(5)", "st(6)", "st(7)");   \
        return r;                                                                                  \
    }

/* Two operands, the result replaces st0 (the form op st0, st1). */
X87_RUN(add, "fadd %%st(1), %%st", 2, 2)
X87_RUN(mul, "fmul %%st(1), %%st", 2, 2)
X87_RUN(sub, "fsub %%st(1), %%st", 2, 2)
X87_RUN(subr, "fsubr %%st(1), %%st", 2, 2)
X87_RUN(div, "fdiv %%st(1), %%st", 2, 2)
X87_RUN(divr, "fdivr %%st(1), %%st", 2, 2)
X87_RUN(com, "fcom %%st(1)", 2, 2)
X87_RUN(ucom, "fucom %%st(1)", 2, 2)
X87_RUN(fscale, "fscale", 2, 2)
X87_RUN(fprem, "fprem", 2, 2)
X87_RUN(fprem1, "fprem1", 2, 2)
/* Two operands, one result */
X87_RUN(fyl2x, "fyl2x", 2, 1)
X87_RUN(fyl2xp1, "fyl2xp1", 2, 1)
X87_RUN(fpatan, "fpatan", 2, 1)
/* One operand, one result */
X87_RUN(fchs, "fchs", 1, 1)
X87_RUN(fabs, "fabs", 1, 1)
X87_RUN(fxam, "fxam", 1, 1)
X87_RUN(ftst, "ftst", 1, 1)
X87_RUN(f2xm1, "f2xm1", 1, 1)
X87_RUN(fsqrt, "fsqrt", 1, 1)
X87_RUN(frndint, "frndint", 1, 1)
X87_RUN(fsin, "fsin", 1, 1)
X87_RUN(fcos, "fcos", 1, 1)
/* One operand, two results unless C2 (out of range) or an unmasked exception kept it */
X87_RUN(fptan, "fptan", 1, 2)
X87_RUN(fsincos, "fsincos", 1, 2)
X87_RUN(fxtract, "fxtract", 1, 2)

/* With a float in memory: not the same as loading it first, for NaNs and denormals. */
#define X87_RUN_MEMORY(name, insn, type)                                                           \
    static inline struct x87_result x87_memory_##name(u16 cw, const struct x86_fpr *a,             \
                                                      const void *memory)                          \
    {                                                                                              \
        struct x87_result r = {0};                                                                 \
        const u16 safe = X87_HOST_DEFAULT;                                                         \
        const type *from = memory;                                                                 \
                                                                                                   \
        __asm__ volatile("fninit\n\t"                                                              \
                         "fldt %[a]\n\t"                                                           \
                         "fnclex\n\t"                                                              \
                         "fldcw %[cw]\n\t" insn " %[from]\n\t"                                     \
                         "fnstsw %[status]\n\t"                                                    \
                         "fnclex\n\t"                                                              \
                         "fldcw %[safe]\n\t"                                                       \
                         "fstpt %[r0]\n\t"                                                         \
                         "fninit"                                                                  \
                         : [status] "=m"(r.status), [r0] "+m"(r.value[0])                          \
                         : [a] "m"(*a), [from] "m"(*from), [cw] "m"(cw), [safe] "m"(safe)          \
                         : "st", "st(1)", "st(2)", "st(3)", "st(4)", "st(5)", "st(6)", "st(7)");   \
        return r;                                                                                  \
    }
X87_RUN_MEMORY(add32, "fadds", u32)
X87_RUN_MEMORY(mul32, "fmuls", u32)
X87_RUN_MEMORY(com32, "fcoms", u32)
X87_RUN_MEMORY(sub32, "fsubs", u32)
X87_RUN_MEMORY(subr32, "fsubrs", u32)
X87_RUN_MEMORY(div32, "fdivs", u32)
X87_RUN_MEMORY(divr32, "fdivrs", u32)
X87_RUN_MEMORY(add64, "faddl", u64)
X87_RUN_MEMORY(mul64, "fmull", u64)
X87_RUN_MEMORY(com64, "fcoml", u64)
X87_RUN_MEMORY(sub64, "fsubl", u64)
X87_RUN_MEMORY(subr64, "fsubrl", u64)
X87_RUN_MEMORY(div64, "fdivl", u64)
X87_RUN_MEMORY(divr64, "fdivrl", u64)

/* Conversions from memory formats: an m32 or m64 may signal (invalid, denormal). */
#define X87_LOAD(name, insn, type)                                                                 \
    static inline struct x87_result x87_load_##name(u16 cw, const type *from)                      \
    {                                                                                              \
        struct x87_result r = {0};                                                                 \
        const u16 safe = X87_HOST_DEFAULT;                                                         \
                                                                                                   \
        __asm__ volatile("fninit\n\t"                                                              \
                         "fldz\n\t" /* to be stored when an unmasked exception loads nothing */    \
                         "fldcw %[cw]\n\t" insn " %[from]\n\t"                                     \
                         "fnstsw %[status]\n\t"                                                    \
                         "fnclex\n\t"                                                              \
                         "fldcw %[safe]\n\t"                                                       \
                         "fstpt %[r0]\n\t"                                                         \
                         "fninit"                                                                  \
                         : [status] "=m"(r.status), [r0] "+m"(r.value[0])                          \
                         : [from] "m"(*from), [cw] "m"(cw), [safe] "m"(safe)                       \
                         : "st", "st(1)", "st(2)", "st(3)", "st(4)", "st(5)", "st(6)", "st(7)");   \
        return r;                                                                                  \
    }
X87_LOAD(m32, "flds", u32)
X87_LOAD(m64, "fldl", u64)
X87_LOAD(i16, "filds", u16)
X87_LOAD(i32, "fildl", u32)
X87_LOAD(i64, "fildq", u64)
X87_LOAD(bcd, "fbld", struct x86_fpr)

/* And to them: all by the popping form, which exists for each. Status only when nothing was stored
 * because of an unmasked exception. */
#define X87_STORE(name, insn, type)                                                                \
    static inline u16 x87_store_##name(u16 cw, const struct x86_fpr *a, type *to)                  \
    {                                                                                              \
        const u16 safe = X87_HOST_DEFAULT;                                                         \
        u16 status;                                                                                \
                                                                                                   \
        __asm__ volatile("fninit\n\t"                                                              \
                         "fldt %[a]\n\t"                                                           \
                         "fnclex\n\t"                                                              \
                         "fldcw %[cw]\n\t" insn " %[to]\n\t"                                       \
                         "fnstsw %[status]\n\t"                                                    \
                         "fnclex\n\t"                                                              \
                         "fldcw %[safe]\n\t"                                                       \
                         "fninit"                                                                  \
                         : [status] "=m"(status), [to] "+m"(*to)                                   \
                         : [a] "m"(*a), [cw] "m"(cw), [safe] "m"(safe)                             \
                         : "st", "st(1)", "st(2)", "st(3)", "st(4)", "st(5)", "st(6)", "st(7)");   \
        return status;                                                                             \
    }
X87_STORE(m32, "fstps", u32)
X87_STORE(m64, "fstpl", u64)
X87_STORE(i16, "fistps", u16)
X87_STORE(i32, "fistpl", u32)
X87_STORE(i64, "fistpq", u64)
X87_STORE(i16_truncated, "fisttps", u16)
X87_STORE(i32_truncated, "fisttpl", u32)
X87_STORE(i64_truncated, "fisttpq", u64)
X87_STORE(bcd, "fbstp", struct x86_fpr)

/* The seven constants, which depend on the rounding mode. */
#define X87_CONSTANT(insn)                                                                         \
    static inline struct x86_fpr x87_##insn(u16 cw)                                                \
    {                                                                                              \
        struct x86_fpr r = {0};                                                                    \
                                                                                                   \
        __asm__ volatile("fninit\n\tfldcw %[cw]\n\t" #insn "\n\tfstpt %[r]\n\tfninit"              \
                         : [r] "+m"(r)                                                             \
                         : [cw] "m"(cw)                                                            \
                         : "st", "st(1)", "st(2)", "st(3)", "st(4)", "st(5)", "st(6)", "st(7)");   \
        return r;                                                                                  \
    }
X87_CONSTANT(fld1)
X87_CONSTANT(fldl2t)
X87_CONSTANT(fldl2e)
X87_CONSTANT(fldpi)
X87_CONSTANT(fldlg2)
X87_CONSTANT(fldln2)
X87_CONSTANT(fldz)

#endif
