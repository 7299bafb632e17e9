/* Registers for GDB: the description of the target, and every register by its number. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "machine/gdb.h"

#define MSR_KERNEL_GS_BASE 0xc0000102
#define XSTATE_BV (512 / 4) /* in struct kvm_xsave (SDM volume 1, 13.4) */

/* The legacy region of an XSAVE area (SDM volume 1, table 10-2). */
struct fx_image {
    u16 fcw, fsw;
    u8 ftw, pad;
    u16 fop;
    u64 fip, fdp;
    u32 mxcsr, mxcsr_mask;
    u8 st[8][16], xmm[16][16];
    u8 reserved[96];
};

/* x87 control registers as FSTENV has them, which is how GDB wants them. */
struct x87_control {
    u32 fctrl, fstat, ftag, fiseg, fioff, foseg, fooff, fop;
};

struct gdb_context {
    struct kvm_regs regs;
    struct kvm_sregs sregs;
    struct fx_image fx;
    struct x87_control x87;
    u64 kernel_gs_base;
    bool has_kernel_gs_base;
    struct kvm_xsave xsave;
    /* As read. */
    struct kvm_regs old_regs;
    struct kvm_sregs old_sregs;
    struct x87_control old_x87;
    u64 old_kernel_gs_base;
};

static const struct {
    size_t offset;
    u8 bytes, kept; /* for GDB; in the context */
} registers[] = {
#define F(feature, types)
#define R(name, bits, type, attributes, member)                                                    \
    {offsetof(struct gdb_context, member), (bits) / 8, sizeof(((struct gdb_context *)0)->member)},
#include "machine/gdb_regs.def"
#undef F
#undef R
};

void gdb_describe_target(struct strbuf *xml)
{
    static const struct {
        const char *feature, *types;
        const char *name, *type, *attributes;
        unsigned bits;
    } rows[] = {
#define F(feature, types) {feature, types, NULL, NULL, NULL, 0},
#define R(name, bits, type, attributes, member) {NULL, NULL, name, type, attributes, bits},
#include "machine/gdb_regs.def"
#undef F
#undef R
    };

    strbuf_printf(xml, "<?xml version=\"1.0\"?><!DOCTYPE target SYSTEM \"gdb-target.dtd\">\n"
                       "<target><architecture>i386:x86-64</architecture>\n");
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        if (rows[i].feature)
            strbuf_printf(xml, "%s<feature name=\"%s\">%s\n", i ? "</feature>\n" : "",
                          rows[i].feature, rows[i].types);
        else
            strbuf_printf(xml, "<reg name=\"%s\" bitsize=\"%u\" type=\"%s\"%s/>\n", rows[i].name,
                          rows[i].bits, rows[i].type, rows[i].attributes);
    }
    strbuf_printf(xml, "</feature></target>\n");
}

unsigned gdb_register_count(void)
{
    return ARRAY_SIZE(registers);
}

unsigned gdb_register_bytes(unsigned number)
{
    return registers[number].bytes;
}

/* A tag of FSTENV's tag word from the register's contents (SDM volume 1, 8.1.7). */
static u32 tag_of(const u8 st[10])
{
    u64 mantissa;
    u16 exponent;

    memcpy(&mantissa, st, 8);
    memcpy(&exponent, st + 8, 2);
    exponent &= 0x7fff;
    if (!exponent && !mantissa)
        return 1;
    return exponent && exponent != 0x7fff && mantissa >> 63 ? 0 : 2;
}

static void unpack_x87(struct gdb_context *c)
{
    unsigned top = c->fx.fsw >> 11 & 7;

    c->x87 = (struct x87_control){
        .fctrl = c->fx.fcw,
        .fstat = c->fx.fsw,
        .fiseg = (u16)(c->fx.fip >> 32),
        .fioff = (u32)c->fx.fip,
        .foseg = (u16)(c->fx.fdp >> 32),
        .fooff = (u32)c->fx.fdp,
        .fop = c->fx.fop,
    };
    for (unsigned i = 0; i < 8; i++)
        c->x87.ftag |= (c->fx.ftw >> i & 1 ? tag_of(c->fx.st[(i - top) & 7]) : 3) << (2 * i);
}

static void pack_x87(struct gdb_context *c)
{
    const struct x87_control *x = &c->x87, *old = &c->old_x87;

    c->fx.fcw = (u16)x->fctrl;
    c->fx.fsw = (u16)x->fstat;
    c->fx.fop = (u16)x->fop;
    if (x->ftag != old->ftag)
        for (unsigned i = 0; i < 8; i++)
            c->fx.ftw = (u8)((c->fx.ftw & ~(1u << i)) | (u32)((x->ftag >> (2 * i) & 3) != 3) << i);
    if (x->fiseg != old->fiseg || x->fioff != old->fioff)
        c->fx.fip = (u64)x->fiseg << 32 | x->fioff;
    if (x->foseg != old->foseg || x->fooff != old->fooff)
        c->fx.fdp = (u64)x->foseg << 32 | x->fooff;
}

struct one_msr {
    struct kvm_msrs head;
    struct kvm_msr_entry entry;
};

static void read_kernel_gs_base(struct vcpu *vcpu, struct gdb_context *c)
{
    struct one_msr msr = {.head.nmsrs = 1, .entry.index = MSR_KERNEL_GS_BASE};

    c->has_kernel_gs_base = vcpu->ops->get_msrs && vcpu->ops->get_msrs(vcpu, &msr.head) == 1;
    c->kernel_gs_base = c->has_kernel_gs_base ? msr.entry.data : 0;
}

struct gdb_context *gdb_context_read(struct vcpu *vcpu)
{
    struct gdb_context *c = calloc(1, sizeof(*c));

    _Static_assert(sizeof(struct fx_image) == 512, "the legacy region has 512 bytes");
    if (!c)
        return NULL;
    if (vcpu->ops->get_regs(vcpu, &c->regs) || vcpu->ops->get_sregs(vcpu, &c->sregs) ||
        vcpu->ops->get_xsave(vcpu, &c->xsave)) {
        free(c);
        return NULL;
    }
    memcpy(&c->fx, &c->xsave, sizeof(c->fx));
    unpack_x87(c);
    read_kernel_gs_base(vcpu, c);
    c->old_regs = c->regs;
    c->old_sregs = c->sregs;
    c->old_x87 = c->x87;
    c->old_kernel_gs_base = c->kernel_gs_base;
    return c;
}

void gdb_context_free(struct gdb_context *c)
{
    free(c);
}

/* In real mode a selector says all; in protected mode its descriptor does, which nobody loaded. */
static int load_selectors(struct gdb_context *c)
{
    struct kvm_segment *now[] = {&c->sregs.cs, &c->sregs.ss, &c->sregs.ds,
                                 &c->sregs.es, &c->sregs.fs, &c->sregs.gs};
    const struct kvm_segment *old[] = {&c->old_sregs.cs, &c->old_sregs.ss, &c->old_sregs.ds,
                                       &c->old_sregs.es, &c->old_sregs.fs, &c->old_sregs.gs};

    for (unsigned i = 0; i < ARRAY_SIZE(now); i++) {
        if (now[i]->selector == old[i]->selector)
            continue;
        if (c->old_sregs.cr0 & 1)
            return -EINVAL;
        now[i]->base = (u64)now[i]->selector << 4;
    }
    return 0;
}

int gdb_context_write(struct vcpu *vcpu, struct gdb_context *c)
{
    struct one_msr msr = {.head.nmsrs = 1, .entry.index = MSR_KERNEL_GS_BASE};
    int ret = load_selectors(c);

    pack_x87(c);
    if (!ret && memcmp(&c->sregs, &c->old_sregs, sizeof(c->sregs)))
        ret = vcpu->ops->set_sregs(vcpu, &c->sregs);
    if (!ret && memcmp(&c->regs, &c->old_regs, sizeof(c->regs)))
        ret = vcpu->ops->set_regs(vcpu, &c->regs);
    if (!ret && memcmp(&c->fx, &c->xsave, sizeof(c->fx))) {
        memcpy(&c->xsave, &c->fx, sizeof(c->fx));
        c->xsave.region[XSTATE_BV] |= 3; /* x87 and SSE are not in their initial state */
        ret = vcpu->ops->set_xsave(vcpu, &c->xsave);
    }
    msr.entry.data = c->kernel_gs_base;
    if (!ret && c->kernel_gs_base != c->old_kernel_gs_base &&
        (!c->has_kernel_gs_base || vcpu->ops->set_msrs(vcpu, &msr.head) != 1))
        ret = -EINVAL;
    return ret;
}

void gdb_register_get(const struct gdb_context *c, unsigned number, u8 *bytes)
{
    unsigned wanted = registers[number].bytes, kept = registers[number].kept;

    memset(bytes, 0, wanted);
    memcpy(bytes, (const u8 *)c + registers[number].offset, kept < wanted ? kept : wanted);
}

void gdb_register_set(struct gdb_context *c, unsigned number, const u8 *bytes)
{
    unsigned given = registers[number].bytes, kept = registers[number].kept;

    memcpy((u8 *)c + registers[number].offset, bytes, kept < given ? kept : given);
}
