/* Pushes and pops of far transfers and event delivery. */
#include "guest/x86/x86_internal.h"

void x86_stack_init(struct x86_stack *s, struct x86_cpu *cpu, unsigned width)
{
    *s = (struct x86_stack){
        .cpu = cpu,
        .ss = cpu->seg[X86_SS],
        .sp = cpu->gpr[X86_RSP],
        .mask = x86_stack_mask(cpu),
        .width = width,
        .code64 = x86_code64(cpu),
    };
}

bool x86_within_limit(const struct x86_seg *seg, u32 offset, unsigned bytes)
{
    u64 last = (u64)offset + bytes - 1;
    bool expand_down = (seg->access & (X86_SEG_S | 0xc)) == (X86_SEG_S | 4);

    if (expand_down)
        return offset > seg->limit && last <= (seg->access & X86_SEG_DB ? 0xffffffff : 0xffff);
    return last <= seg->limit;
}

/* Linear address of the item at s->sp + @offset. */
static u64 item(const struct x86_stack *s, u64 sp)
{
    u64 offset = sp & s->mask;

    if (s->code64) {
        if (!x86_canonical(s->cpu, offset) || !x86_canonical(s->cpu, offset + s->width - 1))
            x86_raise_error(s->cpu, X86_SS_FAULT, s->error);
        return offset;
    }
    if (!x86_within_limit(&s->ss, (u32)offset, s->width))
        x86_raise_error(s->cpu, X86_SS_FAULT, s->error);
    return (u32)(s->ss.base + offset);
}

void x86_push(struct x86_stack *s, u64 value)
{
    struct guest_cpu *cpu = &s->cpu->common;
    u64 sp = (s->sp & ~s->mask) | ((s->sp - s->width) & s->mask);
    u64 gva = item(s, sp);

    s->cpu->own_bytes = (u8)s->width;
    if (s->system)
        cpu->memory->store_implicit(cpu, gva, &value, s->width);
    else
        cpu->memory->store(cpu, gva, &value, s->width);
    s->sp = sp;
}

u64 x86_pop(struct x86_stack *s)
{
    struct guest_cpu *cpu = &s->cpu->common;
    u64 value = 0;

    cpu->memory->load(cpu, item(s, s->sp), &value, s->width);
    s->sp = (s->sp & ~s->mask) | ((s->sp + s->width) & s->mask);
    return value;
}

void x86_stack_commit(const struct x86_stack *s)
{
    s->cpu->gpr[X86_RSP] = s->sp;
}
