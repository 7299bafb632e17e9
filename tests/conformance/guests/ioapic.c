/* The IOAPIC and message signalled interrupts. */
#include "rt.h"

#define IOAPIC ((volatile u32 *)0xfec00000)

static u32 ioapic_read(u32 reg)
{
    IOAPIC[0] = reg;
    return IOAPIC[4];
}

static void ioapic_write(u32 reg, u32 value)
{
    IOAPIC[0] = reg;
    IOAPIC[4] = value;
}

static void set_pin(u32 pin, u32 low)
{
    ioapic_write(0x10 + 2 * pin + 1, 0);
    ioapic_write(0x10 + 2 * pin, low);
}

static void level_handler(struct frame *frame)
{
    count[frame->vector]++;
    if (count[frame->vector] == 2)
        command(COMMAND_IRQ, 20, 0); /* the device is satisfied the second time */
    lapic_write(LAPIC_EOI, 0);
}

static void registers(void)
{
    EXPECT(ioapic_read(1) >> 16 & 0xff, 23); /* 24 pins */
    EXPECT(ioapic_read(0x10) & 0x10000, 0x10000);
    ioapic_write(0, 0x0a000000);
    EXPECT(ioapic_read(0) >> 24 & 0xf, 0xa);
    ioapic_write(0, 0);
    set_pin(5, 0x10055);
    EXPECT(ioapic_read(0x10 + 10), 0x10055);
}

static void edge(void)
{
    set_pin(5, 0x55);
    command(COMMAND_PULSE, 5, 0);
    open_interrupts();
    EXPECT(count[0x55], 1);
    command(COMMAND_IRQ, 5, 1);
    open_interrupts();
    open_interrupts();
    EXPECT(count[0x55], 2);
    command(COMMAND_IRQ, 5, 0);
    command(COMMAND_PULSE | COMMAND_DELAYED, 5, 0);
    sti_hlt_cli();
    EXPECT(count[0x55], 3);
    set_pin(5, 0x10055);
    command(COMMAND_PULSE, 5, 0);
    open_interrupts();
    EXPECT(count[0x55], 3);
}

/* A level line interrupts again at each EOI as long as it is up; Remote IRR shows it under way. */
static void level(void)
{
    handlers[0x56] = level_handler;
    set_pin(20, 0x8056);
    command(COMMAND_IRQ, 20, 1);
    EXPECT(ioapic_read(0x10 + 40) >> 14 & 1, 1);
    open_interrupts();
    EXPECT(count[0x56], 2);
    EXPECT(ioapic_read(0x10 + 40) >> 14 & 1, 0);
    set_pin(20, 0x10000);
}

static void message(void)
{
    command(COMMAND_MSI, 0xfee00000, 0x57);
    open_interrupts();
    EXPECT(count[0x57], 1);
    command(COMMAND_MSI | COMMAND_DELAYED, 0xfee00000, 0x57);
    sti_hlt_cli();
    EXPECT(count[0x57], 2);
    /* To APIC id 1, which is nobody. */
    command(COMMAND_MSI, 0xfee01000, 0x57);
    open_interrupts();
    EXPECT(count[0x57], 2);
}

void guest_main(void)
{
    for (unsigned i = 0x50; i < 0x60; i++)
        handlers[i] = counting_handler;
    pic_disable();
    lapic_enable();
    registers();
    edge();
    level();
    message();
}
