/*
 * What translation costs, from guest bytes to host code: of this program's own instructions, block by
 * block in the order in which they lie. Its text is the same for each run of one build; under
 *     valgrind --tool=cachegrind --cache-sim=no bench_translate 1
 * instructions are counted, which no busy host disturbs.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/clock.h"
#include "guest/x86/x86.h"
#include "host/host.h"
#include "opt/opt.h"

#define CODE_BYTES (64 * MiB)
#define COLD (CODE_BYTES / 2)
#define MODE                                                                                       \
    (X86_MODE_CODE64 | X86_MODE_PE | X86_MODE_LMA | X86_MODE_FLAT | X86_MODE_FLAT_CS |             \
     X86_MODE_IOPL_OK)

extern const u8 _start[], __etext[];

struct cost {
    u64 blocks, insns, refused, ir, hot, cold, sites;
};

static u64 site(void *state, struct host_frame *frame, const struct host_site *site)
{
    (void)state, (void)frame, (void)site;
    return 0;
}

static void *missed(void *state, u64 link, u64 from)
{
    (void)state, (void)link, (void)from;
    return NULL;
}

static void make_abi(struct host_abi *abi, u8 *thunks, size_t size)
{
    static const struct host_callbacks callbacks = {site, missed};
    u64 (*enter)(void *state, void *code, u64 base);

    *abi = (struct host_abi){
        .memory = HOST_MEMORY_TLB,
        .request = offsetof(struct guest_cpu, request),
        .tlb = offsetof(struct guest_cpu, tlb),
        .jump_cache = offsetof(struct guest_cpu, jump_cache),
        .space = offsetof(struct guest_cpu, space),
        .mode = offsetof(struct guest_cpu, mode),
        .pc_slot = x86_guest_ops.pc_slot,
        .insns = offsetof(struct guest_cpu, insns),
        .exit_code = offsetof(struct guest_cpu, exit_code),
        .tlb_bits = TLB_BITS,
        .tlb_entry_bytes = sizeof(struct tlb_entry),
        .tlb_read_tag = offsetof(struct tlb_entry, read_tag),
        .tlb_write_tag = offsetof(struct tlb_entry, write_tag),
        .tlb_addend = offsetof(struct tlb_entry, addend),
        .tlb_ways = TLB_WAYS,
        .tlb_patience = offsetof(struct guest_cpu, tlb_patience),
        .jump_cache_bits = 14,
        .count_insns = true,
    };
    if (!host_make_thunks(thunks, (u64)thunks, size, abi, &callbacks, &enter))
        abort();
}

/* One block at @pc; answers its guest bytes. */
static u32 translate(struct arena *arena, struct host_abi *abi, u8 *buf, u64 pc, struct cost *cost)
{
    struct host_code code;
    struct ir_unit unit;
    struct guest_lift lift = {.unit = &unit,
                              .pc = pc,
                              .code = (const u8 *)pc,
                              .avail = (u32)(4096 - (pc & 4095)),
                              .mode = MODE,
                              .max_insns = 64};

    arena_reset(arena);
    ir_init(&unit, arena, x86_guest_ops.helpers, x86_guest_ops.nhelpers, x86_guest_ops.pc_slot);
    if (x86_guest_ops.lift(&lift)) /* goes on in the next page */
        return lift.avail;
    cost->ir += unit.ninsts - 1;
    abi->cold = COLD + (u32)(cost->cold + cost->sites - cost->hot);
    if (opt_run(&unit, OPT_QUICK) ||
        host_compile(&unit, abi, buf + cost->hot, (u64)buf + cost->hot, 48 * KiB, &code)) {
        cost->refused++;
        return lift.length;
    }
    cost->blocks++;
    cost->insns += unit.guest_insns;
    cost->hot += code.hot_bytes;
    cost->cold += code.code_bytes - code.cold;
    cost->sites += code.total_bytes - code.code_bytes;
    return lift.length;
}

int main(int argc, char **argv)
{
    unsigned rounds = argc > 1 ? (unsigned)atoi(argv[1]) : 5;
    u8 *buf = mmap(NULL, CODE_BYTES + 64 * KiB, PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    struct arena arena = {0};
    struct cost cost = {0};
    struct host_abi abi;
    u64 best = ~0ull;

    if (buf == MAP_FAILED)
        return 1;
    make_abi(&abi, buf + CODE_BYTES, 64 * KiB);
    for (unsigned i = 0; i < rounds; i++) {
        u64 start = clock_thread_ns(), ns;

        cost = (struct cost){0};
        for (u64 pc = ((u64)_start + 4095) & ~4095ull; pc < (u64)__etext - 16;)
            pc += translate(&arena, &abi, buf, pc, &cost);
        ns = clock_thread_ns() - start;
        best = ns < best ? ns : best;
    }
    printf("%lu blocks of %.1f instructions, %lu refused: %.0f ns a block, %.1f IR instructions a "
           "guest's\n"
           "bytes a block: %.1f hot, %.1f cold, %.1f of sites\n",
           cost.blocks, (double)cost.insns / (double)cost.blocks, cost.refused,
           (double)best / (double)cost.blocks, (double)cost.ir / (double)cost.insns,
           (double)cost.hot / (double)cost.blocks, (double)cost.cold / (double)cost.blocks,
           (double)cost.sites / (double)cost.blocks);
    arena_free(&arena);
    return 0;
}
