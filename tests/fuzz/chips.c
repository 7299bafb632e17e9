/*
 * The soft engine's interrupt controllers and timers: any sequence of register accesses, lines,
 * ends of interrupt and passing time. Input: records of an operation byte and its operands.
 */
#include "fuzz.h"
#include "soft/ioapic.h"
#include "soft/lapic.h"
#include "soft/pic.h"
#include "soft/pit.h"

struct board {
    struct soft_timers timers;
    struct lapic lapic;
    struct ioapic ioapic;
    struct pic pic;
    struct pit pit;
    unsigned posted;
};
static struct board *board;

static void notify(struct lapic *lapic)
{
    (void)lapic;
}

static void eoi(struct lapic *lapic, u8 vector)
{
    (void)lapic;
    ioapic_eoi(&board->ioapic, vector);
}

static void deliver(const struct apic_message *message)
{
    if (lapic_matches(&board->lapic, message) && message->delivery == APIC_FIXED)
        lapic_post(&board->lapic, message->vector, message->level);
    board->posted++;
}

static void send(struct lapic *lapic, const struct apic_message *message)
{
    (void)lapic;
    deliver(message);
}

static u64 deadline_ns(struct lapic *lapic, u64 tsc)
{
    (void)lapic;
    return tsc / 2;
}

static const struct lapic_hooks hooks = {notify, notify, eoi, send, deadline_ns};

static void ioapic_send(struct ioapic *ioapic, const struct apic_message *message)
{
    (void)ioapic;
    deliver(message);
}

static void pic_output(struct pic *pic, bool level)
{
    (void)pic;
    lapic_set_lint0(&board->lapic, level);
}

static void pit_line(struct pit *pit, bool level)
{
    (void)pit;
    pic_set_line(&board->pic, 0, level);
    ioapic_set_line(&board->ioapic, 2, level);
}

static void save_and_load(void)
{
    struct kvm_lapic_state lapic;
    struct kvm_ioapic_state ioapic;
    struct kvm_pic_state pic;
    struct kvm_pit_state2 pit;

    lapic_get_state(&board->lapic, &lapic);
    lapic_set_state(&board->lapic, &lapic);
    ioapic_get_state(&board->ioapic, &ioapic);
    ioapic_set_state(&board->ioapic, &ioapic);
    for (unsigned i = 0; i < 2; i++) {
        pic_get_state(&board->pic, i, &pic);
        pic_set_state(&board->pic, i, &pic);
    }
    pit_get_state(&board->pit, &pit);
    pit_set_state(&board->pit, &pit);
}

static void load_state(struct fuzz_input *in)
{
    struct kvm_lapic_state lapic;
    struct kvm_ioapic_state ioapic;
    struct kvm_pic_state pic;
    struct kvm_pit_state2 pit;

    switch (fuzz_take(in, 1) & 3) {
    case 0:
        fuzz_bytes(in, &lapic, sizeof lapic);
        lapic_set_state(&board->lapic, &lapic);
        break;
    case 1:
        fuzz_bytes(in, &ioapic, sizeof ioapic);
        ioapic_set_state(&board->ioapic, &ioapic);
        break;
    case 2:
        fuzz_bytes(in, &pic, sizeof pic);
        pic_set_state(&board->pic, fuzz_take(in, 1) & 1, &pic);
        break;
    default:
        fuzz_bytes(in, &pit, sizeof pit);
        pit_set_state(&board->pit, &pit);
    }
}

static const u16 pic_ports[] = {0x20, 0x21, 0xa0, 0xa1, 0x4d0, 0x4d1};
static const u16 pit_ports[] = {0x40, 0x41, 0x42, 0x43, 0x61};

static void step(struct fuzz_input *in)
{
    u8 op = (u8)fuzz_take(in, 1);
    u64 value;
    int vector;

    switch (op % 18) {
    case 0:
        lapic_mmio_read(&board->lapic, fuzz_take(in, 2) & 0xfff);
        break;
    case 1:
        value = fuzz_take(in, 2) & 0xfff;
        lapic_mmio_write(&board->lapic, (u32)value, (u32)fuzz_take(in, 4));
        break;
    case 2:
        lapic_msr_read(&board->lapic, 0x800 + (fuzz_take(in, 1) & 0xff), &value);
        break;
    case 3:
        value = 0x800 + (fuzz_take(in, 1) & 0xff);
        lapic_msr_write(&board->lapic, (u32)value, fuzz_take(in, 8));
        break;
    case 4:
        lapic_set_base(&board->lapic, fuzz_take(in, 8), mask_low(46));
        break;
    case 5:
        lapic_set_cr8(&board->lapic, fuzz_take(in, 1));
        break;
    case 6:
        vector = lapic_pending(&board->lapic);
        MUST(vector >= -1 && vector <= 255);
        if (vector >= 0)
            lapic_accept(&board->lapic, (u8)vector);
        break;
    case 7:
        lapic_eoi(&board->lapic);
        break;
    case 8:
        ioapic_read(&board->ioapic, fuzz_take(in, 1));
        break;
    case 9:
        value = fuzz_take(in, 1);
        ioapic_write(&board->ioapic, (u32)value, (u32)fuzz_take(in, 4));
        break;
    case 10:
        value = fuzz_take(in, 1);
        ioapic_set_line(&board->ioapic, value % IOAPIC_PINS, value & 0x80);
        break;
    case 11:
        pic_read(&board->pic, pic_ports[fuzz_take(in, 1) % 6]);
        break;
    case 12:
        value = fuzz_take(in, 1) % 6;
        pic_write(&board->pic, pic_ports[value], (u8)fuzz_take(in, 1));
        break;
    case 13:
        value = fuzz_take(in, 1);
        pic_set_line(&board->pic, value & 15, value & 0x80);
        if (value & 0x40)
            pic_acknowledge(&board->pic);
        break;
    case 14:
        pit_read(&board->pit, pit_ports[fuzz_take(in, 1) % 5]);
        break;
    case 15:
        value = fuzz_take(in, 1) % 5;
        pit_write(&board->pit, pit_ports[value], (u8)fuzz_take(in, 1));
        break;
    case 16:
        value = fuzz_take(in, 3);
        soft_timers_advance(&board->timers, value & 0xffff);
        if (value >> 20 == 15)
            save_and_load();
        break;
    default:
        if (op > 240)
            load_state(in);
        else if (op > 200)
            lapic_set_tsc_deadline(&board->lapic, fuzz_take(in, 8));
        else
            lapic_local_interrupt(&board->lapic, fuzz_take(in, 1) % APIC_LVTS);
    }
}

int LLVMFuzzerTestOneInput(const u8 *data, size_t size)
{
    struct fuzz_input in = {data, size};
    struct board b;

    memset(&b, 0, sizeof b);
    board = &b;
    soft_timers_by_hand(&b.timers);
    lapic_init(&b.lapic, 0, true, &b.timers, &hooks);
    b.lapic.has_x2apic = b.lapic.has_tsc_deadline = size & 1;
    ioapic_init(&b.ioapic, ioapic_send);
    pic_init(&b.pic, pic_output);
    pit_init(&b.pit, &b.timers, pit_line);
    while (in.left)
        step(&in);
    pit_destroy(&b.pit);
    lapic_destroy(&b.lapic);
    return 0;
}
