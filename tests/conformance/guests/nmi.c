/* Non-maskable interrupts: from the host, from an IPI, blocked until IRET, and out of HLT. */
#include "rt.h"

static volatile u32 nmis, depth, deepest;

static void nmi_handler(struct frame *frame)
{
    (void)frame;
    depth++;
    nmis++;
    if (depth > deepest)
        deepest = depth;
    if (nmis == 1) {
        /* A second one stays pending until this handler's IRET. */
        lapic_write(LAPIC_ICR_LOW, 0x40000 | 0x400);
        asm volatile("nop; nop; nop");
    }
    depth--;
}

void guest_main(void)
{
    handlers[2] = nmi_handler;
    pic_disable();
    lapic_enable();
    lapic_write(LAPIC_ICR_HIGH, 0);
    lapic_write(LAPIC_ICR_LOW, 0x400); /* NMI to APIC id 0 */
    EXPECT(WAIT_UNTIL(nmis >= 2), 1);
    EXPECT(nmis, 2);
    EXPECT(deepest, 1);
    /* The host's, with interrupts off. */
    command(COMMAND_NMI, 0, 0);
    EXPECT(WAIT_UNTIL(nmis >= 3), 1);
    /* Ends HLT whatever IF says. */
    command(COMMAND_NMI | COMMAND_DELAYED, 0, 0);
    asm volatile("cli; hlt" : : : "memory");
    EXPECT(nmis, 4);
    /* LINT1 as firmware leaves it. */
    lapic_write(LAPIC_LVT_LINT1, 0x400);
    EXPECT(lapic_read(LAPIC_LVT_LINT1), 0x400);
    /* After an ordinary interrupt's IRET, NMIs still come. */
    lapic_write(LAPIC_ICR_LOW, 0x40000 | 0x400);
    EXPECT(WAIT_UNTIL(nmis >= 5), 1);
    EXPECT(nmis, 5);
}
