#include "../unit.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/bits.h"
#include "base/entropy.h"
#include "mem/mem.h"

#define PAGE MEM_PAGE_SIZE

struct heard {
    unsigned code, slots, dirty;
    u64 gpa, len;
};

static void hear_code(void *opaque, u64 gpa, u64 len)
{
    struct heard *heard = opaque;

    heard->code++;
    heard->gpa = gpa;
    heard->len = len;
}

static void hear_slots(void *opaque)
{
    ((struct heard *)opaque)->slots++;
}

static void hear_dirty(void *opaque)
{
    ((struct heard *)opaque)->dirty++;
}

struct fixture {
    struct mem *mem;
    struct mem_ram ram; /* 64 pages */
    struct heard heard;
};

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    struct mem_hooks hooks = {hear_code, hear_slots, hear_dirty, NULL};

    assert_non_null(f);
    f->mem = mem_create();
    assert_non_null(f->mem);
    assert_int_equal(mem_ram_alloc(&f->ram, 64 * PAGE, NULL), 0);
    hooks.opaque = &f->heard;
    mem_set_hooks(f->mem, &hooks);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    mem_destroy(f->mem);
    mem_ram_free(&f->ram);
    free(f);
    return 0;
}

static void refuses_bad_slots(void **state)
{
    struct fixture *f = *state;
    u8 *ram = f->ram.hva;
    u64 generation = mem_generation(f->mem);

    assert_int_equal(mem_set_slot(f->mem, MEM_MAX_SLOTS, 0, 0, PAGE, ram), -EINVAL);
    assert_int_equal(mem_set_slot(f->mem, UINT32_MAX, 0, 0, PAGE, ram), -EINVAL);
    assert_int_equal(mem_set_slot(f->mem, 0, 4, 0, PAGE, ram), -EINVAL);
    assert_int_equal(mem_set_slot(f->mem, 0, 0, 1, PAGE, ram), -EINVAL);
    assert_int_equal(mem_set_slot(f->mem, 0, 0, 0, PAGE + 1, ram), -EINVAL);
    assert_int_equal(mem_set_slot(f->mem, 0, 0, 0, PAGE, ram + 8), -EINVAL);
    assert_int_equal(mem_set_slot(f->mem, 0, 0, 0, PAGE, NULL), -EINVAL);
    assert_int_equal(mem_set_slot(f->mem, 0, 0, 0 - PAGE, 2 * PAGE, ram), -EINVAL);
    assert_int_equal(mem_set_slot(f->mem, 0, 0, 0, 0, NULL), -EINVAL);
    assert_null(mem_find(f->mem, 0));
    assert_true(mem_generation(f->mem) == generation);
    assert_int_equal(f->heard.slots, 0);

    assert_int_equal(mem_set_slot(f->mem, 3, 0, 16 * PAGE, 4 * PAGE, ram), 0);
    assert_int_equal(mem_set_slot(f->mem, 4, 0, 19 * PAGE, PAGE, ram), -EEXIST);
    assert_int_equal(mem_set_slot(f->mem, 4, 0, 15 * PAGE, 2 * PAGE, ram), -EEXIST);
    assert_int_equal(mem_set_slot(f->mem, 4, 0, 15 * PAGE, 9 * PAGE, ram), -EEXIST);
    assert_int_equal(mem_set_slot(f->mem, 3, 0, 16 * PAGE, 5 * PAGE, ram), -EINVAL);
    assert_int_equal(mem_set_slot(f->mem, 3, 0, 16 * PAGE, 4 * PAGE, ram + PAGE), -EINVAL);
    assert_int_equal(mem_set_slot(f->mem, 3, MEM_READONLY, 16 * PAGE, 4 * PAGE, ram), -EINVAL);
    assert_int_equal(f->heard.slots, 1);
}

static void finds_by_address(void **state)
{
    struct fixture *f = *state;
    u8 *ram = f->ram.hva;
    u64 generation = mem_generation(f->mem);

    /* Set out of order, with a gap and a touching pair, one at the end of the address space. */
    assert_int_equal(mem_set_slot(f->mem, 9, 0, 20 * PAGE, 2 * PAGE, ram + 20 * PAGE), 0);
    assert_int_equal(mem_set_slot(f->mem, 2, 0, 0, 10 * PAGE, ram), 0);
    assert_int_equal(mem_set_slot(f->mem, 1, 0, 10 * PAGE, PAGE, ram + 30 * PAGE), 0);
    assert_true(mem_generation(f->mem) == generation + 3);

    assert_int_equal(mem_find(f->mem, 0)->id, 2);
    assert_int_equal(mem_find(f->mem, 10 * PAGE - 1)->id, 2);
    assert_int_equal(mem_find(f->mem, 10 * PAGE)->id, 1);
    assert_null(mem_find(f->mem, 11 * PAGE));
    assert_null(mem_find(f->mem, 20 * PAGE - 1));
    assert_int_equal(mem_find(f->mem, 20 * PAGE)->id, 9);
    assert_null(mem_find(f->mem, 22 * PAGE));
    assert_null(mem_find(f->mem, ~0ull));

    assert_ptr_equal(mem_hva(f->mem, 5, 8, true), ram + 5);
    assert_ptr_equal(mem_hva(f->mem, 10 * PAGE - 4, 4, true), ram + 10 * PAGE - 4);
    assert_null(mem_hva(f->mem, 10 * PAGE - 4, 5, true));
    assert_null(mem_hva(f->mem, 0, ~0ull, false));
    assert_null(mem_hva(f->mem, 21 * PAGE, UINT64_MAX - 21 * PAGE + 2, false));
    assert_null(mem_hva(f->mem, 12 * PAGE, 1, false));
}

static void all_slots_at_once(void **state)
{
    struct fixture *f = *state;

    for (u32 i = 0; i < MEM_MAX_SLOTS; i++)
        assert_int_equal(mem_set_slot(f->mem, i, 0, (u64)(MEM_MAX_SLOTS - i) * 2 * PAGE, PAGE,
                                      f->ram.hva + i * PAGE),
                         0);
    for (u32 i = 0; i < MEM_MAX_SLOTS; i++) {
        assert_int_equal(mem_find(f->mem, (u64)(MEM_MAX_SLOTS - i) * 2 * PAGE + 100)->id, i);
        assert_null(mem_find(f->mem, (u64)(MEM_MAX_SLOTS - i) * 2 * PAGE + PAGE));
    }
    for (u32 i = 0; i < MEM_MAX_SLOTS; i++)
        assert_int_equal(mem_set_slot(f->mem, i, 0, 0, 0, NULL), 0);
    assert_null(mem_find(f->mem, 2 * PAGE));
}

static void slot_moves(void **state)
{
    struct fixture *f = *state;
    u8 *ram = f->ram.hva;

    assert_int_equal(mem_set_slot(f->mem, 0, 0, 0, 4 * PAGE, ram), 0);
    mem_find(f->mem, PAGE)->code[1] = 1;
    assert_int_equal(mem_set_slot(f->mem, 0, 0, 2 * PAGE, 4 * PAGE, ram), 0);
    assert_int_equal(f->heard.code, 1); /* translations of the old place are void */
    assert_true(f->heard.gpa == 0 && f->heard.len == 4 * PAGE);
    assert_null(mem_find(f->mem, PAGE));
    assert_int_equal(mem_find(f->mem, 3 * PAGE)->code[1], 0);
    assert_int_equal(mem_set_slot(f->mem, 0, 0, 2 * PAGE, 4 * PAGE, ram), 0); /* no change */
    assert_int_equal(f->heard.slots, 2);
}

static void copies_span_slots_and_stop_at_holes(void **state)
{
    struct fixture *f = *state;
    u8 *ram = f->ram.hva, buf[3 * PAGE], back[3 * PAGE];

    assert_int_equal(mem_set_slot(f->mem, 0, 0, 0, PAGE, ram + 8 * PAGE), 0);
    assert_int_equal(mem_set_slot(f->mem, 1, 0, PAGE, PAGE, ram), 0);
    assert_int_equal(mem_set_slot(f->mem, 2, MEM_READONLY, 2 * PAGE, PAGE, ram + 4 * PAGE), 0);
    entropy_fill(buf, sizeof(buf));
    assert_int_equal(mem_write(f->mem, 100, buf, 2 * PAGE - 100), 0);
    assert_int_equal(mem_read(f->mem, 100, back, 2 * PAGE - 100), 0);
    assert_memory_equal(buf, back, 2 * PAGE - 100);
    assert_memory_equal(ram + 8 * PAGE + 100, buf, PAGE - 100);
    assert_memory_equal(ram, buf + PAGE - 100, PAGE);

    assert_int_equal(mem_write(f->mem, 2 * PAGE - 4, buf, 8), -EFAULT); /* into read-only */
    assert_memory_equal(ram + PAGE - 4, buf, 4);
    assert_int_equal(ram[4 * PAGE], 0);
    assert_int_equal(mem_read(f->mem, 3 * PAGE - 4, back, 8), -EFAULT); /* into a hole */
    assert_int_equal(mem_read(f->mem, 1ull << 60, back, 1), -EFAULT);
    assert_int_equal(mem_read(f->mem, 1ull << 60, back, 0), 0);
    assert_null(mem_hva(f->mem, 2 * PAGE, 1, true));
    assert_non_null(mem_hva(f->mem, 2 * PAGE, 1, false));

    assert_int_equal(mem_fill(f->mem, PAGE - 1, 0x5a, 2), 0);
    assert_int_equal(ram[9 * PAGE - 1], 0x5a);
    assert_int_equal(ram[0], 0x5a);
    assert_int_equal(ram[1], buf[PAGE - 99]);
    assert_int_equal(mem_fill(f->mem, 2 * PAGE, 1, 1), -EFAULT);
}

static void dirty_log_counts_every_way(void **state)
{
    struct fixture *f = *state;
    u64 bitmap[2] = {~0ull, ~0ull};

    assert_int_equal(mem_set_slot(f->mem, 7, 0, 0, 64 * PAGE, f->ram.hva), 0);
    assert_int_equal(mem_get_dirty(f->mem, 7, bitmap, sizeof(bitmap)), -ENOENT);
    assert_int_equal(mem_get_dirty(f->mem, 8, bitmap, sizeof(bitmap)), -ENOENT);
    assert_int_equal(mem_set_slot(f->mem, 7, MEM_LOG_DIRTY, 0, 64 * PAGE, f->ram.hva), 0);
    assert_int_equal(mem_get_dirty(f->mem, 7, bitmap, 7), -EINVAL);
    assert_int_equal(f->heard.dirty, 0);
    assert_int_equal(mem_get_dirty(f->mem, 7, bitmap, sizeof(bitmap)), 0);
    assert_int_equal(f->heard.dirty, 1);
    assert_true(bitmap[0] == 0 && bitmap[1] == ~0ull);

    mem_mark_dirty(mem_find(f->mem, 0), 63 * PAGE + 5);
    assert_int_equal(mem_write(f->mem, PAGE - 1, "ab", 2), 0);
    assert_int_equal(mem_fill(f->mem, 10 * PAGE, 1, 1), 0);
    mem_wrote(f->mem, 20 * PAGE + 1, 2 * PAGE);
    mem_wrote(f->mem, 30 * PAGE, 0);
    mem_wrote(f->mem, 63 * PAGE, 5 * PAGE); /* runs out of the slot */
    assert_int_equal(mem_get_dirty(f->mem, 7, bitmap, 8), 0);
    assert_true(bitmap[0] == (BIT(63) | BIT(0) | BIT(1) | BIT(10) | BIT(20) | BIT(21) | BIT(22)));
    assert_int_equal(mem_get_dirty(f->mem, 7, bitmap, 8), 0);
    assert_true(bitmap[0] == 0);

    assert_int_equal(mem_set_slot(f->mem, 7, 0, 0, 64 * PAGE, f->ram.hva), 0);
    assert_null(mem_find(f->mem, 0)->dirty);
    mem_mark_dirty(mem_find(f->mem, 0), 0);
}

static void code_pages_are_told(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(mem_set_slot(f->mem, 0, 0, 16 * PAGE, 8 * PAGE, f->ram.hva), 0);
    mem_find(f->mem, 18 * PAGE)->code[2] = 1;
    assert_int_equal(mem_write(f->mem, 17 * PAGE, "x", 1), 0);
    assert_int_equal(f->heard.code, 0);
    mem_wrote(f->mem, 17 * PAGE + 8, 2 * PAGE);
    assert_int_equal(f->heard.code, 1);
    assert_true(f->heard.gpa == 18 * PAGE && f->heard.len == PAGE);
    assert_int_equal(mem_write(f->mem, 18 * PAGE + 40, "abc", 3), 0);
    assert_int_equal(f->heard.code, 2);
    assert_true(f->heard.gpa == 18 * PAGE + 40 && f->heard.len == 3);
    /* Turning the dirty log on keeps what is known about code. */
    assert_int_equal(mem_set_slot(f->mem, 0, MEM_LOG_DIRTY, 16 * PAGE, 8 * PAGE, f->ram.hva), 0);
    assert_int_equal(mem_find(f->mem, 18 * PAGE)->code[2], 1);
    assert_int_equal(f->heard.code, 2);
    assert_int_equal(mem_set_slot(f->mem, 0, 0, 0, 0, NULL), 0);
    assert_int_equal(f->heard.code, 3);
}

struct race {
    struct mem *mem;
    unsigned reader;
    atomic_bool stop;
    _Atomic u64 found;
};

/* Under AddressSanitizer a table freed too early ends the test here. */
static void *read_all_the_time(void *opaque)
{
    struct race *race = opaque;

    while (!atomic_load(&race->stop)) {
        mem_reader_online(race->mem, race->reader);
        for (int i = 0; i < 100; i++) {
            const struct mem_slot *slot = mem_find(race->mem, 5 * PAGE);
            const struct mem_slot *always = mem_find(race->mem, 0);

            if (!always || always->id != 0)
                return NULL;
            if (slot) {
                if (slot->id != 1 || slot->code[0])
                    return NULL;
                mem_mark_dirty(slot, 5 * PAGE);
                atomic_fetch_add(&race->found, 1);
            }
            mem_quiescent(race->mem, race->reader);
        }
        mem_reader_offline(race->mem, race->reader);
    }
    return race;
}

static void readers_survive_changes(void **state)
{
    struct fixture *f = *state;
    struct race race[2];
    pthread_t threads[2];

    assert_int_equal(mem_set_slot(f->mem, 0, 0, 0, PAGE, f->ram.hva), 0);
    for (unsigned i = 0; i < 2; i++) {
        race[i] = (struct race){.mem = f->mem, .reader = i ? 255 : 0};
        assert_int_equal(pthread_create(&threads[i], NULL, read_all_the_time, &race[i]), 0);
    }
    for (int i = 0; i < 2000 || !race[0].found || !race[1].found; i++) {
        u32 flags = i % 3 ? MEM_LOG_DIRTY : 0;

        assert_int_equal(mem_set_slot(f->mem, 1, flags, 5 * PAGE, PAGE, f->ram.hva + PAGE), 0);
        assert_int_equal(mem_set_slot(f->mem, 1, 0, 5 * PAGE, PAGE, f->ram.hva + PAGE), 0);
        assert_int_equal(mem_set_slot(f->mem, 1, 0, 0, 0, NULL), 0);
    }
    for (unsigned i = 0; i < 2; i++) {
        void *answer;

        race[i].stop = true;
        pthread_join(threads[i], &answer);
        assert_ptr_equal(answer, &race[i]);
    }
}

static void ram_is_shared_and_sparse(void **state)
{
    struct mem_ram ram;
    u8 *other;

    (void)state;
    assert_int_equal(mem_ram_alloc(&ram, 64 * GiB, NULL), 0);
    ram.hva[64 * GiB - 1] = 7;
    other = mmap(NULL, PAGE, PROT_READ, MAP_SHARED, ram.fd, (off_t)(64 * GiB - PAGE));
    assert_ptr_not_equal(other, MAP_FAILED);
    assert_int_equal(other[PAGE - 1], 7);
    munmap(other, PAGE);
    mem_ram_free(&ram);
    assert_null(ram.hva);
    mem_ram_free(&ram);
}

/* Nothing of what was there, or is beside, changes; and all of it is there to be written at once. */
static void populated_ram_keeps_its_bytes(void **state)
{
    static const struct {
        u64 first, size;
    } pieces[] = {{PAGE, PAGE}, {0, 5 * MiB + 3}, {3 * MiB, 2 * MiB}, {3 * PAGE, 8 * MiB}};

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(pieces); i++) {
        u8 *from, *to, resident[16 * MiB / PAGE];
        struct mem_ram ram;

        assert_int_equal(mem_ram_alloc(&ram, 16 * MiB, NULL), 0);
        assert_int_equal((u64)ram.hva % (2 * MiB), 0);
        from = ram.hva + pieces[i].first;
        to = from + pieces[i].size;
        from[0] = 1;
        to[-1] |= 2;
        *to = 3;
        mem_populate(from, pieces[i].size);
        assert_int_equal(mincore(ram.hva, ram.size, resident), 0);
        for (u8 *p = from; p < to; p += PAGE)
            assert_true(resident[(size_t)(p - ram.hva) / PAGE] & 1);
        for (u8 *p = from; p < to; p++)
            assert_int_equal(*p, (p == from ? 1 : 0) | (p == to - 1 ? 2 : 0));
        assert_int_equal(*to, 3);
        mem_ram_free(&ram);
    }
}

static void impossible_ram_is_explained(void **state)
{
    struct mem_ram ram;
    struct err err = {0};

    (void)state;
    assert_int_equal(mem_ram_alloc(&ram, 0, &err), -EINVAL);
    assert_int_equal(mem_ram_alloc(&ram, PAGE + 1, &err), -EINVAL);
    assert_non_null(strstr(err.text, "4097"));
    assert_true(mem_ram_alloc(&ram, 1ull << 62, &err) < 0);
    assert_non_null(strstr(err.text, "MiB of guest memory"));
    assert_int_equal(ram.fd, -1);
    mem_ram_free(&ram);
}

#define MEM_TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        MEM_TEST(refuses_bad_slots),
        MEM_TEST(finds_by_address),
        MEM_TEST(all_slots_at_once),
        MEM_TEST(slot_moves),
        MEM_TEST(copies_span_slots_and_stop_at_holes),
        MEM_TEST(dirty_log_counts_every_way),
        MEM_TEST(code_pages_are_told),
        MEM_TEST(readers_survive_changes),
        cmocka_unit_test(ram_is_shared_and_sparse),
        cmocka_unit_test(populated_ram_keeps_its_bytes),
        cmocka_unit_test(impossible_ram_is_explained),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
