/* A guest that is a hypervisor, for tests of VT-x: what its files share. */
#ifndef VMX_GUEST_H
#define VMX_GUEST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef uint8_t u8;
typedef uint16_t u16;
typedef uint32_t u32;
typedef uint64_t u64;

/* VMCS components: FIELD_guest_cr0, ... */
enum {
#define F(encoding, width, area, access, name) FIELD_##name = encoding,
#include "vmx/fields.def"
#undef F
};

/* Control bits: C_hlt_exiting, ... */
enum {
#define C(word, bit, name, allowed) C_##name = (int)(1u << (bit)),
#include "vmx/controls.def"
#undef C
};

extern u64 guest_rax, guest_rbx, guest_rcx, guest_rdx, guest_rsi, guest_rdi;
extern u8 gdt[], tss[], root[];
u64 enter_guest(int resume);
void unblock_nmis(void);

void *memset(void *to, int value, size_t size);
void print(const char *text);
void print_hex(u64 value);
void quit(int status) __attribute__((noreturn));

static inline void vmwrite(u64 field, u64 value)
{
    __asm__ volatile("vmwrite %1, %0" : : "r"(field), "rm"(value) : "cc");
}

static inline u64 vmread(u64 field)
{
    u64 value;

    __asm__ volatile("vmread %1, %0" : "=rm"(value) : "r"(field) : "cc");
    return value;
}

static inline u64 rdmsr(u32 msr)
{
    u32 low, high;

    __asm__ volatile("rdmsr" : "=a"(low), "=d"(high) : "c"(msr));
    return low | (u64)high << 32;
}

static inline void wrmsr(u32 msr, u64 value)
{
    __asm__ volatile("wrmsr" : : "c"(msr), "a"((u32)value), "d"((u32)(value >> 32)) : "memory");
}

static inline void outb(u16 port, u8 value)
{
    __asm__ volatile("outb %0, %1" : : "a"(value), "Nd"(port));
}

#define READ_CR(n)                                                                                 \
    ({                                                                                             \
        u64 value_;                                                                                \
        __asm__ volatile("mov %%cr" #n ", %0" : "=r"(value_));                                     \
        value_;                                                                                    \
    })

/* vmcs.c */
extern u8 pages[16][4096]; /* for bitmaps, lists and the like */
/* Whose regions vmx_start and vmcs_make use: one for each CPU. */
extern unsigned vmcs_number;
extern u8 vmcs_regions[2][4096];
extern u64 ept_pointer; /* maps the first 4 GiB one to one */
bool vmx_start(void);
/* A new VMCS, current, valid: 64-bit code at @code with this hypervisor's address space. */
void vmcs_make(void (*code)(void));
u32 may_be_one(u32 word_msr);

/* Run all tests of a file; how many failed. */
unsigned test_checks(void);
unsigned test_exits(void);
unsigned test_events(void);
unsigned test_information(void);
unsigned test_memory(void);
unsigned test_smp(void);

#endif
