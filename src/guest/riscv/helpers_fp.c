/* Helpers of floating point. */
#include <math.h>
#include <string.h>

#include "guest/riscv/driver.h"
#include "guest/riscv/softfp.h"

#define BOTH(name, args, expr_s, expr_d)                                                           \
    u64 riscv_helper_##name##_s args                                                               \
    {                                                                                              \
        return expr_s;                                                                             \
    }                                                                                              \
    u64 riscv_helper_##name##_d args                                                               \
    {                                                                                              \
        return expr_d;                                                                             \
    }

/* One expression for both formats. Operands of 32 bits come zero-extended. */
#define FP(name, args, call) BOTH(name, args, call(SOFTFP_S), call(SOFTFP_D))

#define ADD(f) softfp_add(f, a, b, (unsigned)rm, &cpu->fcsr)
#define MUL(f) softfp_mul(f, a, b, (unsigned)rm, &cpu->fcsr)
#define DIV(f) softfp_div(f, a, b, (unsigned)rm, &cpu->fcsr)
#define SQRT(f) softfp_sqrt(f, a, (unsigned)rm, &cpu->fcsr)
#define FMA(f) softfp_fma(f, a, b, c, (unsigned)rm, &cpu->fcsr)
#define FROM(f) softfp_to_int(f, a, (enum softfp_int)how, (unsigned)rm, &cpu->fcsr)
#define TO(f) softfp_from_int(f, a, (enum softfp_int)how, (unsigned)rm, &cpu->fcsr)

FP(fadd, (struct riscv_cpu * cpu, u64 a, u64 b, u64 rm), ADD)
FP(fmul, (struct riscv_cpu * cpu, u64 a, u64 b, u64 rm), MUL)
FP(fdiv, (struct riscv_cpu * cpu, u64 a, u64 b, u64 rm), DIV)
FP(fsqrt, (struct riscv_cpu * cpu, u64 a, u64 rm), SQRT)
FP(fma, (struct riscv_cpu * cpu, u64 a, u64 b, u64 c, u64 rm), FMA)
FP(from, (struct riscv_cpu * cpu, u64 a, u64 how, u64 rm), FROM)
FP(to, (struct riscv_cpu * cpu, u64 a, u64 how, u64 rm), TO)

u64 riscv_helper_fcvt_s_d(struct riscv_cpu *cpu, u64 a, u64 rm)
{
    return softfp_convert(SOFTFP_S, SOFTFP_D, a, (unsigned)rm, &cpu->fcsr);
}

u64 riscv_helper_fclass_s(struct riscv_cpu *cpu, u64 a)
{
    (void)cpu;
    return softfp_class(SOFTFP_S, a);
}

u64 riscv_helper_fclass_d(struct riscv_cpu *cpu, u64 a)
{
    (void)cpu;
    return softfp_class(SOFTFP_D, a);
}

/*
 * In the environment of translated code, in which helpers run: its rounding mode is frm's, its
 * flags become fcsr's. Infinities and NaNs are left to integers: hosts differ about infinity times
 * zero plus a NaN.
 */
u64 riscv_helper_fma_host_s(struct riscv_cpu *cpu, u64 a, u64 b, u64 c)
{
    const u64 infinity = 0x7f800000;
    u32 in[3] = {(u32)a, (u32)b, (u32)c}, bits;
    float v[3], r;

    if ((a & infinity) == infinity || (b & infinity) == infinity || (c & infinity) == infinity)
        return softfp_fma(SOFTFP_S, a, b, c, RISCV_RNE, &cpu->fcsr);
    memcpy(v, in, sizeof(v));
    r = fmaf(v[0], v[1], v[2]);
    memcpy(&bits, &r, sizeof(bits));
    return bits;
}

u64 riscv_helper_fma_host_d(struct riscv_cpu *cpu, u64 a, u64 b, u64 c)
{
    const u64 infinity = 0x7ffull << 52;
    u64 in[3] = {a, b, c}, bits;
    double v[3], r;

    if ((a & infinity) == infinity || (b & infinity) == infinity || (c & infinity) == infinity)
        return softfp_fma(SOFTFP_D, a, b, c, RISCV_RNE, &cpu->fcsr);
    memcpy(v, in, sizeof(v));
    r = fma(v[0], v[1], v[2]);
    memcpy(&bits, &r, sizeof(bits));
    return bits;
}
