/* Fills in and places the BIOS that Linux' real-mode setup program talks to; the code is bios.S. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "machine/boot.h"

/* How the code begins. */
extern const struct image {
    u16 size, fields; /* bytes of all, where struct fields goes */
    u16 vectors[][2];
} boot_bios;

struct fields {
    u16 low_kib, mid_kib, high_64k, map_bytes;
    struct __attribute__((packed)) {
        u64 first, size;
        u32 type;
    } map[16];
};

_Static_assert(sizeof(((struct machine_map *)0)->ranges) /
                       sizeof(((struct machine_map *)0)->ranges[0]) <=
                   16,
               "bios.S has room for the whole map");

static struct fields make_fields(const struct boot_context *ctx)
{
    const struct machine_map *map = ctx->map;
    struct fields fields = {
        .low_kib = (u16)(map->ranges[0].size / KiB),
        .mid_kib = (u16)((ctx->low_end < 16 * MiB ? ctx->low_end - MiB : 15 * MiB) / KiB),
        .high_64k = (u16)(ctx->low_end < 16 * MiB ? 0 : (ctx->low_end - 16 * MiB) / (64 * KiB)),
        .map_bytes = (u16)(map->count * sizeof(fields.map[0])),
    };

    for (unsigned i = 0; i < map->count; i++) {
        fields.map[i].first = map->ranges[i].first;
        fields.map[i].size = map->ranges[i].size;
        fields.map[i].type = map->ranges[i].type;
    }
    return fields;
}

/* The table at the start of bios.S, as far pointers. */
static void fill_vectors(u32 vectors[256])
{
    for (unsigned i = 0; i < 256; i++)
        vectors[i] = (u32)(BOOT_BIOS >> 4) << 16 | boot_bios.vectors[0][1];
    for (unsigned i = 0; boot_bios.vectors[i][0] != 0xffff; i++)
        vectors[boot_bios.vectors[i][0]] = (u32)(BOOT_BIOS >> 4) << 16 | boot_bios.vectors[i][1];
}

int boot_put_bios(struct boot_context *ctx)
{
    struct fields fields = make_fields(ctx);
    u32 vectors[256];
    int ret;

    fill_vectors(vectors);
    ret = mem_write(ctx->mem, BOOT_BIOS, &boot_bios, boot_bios.size);
    if (!ret)
        ret = mem_write(ctx->mem, BOOT_BIOS + boot_bios.fields, &fields, sizeof(fields));
    if (!ret)
        ret = mem_write(ctx->mem, 0, vectors, sizeof(vectors));
    return ret ? ret : boot_put_base_memory(ctx);
}
