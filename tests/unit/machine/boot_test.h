/* Shared by the tests of boot protocols: a guest's memory with its map, and files. */
#ifndef TRIODE_TESTS_BOOT_TEST_H
#define TRIODE_TESTS_BOOT_TEST_H

#include <stdio.h>
#include <sys/mman.h>

#include "../unit.h"

#include "machine/boot.h"

#define RAM (64 * MiB)

/* RAM from 0 on, of which the map leaves out what is between 639 KiB and 1 MiB. 0 or -1. */
static inline int make_ram(struct mem **mem, u8 **ram, struct machine_map *map)
{
    *mem = mem_create();
    *ram = mmap(NULL, RAM, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (*ram == MAP_FAILED || !*mem || mem_set_slot(*mem, 0, 0, 0, RAM, *ram))
        return -1;
    map->count = 2;
    map->ranges[0].size = 0x9fc00;
    map->ranges[0].type = MAP_RAM;
    map->ranges[1].first = MiB;
    map->ranges[1].size = RAM - MiB;
    map->ranges[1].type = MAP_RAM;
    return 0;
}

static inline void write_file(const char *path, const void *data, size_t len)
{
    FILE *file = fopen(path, "wb");

    assert_non_null(file);
    assert_int_equal(fwrite(data, 1, len, file), len);
    assert_int_equal(fclose(file), 0);
}

#endif
