/* The run loop, and the life of struct dbt and its CPUs. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/bits.h"
#include "base/log.h"
#include "dbt/internal.h"

void dbt_request(struct guest_cpu *cpu, u32 bits)
{
    __atomic_or_fetch(&cpu->request, bits, __ATOMIC_SEQ_CST);
}

/* Requests that are dbt's own business. */
static void serve_requests(struct guest_cpu *cpu)
{
    u32 bits = __atomic_fetch_and(&cpu->request, ~(u32)GUEST_REQ_DBT, __ATOMIC_SEQ_CST);

    if (bits & GUEST_REQ_FLUSH_TLB)
        tlb_flush_all(cpu);
    if (bits & GUEST_REQ_JUMPS && atomic_exchange(&dbt_cpu(cpu)->drop_jumps, false))
        tlb_drop_jumps(dbt_cpu(cpu));
    if (bits & GUEST_REQ_EXCLUSIVE) {
        exclusive_leave_guest(dbt_cpu(cpu));
        exclusive_enter_guest(dbt_cpu(cpu));
    }
}

/* Guest memory for the interpreter: by the services that the CPU has. */
static void ir_load(void *state, u64 addr, void *buf, unsigned bytes)
{
    struct guest_cpu *cpu = state;

    cpu->memory->load(cpu, addr, buf, bytes);
}

static void ir_store(void *state, u64 addr, const void *buf, unsigned bytes)
{
    struct guest_cpu *cpu = state;

    cpu->memory->store(cpu, addr, buf, bytes);
}

static u64 ir_atomic_op(void *state, u64 addr, enum ir_op op, unsigned bytes, u64 operand,
                        u64 desired)
{
    struct guest_cpu *cpu = state;

    return cpu->memory->atomic(cpu, addr, op, bytes, operand, desired);
}

static const struct ir_memory ir_memory = {
    .load = ir_load, .store = ir_store, .atomic = ir_atomic_op};

static u32 interpret(struct guest_cpu *cpu, const struct ir_unit *unit, struct block *block)
{
    struct dbt_cpu *dc = dbt_cpu(cpu);
    struct ir_run run = {
        .state = cpu,
        .base = align_down(cpu->ops->pc(cpu), MEM_PAGE_SIZE),
        .request = &cpu->request,
        .memory = &ir_memory,
    };
    struct ir_outcome outcome;

    dc->running = block;
    outcome = ir_interpret(unit, &run);
    dc->running = NULL;
    if (outcome.how != IR_LEFT_GOTO && outcome.exit_code == DBT_EXIT_STALE) {
        page_stale(dc->dbt, block);
        return DBT_EXIT_STALE;
    }
    if (dc->dbt->config.count_insns)
        cpu->insns += unit->guest_insns;
    if (outcome.how == IR_LEFT_GOTO) {
        if (cpu->ops->jumped)
            cpu->ops->jumped(cpu, run.base + outcome.insn);
        return 0;
    }
    cpu->exit_code = outcome.exit_code;
    return outcome.exit_code;
}

static u32 enter(struct guest_cpu *cpu, void *code)
{
    u64 base = align_down(cpu->ops->pc(cpu), MEM_PAGE_SIZE);
    u32 exit_code = (u32)dbt_cpu(cpu)->dbt->enter(cpu, code, base);

    cpu->host_frame = 0;
    return exit_code;
}

/* One instruction on its own: asked for by the engine, or because it overwrites its own block. */
static u32 run_step(struct guest_cpu *cpu)
{
    struct dbt_cpu *dc = dbt_cpu(cpu);
    u32 saved = __atomic_load_n(&cpu->request, __ATOMIC_RELAXED);
    struct ir_unit unit;
    u32 code = translate_step(cpu, &unit);

    if (code)
        return code;
    /* The poll at its start must not stop it: what was asked is asked again afterwards. */
    __atomic_fetch_and(&cpu->request, ~saved, __ATOMIC_SEQ_CST);
    dc->stolen_requests = saved;
    dc->stepping = true;
    tlb_choose_jumps(dc);
    code = dc->dbt->config.jit ? enter(cpu, (void *)dc->step_exec) : interpret(cpu, &unit, NULL);
    dc->stepping = false;
    tlb_choose_jumps(dc);
    dbt_request(cpu, dc->stolen_requests);
    dc->stolen_requests = 0;
    if (code)
        return code;
    if (cpu->insn_limit)
        return DBT_EXIT_STEP;
    dc->smc_step = false;
    return 0;
}

static u32 run_block(struct guest_cpu *cpu)
{
    struct dbt_cpu *dc = dbt_cpu(cpu);
    u32 code = 0;
    struct block *block = translate_lookup(cpu, &code);

    if (!block)
        return code;
    return dc->dbt->config.jit ? enter(cpu, block->code) : interpret(cpu, block->unit, block);
}

/* Back from a longjmp out of translated code, a helper or a walk. */
static u32 landed(struct guest_cpu *cpu)
{
    struct dbt_cpu *dc = dbt_cpu(cpu);

    cpu->host_frame = 0;
    dc->running = NULL;
    atomic_store_explicit(&dc->translating, false, memory_order_relaxed);
    dc->stepping = false;
    dc->jumped_from = 0;
    tlb_choose_jumps(dc);
    if (dc->stolen_requests) {
        dbt_request(cpu, dc->stolen_requests);
        dc->stolen_requests = 0;
    }
    return cpu->exit_code;
}

static u32 run(struct guest_cpu *cpu)
{
    struct dbt_cpu *dc = dbt_cpu(cpu);
    jmp_buf here, *outer = cpu->leave;
    u32 code;

    cpu->leave = &here;
    if (setjmp(here)) {
        code = landed(cpu);
        /* leave_if_own_code: not an exit, the instruction is to be run alone. */
        if (!(code == IR_EXIT_REQUEST && dc->smc_step))
            goto out;
    }
    for (;;) {
        u32 request = __atomic_load_n(&cpu->request, __ATOMIC_ACQUIRE);

        if (unlikely(request & GUEST_REQ_DBT))
            serve_requests(cpu);
        if (unlikely(request & ~(u32)GUEST_REQ_DBT) && !dc->smc_step && !cpu->insn_limit) {
            code = IR_EXIT_REQUEST;
            break;
        }
        if (cpu->mem)
            mem_quiescent(cpu->mem, cpu->index);
        if (unlikely(dc->smc_step || cpu->insn_limit))
            code = run_step(cpu);
        else
            code = run_block(cpu);
        if (unlikely(code == DBT_EXIT_STALE)) /* its successor is to be made */
            continue;
        if (code && !(code == IR_EXIT_REQUEST &&
                      !(__atomic_load_n(&cpu->request, __ATOMIC_RELAXED) & ~(u32)GUEST_REQ_DBT)))
            break;
    }
out:
    dc->smc_step = dc->smc_step && code == IR_EXIT_REQUEST;
    cpu->leave = outer;
    return code;
}

u32 dbt_run(struct guest_cpu *cpu)
{
    struct dbt_cpu *dc = dbt_cpu(cpu);
    u32 host_fp = host_fp_leave(), code;

    if (cpu->mem)
        mem_reader_online(cpu->mem, cpu->index);
    exclusive_enter_guest(dc);
    dbt_memory.fp_load(cpu);
    code = run(cpu);
    dbt_memory.fp_sync(cpu);
    host_fp_enter(host_fp);
    exclusive_leave_guest(dc);
    if (cpu->mem)
        mem_reader_offline(cpu->mem, cpu->index);
    return code;
}

static void hook_code_written(void *opaque, u64 gpa, u64 len)
{
    while (len) {
        u64 part = MEM_PAGE_SIZE - (gpa & (MEM_PAGE_SIZE - 1));

        if (part > len)
            part = len;
        page_written(opaque, gpa, part);
        gpa += part;
        len -= part;
    }
}

/* Memslots changed: no vCPU may go on with an old translation once the caller has its answer. */
static void hook_slots_changed(void *opaque)
{
    struct dbt *dbt = opaque;

    exclusive_begin(dbt, NULL);
    cache_flush(dbt);
    for (unsigned i = 0; i < DBT_MAX_CPUS; i++)
        if (dbt->cpus[i])
            dbt_request(dbt->cpus[i]->cpu, GUEST_REQ_FLUSH_TLB | GUEST_REQ_JUMPS);
    exclusive_end(dbt, NULL);
}

static void fill_abi(struct dbt *dbt)
{
    dbt->abi = (struct host_abi){
        .memory = dbt->config.direct ? HOST_MEMORY_DIRECT : HOST_MEMORY_TLB,
        .direct_base = dbt->config.direct_base,
        .direct_pages = dbt->config.direct,
        .request = offsetof(struct guest_cpu, request),
        .tlb = offsetof(struct guest_cpu, tlb),
        .jump_cache = offsetof(struct guest_cpu, jump_cache),
        .space = offsetof(struct guest_cpu, space),
        .mode = offsetof(struct guest_cpu, mode),
        .pc_slot = dbt->config.guest->pc_slot,
        .insns = offsetof(struct guest_cpu, insns),
        .exit_code = offsetof(struct guest_cpu, exit_code),
        .host_frame = offsetof(struct guest_cpu, host_frame),
        .tlb_bits = TLB_BITS,
        .tlb_entry_bytes = sizeof(struct tlb_entry),
        .tlb_read_tag = offsetof(struct tlb_entry, read_tag),
        .tlb_write_tag = offsetof(struct tlb_entry, write_tag),
        .tlb_addend = offsetof(struct tlb_entry, addend),
        .tlb_ways = TLB_WAYS,
        .tlb_patience = offsetof(struct guest_cpu, tlb_patience),
        .jump_cache_bits = DBT_JUMP_BITS,
        .jump_more = offsetof(struct dbt_cpu, jump_more) - offsetof(struct dbt_cpu, jumps),
        .count_insns = dbt->config.count_insns,
    };
}

int dbt_create(struct dbt **out, const struct dbt_config *config, struct err *err)
{
    static const struct host_callbacks callbacks = {.site = access_site,
                                                    .missed = translate_missed};
    struct dbt *dbt = calloc(1, sizeof(*dbt));
    struct mem_hooks hooks = {
        .code_written = hook_code_written, .slots_changed = hook_slots_changed, .opaque = dbt};
    int ret;

    if (!dbt)
        return err_set(err, -ENOMEM, "no memory for the translator");
    dbt->config = *config;
    if (!dbt->config.hot)
        dbt->config.hot = DBT_HOT;
    dbt->fork_fd = -1;
    pthread_mutex_init(&dbt->lock, NULL);
    pthread_mutex_init(&dbt->cpus_lock, NULL);
    pthread_cond_init(&dbt->cpus_cond, NULL);
    fill_abi(dbt);
    dbt->hash = calloc(1u << DBT_HASH_BITS, sizeof(*dbt->hash));
    dbt->pages = calloc(1u << 12, sizeof(*dbt->pages));
    ret = cache_create(dbt, err);
    if (!ret && config->direct)
        ret = direct_create(dbt);
    if (!ret && (!dbt->hash || !dbt->pages))
        ret = err_set(err, -ENOMEM, "no memory for the translator");
    if (ret) {
        dbt_destroy(dbt);
        return ret;
    }
    if (config->jit)
        host_make_thunks(dbt->code_rw, (u64)dbt->code_exec, DBT_THUNKS, &dbt->abi, &callbacks,
                         &dbt->enter);
    if (config->mem)
        mem_set_hooks(config->mem, &hooks);
    if (config->direct) { /* nobody maps it again, and the guest's files are numbered from 0 */
        close(dbt->code_fd);
        dbt->code_fd = -1;
    }
    *out = dbt;
    return 0;
}

void dbt_destroy(struct dbt *dbt)
{
    static const struct mem_hooks none;

    if (!dbt)
        return;
    if (dbt->config.mem)
        mem_set_hooks(dbt->config.mem, &none);
    if (dbt->pages)
        pages_free(dbt);
    direct_free(dbt);
    cache_destroy(dbt);
    arena_free(&dbt->units);
    free((void *)dbt->hash);
    free(dbt->pages);
    pthread_cond_destroy(&dbt->cpus_cond);
    pthread_mutex_destroy(&dbt->cpus_lock);
    pthread_mutex_destroy(&dbt->lock);
    free(dbt);
}

/* The CPU's area for single instructions lies behind the thunks, before the first chunk. */
static void make_step_area(struct dbt_cpu *dc)
{
    u64 offset = DBT_THUNKS + (u64)dc->cpu->index * DBT_MAX_BLOCK_CODE;

    dc->step_rw = dc->dbt->code_rw + offset;
    dc->step_exec = (u64)dc->dbt->code_exec + offset;
}

int dbt_attach(struct dbt *dbt, struct guest_cpu *cpu)
{
    struct dbt_cpu *dc;

    if (cpu->index >= DBT_MAX_CPUS)
        return -EINVAL;
    /* Most of the tables is never touched, and two entries of the jump cache lie in one line. */
    dc = mmap(NULL, sizeof(*dc), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (dc == MAP_FAILED)
        return -ENOMEM;
    dc->dbt = dbt;
    dc->cpu = cpu;
    make_step_area(dc);
    cpu->dbt = dc;
    cpu->memory = dbt->config.direct ? &direct_memory : &dbt_memory;
    cpu->jump_cache = dc->jumps[0]; /* until a space is chosen */
    dc->shared_id = ++dc->next_space_id;
    pthread_mutex_lock(&dbt->cpus_lock);
    dbt->cpus[cpu->index] = dc;
    pthread_mutex_unlock(&dbt->cpus_lock);
    return 0;
}

void dbt_detach(struct guest_cpu *cpu)
{
    struct dbt_cpu *dc = dbt_cpu(cpu);

    if (!dc)
        return;
    cache_leave(dc);
    pthread_mutex_lock(&dc->dbt->cpus_lock);
    dc->dbt->cpus[cpu->index] = NULL;
    dc->dbt->stats.lookups += dc->lookups;
    pthread_mutex_unlock(&dc->dbt->cpus_lock);
    tlb_free(dc);
    free(dc->notes);
    arena_free(&dc->arena);
    munmap(dc, sizeof(*dc));
    cpu->dbt = NULL;
}

void dbt_get_stats(struct dbt *dbt, struct dbt_stats *stats)
{
    pthread_mutex_lock(&dbt->lock);
    *stats = dbt->stats;
    stats->cache_bytes = dbt->code_size;
    pthread_mutex_unlock(&dbt->lock);
    pthread_mutex_lock(&dbt->cpus_lock);
    for (unsigned i = 0; i < DBT_MAX_CPUS; i++)
        if (dbt->cpus[i])
            stats->lookups += dbt->cpus[i]->lookups;
    pthread_mutex_unlock(&dbt->cpus_lock);
}
