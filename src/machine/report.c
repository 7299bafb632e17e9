/* What a person sees when a guest dies: registers, segments, instructions. */
#include <Zydis/Zydis.h>
#include <string.h>

#include "base/bits.h"
#include "machine/private.h"

#define SHOWN_INSNS 6
#define INSN_MAX 15

static unsigned code_bits(const struct kvm_sregs *s)
{
    if (s->cs.l && (s->efer & BIT(10)))
        return 64;
    return s->cs.db ? 32 : 16;
}

/* Guest bytes at a linear address, as far as they are mapped. */
static size_t read_guest(struct vcpu *vcpu, u64 gva, u8 *buf, size_t len)
{
    size_t done = 0;

    while (done < len) {
        struct kvm_translation t = {.linear_address = gva + done};
        size_t piece = MEM_PAGE_SIZE - (size_t)(t.linear_address & (MEM_PAGE_SIZE - 1));

        if (piece > len - done)
            piece = len - done;
        if (!vcpu->ops->translate || vcpu->ops->translate(vcpu, &t) || !t.valid ||
            mem_read(vcpu->vm->mem, t.physical_address, buf + done, piece))
            break;
        done += piece;
    }
    return done;
}

static void dump_code(struct vcpu *vcpu, const struct kvm_regs *r, const struct kvm_sregs *s,
                      struct strbuf *out)
{
    static const struct {
        unsigned bits;
        ZydisMachineMode mode;
    } modes[] = {{64, ZYDIS_MACHINE_MODE_LONG_64},
                 {32, ZYDIS_MACHINE_MODE_LEGACY_32},
                 {16, ZYDIS_MACHINE_MODE_REAL_16}};
    u8 code[SHOWN_INSNS * INSN_MAX];
    u64 base = code_bits(s) == 64 ? 0 : s->cs.base;
    size_t len = read_guest(vcpu, base + r->rip, code, sizeof(code)), at = 0;
    ZydisMachineMode mode = ZYDIS_MACHINE_MODE_LONG_64;
    ZydisDisassembledInstruction insn;

    for (size_t i = 0; i < ARRAY_SIZE(modes); i++)
        if (modes[i].bits == code_bits(s))
            mode = modes[i].mode;
    if (!len)
        strbuf_printf(out, "  no memory is mapped at RIP\n");
    for (unsigned i = 0; i < SHOWN_INSNS && at < len; i++) {
        bool good =
            ZYAN_SUCCESS(ZydisDisassembleIntel(mode, r->rip + at, code + at, len - at, &insn));
        size_t length = good ? insn.info.length : 1;

        strbuf_printf(out, "  %c %016" PRIx64 "  ", i ? ' ' : '>', (u64)(r->rip + at));
        for (size_t j = 0; j < 10; j++)
            strbuf_printf(out, j < length ? "%02x " : "   ", code[at + (j < length ? j : 0)]);
        strbuf_printf(out, " %s\n", good ? insn.text : "(bad)");
        if (!good)
            break;
        at += length;
    }
}

static void dump_segment(const char *name, const struct kvm_segment *s, struct strbuf *out)
{
    strbuf_printf(out,
                  "  %-4s %04x base %016llx limit %08x type %x s %u dpl %u p %u avl %u l %u "
                  "db %u g %u%s\n",
                  name, s->selector, s->base, s->limit, s->type, s->s, s->dpl, s->present, s->avl,
                  s->l, s->db, s->g, s->unusable ? " unusable" : "");
}

void machine_dump_vcpu(struct vcpu *vcpu, struct strbuf *out)
{
    struct kvm_regs r;
    struct kvm_sregs s;

    if (vcpu->ops->get_regs(vcpu, &r) || vcpu->ops->get_sregs(vcpu, &s)) {
        strbuf_printf(out, "vCPU %u: its registers cannot be read\n", vcpu->index);
        return;
    }
    strbuf_printf(out, "vCPU %u, APIC id %u, %u-bit code\n", vcpu->index, vcpu->apic_id,
                  code_bits(&s));
    strbuf_printf(out, "  RAX %016llx RBX %016llx RCX %016llx RDX %016llx\n", r.rax, r.rbx, r.rcx,
                  r.rdx);
    strbuf_printf(out, "  RSI %016llx RDI %016llx RBP %016llx RSP %016llx\n", r.rsi, r.rdi, r.rbp,
                  r.rsp);
    strbuf_printf(out, "  R8  %016llx R9  %016llx R10 %016llx R11 %016llx\n", r.r8, r.r9, r.r10,
                  r.r11);
    strbuf_printf(out, "  R12 %016llx R13 %016llx R14 %016llx R15 %016llx\n", r.r12, r.r13, r.r14,
                  r.r15);
    strbuf_printf(out, "  RIP %016llx RFLAGS %08llx\n", r.rip, r.rflags);
    strbuf_printf(out, "  CR0 %08llx CR2 %016llx CR3 %016llx CR4 %08llx CR8 %llx EFER %04llx\n",
                  s.cr0, s.cr2, s.cr3, s.cr4, s.cr8, s.efer);
    dump_segment("CS", &s.cs, out);
    dump_segment("SS", &s.ss, out);
    dump_segment("DS", &s.ds, out);
    dump_segment("ES", &s.es, out);
    dump_segment("FS", &s.fs, out);
    dump_segment("GS", &s.gs, out);
    dump_segment("TR", &s.tr, out);
    dump_segment("LDTR", &s.ldt, out);
    strbuf_printf(out, "  GDTR base %016llx limit %04x\n  IDTR base %016llx limit %04x\n",
                  s.gdt.base, s.gdt.limit, s.idt.base, s.idt.limit);
    dump_code(vcpu, &r, &s, out);
}
