#include "soft/pic.h"

#include <string.h>

#include "base/bits.h"
#include "trace/trace.h"

#define CASCADE 2
#define SPURIOUS 7

static const u8 elcr_masks[2] = {0xf8, 0xde}; /* inputs that can be level-triggered on a PC */

/* How far @irq is from the input with the highest priority; 8 if the set is empty. */
static unsigned rank_of_best(const struct kvm_pic_state *chip, u8 set)
{
    for (unsigned rank = 0; rank < 8; rank++)
        if (set >> ((chip->priority_add + rank) & 7) & 1)
            return rank;
    return 8;
}

/* The input to interrupt for, or -1. */
static int pending(const struct kvm_pic_state *chip, bool master)
{
    u8 serving = chip->isr;
    unsigned rank = rank_of_best(chip, chip->irr & ~chip->imr);

    if (rank == 8)
        return -1;
    if (chip->special_mask)
        serving &= ~chip->imr;
    if (master && chip->special_fully_nested_mode)
        serving &= ~BIT(CASCADE);
    if (rank >= rank_of_best(chip, serving))
        return -1;
    return (chip->priority_add + rank) & 7;
}

static void set_input(struct kvm_pic_state *chip, unsigned line, bool level)
{
    u8 bit = (u8)BIT(line);

    if (chip->elcr & bit) {
        chip->irr = level ? chip->irr | bit : chip->irr & ~bit;
    } else if (level && !(chip->last_irr & bit)) {
        chip->irr |= bit;
    }
    chip->last_irr = level ? chip->last_irr | bit : chip->last_irr & ~bit;
}

static void update(struct pic *pic)
{
    bool output;

    /* The slave's request is there as long as the slave has one, whatever its own inputs are. */
    if (pending(&pic->chip[1], false) >= 0)
        pic->chip[0].irr |= BIT(CASCADE);
    else
        pic->chip[0].irr &= ~BIT(CASCADE);
    output = pending(&pic->chip[0], true) >= 0;
    if (output != pic->output) {
        pic->output = output;
        pic->set_output(pic, output);
    }
}

static void reset_chip(struct kvm_pic_state *chip, unsigned index)
{
    memset(chip, 0, sizeof *chip);
    chip->elcr_mask = elcr_masks[index];
}

void pic_reset(struct pic *pic)
{
    mutex_lock(&pic->lock);
    reset_chip(&pic->chip[0], 0);
    reset_chip(&pic->chip[1], 1);
    update(pic);
    mutex_unlock(&pic->lock);
}

void pic_init(struct pic *pic, void (*set_output)(struct pic *pic, bool level))
{
    memset(pic, 0, sizeof *pic);
    mutex_init(&pic->lock);
    pic->set_output = set_output;
    pic_reset(pic);
}

void pic_set_line(struct pic *pic, unsigned line, bool level)
{
    if (line == CASCADE)
        return;
    mutex_lock(&pic->lock);
    set_input(&pic->chip[line >> 3], line & 7, level);
    update(pic);
    mutex_unlock(&pic->lock);
}

/* The acknowledge cycle on one chip. */
static void take(struct kvm_pic_state *chip, unsigned irq)
{
    u8 bit = (u8)BIT(irq);

    if (!(chip->elcr & bit))
        chip->irr &= ~bit;
    if (!chip->auto_eoi)
        chip->isr |= bit;
    else if (chip->rotate_on_auto_eoi)
        chip->priority_add = (irq + 1) & 7;
}

u8 pic_acknowledge(struct pic *pic)
{
    int irq, slave_irq;
    u8 vector;

    mutex_lock(&pic->lock);
    irq = pending(&pic->chip[0], true);
    if (irq < 0) {
        vector = pic->chip[0].irq_base + SPURIOUS;
    } else {
        take(&pic->chip[0], (unsigned)irq);
        vector = pic->chip[0].irq_base + (u8)irq;
        if (irq == CASCADE) {
            slave_irq = pending(&pic->chip[1], false);
            if (slave_irq >= 0)
                take(&pic->chip[1], (unsigned)slave_irq);
            vector = pic->chip[1].irq_base + (u8)(slave_irq < 0 ? SPURIOUS : slave_irq);
        }
    }
    update(pic);
    mutex_unlock(&pic->lock);
    trace_emit(IRQ, irq, -1, .unit = "8259", .action = "acknowledge", .number = vector);
    return vector;
}

/* --- ports --- */

static void write_icw1(struct kvm_pic_state *chip, u8 value)
{
    chip->init4 = value & 1;
    chip->irr &= chip->elcr; /* edges seen so far are forgotten */
    chip->last_irr &= chip->elcr;
    chip->imr = chip->isr = 0;
    chip->priority_add = 0;
    chip->special_mask = chip->poll = chip->read_reg_select = 0;
    chip->auto_eoi = chip->rotate_on_auto_eoi = chip->special_fully_nested_mode = 0;
    chip->init_state = 1;
}

static void write_ocw2(struct kvm_pic_state *chip, u8 value)
{
    unsigned command = value >> 5, level = value & 7, rank;

    switch (command) {
    case 0: /* no rotation in automatic-EOI mode */
    case 4:
        chip->rotate_on_auto_eoi = command >> 2;
        break;
    case 1: /* non-specific EOI, 5: and rotate */
    case 5:
        rank = rank_of_best(chip, chip->special_mask ? chip->isr & ~chip->imr : chip->isr);
        if (rank == 8)
            break;
        level = (chip->priority_add + rank) & 7;
        chip->isr &= ~BIT(level);
        if (command == 5)
            chip->priority_add = (level + 1) & 7;
        break;
    case 3: /* specific EOI, 7: and rotate */
    case 7:
        chip->isr &= ~BIT(level);
        if (command == 7)
            chip->priority_add = (level + 1) & 7;
        break;
    case 6: /* set priority: @level becomes the lowest */
        chip->priority_add = (level + 1) & 7;
        break;
    default: /* 2: no operation */
        break;
    }
}

static void write_ocw3(struct kvm_pic_state *chip, u8 value)
{
    if (value & 4)
        chip->poll = 1;
    if (value & 2)
        chip->read_reg_select = value & 1;
    if (value & 0x40)
        chip->special_mask = value >> 5 & 1;
}

static void write_command(struct kvm_pic_state *chip, u8 value)
{
    if (value & 0x10)
        write_icw1(chip, value);
    else if (value & 0x08)
        write_ocw3(chip, value);
    else
        write_ocw2(chip, value);
}

/* The data port: the initialisation words in their order, else the mask. */
static void write_data(struct kvm_pic_state *chip, u8 value)
{
    switch (chip->init_state) {
    case 0:
        chip->imr = value;
        break;
    case 1:
        chip->irq_base = value & 0xf8;
        chip->init_state = 2;
        break;
    case 2: /* cascade wiring: as a PC has it, whatever is said */
        chip->init_state = chip->init4 ? 3 : 0;
        break;
    default:
        chip->special_fully_nested_mode = value >> 4 & 1;
        chip->auto_eoi = value >> 1 & 1;
        chip->init_state = 0;
        break;
    }
}

bool pic_port(u16 port)
{
    return (port & ~0x81) == 0x20 || (port & ~1) == 0x4d0;
}

void pic_write(struct pic *pic, u16 port, u8 value)
{
    bool elcr = port >= 0x4d0;
    unsigned index = elcr ? port & 1 : port >> 7 & 1;
    struct kvm_pic_state *chip = &pic->chip[index];

    mutex_lock(&pic->lock);
    if (elcr)
        chip->elcr = value & chip->elcr_mask;
    else if (port & 1)
        write_data(chip, value);
    else
        write_command(chip, value);
    update(pic);
    mutex_unlock(&pic->lock);
}

/* A read after the poll command is an acknowledge: bit 7 and the input's number. */
static u8 read_poll(struct kvm_pic_state *chip, bool master)
{
    int irq = pending(chip, master);

    chip->poll = 0;
    if (irq < 0)
        return 0;
    take(chip, (unsigned)irq);
    return (u8)(0x80 | irq);
}

u8 pic_read(struct pic *pic, u16 port)
{
    bool elcr = port >= 0x4d0;
    unsigned index = elcr ? port & 1 : port >> 7 & 1;
    struct kvm_pic_state *chip = &pic->chip[index];
    u8 value;

    mutex_lock(&pic->lock);
    if (elcr)
        value = chip->elcr;
    else if (chip->poll)
        value = read_poll(chip, index == 0);
    else if (port & 1)
        value = chip->imr;
    else
        value = chip->read_reg_select ? chip->isr : chip->irr;
    update(pic);
    mutex_unlock(&pic->lock);
    return value;
}

void pic_get_state(struct pic *pic, unsigned chip, struct kvm_pic_state *state)
{
    mutex_lock(&pic->lock);
    *state = pic->chip[chip];
    mutex_unlock(&pic->lock);
}

void pic_set_state(struct pic *pic, unsigned chip, const struct kvm_pic_state *state)
{
    mutex_lock(&pic->lock);
    pic->chip[chip] = *state;
    pic->chip[chip].elcr_mask = elcr_masks[chip];
    pic->chip[chip].elcr &= elcr_masks[chip];
    pic->chip[chip].priority_add &= 7;
    update(pic);
    mutex_unlock(&pic->lock);
}
