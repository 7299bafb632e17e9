/* The 8259 pair and the 8254: interrupts by line, masks, priorities, HLT ended by the timer. */
#include "rt.h"

#define ICW1 0x11
#define EOI 0x20

static volatile u32 order[8], orders;

static void pic_eoi(struct frame *frame)
{
    count[frame->vector]++;
    order[orders++ & 7] = frame->vector;
    if (frame->vector >= 0x28)
        outb(0xa0, EOI);
    outb(0x20, EOI);
}

static void lines(void)
{
    outb(0x21, (u8) ~(1 << 2 | 1 << 3 | 1 << 4));
    outb(0xa1, (u8) ~(1 << 3));
    command(COMMAND_PULSE, 4, 0);
    EXPECT(count[0x24], 0); /* IF = 0 */
    outb(0x20, 0x0a);       /* OCW3: read IRR */
    EXPECT(inb(0x20) & 0x18, 0x10);
    open_interrupts();
    EXPECT(count[0x24], 1);
    open_interrupts();
    EXPECT(count[0x24], 1);
    /* An edge-triggered line that stays up interrupts once. */
    command(COMMAND_IRQ, 3, 1);
    open_interrupts();
    open_interrupts();
    EXPECT(count[0x23], 1);
    command(COMMAND_IRQ, 3, 0);
    /* The slave: line 11 arrives through line 2. */
    command(COMMAND_PULSE, 11, 0);
    open_interrupts();
    EXPECT(count[0x2b], 1);
    /* Masked: kept in IRR and delivered when the mask goes. */
    outb(0x21, 0xff);
    command(COMMAND_PULSE, 4, 0);
    open_interrupts();
    EXPECT(count[0x24], 1);
    outb(0x21, (u8) ~(1 << 4));
    open_interrupts();
    EXPECT(count[0x24], 2);
}

static void priorities(void)
{
    orders = 0;
    outb(0x21, (u8) ~(1 << 2 | 1 << 3 | 1 << 4));
    outb(0xa1, (u8) ~(1 << 3));
    command(COMMAND_PULSE, 4, 0);
    command(COMMAND_PULSE, 3, 0);
    command(COMMAND_PULSE, 11, 0);
    open_interrupts();
    EXPECT(orders, 3);
    EXPECT(order[0], 0x2b); /* line 2 before 3 before 4 */
    EXPECT(order[1], 0x23);
    EXPECT(order[2], 0x24);
}

static void halt(void)
{
    command(COMMAND_PULSE | COMMAND_DELAYED, 4, 0);
    sti_hlt_cli();
    EXPECT(count[0x24], 4);
}

static void timer(void)
{
    u32 before, after;

    outb(0x21, (u8)~1);
    outb(0x43, 0x34); /* counter 0, low and high byte, rate generator */
    outb(0x40, 11932 & 0xff);
    outb(0x40, 11932 >> 8); /* 10 ms */
    before = count[0x20];
    sti_hlt_cli();
    sti_hlt_cli();
    sti_hlt_cli();
    EXPECT(count[0x20] - before, 3);
    outb(0x43, 0x00); /* latch counter 0 */
    after = inb(0x40);
    after |= inb(0x40) << 8;
    EXPECT(after <= 11932, 1);
    /* One shot: counter 0 in mode 0. */
    outb(0x43, 0x30);
    outb(0x40, 0x00);
    outb(0x40, 0x10);
    before = count[0x20];
    sti_hlt_cli();
    EXPECT(count[0x20] - before >= 1, 1);
    outb(0x21, 0xff);
}

void guest_main(void)
{
    for (unsigned i = 0x20; i < 0x30; i++)
        handlers[i] = pic_eoi;
    pic_disable();
    lapic_enable();
    lapic_write(LAPIC_LVT_LINT0, 0x700); /* "virtual wire": the PIC's output is this CPU's INTR */
    EXPECT(inb(0x21), 0xff);
    lines();
    priorities();
    halt();
    timer();
}
