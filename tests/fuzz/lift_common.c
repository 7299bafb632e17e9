/* Lifted code through verifier, optimiser, verifier, host back end, and the disassembler over
 * it. */
#include <errno.h>

#include "base/arena.h"
#include "host/host.h"
#include "lift.h"
#include "opt/opt.h"

#define CODE_BYTES (256 * KiB)
#define LIFT_BYTES 64 /* most of a block's page; as many again stand for the next page */

static u8 host_code[CODE_BYTES];

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

static void make_abi(struct host_abi *abi, const struct guest_ops *guest, bool direct)
{
    static const struct host_callbacks callbacks = {site, missed};
    static u8 thunks[65536];
    u64 (*enter)(void *state, void *code, u64 base);

    *abi = (struct host_abi){
        .memory = direct ? HOST_MEMORY_DIRECT : HOST_MEMORY_TLB,
        .request = offsetof(struct guest_cpu, request),
        .tlb = offsetof(struct guest_cpu, tlb),
        .jump_cache = offsetof(struct guest_cpu, jump_cache),
        .space = offsetof(struct guest_cpu, space),
        .mode = offsetof(struct guest_cpu, mode),
        .pc_slot = guest->pc_slot,
        .insns = offsetof(struct guest_cpu, insns),
        .exit_code = offsetof(struct guest_cpu, exit_code),
        .tlb_bits = TLB_BITS,
        .tlb_entry_bytes = sizeof(struct tlb_entry),
        .tlb_read_tag = offsetof(struct tlb_entry, read_tag),
        .tlb_write_tag = offsetof(struct tlb_entry, write_tag),
        .tlb_addend = offsetof(struct tlb_entry, addend),
        .tlb_ways = TLB_WAYS,
        .tlb_patience = offsetof(struct guest_cpu, tlb_patience),
        .jump_cache_bits = 12,
        .direct_base = direct ? 0x100000000 : 0,
        .direct_pages = direct,
        .count_insns = !direct,
    };
    MUST(host_make_thunks(thunks, (u64)thunks, sizeof thunks, abi, &callbacks, &enter) > 0);
}

static void verify(const struct ir_unit *unit, const char *when)
{
    struct err err;

    if (!ir_verify(unit, &err))
        return;
    fprintf(stderr, "%s: %s\n", when, err.text);
    ir_print(unit, stderr);
    abort();
}

static void compile(const struct guest_ops *guest, struct ir_unit *unit, u8 choices)
{
    static const enum opt_level levels[] = {OPT_NONE, OPT_QUICK, OPT_FULL, OPT_QUICK};
    static struct host_abi abi[2];
    struct host_code code = {0};
    int ret;

    if (!abi[0].tlb_bits) {
        make_abi(&abi[0], guest, false);
        make_abi(&abi[1], guest, true);
    }
    verify(unit, "lifted");
    MUST(!opt_run(unit, levels[choices & 3]));
    verify(unit, "optimised");
    ret = host_compile(unit, &abi[choices >> 2 & 1], host_code, (u64)host_code,
                       choices & 8 ? 512 : CODE_BYTES, &code);
    MUST(!ret || ret == -ENOSPC || ret == -E2BIG);
    MUST(ret || (code.code_bytes <= code.total_bytes && code.total_bytes <= CODE_BYTES &&
                 code.nlinks <= HOST_MAX_LINKS));
}

void fuzz_lift(const struct guest_ops *guest, struct fuzz_input *in, u32 mode, unsigned alignment,
               unsigned longest)
{
    u32 offset = fuzz_take(in, 2) & (4096 - alignment);
    u8 choices = (u8)fuzz_take(in, 1);
    u8 bytes[2 * LIFT_BYTES];
    struct arena arena = {0};
    struct ir_unit unit;
    struct guest_lift lift = {
        .unit = &unit,
        .mode = mode,
        .pc = 0x401000 + offset,
        .code = bytes,
        .avail = 4096 - offset < LIFT_BYTES ? 4096 - offset : LIFT_BYTES,
        .max_insns = choices & 16 ? 1 : 32,
    };
    u32 avail = lift.avail;
    char text[128];
    int ret;

    fuzz_bytes(in, bytes, sizeof bytes);
    ir_init(&unit, &arena, guest->helpers, guest->nhelpers, guest->pc_slot);
    ret = guest->lift(&lift);
    if (ret == -ERANGE) {
        MUST(avail < longest);
        ir_init(&unit, &arena, guest->helpers, guest->nhelpers, guest->pc_slot);
        lift.two_pages = true;
        lift.avail = avail + longest;
        ret = guest->lift(&lift);
    }
    MUST(!ret && lift.length && lift.length <= lift.avail);
    compile(guest, &unit, choices);
    ret = guest->disassemble(mode, lift.pc, bytes, avail, text, sizeof text);
    MUST(ret >= 1);
    arena_free(&arena);
}
