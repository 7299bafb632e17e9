/*
 * The last 256 KiB below 1 MiB as the chipset's attribute registers have them: each piece is read
 * from RAM or shows the firmware, and is written to RAM or not. Each run of pieces that are alike
 * is one memory slot; pieces that are neither RAM nor firmware are no memory at all.
 */
#include <errno.h>
#include <string.h>

#include "base/bits.h"
#include "base/log.h"
#include "machine/private.h"

#define FIRST (768 * KiB)
#define PIECE (16 * KiB)
#define FIRST_SLOT 16 /* slots of the board come before */

enum { READ_RAM = DEVICE_SHADOW_READ, WRITE_RAM = DEVICE_SHADOW_WRITE };

static u64 piece_first(unsigned i)
{
    return i < DEVICE_SHADOW_PIECES ? FIRST + i * PIECE : MiB;
}

/* Where the firmware shows itself: what there is of its end, up to 128 KiB. */
static u64 firmware_first(const struct machine *machine)
{
    u64 len = machine->rom_size < 128 * KiB ? machine->rom_size : 128 * KiB;

    return MiB - len;
}

static bool same(const struct machine_shadow_run *a, const struct machine_shadow_run *b)
{
    return a->first == b->first && a->end == b->end && a->mode == b->mode && a->rom == b->rom;
}

/* Pieces of one kind, from @piece on; answers the next. */
static unsigned make_run(const struct machine *machine, unsigned piece,
                         struct machine_shadow_run *run)
{
    const u8 *modes = machine->shadow.modes;
    u64 rom = firmware_first(machine);

    *run = (struct machine_shadow_run){
        .first = piece_first(piece),
        .mode = modes[piece],
        .rom = !(modes[piece] & READ_RAM) && piece_first(piece) >= rom,
    };
    do
        piece++;
    while (piece < DEVICE_SHADOW_PIECES && modes[piece] == run->mode &&
           (run->rom || (run->mode & READ_RAM) || piece_first(piece) < rom));
    run->end = piece_first(piece);
    return piece;
}

/* Slot @index shows @run, or nothing (NULL). */
static int set_slot(struct machine *machine, unsigned index, const struct machine_shadow_run *run)
{
    struct kvm_userspace_memory_region region = {.slot = FIRST_SLOT + index};
    bool ram = run && (run->mode & READ_RAM);

    if (run) {
        region.guest_phys_addr = run->first;
        region.memory_size = run->end - run->first;
        region.flags = ram && (run->mode & WRITE_RAM) ? 0 : KVM_MEM_READONLY;
        region.userspace_addr =
            (uintptr_t)(ram ? machine->ram.hva + run->first
                            : machine->rom + machine->rom_size - (MiB - run->first));
    }
    return machine->ops->set_memory(machine->vm, &region);
}

/* Which of the @count slots of @runs has that run; @count for none. */
static unsigned find(const struct machine_shadow_run *runs, unsigned count,
                     const struct machine_shadow_run *run)
{
    unsigned i = 0;

    while (i < count && (!runs[i].end || !same(&runs[i], run)))
        i++;
    return i;
}

int machine_shadow_map(struct machine *machine)
{
    struct machine_shadow *shadow = &machine->shadow;
    struct machine_shadow_run runs[DEVICE_SHADOW_PIECES];
    unsigned count = 0;
    int ret = 0;

    for (unsigned piece = 0; piece < DEVICE_SHADOW_PIECES;) {
        piece = make_run(machine, piece, &runs[count]);
        count += runs[count].rom || (runs[count].mode & READ_RAM);
    }
    for (unsigned i = 0; !ret && i < DEVICE_SHADOW_PIECES; i++) {
        if (!shadow->slots[i].end || find(runs, count, &shadow->slots[i]) < count)
            continue;
        ret = set_slot(machine, i, NULL);
        shadow->slots[i].end = 0;
    }
    for (unsigned i = 0, slot = 0; !ret && i < count; i++) {
        if (find(shadow->slots, DEVICE_SHADOW_PIECES, &runs[i]) < DEVICE_SHADOW_PIECES)
            continue;
        while (shadow->slots[slot].end)
            slot++;
        ret = set_slot(machine, slot, &runs[i]);
        shadow->slots[slot] = runs[i];
    }
    return ret;
}

void machine_shadow_unmap(struct machine *machine)
{
    for (unsigned i = 0; i < DEVICE_SHADOW_PIECES; i++) {
        if (machine->shadow.slots[i].end)
            mem_set_slot(machine->mem, FIRST_SLOT + i, 0, 0, 0, NULL);
        machine->shadow.slots[i].end = 0;
    }
}

void machine_shadow_set(void *opaque, const u8 modes[DEVICE_SHADOW_PIECES])
{
    struct machine *machine = opaque;

    memcpy(machine->shadow.modes, modes, DEVICE_SHADOW_PIECES);
    if (machine->vm && machine_shadow_map(machine))
        machine_finish(machine, MACHINE_FAILED,
                       "the engine does not take the memory below 1 MiB as the guest sets it");
}

/* A piece that shows the firmware but is written to RAM: nobody maps that RAM meanwhile. */
void machine_shadow_write(void *opaque, u64 gpa, unsigned size, u64 value)
{
    struct machine *machine = opaque;

    BUG_ON(gpa < FIRST || gpa + size > MiB);
    memcpy(machine->ram.hva + gpa, &value, size);
}
