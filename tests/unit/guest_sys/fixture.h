/*
 * A CPU without a translator: 16 MiB of RAM at 0, guest memory services that walk for every access,
 * and hooks that note what they are asked.
 */
#ifndef TRIODE_TESTS_GUEST_SYS_FIXTURE_H
#define TRIODE_TESTS_GUEST_SYS_FIXTURE_H

#include "../unit.h"

#include <string.h>

#include "guest/x86/x86_internal.h"

#define RAM_SIZE (16 * MiB)

struct fixture {
    struct x86_cpu cpu; /* first: hooks find the fixture by it */
    struct mem *mem;
    struct mem_ram ram;
    u32 features_off; /* of X86_FEATURE_*, hidden from CPUID */
    unsigned flush_all, flush_page, flush_space, switches;
    u64 flushed_key, flushed_gva;
    u32 last_reason; /* intercept hook */
    u64 last_qualification, last_linear, last_info;
    unsigned intercepts;
};

int fixture_setup(void **state);
int fixture_teardown(void **state);

typedef u64 __attribute__((aligned(1))) ram_u64;
typedef u32 __attribute__((aligned(1))) ram_u32;
typedef u16 __attribute__((aligned(1))) ram_u16;
ram_u64 *ram64(struct fixture *f, u64 gpa);
ram_u32 *ram32(struct fixture *f, u64 gpa);
ram_u16 *ram16(struct fixture *f, u64 gpa);

/* A hardware exception. */
static inline struct x86_event hardware(u8 vector, bool has_error, u32 error)
{
    return (struct x86_event){.valid = true,
                              .vector = vector,
                              .type = X86_EVENT_HARDWARE,
                              .has_error = has_error,
                              .error = error};
}

/* Runs @statement; 0, or the exit code that it left with. */
#define TRY(f, statement)                                                                          \
    __extension__({                                                                                \
        jmp_buf try_here;                                                                          \
        volatile u32 try_code = 0;                                                                 \
        (f)->cpu.common.leave = &try_here;                                                         \
        (f)->cpu.pending.valid = false;                                                            \
        if (!setjmp(try_here)) {                                                                   \
            statement;                                                                             \
        } else {                                                                                   \
            try_code = (f)->cpu.common.exit_code;                                                  \
        }                                                                                          \
        (f)->cpu.common.leave = NULL;                                                              \
        try_code;                                                                                  \
    })

/* The pending event is hardware exception @vector with @error. */
#define assert_fault(f, wanted_vector, wanted_error)                                               \
    do {                                                                                           \
        assert_true((f)->cpu.pending.valid);                                                       \
        assert_int_equal((f)->cpu.pending.vector, wanted_vector);                                  \
        assert_int_equal((f)->cpu.pending.error, wanted_error);                                    \
    } while (0)

#define assert_raises(f, statement, vector, error)                                                 \
    do {                                                                                           \
        assert_int_equal(TRY(f, statement), X86_EXIT_EVENT);                                       \
        assert_fault(f, vector, error);                                                            \
    } while (0)

/* Modes to start from, all with paging off or identity-mapped, CPL 0 and flat segments. */
void enter_real(struct fixture *f);
void enter_protected(struct fixture *f);
void enter_long(struct fixture *f);
/* Changes CPL: 32-bit or (in long mode) 64-bit flat segments of that privilege. */
void set_cpl(struct fixture *f, unsigned cpl);

/* A GDT at GDT_BASE; TSS at TSS_BASE, IDT at IDT_BASE. */
#define GDT_BASE 0x10000ull
#define IDT_BASE 0x11000ull
#define TSS_BASE 0x12000ull
#define TABLES_BASE 0x20000ull /* page tables */

void set_descriptor(struct fixture *f, u16 selector, u64 raw);
/* Raw descriptor: access byte, flags nibble (G D L AVL), base, limit field. */
u64 descriptor(u8 access, u8 flags, u32 base, u32 limit);

enum {                   /* selectors in the GDT that enter_* make */
       SEL_CODE0 = 0x08, /* 32-bit */
       SEL_DATA0 = 0x10,
       SEL_CODE3 = 0x1b, /* 32-bit, DPL 3 */
       SEL_DATA3 = 0x23,
       SEL_CODE64_0 = 0x28,
       SEL_CODE64_3 = 0x33,
       SEL_CODE16 = 0x38,
       SEL_CONFORM0 = 0x40, /* 32-bit conforming, DPL 0 */
       SEL_TSS = 0x50,      /* two slots */
       SEL_LDT = 0x60,      /* two slots */
       SEL_TEST = 0x70,     /* two slots for the tests */
};
#define GDT_LIMIT 0x7f

#endif
