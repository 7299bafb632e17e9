/* Two vCPUs: INIT and SIPI, IPIs both ways, a halted one woken, broadcast, atomics, cross-modifying
 * code, TLB shootdown. */
#include "rt.h"

extern char trampoline[], trampoline_end[];
void ap_main(void);

static volatile u32 ap_alive, ap_task, ap_done, ap_apic_id;
static volatile u32 locked_counter;
u8 ap_stack[4096] __attribute__((aligned(16)));

/* 16-bit code, copied to TRAMPOLINE_GPA: real mode straight to long mode with the first CPU's
 * tables. Its own addresses count from the segment that the SIPI vector makes. */
asm("    .code16\n"
    "trampoline:\n"
    "    cli\n"
    "    mov %cs, %ax\n"
    "    mov %ax, %ds\n"
    "    mov $0x20, %eax\n" /* PAE */
    "    mov %eax, %cr4\n"
    "    mov $0x1000, %eax\n"
    "    mov %eax, %cr3\n"
    "    mov $0xc0000080, %ecx\n"
    "    rdmsr\n"
    "    or $0x100, %eax\n"
    "    wrmsr\n"
    "    lgdtl trampoline_gdtr - trampoline\n"
    "    mov %cr0, %eax\n"
    "    or $0x80000001, %eax\n"
    "    mov %eax, %cr0\n"
    "    ljmpl *trampoline_far - trampoline\n"
    "trampoline_far:\n"
    "    .long 1f\n"
    "    .word 8\n"
    "    .balign 4\n"
    "trampoline_gdtr:\n"
    "    .word 23\n"
    "    .long 0x7000\n"
    "trampoline_end:\n"
    "    .code64\n"
    "1:  mov $0x10, %eax\n"
    "    mov %eax, %ds\n"
    "    mov %eax, %es\n"
    "    mov %eax, %ss\n"
    "    movq $ap_stack + 4096, %rsp\n"
    "    call ap_main\n"
    "2:  hlt\n"
    "    jmp 2b\n");

struct pointer {
    u16 limit;
    u64 base;
} __attribute__((packed));
static struct pointer runtime_idtr;

static void count_up(u32 n)
{
    for (u32 i = 0; i < n; i++)
        asm volatile("lock incl %0" : "+m"(locked_counter));
}

static u8 code[64] __attribute__((aligned(64)));

static u32 call_code(void)
{
    u32 value;

    asm volatile("call *%1" : "=a"(value) : "r"(code));
    return value;
}

void ap_main(void)
{
    struct pointer gdtr = {sizeof gdt - 1, (u64)gdt};

    asm volatile("lgdt %0" : : "m"(gdtr));
    asm volatile("lidt %0" : : "m"(runtime_idtr));
    lapic_enable();
    ap_apic_id = lapic_read(LAPIC_ID) >> 24;
    ap_alive = 1;
    for (;;) {
        switch (ap_task) {
        case 1: /* answer the other CPU's IPI */
            ap_task = 0;
            for (u32 before = count[0x41]; count[0x41] == before;)
                sti_hlt_cli();
            ap_done = count[0x41];
            break;
        case 2:
            ap_task = 0;
            count_up(20000);
            ap_done = 1;
            break;
        case 3: /* wake the first CPU */
            ap_task = 0;
            lapic_write(LAPIC_ICR_HIGH, 0);
            lapic_write(LAPIC_ICR_LOW, 0x42);
            ap_done = 1;
            break;
        case 4: /* runs code until the other CPU has changed it */
            ap_task = 0;
            ap_done = call_code();
            while (call_code() == 1)
                ;
            ap_done = call_code();
            break;
        case 5: /* what the page shows */
            ap_task = 0;
            ap_done = *(volatile u32 *)(word)(0x800000);
            break;
        case 6: /* as 5, with its TLB dropped before */
            ap_task = 0;
            write_cr3(read_cr3());
            ap_done = *(volatile u32 *)(word)(0x800000);
            break;
        default:
            asm volatile("pause");
        }
    }
}

static void give(u32 task)
{
    ap_done = 0;
    ap_task = task;
}

static void start(void)
{
    memcpy((void *)(word)TRAMPOLINE_GPA, trampoline, trampoline_end - trampoline);
    EXPECT(ap_alive, 0);
    lapic_write(LAPIC_ICR_HIGH, 1u << 24);
    lapic_write(LAPIC_ICR_LOW, 0xc500); /* INIT, level, assert */
    lapic_write(LAPIC_ICR_LOW, 0x8500); /* and deassert */
    EXPECT(ap_alive, 0);
    lapic_write(LAPIC_ICR_LOW, 0x4600 | TRAMPOLINE_GPA >> 12); /* SIPI */
    EXPECT(WAIT_UNTIL(ap_alive), 1);
    EXPECT(ap_apic_id, 1);
    /* A second SIPI finds it running and changes nothing. */
    lapic_write(LAPIC_ICR_LOW, 0x4600 | TRAMPOLINE_GPA >> 12);
}

static void wake(void)
{
    give(1);
    EXPECT(WAIT_UNTIL(ap_task == 0), 1);
    for (volatile u32 i = 0; i < 1000; i++)
        ;
    lapic_write(LAPIC_ICR_HIGH, 1u << 24);
    lapic_write(LAPIC_ICR_LOW, 0x41);
    EXPECT(WAIT_UNTIL(ap_done), 1);
    give(1);
    EXPECT(WAIT_UNTIL(ap_task == 0), 1);
    lapic_write(LAPIC_ICR_LOW, 0xc0000 | 0x41); /* all but self */
    EXPECT(WAIT_UNTIL(ap_done == 2), 1);
    EXPECT(count[0x41], 2);
    give(3);
    sti_hlt_cli();
    EXPECT(count[0x42], 1);
    EXPECT(WAIT_UNTIL(ap_done), 1);
}

static void atomics(void)
{
    give(2);
    count_up(20000);
    EXPECT(WAIT_UNTIL(ap_done), 1);
    EXPECT(locked_counter, 40000);
}

/* mov $1, %eax; ret, changed under the other CPU's feet. */
static void cross_modifying(void)
{
    static const u8 first[] = {0xb8, 1, 0, 0, 0, 0xc3};

    memcpy(code, first, sizeof first);
    give(4);
    EXPECT(WAIT_UNTIL(ap_done == 1), 1);
    *(volatile u8 *)&code[1] = 2;
    EXPECT(WAIT_UNTIL(ap_done == 2), 1);
}

static void shootdown(void)
{
    volatile u64 *entry = (volatile u64 *)(word)(TABLES_GPA + 0x2000) + 4;

    *(volatile u32 *)(word)0x600000 = 6;
    *(volatile u32 *)(word)0x800000 = 8;
    give(5);
    EXPECT(WAIT_UNTIL(ap_done), 1);
    EXPECT(ap_done, 8);
    *entry = 0x600087;
    invlpg((void *)0x800000);
    EXPECT(*(volatile u32 *)(word)0x800000, 6);
    give(6);
    EXPECT(WAIT_UNTIL(ap_done), 1);
    EXPECT(ap_done, 6);
    *entry = 0x800087;
    invlpg((void *)0x800000);
}

/* INIT stops it; it starts again from the beginning. */
static void restart(void)
{
    ap_alive = 0;
    lapic_write(LAPIC_ICR_HIGH, 1u << 24);
    lapic_write(LAPIC_ICR_LOW, 0xc500);
    lapic_write(LAPIC_ICR_LOW, 0x8500);
    give(2);
    for (volatile u32 i = 0; i < 1000; i++)
        ;
    EXPECT(ap_done, 0);
    ap_task = 0;
    lapic_write(LAPIC_ICR_LOW, 0x4600 | TRAMPOLINE_GPA >> 12);
    EXPECT(WAIT_UNTIL(ap_alive), 1);
}

void guest_main(void)
{
    handlers[0x41] = counting_handler;
    handlers[0x42] = counting_handler;
    asm volatile("sidt %0" : "=m"(runtime_idtr));
    pic_disable();
    lapic_enable();
    start();
    wake();
    atomics();
    cross_modifying();
    shootdown();
    restart();
}
