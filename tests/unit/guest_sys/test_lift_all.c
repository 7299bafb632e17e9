/*
 * Every opcode with a spread of prefixes and ModRM bytes, in every code size and privilege, lifts
 * to IR that the verifier accepts.
 */
#include "../unit.h"

#include <stdio.h>
#include <string.h>

#include "guest/x86/x86.h"

static u64 lifted;

static void check(const u8 *code, u32 mode)
{
    struct arena arena = {0};
    struct ir_unit unit;
    struct guest_lift lift = {
        .unit = &unit,
        .pc = 0x100,
        .code = code,
        .avail = 15,
        .mode = mode,
        .max_insns = 1,
    };
    struct err err = {{0}};
    int error;

    ir_init(&unit, &arena, x86_guest_ops.helpers, x86_guest_ops.nhelpers, x86_guest_ops.pc_slot);
    error = x86_guest_ops.lift(&lift);
    if (error || ir_verify(&unit, &err)) {
        fprintf(stderr, "mode %x, %d, %s:", mode, error, err.text);
        for (unsigned i = 0; i < 15; i++)
            fprintf(stderr, " %02x", code[i]);
        fprintf(stderr, "\n");
        ir_print(&unit, stderr);
        fail();
    }
    assert_in_range(lift.length, 1, 15);
    lifted++;
    arena_free(&arena);
}

static const u32 modes[] = {
    X86_MODE_CODE16 | X86_MODE_IOPL_OK,
    X86_MODE_CODE16 | X86_MODE_PE | X86_MODE_VM86 | X86_MODE_CPL_MASK,
    X86_MODE_CODE32 | X86_MODE_PE | X86_MODE_SS32 | X86_MODE_IOPL_OK,
    X86_MODE_CODE32 | X86_MODE_PE | X86_MODE_SS32 | X86_MODE_FLAT | X86_MODE_FLAT_CS |
        X86_MODE_CPL_MASK | X86_MODE_LMA | X86_MODE_AC,
    X86_MODE_CODE64 | X86_MODE_PE | X86_MODE_LMA | X86_MODE_FLAT | X86_MODE_FLAT_CS |
        X86_MODE_IOPL_OK,
    X86_MODE_CODE64 | X86_MODE_PE | X86_MODE_LMA | X86_MODE_FLAT | X86_MODE_FLAT_CS |
        X86_MODE_CPL_MASK | X86_MODE_TF | X86_MODE_FPU_TRAP | X86_MODE_SSE_TRAP |
        X86_MODE_FP_UNMASKED | X86_MODE_NONROOT,
};

static void check_opcode(const u8 *map, unsigned map_bytes, unsigned opcode)
{
    static const u8 prefixes[] = {0, 0x66, 0xf3, 0xf2, 0x67, 0x64, 0xf0, 0x48};

    for (unsigned m = 0; m < ARRAY_SIZE(modes); m++) {
        for (unsigned p = 0; p < ARRAY_SIZE(prefixes); p++) {
            for (unsigned modrm = 0; modrm < 256; modrm += modrm < 0xc0 ? 7 : 1) {
                u8 code[32] = {0};
                unsigned at = 0;

                if (prefixes[p])
                    code[at++] = prefixes[p];
                memcpy(code + at, map, map_bytes);
                at += map_bytes;
                code[at++] = (u8)opcode;
                code[at++] = (u8)modrm;
                code[at++] = 0x24;
                code[at] = 0x81;
                check(code, modes[m]);
            }
        }
    }
}

static void test_one_byte(void **state)
{
    (void)state;
    for (unsigned opcode = 0; opcode < 256; opcode++)
        check_opcode((const u8[]){0}, 0, opcode);
}

static void test_two_byte(void **state)
{
    (void)state;
    for (unsigned opcode = 0; opcode < 256; opcode++)
        check_opcode((const u8[]){0x0f}, 1, opcode);
}

static void test_three_byte(void **state)
{
    (void)state;
    for (unsigned opcode = 0; opcode < 256; opcode++) {
        check_opcode((const u8[]){0x0f, 0x38}, 2, opcode);
        check_opcode((const u8[]){0x0f, 0x3a}, 2, opcode);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_one_byte),
        cmocka_unit_test(test_two_byte),
        cmocka_unit_test(test_three_byte),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
