/*
 * Guest memory for those who do not have the inline TLB path: slow paths of translated code,
 * helpers, the interpreter. All of it may leave with a guest exception or an MMIO exit; nothing is
 * written before all pages of an access are known to allow it.
 */
#include <string.h>

#include "base/bits.h"
#include "base/copy.h"
#include "base/log.h"
#include "dbt/internal.h"

#define PAGE_OFFSET(a) ((a) & (MEM_PAGE_SIZE - 1))

static bool crosses(u64 gva, unsigned bytes)
{
    return PAGE_OFFSET(gva) + bytes > MEM_PAGE_SIZE;
}

/*
 * A store that changes the very block it stands in: translations hold for the whole block, so the
 * block is left at this instruction, which is then run alone.
 */
static void leave_if_own_code(struct guest_cpu *cpu, const struct slow_page *to, unsigned bytes)
{
    struct dbt_cpu *dc = dbt_cpu(cpu);
    struct block *block;

    if (!to->code || cpu->insn_limit || dc->smc_step)
        return;
    block = cache_running(dc);
    if (block && page_touches(block, to->gpa, bytes)) {
        dc->smc_step = true;
        guest_leave(cpu, IR_EXIT_REQUEST);
    }
}

/* A store is done; not to the block that it stands in: see leave_if_own_code. */
static void code_written(struct guest_cpu *cpu, const struct slow_page *to, unsigned bytes)
{
    if (to->code)
        page_written(dbt_cpu(cpu)->dbt, to->gpa, bytes);
}

/* Guest memory as other vCPUs use it, too: one access of the host, as the guest meant it. */
static void ram_load(void *buf, const u8 *hva, unsigned bytes)
{
    bool aligned = !((u64)hva & (bytes - 1));
    u64 q;
    u32 d;
    u16 w;

    switch (aligned ? bytes : 0) {
    case 8:
        q = __atomic_load_n((const u64 *)hva, __ATOMIC_RELAXED);
        memcpy(buf, &q, 8);
        break;
    case 4:
        d = __atomic_load_n((const u32 *)hva, __ATOMIC_RELAXED);
        memcpy(buf, &d, 4);
        break;
    case 2:
        w = __atomic_load_n((const u16 *)hva, __ATOMIC_RELAXED);
        memcpy(buf, &w, 2);
        break;
    case 1:
        *(u8 *)buf = __atomic_load_n(hva, __ATOMIC_RELAXED);
        break;
    default:
        copy_sized(buf, hva, bytes);
    }
}

static void ram_store(u8 *hva, const void *buf, unsigned bytes)
{
    bool aligned = !((u64)hva & (bytes - 1));
    u64 q;
    u32 d;
    u16 w;

    switch (aligned ? bytes : 0) {
    case 8:
        memcpy(&q, buf, 8);
        __atomic_store_n((u64 *)hva, q, __ATOMIC_RELAXED);
        break;
    case 4:
        memcpy(&d, buf, 4);
        __atomic_store_n((u32 *)hva, d, __ATOMIC_RELAXED);
        break;
    case 2:
        memcpy(&w, buf, 2);
        __atomic_store_n((u16 *)hva, w, __ATOMIC_RELAXED);
        break;
    case 1:
        __atomic_store_n(hva, *(const u8 *)buf, __ATOMIC_RELAXED);
        break;
    default:
        copy_sized(hva, buf, bytes);
    }
}

static void page_load(struct guest_cpu *cpu, const struct slow_page *from, void *buf,
                      unsigned bytes)
{
    if (!from->hva)
        cpu->ops->mmio_read(cpu, from->gpa, buf, bytes);
    else
        ram_load(buf, from->hva, bytes);
}

static void page_store(struct guest_cpu *cpu, const struct slow_page *to, const void *buf,
                       unsigned bytes)
{
    if (!to->hva)
        cpu->ops->mmio_write(cpu, to->gpa, buf, bytes);
    else
        ram_store(to->hva, buf, bytes);
    code_written(cpu, to, bytes);
}

static void slow_load(struct guest_cpu *cpu, u64 gva, void *buf, unsigned bytes, bool implicit)
{
    struct slow_page first, second;
    unsigned head = bytes;
    u64 words[2]; /* aligned for page_load's wide accesses */

    if (crosses(gva, bytes))
        head = (unsigned)(MEM_PAGE_SIZE - PAGE_OFFSET(gva));
    first = tlb_slow(cpu, gva, GUEST_READ, implicit);
    if (head < bytes)
        second = tlb_slow(cpu, gva + head, GUEST_READ, implicit);
    page_load(cpu, &first, words, head);
    memcpy(buf, words, head);
    if (head < bytes) {
        u64 tail[2];

        page_load(cpu, &second, tail, bytes - head);
        memcpy((u8 *)buf + head, tail, bytes - head);
    }
}

static void slow_store(struct guest_cpu *cpu, u64 gva, const void *buf, unsigned bytes,
                       bool implicit)
{
    struct slow_page first, second;
    unsigned head = bytes;
    u64 words[2], tail[2];

    if (crosses(gva, bytes))
        head = (unsigned)(MEM_PAGE_SIZE - PAGE_OFFSET(gva));
    first = tlb_slow(cpu, gva, GUEST_WRITE, implicit);
    leave_if_own_code(cpu, &first, head);
    memcpy(words, buf, head);
    if (head < bytes) {
        second = tlb_slow(cpu, gva + head, GUEST_WRITE, implicit);
        leave_if_own_code(cpu, &second, bytes - head);
        memcpy(tail, (const u8 *)buf + head, bytes - head);
    }
    page_store(cpu, &first, words, head);
    if (head < bytes)
        page_store(cpu, &second, tail, bytes - head);
}

/* The inline path's hit condition, for C; behind a miss, tlb_slow looks in the other ways. */
static u8 *hit(struct guest_cpu *cpu, u64 gva, unsigned bytes, bool write)
{
    const struct tlb_entry *e = &cpu->tlb->entry[0][(gva >> MEM_PAGE_SHIFT) & (TLB_ENTRIES - 1)];
    u64 tag = write ? e->write_tag : e->read_tag;

    if (likely(tag == align_down(gva, MEM_PAGE_SIZE)) && !crosses(gva, bytes))
        return (u8 *)(gva + e->addend);
    return NULL;
}

static void load(struct guest_cpu *cpu, u64 gva, void *buf, unsigned bytes)
{
    const u8 *hva = hit(cpu, gva, bytes, false);

    if (!hva)
        slow_load(cpu, gva, buf, bytes, false);
    else
        ram_load(buf, hva, bytes);
}

static void store(struct guest_cpu *cpu, u64 gva, const void *buf, unsigned bytes)
{
    u8 *hva = hit(cpu, gva, bytes, true);

    if (!hva)
        slow_store(cpu, gva, buf, bytes, false);
    else
        ram_store(hva, buf, bytes);
}

static void load_implicit(struct guest_cpu *cpu, u64 gva, void *buf, unsigned bytes)
{
    slow_load(cpu, gva, buf, bytes, true);
}

static void store_implicit(struct guest_cpu *cpu, u64 gva, const void *buf, unsigned bytes)
{
    slow_store(cpu, gva, buf, bytes, true);
}

#define ATOMIC_ON(type)                                                                            \
    {                                                                                              \
        type *p = (type *)hva;                                                                     \
        type old = (type)operand;                                                                  \
                                                                                                   \
        switch (op) {                                                                              \
        case IR_acas:                                                                              \
            __atomic_compare_exchange_n(p, &old, (type)desired, false, __ATOMIC_SEQ_CST,           \
                                        __ATOMIC_SEQ_CST);                                         \
            return old;                                                                            \
        case IR_axchg:                                                                             \
            return __atomic_exchange_n(p, (type)operand, __ATOMIC_SEQ_CST);                        \
        case IR_aadd:                                                                              \
            return __atomic_fetch_add(p, (type)operand, __ATOMIC_SEQ_CST);                         \
        case IR_aand:                                                                              \
            return __atomic_fetch_and(p, (type)operand, __ATOMIC_SEQ_CST);                         \
        case IR_aor:                                                                               \
            return __atomic_fetch_or(p, (type)operand, __ATOMIC_SEQ_CST);                          \
        case IR_axor:                                                                              \
            return __atomic_fetch_xor(p, (type)operand, __ATOMIC_SEQ_CST);                         \
        default:                                                                                   \
            BUG("not an atomic: %d", op);                                                          \
        }                                                                                          \
    }

u64 access_atomic_on(void *hva, enum ir_op op, unsigned bytes, u64 operand, u64 desired)
{
    switch (bytes) {
    case 1:
        ATOMIC_ON(u8)
    case 2:
        ATOMIC_ON(u16)
    case 4:
        ATOMIC_ON(u32)
    default:
        ATOMIC_ON(u64)
    }
}

static u64 combine(enum ir_op op, unsigned bytes, u64 old, u64 operand, u64 desired)
{
    switch (op) {
    case IR_acas:
        return !((old ^ operand) & mask_low(bytes * 8)) ? desired : old;
    case IR_axchg:
        return operand;
    case IR_aadd:
        return old + operand;
    case IR_aand:
        return old & operand;
    case IR_aor:
        return old | operand;
    case IR_axor:
        return old ^ operand;
    default:
        BUG("not an atomic: %d", op);
    }
}

/* Over two pages, or outside RAM: alone on the machine, a load and a store. */
static u64 atomic_exclusive(struct guest_cpu *cpu, u64 gva, enum ir_op op, unsigned bytes,
                            u64 operand, u64 desired)
{
    struct dbt_cpu *dc = dbt_cpu(cpu);
    struct slow_page page[2];
    unsigned head = bytes;
    u64 old = 0, value, words[2] = {0};
    u64 tail = 0;

    if (crosses(gva, bytes))
        head = (unsigned)(MEM_PAGE_SIZE - PAGE_OFFSET(gva));
    page[0] = tlb_slow(cpu, gva, GUEST_WRITE, false);
    leave_if_own_code(cpu, &page[0], head);
    if (head < bytes) {
        page[1] = tlb_slow(cpu, gva + head, GUEST_WRITE, false);
        leave_if_own_code(cpu, &page[1], bytes - head);
    }
    if (!page[0].hva || (head < bytes && !page[1].hva)) {
        /* A device: no host atomic can help, and it may leave for the engine. */
        page_load(cpu, &page[0], words, head);
        if (head < bytes)
            page_load(cpu, &page[1], &tail, bytes - head);
        old = head < 8 ? (words[0] & mask_low(head * 8)) | tail << (head * 8) : words[0];
        value = combine(op, bytes, old, operand, desired);
        page_store(cpu, &page[0], &value, head);
        value = head < 8 ? value >> (head * 8) : 0;
        if (head < bytes)
            page_store(cpu, &page[1], &value, bytes - head);
        return old & mask_low(bytes * 8);
    }
    exclusive_begin(dc->dbt, dc);
    memcpy(&old, page[0].hva, head);
    if (head < bytes)
        memcpy((u8 *)&old + head, page[1].hva, bytes - head);
    value = combine(op, bytes, old, operand, desired);
    memcpy(page[0].hva, &value, head);
    if (head < bytes)
        memcpy(page[1].hva, (u8 *)&value + head, bytes - head);
    exclusive_end(dc->dbt, dc);
    code_written(cpu, &page[0], head);
    if (head < bytes)
        code_written(cpu, &page[1], bytes - head);
    return old;
}

static u64 atomic(struct guest_cpu *cpu, u64 gva, enum ir_op op, unsigned bytes, u64 operand,
                  u64 desired)
{
    u8 *hva = hit(cpu, gva, bytes, true);
    struct slow_page page;
    u64 old;

    if (hva)
        return access_atomic_on(hva, op, bytes, operand, desired);
    if (crosses(gva, bytes))
        return atomic_exclusive(cpu, gva, op, bytes, operand, desired);
    page = tlb_slow(cpu, gva, GUEST_WRITE, false);
    if (!page.hva)
        return atomic_exclusive(cpu, gva, op, bytes, operand, desired);
    leave_if_own_code(cpu, &page, bytes);
    old = access_atomic_on(page.hva, op, bytes, operand, desired);
    code_written(cpu, &page, bytes);
    return old;
}

/* CMPXCHG16B and its like. The address is 16-byte aligned; expected gets the old value. */
static bool cas128(struct guest_cpu *cpu, u64 gva, u64 expected[2], const u64 desired[2])
{
    struct slow_page page = {.hva = hit(cpu, gva, 16, true)};
    u128 old = (u128)expected[1] << 64 | expected[0];
    u128 now;

    if (!page.hva) {
        page = tlb_slow(cpu, gva, GUEST_WRITE, false);
        leave_if_own_code(cpu, &page, 16);
    }
    if (page.hva) {
        now =
            __sync_val_compare_and_swap((u128 *)page.hva, old, (u128)desired[1] << 64 | desired[0]);
    } else {
        u64 device[2];

        page_load(cpu, &page, device, 16);
        now = (u128)device[1] << 64 | device[0];
        page_store(cpu, &page, now == old ? desired : device, 16);
    }
    code_written(cpu, &page, 16);
    expected[0] = (u64)now;
    expected[1] = (u64)(now >> 64);
    return now == old;
}

static u8 *host(struct guest_cpu *cpu, u64 gva, enum guest_access access)
{
    u8 *hva = hit(cpu, gva, 1, access == GUEST_WRITE);
    struct slow_page page;

    if (hva)
        return hva;
    page = tlb_slow(cpu, gva, access, false);
    return page.code || (access == GUEST_WRITE && page.slot && (page.slot->flags & MEM_LOG_DIRTY))
               ? NULL
               : page.hva;
}

static void fp_sync(struct guest_cpu *cpu)
{
    if (cpu->ops->fp_leave)
        cpu->ops->fp_leave(cpu, host_fp_leave());
}

static void fp_load(struct guest_cpu *cpu)
{
    if (cpu->ops->fp_enter)
        host_fp_enter(cpu->ops->fp_enter(cpu));
}

const struct guest_memory dbt_memory = {
    .load = load,
    .store = store,
    .atomic = atomic,
    .cas128 = cas128,
    .fp_sync = fp_sync,
    .fp_load = fp_load,
    .host = host,
    .load_implicit = load_implicit,
    .store_implicit = store_implicit,
    .flush_page = tlb_flush_page,
    .flush_all = tlb_flush_all,
    .flush_space = tlb_flush_space,
    .flush_tags = tlb_flush_tags,
    .switch_space = tlb_switch_space,
};

/* Where a 128-bit location of a site is. */
static void *vector_location(struct host_frame *frame, u8 kind, s32 where)
{
    return kind == HOST_LOC_VECTOR ? (void *)frame->vector[where]
                                   : (void *)&frame->spill[where * 2];
}

static void set_location(struct host_frame *frame, u8 kind, s32 where, u64 value)
{
    if (kind == HOST_LOC_REG)
        frame->saved[where] = value;
    else
        memcpy(vector_location(frame, kind, where), &(u64[2]){value, 0}, 16);
}

static u64 site_value(const struct host_frame *frame, u8 kind, s32 where)
{
    return host_read_location(frame, kind, where);
}

static void site_load(struct guest_cpu *cpu, struct host_frame *frame, const struct host_site *site,
                      u64 gva)
{
    unsigned bytes = ir_type_bytes(site->type);
    u64 value[2] = {0};

    load(cpu, gva, value, bytes);
    if (bytes == 16)
        memcpy(vector_location(frame, site->result_kind, site->result), value, 16);
    else
        set_location(frame, site->result_kind, site->result, value[0]);
}

static void site_store(struct guest_cpu *cpu, struct host_frame *frame,
                       const struct host_site *site, u64 gva)
{
    unsigned bytes = ir_type_bytes(site->type);
    u64 value[2] = {0};

    if (bytes == 16)
        memcpy(value, vector_location(frame, site->operand_kind, site->operand), 16);
    else
        value[0] = site_value(frame, site->operand_kind, site->operand);
    store(cpu, gva, value, bytes);
}

static void site_atomic(struct guest_cpu *cpu, struct host_frame *frame,
                        const struct host_site *site, u64 gva)
{
    u64 operand = site_value(frame, site->operand_kind, site->operand);
    u64 desired = site->op == IR_acas ? site_value(frame, site->operand2_kind, site->operand2) : 0;
    u64 old = atomic(cpu, gva, site->op, ir_type_bytes(site->type), operand, desired);

    if (site->result_kind == HOST_LOC_REG || site->result_kind == HOST_LOC_SPILL)
        set_location(frame, site->result_kind, site->result, old);
}

u64 access_site(void *state, struct host_frame *frame, const struct host_site *site)
{
    struct guest_cpu *cpu = state;
    u64 gva;

    /* Whatever follows may look at or leave with guest state: make it precise first. A dput is
     * replaced by a later put, so writing it early does no harm. */
    host_restore(state, frame, site);
    if (site->op == IR_poll || site->op == IR_exit_if) {
        if (unlikely(site->exit_code == DBT_EXIT_STALE))
            page_stale(dbt_cpu(cpu)->dbt, cache_running(dbt_cpu(cpu)));
        cpu->exit_code = site->exit_code;
        return site->exit_code;
    }
    gva = site_value(frame, site->addr_kind, site->addr) + (s64)site->disp;
    if (site->op == IR_ld)
        site_load(cpu, frame, site, gva);
    else if (site->op == IR_st)
        site_store(cpu, frame, site, gva);
    else
        site_atomic(cpu, frame, site, gva);
    return 0;
}
