/* What the tests of exits and corners share: a VMCS to begin with, what came back, own page
 * tables. */
#ifndef HARNESS_H
#define HARNESS_H

#include "vmx_guest.h"

#define GUEST(name, text)                                                                          \
    void name(void);                                                                               \
    __asm__(".pushsection .text\n" #name ":\n" text "\n.popsection\n")

extern unsigned failures;

/* Says so and counts if @got is not @wanted. */
void expect(const char *what, u64 got, u64 wanted);
#define EXPECT(expression, wanted) expect(#expression, expression, wanted)

#define GET(name) vmread(FIELD_##name)
#define PUT(name, value) vmwrite(FIELD_##name, value)
#define ADD(word, bits) vmwrite(FIELD_##word, vmread(FIELD_##word) | (u32)(bits))
#define REMOVE(word, bits) vmwrite(FIELD_##word, vmread(FIELD_##word) & ~(u64)(u32)(bits))
#define PIN(bits) ADD(pin_based_controls, bits)
#define PROC(bits) ADD(primary_processor_based_controls, bits)
#define PROC2(bits) ADD(secondary_processor_based_controls, bits)

/* The next test: its name, and a new VMCS whose guest runs @code. */
void begin(const char *name, void (*code)(void));
/* Runs the guest to its next exit; its reason with bit 31 for a failed entry, or ~0: VMfail. */
u64 run(void);
/* Past the instruction that exited. */
void skip(void);
/* How far the guest has come in @code. */
u64 guest_at(void (*code)(void));

/* Runs @n tests; how many expectations failed. */
unsigned run_groups(const char *what, void (*const tests[])(void), size_t n);

/* The guest's IDT: an interrupt gate, and the register that says where it is. */
void gate(unsigned vector, void (*code)(void));
void use_idt(void);
void code_handler(void); /* pop %rax; vmcall */
void code_nops(void);    /* four NOPs; vmcall */

/* Protected mode without paging; and virtual-8086 mode of it, in which the guest runs @code. */
void without_paging(void);
void virtual_8086(void (*code)(void));

/* An EPT of its own, with 4-KiB pages from ROOM; with accessed and dirty flags on request. */
#define ROOM 0x3000000ull /* nothing else is there */
extern u64 *const ept_2m, *const ept_4k, *const ept_pdpt, *const ept_root;
void own_ept(bool flags);
void flush_ept(void);

#define VAPIC ((volatile u32 *)pages[1])
#define ACCESS_PAGE 0x3010000ull
/* begin() with a TPR shadow. */
void virtual_apic(const char *name, void (*code)(void));

#define LAPIC ((volatile u32 *)0xfee00000)

/* The VM-instruction error of one instruction; 0: none, 1000: VMfailInvalid. */
#define FAILS(instruction, ...)                                                                    \
    ({                                                                                             \
        u8 cf_, zf_;                                                                               \
        __asm__ volatile(instruction "; setc %0; setz %1"                                          \
                         : "=r"(cf_), "=r"(zf_)                                                    \
                         : __VA_ARGS__                                                             \
                         : "cc", "memory");                                                        \
        cf_ ? 1000 : zf_ ? GET(vm_instruction_error) : 0;                                          \
    })

#endif
