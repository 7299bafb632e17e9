/*
 * A complete hypervisor: it turns on VMX, describes a virtual machine in a VMCS, runs it, and answers
 * its VM exits. The guest counts to three on port E9h, asks CPUID who its host is, and halts.
 *
 * start.S has brought the CPU to 64-bit mode with the first 4 GiB mapped one to one, and has
 * vm_enter. docs/vtx.md walks through all of it. SDM: Intel's manual, volume 3.
 */
#include <stdbool.h>
#include <stdint.h>

typedef uint8_t u8;
typedef uint16_t u16;
typedef uint32_t u32;
typedef uint64_t u64;

/* VMCS components (SDM appendix B). */
enum {
    PIN_CONTROLS = 0x4000,
    PROCESSOR_CONTROLS = 0x4002,
    EXIT_CONTROLS = 0x400c,
    ENTRY_CONTROLS = 0x4012,
    SECONDARY_CONTROLS = 0x401e,
    EPT_POINTER = 0x201a,
    LINK_POINTER = 0x2800,
    GUEST_EFER = 0x2806,
    HOST_EFER = 0x2c02,
    EXIT_REASON = 0x4402,
    EXIT_INSTRUCTION_LENGTH = 0x440c,
    INSTRUCTION_ERROR = 0x4400,
    EXIT_QUALIFICATION = 0x6400,
    GUEST_SELECTORS = 0x800, /* ES CS SS DS FS GS LDTR TR, two apart, in each of these */
    GUEST_LIMITS = 0x4800,
    GUEST_RIGHTS = 0x4814,
    GUEST_BASES = 0x6806,
    GUEST_CR0 = 0x6800,
    GUEST_CR3 = 0x6802,
    GUEST_CR4 = 0x6804,
    GUEST_DR7 = 0x681a,
    GUEST_RSP = 0x681c,
    GUEST_RIP = 0x681e,
    GUEST_RFLAGS = 0x6820,
    HOST_SELECTORS = 0xc00,
    HOST_CR0 = 0x6c00,
    HOST_CR3 = 0x6c02,
    HOST_CR4 = 0x6c04,
    HOST_TR_BASE = 0x6c0a,
    HOST_GDTR_BASE = 0x6c0c,
};

enum { EXIT_CPUID = 10, EXIT_HLT = 12, EXIT_IO = 30 };

/* Registers that the VMCS does not hold; vm_enter in start.S swaps them. */
struct registers {
    u64 rax, rbx, rcx, rdx, rsi, rdi, rbp;
};

extern u8 gdt[], tss[];
u64 vm_enter(struct registers *guest, bool launched); /* 0: a VM exit; 1, 2: VMfail */
void tiny_guest(void);                                /* in start.S */

static u8 vmxon_region[4096] __attribute__((aligned(4096)));
static u8 vmcs_region[4096] __attribute__((aligned(4096)));
static u64 ept_root[512] __attribute__((aligned(4096)));
static u64 ept_gigabytes[512] __attribute__((aligned(4096)));
static u8 guest_stack[4096] __attribute__((aligned(16)));

static void print(const char *text)
{
    while (*text)
        __asm__ volatile("outb %0, %1" : : "a"(*text++), "d"((u16)0x3f8));
}

static void print_number(u64 value)
{
    char digits[17] = "";
    int at = 16;

    do
        digits[--at] = "0123456789abcdef"[value & 15];
    while (value >>= 4);
    print(digits + at);
}

static void vmwrite(u64 field, u64 value)
{
    __asm__ volatile("vmwrite %1, %0" : : "r"(field), "r"(value) : "cc");
}

static u64 vmread(u64 field)
{
    u64 value;

    __asm__ volatile("vmread %1, %0" : "=r"(value) : "r"(field) : "cc");
    return value;
}

static u64 rdmsr(u32 msr)
{
    u32 low, high;

    __asm__ volatile("rdmsr" : "=a"(low), "=d"(high) : "c"(msr));
    return low | (u64)high << 32;
}

static u64 read_cr(int number)
{
    u64 value;

    if (number == 0)
        __asm__ volatile("mov %%cr0, %0" : "=r"(value));
    else if (number == 3)
        __asm__ volatile("mov %%cr3, %0" : "=r"(value));
    else
        __asm__ volatile("mov %%cr4, %0" : "=r"(value));
    return value;
}

/* The capability MSRs say which control bits must be 1 (low half) and may be 1 (high half). */
static void set_controls(u64 field, u32 capability, u32 wanted)
{
    u64 allowed = rdmsr(capability);

    vmwrite(field, (wanted | (u32)allowed) & (u32)(allowed >> 32));
}

/* SDM 24.7: allow VMX in IA32_FEATURE_CONTROL, set CR4.VMXE, give VMXON a region of its own. */
static bool vmx_on(void)
{
    u64 region = (u64)vmxon_region;
    u8 failed;

    if (!(rdmsr(0x3a) & 1))
        __asm__ volatile("wrmsr" : : "c"(0x3a), "a"(5), "d"(0));
    __asm__ volatile("mov %0, %%cr4" : : "r"(read_cr(4) | 1 << 13));
    *(u32 *)vmxon_region = (u32)rdmsr(0x480);
    __asm__ volatile("vmxon %1; setbe %0" : "=r"(failed) : "m"(region) : "cc", "memory");
    return !failed;
}

/* Guest-physical memory is ours, one to one, in pages of 1 GiB. */
static u64 make_ept(void)
{
    ept_root[0] = (u64)ept_gigabytes | 7; /* read, write, execute */
    for (u64 i = 0; i < 4; i++)
        ept_gigabytes[i] = i << 30 | 1 << 7 | 6 << 3 | 7; /* large, write-back */
    return (u64)ept_root | 3 << 3 | 6;                    /* four levels, write-back */
}

static void make_host_state(void)
{
    static const u16 selectors[] = {16, 8, 16, 16, 0, 0, 24}; /* ES CS SS DS FS GS TR */

    for (u64 i = 0; i < 7; i++)
        vmwrite(HOST_SELECTORS + 2 * i, selectors[i]);
    vmwrite(HOST_CR0, read_cr(0));
    vmwrite(HOST_CR3, read_cr(3));
    vmwrite(HOST_CR4, read_cr(4));
    vmwrite(HOST_EFER, rdmsr(0xc0000080));
    vmwrite(HOST_TR_BASE, (u64)tss);
    vmwrite(HOST_GDTR_BASE, (u64)gdt);
}

/* The guest begins as we are: 64-bit code in our page tables. */
static void make_guest_state(void)
{
    for (u64 i = 0; i < 8; i++) {
        vmwrite(GUEST_LIMITS + 2 * i, i < 6 ? 0xffffffff : 0x67);
        vmwrite(GUEST_RIGHTS + 2 * i, i == 1   ? 0xa09b   /* CS: 64-bit code */
                                      : i == 6 ? 0x10000  /* LDTR: unusable */
                                      : i == 7 ? 0x8b     /* TR: busy TSS */
                                               : 0xc093); /* data */
    }
    vmwrite(GUEST_CR0, read_cr(0));
    vmwrite(GUEST_CR3, read_cr(3));
    vmwrite(GUEST_CR4, read_cr(4));
    vmwrite(GUEST_EFER, rdmsr(0xc0000080));
    vmwrite(GUEST_DR7, 0x400);
    vmwrite(GUEST_RFLAGS, 2);
    vmwrite(GUEST_RIP, (u64)tiny_guest);
    vmwrite(GUEST_RSP, (u64)guest_stack + sizeof(guest_stack));
    vmwrite(LINK_POINTER, ~0ull);
}

static void make_vmcs(void)
{
    u64 region = (u64)vmcs_region;

    *(u32 *)vmcs_region = (u32)rdmsr(0x480);
    __asm__ volatile("vmclear %0; vmptrld %0" : : "m"(region) : "cc", "memory");
    set_controls(PIN_CONTROLS, 0x48d, 0);
    set_controls(PROCESSOR_CONTROLS, 0x48e,
                 1 << 7 | 1 << 24 | 1u << 31);       /* HLT and I/O exit; secondary controls */
    set_controls(SECONDARY_CONTROLS, 0x48b, 1 << 1); /* EPT */
    set_controls(EXIT_CONTROLS, 0x48f, 1 << 9 | 1 << 20 | 1 << 21); /* 64-bit host, EFER */
    set_controls(ENTRY_CONTROLS, 0x490, 1 << 9 | 1 << 15);          /* 64-bit guest, EFER */
    vmwrite(EPT_POINTER, make_ept());
    make_host_state();
    make_guest_state();
}

/* CPUID as the guest shall see it: its vendor is us. */
static void answer_cpuid(struct registers *guest)
{
    u32 a = (u32)guest->rax, b, c = (u32)guest->rcx, d;

    __asm__ volatile("cpuid" : "+a"(a), "=b"(b), "+c"(c), "=d"(d));
    if (!guest->rax) {
        b = 0x796e6974; /* "tinyvisor..." */
        d = 0x6f736976;
        c = 0x2e2e2e72;
    }
    guest->rax = a;
    guest->rbx = b;
    guest->rcx = c;
    guest->rdx = d;
}

/* One VM exit. False: the guest is done. */
static bool handle(struct registers *guest)
{
    u64 reason = vmread(EXIT_REASON), qualification = vmread(EXIT_QUALIFICATION);

    switch (reason) {
    case EXIT_CPUID:
        answer_cpuid(guest);
        break;
    case EXIT_IO: /* bits 31:16: the port; bit 3: in */
        print("guest says ");
        print_number(guest->rax & 0xff);
        print(" on port ");
        print_number(qualification >> 16);
        print("\n");
        break;
    case EXIT_HLT:
        print("guest halts\n");
        return false;
    default:
        print("VM exit that nobody expected: ");
        print_number(reason);
        print("\n");
        return false;
    }
    vmwrite(GUEST_RIP, vmread(GUEST_RIP) + vmread(EXIT_INSTRUCTION_LENGTH));
    return true;
}

int tinyvisor(void)
{
    struct registers guest = {0};
    bool launched = false;

    if (!vmx_on()) {
        print("VMXON failed\n");
        return 1;
    }
    make_vmcs();
    do {
        if (vm_enter(&guest, launched)) {
            print("VM entry failed: error ");
            print_number(vmread(INSTRUCTION_ERROR));
            print("\n");
            return 1;
        }
        launched = true;
    } while (handle(&guest));
    print(guest.rbx == 0x796e6974 ? "it knows its host\n" : "it does not know its host\n");
    __asm__ volatile("vmxoff" : : : "cc");
    return guest.rbx == 0x796e6974 ? 0 : 1;
}
