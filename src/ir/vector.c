/* The lane operations that are more than one expression a lane. */
#include "ir/vector.h"

#include "ir/eval.h"

/* Opens ir_v_<name>: every one has operands a, b, imm and a zeroed result r. */
#define V(name)                                                                                    \
    union ir_value ir_v_##name(const union ir_value *a, const union ir_value *b, u64 imm)          \
    {                                                                                              \
        union ir_value r = {{0}};                                                                  \
                                                                                                   \
        (void)a, (void)b, (void)imm;
#define END                                                                                        \
    return r;                                                                                      \
    }
#define EACH(i, n) for (unsigned i = 0; i < (n); i++)

/* One operation a paragraph. */
/* clang-format off */

V(sad8)
    EACH(i, 16)
        r.q[i / 8] += a->u8[i] > b->u8[i] ? (u64)(a->u8[i] - b->u8[i]) : (u64)(b->u8[i] - a->u8[i]);
END

V(madd16)
    EACH(i, 4)
        r.u32[i] = (u32)(a->s16[2 * i] * b->s16[2 * i]) +
                   (u32)(a->s16[2 * i + 1] * b->s16[2 * i + 1]);
END

V(maddub16)
    EACH(i, 8)
        r.s16[i] = ir_sat_s16(a->u8[2 * i] * b->s8[2 * i] + a->u8[2 * i + 1] * b->s8[2 * i + 1]);
END

V(testz)
    r.q[0] = !((a->q[0] & b->q[0]) | (a->q[1] & b->q[1]));
END

V(testc)
    r.q[0] = !((~a->q[0] & b->q[0]) | (~a->q[1] & b->q[1]));
END

V(bshl)
    EACH(i, 16)
        r.u8[i] = i >= imm ? a->u8[i - imm] : 0;
END

V(bshr)
    EACH(i, 16)
        r.u8[i] = i + imm < 16 ? a->u8[i + imm] : 0;
END

V(align)
    EACH(i, 16)
        r.u8[i] = i + imm < 16 ? b->u8[i + imm] : i + imm < 32 ? a->u8[i + imm - 16] : 0;
END

#define PACK(name, from, to, sat, n)                                                               \
    V(name)                                                                                        \
        EACH(i, n) {                                                                               \
            r.to[i] = sat(a->from[i]);                                                             \
            r.to[n + i] = sat(b->from[i]);                                                         \
        }                                                                                          \
    END
PACK(packss16, s16, s8, ir_sat_s8, 8)
PACK(packus16, s16, u8, ir_sat_u8, 8)
PACK(packss32, s32, s16, ir_sat_s16, 4)
PACK(packus32, s32, u16, ir_sat_u16, 4)

#define UNPACK(name, lane, n, first)                                                               \
    V(name)                                                                                        \
        EACH(i, n) {                                                                               \
            r.lane[2 * i] = a->lane[first + i];                                                    \
            r.lane[2 * i + 1] = b->lane[first + i];                                                \
        }                                                                                          \
    END
UNPACK(unpklo8, u8, 8, 0)
UNPACK(unpklo16, u16, 4, 0)
UNPACK(unpklo32, u32, 2, 0)
UNPACK(unpklo64, q, 1, 0)
UNPACK(unpkhi8, u8, 8, 8)
UNPACK(unpkhi16, u16, 4, 4)
UNPACK(unpkhi32, u32, 2, 2)
UNPACK(unpkhi64, q, 1, 1)

V(insertps)
    r = *a;
    r.u32[imm >> 4 & 3] = b->u32[imm >> 6 & 3];
    EACH(i, 4)
        if (imm >> i & 1)
            r.u32[i] = 0;
END

/* Neighbours combined: a's in the low half, b's in the high. */
#define NEIGHBOURS(name, lane, n, e)                                                               \
    V(name)                                                                                        \
        EACH(i, n) {                                                                               \
            const union ir_value *v = i < n / 2 ? a : b;                                           \
            unsigned k = 2 * i % n;                                                                \
                                                                                                   \
            r.lane[i] = e(v->lane[k], v->lane[k + 1]);                                             \
        }                                                                                          \
    END
#define SUM16(x, y) (u16)((x) + (y))
#define DIFFERENCE16(x, y) (u16)((x) - (y))
#define SUM(x, y) ((x) + (y))
#define DIFFERENCE(x, y) ((x) - (y))
#define SUM_SAT(x, y) ir_sat_s16((x) + (y))
#define DIFFERENCE_SAT(x, y) ir_sat_s16((x) - (y))
#define FSUM(x, y) ir_fnan((x) + (y), x, y)
#define FDIFFERENCE(x, y) ir_fnan((x) - (y), x, y)
NEIGHBOURS(hadd16, u16, 8, SUM16)
NEIGHBOURS(hsub16, u16, 8, DIFFERENCE16)
NEIGHBOURS(hadd32, u32, 4, SUM)
NEIGHBOURS(hsub32, u32, 4, DIFFERENCE)
NEIGHBOURS(hadds16, s16, 8, SUM_SAT)
NEIGHBOURS(hsubs16, s16, 8, DIFFERENCE_SAT)
NEIGHBOURS(fhadd32, f32, 4, FSUM)
NEIGHBOURS(fhsub32, f32, 4, FDIFFERENCE)
NEIGHBOURS(fhadd64, f64, 2, FSUM)
NEIGHBOURS(fhsub64, f64, 2, FDIFFERENCE)

V(mpsad)
    EACH(i, 8)
        EACH(k, 4) {
            int x = a->u8[(imm >> 2 & 1) * 4 + i + k], y = b->u8[(imm & 3) * 4 + k];

            r.u16[i] = (u16)(r.u16[i] + (x > y ? x - y : y - x));
        }
END

V(minpos)
    EACH(i, 8)
        if (a->u16[i] < a->u16[r.q[0]])
            r.q[0] = i;
    r.q[0] = a->u16[r.q[0]] | r.q[0] << 16;
END

#define MASK(name, lane, n)                                                                        \
    V(name)                                                                                        \
        EACH(i, n)                                                                                 \
            r.q[0] |= (u64)(a->lane[i] < 0) << i;                                                  \
    END
MASK(movmask8, s8, 16)
MASK(movmask32, s32, 4)
MASK(movmask64, s64, 2)

#define GET(name, lane, n)                                                                         \
    V(name)                                                                                        \
        r.q[0] = a->lane[imm & (n - 1)];                                                           \
    END
GET(get8, u8, 16)
GET(get16, u16, 8)
GET(get32, u32, 4)
GET(get64, q, 2)

#define FLOATS(bits, n)                                                                            \
    V(fsqrt##bits)                                                                                 \
        EACH(i, n)                                                                                 \
            r.f##bits[i] = ir_fnan(value_fsqrt(a->f##bits[i]), a->f##bits[i], a->f##bits[i]);      \
    END                                                                                            \
    V(faddsub##bits)                                                                               \
        EACH(i, n)                                                                                 \
            r.f##bits[i] = i & 1 ? FSUM(a->f##bits[i], b->f##bits[i])                              \
                                 : FDIFFERENCE(a->f##bits[i], b->f##bits[i]);                      \
    END                                                                                            \
    V(fround##bits)                                                                                \
        EACH(i, n)                                                                                 \
            r.f##bits[i] = ir_fround_f##bits(a->f##bits[i], imm);                                  \
    END                                                                                            \
    static s##bits compare##bits(f##bits x, f##bits y, u64 imm)                                    \
    {                                                                                              \
        bool hold = (imm & 3) == 0   ? x == y                                                      \
                    : (imm & 3) == 1 ? value_fless(x, y)                                           \
                    : (imm & 3) == 2 ? value_fless_equal(x, y)                                     \
                                     : isunordered(x, y);                                          \
                                                                                                   \
        return hold != (imm >> 2 & 1) ? -1 : 0;                                                    \
    }                                                                                              \
    V(fcmp##bits)                                                                                  \
        EACH(i, n)                                                                                 \
            r.s##bits[i] = compare##bits(a->f##bits[i], b->f##bits[i], imm);                       \
    END                                                                                            \
    V(fsqrtlo##bits)                                                                               \
        r = *a;                                                                                    \
        r.f##bits[0] = ir_fnan(value_fsqrt(b->f##bits[0]), b->f##bits[0], b->f##bits[0]);          \
    END                                                                                            \
    V(froundlo##bits)                                                                              \
        r = *a;                                                                                    \
        r.f##bits[0] = ir_fround_f##bits(b->f##bits[0], imm);                                      \
    END                                                                                            \
    V(fcmplo##bits)                                                                                \
        r = *a;                                                                                    \
        r.s##bits[0] = compare##bits(a->f##bits[0], b->f##bits[0], imm);                           \
    END
FLOATS(32, 4)
FLOATS(64, 2)

V(cvts32f32)
    EACH(i, 4)
        r.f32[i] = (f32)a->s32[i];
END

V(cvtf32s32)
    EACH(i, 4)
        r.u32[i] = (u32)ir_float_to_int(IR_I32, IR_F32, a->u32[i], false);
END

V(cvtzf32s32)
    EACH(i, 4)
        r.u32[i] = (u32)ir_float_to_int(IR_I32, IR_F32, a->u32[i], true);
END

V(cvts32f64)
    EACH(i, 2)
        r.f64[i] = a->s32[i];
END

V(cvtf64s32)
    EACH(i, 2)
        r.u32[i] = (u32)ir_float_to_int(IR_I32, IR_F64, a->q[i], false);
END

V(cvtzf64s32)
    EACH(i, 2)
        r.u32[i] = (u32)ir_float_to_int(IR_I32, IR_F64, a->q[i], true);
END

V(cvtf32f64)
    EACH(i, 2)
        r.f64[i] = (f64)a->f32[i];
END

V(cvtf64f32)
    EACH(i, 2)
        r.f32[i] = (f32)a->f64[i];
END
