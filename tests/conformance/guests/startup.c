/* INIT and SIPI in rows, at all moments of the second vCPU's life: each INIT that a SIPI follows
 * makes it start once, whatever it was doing and however many SIPIs follow. */
#include "rt.h"

extern char second[], second_end[], second_starts[], second_kind[];

enum { SPIN, HALT, READ_MSR, WRITE_PORT, KINDS };

/* 16-bit code, copied to TRAMPOLINE_GPA. It counts its starts and does what second_kind says. */
asm("    .code16\n"
    "second:\n"
    "    cli\n"
    "    mov %cs, %ax\n"
    "    mov %ax, %ds\n"
    "    lock incl second_starts - second\n"
    "    mov second_kind - second, %bl\n"
    "    cmp $1, %bl\n"
    "    je 2f\n"
    "    cmp $2, %bl\n"
    "    je 3f\n"
    "    cmp $3, %bl\n"
    "    je 4f\n"
    "1:  pause\n"
    "    jmp 1b\n"
    "2:  hlt\n"
    "    jmp 2b\n"
    "3:  mov $0x1b, %ecx\n" /* IA32_APIC_BASE */
    "    rdmsr\n"
    "    jmp 3b\n"
    "4:  out %al, $0x80\n"
    "    jmp 4b\n"
    "    .balign 4\n"
    "second_starts:\n"
    "    .long 0\n"
    "second_kind:\n"
    "    .byte 0\n"
    "second_end:\n"
    "    .code64\n");

#define AT(symbol) ((word)TRAMPOLINE_GPA + (word)(symbol - second))
#define STARTS (*(volatile u32 *)AT(second_starts))
#define KIND (*(volatile u8 *)AT(second_kind))

#define INIT 0x4500
#define SIPI (0x4600 | TRAMPOLINE_GPA >> 12)

static void send(u32 command)
{
    lapic_write(LAPIC_ICR_HIGH, 1u << 24);
    lapic_write(LAPIC_ICR_LOW, command);
}

static u32 seed = 1;

/* Mostly next to nothing, sometimes long enough for the other to fall asleep. */
static void wait_a_while(void)
{
    u32 n;

    seed = seed * 1664525 + 1013904223;
    n = seed >> 24 & 3 ? seed >> 16 & 31 : seed >> 16 & 4095;
    for (u32 i = 0; i < n; i++)
        asm volatile("pause");
}

static void one_start(u32 inits, u32 sipis)
{
    u32 before;

    for (u32 i = 0; i < inits; i++) {
        send(INIT);
        wait_a_while();
    }
    /* From here on it waits, or will before it looks for a SIPI. */
    before = STARTS;
    for (u32 i = 0; i < sipis; i++) {
        send(SIPI);
        wait_a_while();
    }
    EXPECT(WAIT_UNTIL(STARTS != before), 1);
    wait_a_while();
    EXPECT(STARTS, before + 1);
}

/* A SIPI that comes before the INIT does not count. */
static void sipi_first(void)
{
    u32 before = STARTS;

    send(SIPI);
    send(INIT);
    for (u32 i = 0; i < 100; i++)
        wait_a_while();
    EXPECT(STARTS, before);
    one_start(0, 1);
}

void guest_main(void)
{
    memcpy((void *)(word)TRAMPOLINE_GPA, second, (size_t)(second_end - second));
    lapic_enable();
    send(INIT);
    one_start(0, 1);
    for (u32 i = 0; i < 160; i++) {
        KIND = (u8)(i % KINDS);
        wait_a_while();
        one_start(1 + (i >> 2 & 1), 1 + (i >> 3) % 3);
        if (i % 16 < KINDS)
            sipi_first();
    }
    send(INIT);
}
