/*
 * FXSAVE and XSAVE images (SDM vol. 1 10.5, chapter 13). XSAVE components: x87, SSE, PKRU.
 */
#include "guest/x86/x86_internal.h"

#define XFEATURE_X87 BIT(0)
#define XFEATURE_SSE BIT(1)
#define XFEATURE_PKRU BIT(9)
#define LEGACY_BYTES 512
#define HEADER 512
#define HEADER_BYTES 64
#define EXTENDED (HEADER + HEADER_BYTES)
#define XCOMP_COMPACTED BIT(63)
#define MXCSR_MASK 0xffffu

/* Components this CPU can have in XCR0. */
static u64 xcr0_supported(const struct x86_cpu *cpu)
{
    return XFEATURE_X87 | XFEATURE_SSE | (x86_has(cpu, X86_FEATURE_PKU) ? XFEATURE_PKRU : 0);
}

static void put(u8 *image, unsigned at, u64 value, unsigned bytes)
{
    memcpy(image + at, &value, bytes);
}

static u64 get(const u8 *image, unsigned at, unsigned bytes)
{
    u64 value = 0;

    memcpy(&value, image + at, bytes);
    return value;
}

/* --- Parts of the legacy area --- */

static void save_x87(const struct x86_cpu *cpu, u8 *image, bool wide)
{
    put(image, 0, cpu->fcw, 2);
    put(image, 2, (cpu->fsw & ~0x3800u) | (cpu->ftop & 7u) << 11, 2);
    put(image, 4, cpu->ftag, 2);
    put(image, 6, cpu->fop, 2);
    if (wide) {
        put(image, 8, cpu->fip, 8);
        put(image, 16, cpu->fdp, 8);
    } else {
        put(image, 8, (u32)cpu->fip | (u64)cpu->fcs << 32, 8);
        put(image, 16, (u32)cpu->fdp | (u64)cpu->fds << 32, 8);
    }
    for (unsigned i = 0; i < 8; i++) {
        const struct x86_fpr *reg = &cpu->fpr[(cpu->ftop + i) & 7];

        put(image, 32 + 16 * i, reg->mantissa, 8);
        put(image, 40 + 16 * i, reg->sign_exponent, 8);
    }
}

static void load_x87(struct x86_cpu *cpu, const u8 *image, bool wide)
{
    u16 fsw = (u16)get(image, 2, 2);

    cpu->fcw = (get(image, 0, 2) & 0x1f3f) | 0x40; /* reserved bits are fixed */
    /* ES and B are not loaded: they follow from the exceptions and their masks. */
    cpu->fsw = fsw & 0x477f;
    if (fsw & ~cpu->fcw & 0x3f)
        cpu->fsw |= 0x8080;
    cpu->ftop = fsw >> 11 & 7;
    cpu->ftag = (u8)get(image, 4, 1);
    cpu->fop = (u16)get(image, 6, 2) & 0x7ff;
    cpu->fip = get(image, 8, wide ? 8 : 4);
    cpu->fdp = get(image, 16, wide ? 8 : 4);
    cpu->fcs = wide ? 0 : (u16)get(image, 12, 2);
    cpu->fds = wide ? 0 : (u16)get(image, 20, 2);
    for (unsigned i = 0; i < 8; i++) {
        struct x86_fpr *reg = &cpu->fpr[(cpu->ftop + i) & 7];

        reg->mantissa = get(image, 32 + 16 * i, 8);
        reg->sign_exponent = (u16)get(image, 40 + 16 * i, 2);
    }
}

static void init_x87(struct x86_cpu *cpu)
{
    cpu->fcw = 0x37f;
    cpu->fsw = 0;
    cpu->ftop = 0;
    cpu->ftag = 0;
    cpu->fop = cpu->fcs = cpu->fds = 0;
    cpu->fip = cpu->fdp = 0;
    memset(cpu->fpr, 0, sizeof(cpu->fpr));
}

static void save_mxcsr(const struct x86_cpu *cpu, u8 *image)
{
    put(image, 24, cpu->mxcsr, 4);
    put(image, 28, MXCSR_MASK, 4);
}

/* XMM registers that the current mode can name. */
static unsigned xmm_count(const struct x86_cpu *cpu)
{
    return x86_code64(cpu) ? 16 : 8;
}

void x86_mxcsr_loaded(struct x86_cpu *cpu)
{
    if (cpu->common.memory && cpu->common.memory->fp_load)
        cpu->common.memory->fp_load(&cpu->common);
    x86_update_mode(cpu);
}

void x86_fxsave(const struct x86_cpu *cpu, u8 image[512], bool rex_w)
{
    memset(image, 0, LEGACY_BYTES);
    save_x87(cpu, image, rex_w);
    save_mxcsr(cpu, image);
    memcpy(image + 160, cpu->xmm, sizeof(cpu->xmm));
}

void x86_fxrstor(struct x86_cpu *cpu, const u8 image[512], bool rex_w)
{
    load_x87(cpu, image, rex_w);
    cpu->mxcsr = (u32)get(image, 24, 4) & MXCSR_MASK;
    memcpy(cpu->xmm, image + 160, sizeof(cpu->xmm));
    x86_mxcsr_loaded(cpu);
}

/* --- Guest memory --- */

static void load_bytes(struct x86_cpu *cpu, u64 gva, u8 *buf, unsigned bytes)
{
    const struct guest_memory *memory = cpu->common.memory;
    u8 *host = (gva & 4095) + bytes <= 4096 ? memory->host(&cpu->common, gva, GUEST_READ) : NULL;

    if (host) {
        memcpy(buf, host, bytes);
        return;
    }
    for (unsigned done = 0; done < bytes; done += 16)
        memory->load(&cpu->common, gva + done, buf + done, bytes - done < 16 ? bytes - done : 16);
}

static void store_bytes(struct x86_cpu *cpu, u64 gva, const u8 *buf, unsigned bytes)
{
    const struct guest_memory *memory = cpu->common.memory;
    u8 *host = (gva & 4095) + bytes <= 4096 ? memory->host(&cpu->common, gva, GUEST_WRITE) : NULL;

    if (host) {
        memcpy(host, buf, bytes);
        return;
    }
    for (unsigned done = 0; done < bytes; done += 16)
        memory->store(&cpu->common, gva + done, buf + done, bytes - done < 16 ? bytes - done : 16);
}

static void sync_mxcsr(struct x86_cpu *cpu)
{
    if (cpu->common.memory->fp_sync)
        cpu->common.memory->fp_sync(&cpu->common);
}

static void check_aligned(struct x86_cpu *cpu, u64 gva, unsigned alignment)
{
    if (gva & (alignment - 1))
        x86_raise_error(cpu, X86_GP, 0);
}

static void check_mxcsr(struct x86_cpu *cpu, const u8 *image)
{
    if (get(image, 24, 4) & ~MXCSR_MASK)
        x86_raise_error(cpu, X86_GP, 0);
}

u64 x86_helper_fxsave(struct x86_cpu *cpu, u64 gva, u64 wide)
{
    u8 image[LEGACY_BYTES];

    if (cpu->cr0 & (X86_CR0_TS | X86_CR0_EM))
        x86_raise(cpu, X86_NM);
    check_aligned(cpu, gva, 16);
    sync_mxcsr(cpu);
    x86_fxsave(cpu, image, wide);
    store_bytes(cpu, gva, image, 160 + 16 * xmm_count(cpu));
    return 0;
}

u64 x86_helper_fxrstor(struct x86_cpu *cpu, u64 gva, u64 wide)
{
    u8 image[LEGACY_BYTES];

    if (cpu->cr0 & (X86_CR0_TS | X86_CR0_EM))
        x86_raise(cpu, X86_NM);
    check_aligned(cpu, gva, 16);
    load_bytes(cpu, gva, image, LEGACY_BYTES);
    check_mxcsr(cpu, image);
    load_x87(cpu, image, wide);
    sync_mxcsr(cpu);
    cpu->mxcsr = (u32)get(image, 24, 4);
    memcpy(cpu->xmm, image + 160, 16 * xmm_count(cpu));
    x86_mxcsr_loaded(cpu);
    return 0;
}

/* --- XSAVE family --- */

static bool x87_in_use(const struct x86_cpu *cpu)
{
    if (cpu->fcw != 0x37f || cpu->fsw || cpu->ftop || cpu->ftag || cpu->fop || cpu->fip ||
        cpu->fdp || cpu->fcs || cpu->fds)
        return true;
    for (unsigned i = 0; i < 8; i++)
        if (cpu->fpr[i].mantissa || cpu->fpr[i].sign_exponent)
            return true;
    return false;
}

static bool sse_in_use(const struct x86_cpu *cpu)
{
    u64 any = 0;

    for (unsigned i = 0; i < xmm_count(cpu); i++)
        any |= cpu->xmm[i][0] | cpu->xmm[i][1];
    return any;
}

/* XINUSE (SDM vol. 1 13.6). */
static u64 in_use(const struct x86_cpu *cpu)
{
    u64 components = 0;

    if (x87_in_use(cpu))
        components |= XFEATURE_X87;
    if (sse_in_use(cpu))
        components |= XFEATURE_SSE;
    if (cpu->pkru)
        components |= XFEATURE_PKRU;
    return components;
}

static void check_xsave(struct x86_cpu *cpu, u64 gva, u64 feature)
{
    if (!(cpu->cr4 & X86_CR4_OSXSAVE) || (feature && !x86_has(cpu, feature)))
        x86_raise(cpu, X86_UD);
    if (cpu->cr0 & X86_CR0_TS)
        x86_raise(cpu, X86_NM);
    check_aligned(cpu, gva, 64);
}

static u64 requested(const struct x86_cpu *cpu)
{
    return ((u32)cpu->gpr[X86_RAX] | cpu->gpr[X86_RDX] << 32) & cpu->xcr0;
}

/* Writes the components @which of the image to guest memory. */
static void save_components(struct x86_cpu *cpu, u64 gva, u64 which, bool mxcsr, bool wide,
                            unsigned pkru_at)
{
    u8 image[EXTENDED];

    if (which & XFEATURE_X87) {
        save_x87(cpu, image, wide);
        store_bytes(cpu, gva, image, 24);
        store_bytes(cpu, gva + 32, image + 32, 128);
    }
    if (mxcsr) {
        save_mxcsr(cpu, image);
        store_bytes(cpu, gva + 24, image + 24, 8);
    }
    if (which & XFEATURE_SSE)
        store_bytes(cpu, gva + 160, (const u8 *)cpu->xmm, 16 * xmm_count(cpu));
    if (which & XFEATURE_PKRU) {
        put(image, 0, cpu->pkru, 8);
        store_bytes(cpu, gva + pkru_at, image, 8);
    }
}

/* Forms of the XSAVE and XRSTOR instructions; @form of the helpers, + 16 with REX.W. */
enum { XSAVE_PLAIN, XSAVE_OPT, XSAVE_COMPACT, XSAVE_SUPERVISOR };

/* XSAVE and XSAVEOPT (SDM vol. 1 13.7, 13.9): a header bit not requested stays. */
static void xsave_standard(struct x86_cpu *cpu, u64 gva, bool optimize, bool wide)
{
    u64 mask = requested(cpu), used = in_use(cpu) & mask, header;
    u64 write = optimize ? used : mask;
    bool mxcsr = mask & XFEATURE_SSE;

    load_bytes(cpu, gva + HEADER, (u8 *)&header, 8);
    save_components(cpu, gva, write, mxcsr, wide, X86_XSAVE_PKRU_OFFSET);
    header = (header & ~mask) | used;
    store_bytes(cpu, gva + HEADER, (const u8 *)&header, 8);
}

/* XSAVEC and XSAVES (13.10, 13.11). */
static void xsave_compact(struct x86_cpu *cpu, u64 gva, bool wide)
{
    u64 mask = requested(cpu), used = in_use(cpu) & mask, header[2];

    /* MXCSR away from its initial value counts as SSE state here. */
    if (mask & XFEATURE_SSE && cpu->mxcsr != 0x1f80)
        used |= XFEATURE_SSE;
    save_components(cpu, gva, used, used & XFEATURE_SSE, wide, EXTENDED);
    header[0] = used;
    header[1] = mask | XCOMP_COMPACTED;
    store_bytes(cpu, gva + HEADER, (const u8 *)header, 16);
}

u64 x86_helper_xsave(struct x86_cpu *cpu, u64 gva, u64 form, u64 length)
{
    static const u64 features[] = {X86_FEATURE_XSAVE, X86_FEATURE_XSAVEOPT, X86_FEATURE_XSAVEC,
                                   X86_FEATURE_XSAVES};
    bool wide = form & 16;

    form &= 15;
    if (form == XSAVE_SUPERVISOR) {
        if (!(cpu->cr4 & X86_CR4_OSXSAVE) || !x86_has(cpu, X86_FEATURE_XSAVES))
            x86_raise(cpu, X86_UD);
        x86_need_enabled(cpu, X86_REASON_XSAVES);
        if (cpu->cpl)
            x86_raise_error(cpu, X86_GP, 0);
        x86_intercept(cpu, X86_REASON_XSAVES, 0, (u32)length, gva, 0);
    }
    check_xsave(cpu, gva, features[form]);
    sync_mxcsr(cpu);
    if (form <= XSAVE_OPT)
        xsave_standard(cpu, gva, form == XSAVE_OPT, wide);
    else
        xsave_compact(cpu, gva, wide);
    return 0;
}

struct restore {
    u64 mask; /* requested */
    u64 load; /* of these, loaded from the image; the rest initialised */
    unsigned pkru_at;
    bool compacted;
};

/* Header checks of XRSTOR (13.8) and XRSTORS (13.12): false is #GP(0). */
static bool check_header(const u8 header[64], u64 allowed, bool compact_known, bool must_compact,
                         struct restore *r)
{
    u64 bv = get(header, 0, 8), comp = get(header, 8, 8);

    r->compacted = comp & XCOMP_COMPACTED;
    if ((must_compact && !r->compacted) || (r->compacted && !compact_known))
        return false;
    for (unsigned i = r->compacted ? 16 : 8; i < (r->compacted ? 64 : 24); i += 8)
        if (get(header, i, 8))
            return false;
    if (r->compacted ? comp & ~XCOMP_COMPACTED & ~allowed || bv & ~comp : bv & ~allowed)
        return false;
    r->load = r->mask & bv;
    r->pkru_at = r->compacted ? EXTENDED : X86_XSAVE_PKRU_OFFSET;
    return true;
}

static void set_pkru(struct x86_cpu *cpu, u32 value)
{
    u32 changed = cpu->pkru ^ value;

    cpu->pkru = value;
    if (cpu->cr4 & X86_CR4_PKE && (changed & 3 || (changed && cpu->pkey_used)))
        cpu->common.memory->flush_all(&cpu->common);
}

static void restore_components(struct x86_cpu *cpu, const struct restore *r, const u8 *legacy,
                               u32 pkru, bool wide)
{
    if (r->load & XFEATURE_X87)
        load_x87(cpu, legacy, wide);
    else if (r->mask & XFEATURE_X87)
        init_x87(cpu);
    if (r->load & XFEATURE_SSE)
        memcpy(cpu->xmm, legacy + 160, 16 * xmm_count(cpu));
    else if (r->mask & XFEATURE_SSE)
        memset(cpu->xmm, 0, 16 * xmm_count(cpu));
    if (r->mask & XFEATURE_PKRU)
        set_pkru(cpu, pkru);
}

u64 x86_helper_xrstor(struct x86_cpu *cpu, u64 gva, u64 form, u64 length)
{
    bool wide = form & 16, supervisor = (form & 15) == XSAVE_SUPERVISOR, mxcsr;
    struct restore r = {.mask = requested(cpu)};
    u64 pkru = 0;
    u8 image[EXTENDED];

    if (supervisor) {
        if (!(cpu->cr4 & X86_CR4_OSXSAVE) || !x86_has(cpu, X86_FEATURE_XSAVES))
            x86_raise(cpu, X86_UD);
        x86_need_enabled(cpu, X86_REASON_XRSTORS);
        if (cpu->cpl)
            x86_raise_error(cpu, X86_GP, 0);
        x86_intercept(cpu, X86_REASON_XRSTORS, 0, (u32)length, gva, 0);
    }
    check_xsave(cpu, gva, X86_FEATURE_XSAVE);
    load_bytes(cpu, gva, image, EXTENDED);
    if (!check_header(image + HEADER, cpu->xcr0, x86_has(cpu, X86_FEATURE_XSAVEC), supervisor, &r))
        x86_raise_error(cpu, X86_GP, 0);
    /* MXCSR: the standard form loads it whenever SSE (or AVX) is requested, the compacted form only
     * with the component in the image; otherwise it is initialised (13.8.1, 13.8.2). */
    mxcsr = r.compacted ? r.load & XFEATURE_SSE : r.mask & XFEATURE_SSE;
    if (mxcsr)
        check_mxcsr(cpu, image);
    if (r.load & XFEATURE_PKRU)
        load_bytes(cpu, gva + r.pkru_at, (u8 *)&pkru, 4);
    restore_components(cpu, &r, image, (u32)pkru, wide);
    if (r.mask & XFEATURE_SSE) {
        u32 value = mxcsr ? (u32)get(image, 24, 4) : 0x1f80;

        sync_mxcsr(cpu);
        cpu->mxcsr = value;
        x86_mxcsr_loaded(cpu);
    }
    return 0;
}

void x86_xsave(const struct x86_cpu *cpu, u8 *image)
{
    memset(image, 0, X86_XSAVE_BYTES);
    x86_fxsave(cpu, image, true);
    put(image, HEADER, in_use(cpu) | XFEATURE_X87 | XFEATURE_SSE, 8);
    put(image, X86_XSAVE_PKRU_OFFSET, cpu->pkru, 8);
}

bool x86_xrstor(struct x86_cpu *cpu, const u8 *image)
{
    struct restore r = {.mask = XFEATURE_X87 | XFEATURE_SSE};

    if (cpu->xcr0 & XFEATURE_PKRU)
        r.mask |= XFEATURE_PKRU;
    if (get(image, 24, 4) & ~(u64)MXCSR_MASK ||
        !check_header(image + HEADER, xcr0_supported(cpu), false, false, &r))
        return false;
    if (r.load & XFEATURE_X87)
        load_x87(cpu, image, true);
    else
        init_x87(cpu);
    memset(cpu->xmm, 0, sizeof(cpu->xmm));
    if (r.load & XFEATURE_SSE)
        memcpy(cpu->xmm, image + 160, sizeof(cpu->xmm));
    cpu->mxcsr = (u32)get(image, 24, 4);
    if (r.load & XFEATURE_PKRU)
        set_pkru(cpu, (u32)get(image, X86_XSAVE_PKRU_OFFSET, 4));
    x86_mxcsr_loaded(cpu);
    return true;
}

/* --- XCR0 and PKRU --- */

bool x86_write_xcr0(struct x86_cpu *cpu, u64 value)
{
    if (!(value & XFEATURE_X87) || value & ~xcr0_supported(cpu))
        return false;
    cpu->xcr0 = value;
    return true;
}

u64 x86_helper_xgetbv(struct x86_cpu *cpu)
{
    u32 index = (u32)cpu->gpr[X86_RCX];
    u64 value = cpu->xcr0;

    if (!(cpu->cr4 & X86_CR4_OSXSAVE))
        x86_raise(cpu, X86_UD);
    if (index == 1 && x86_has(cpu, X86_FEATURE_XSAVEC))
        value &= in_use(cpu);
    else if (index)
        x86_raise_error(cpu, X86_GP, 0);
    cpu->gpr[X86_RAX] = (u32)value;
    cpu->gpr[X86_RDX] = value >> 32;
    return 0;
}

u64 x86_helper_xsetbv(struct x86_cpu *cpu, u64 length)
{
    if (!(cpu->cr4 & X86_CR4_OSXSAVE))
        x86_raise(cpu, X86_UD);
    if (cpu->cpl)
        x86_raise_error(cpu, X86_GP, 0);
    x86_intercept(cpu, X86_REASON_XSETBV, 0, (u32)length, 0, 0);
    if ((u32)cpu->gpr[X86_RCX] ||
        !x86_write_xcr0(cpu, (u32)cpu->gpr[X86_RAX] | cpu->gpr[X86_RDX] << 32))
        x86_raise_error(cpu, X86_GP, 0);
    return 0;
}

u64 x86_helper_rdpkru(struct x86_cpu *cpu)
{
    if (!(cpu->cr4 & X86_CR4_PKE))
        x86_raise(cpu, X86_UD);
    if ((u32)cpu->gpr[X86_RCX])
        x86_raise_error(cpu, X86_GP, 0);
    cpu->gpr[X86_RAX] = cpu->pkru;
    cpu->gpr[X86_RDX] = 0;
    return 0;
}

u64 x86_helper_wrpkru(struct x86_cpu *cpu)
{
    if (!(cpu->cr4 & X86_CR4_PKE))
        x86_raise(cpu, X86_UD);
    if ((u32)cpu->gpr[X86_RCX] || (u32)cpu->gpr[X86_RDX])
        x86_raise_error(cpu, X86_GP, 0);
    set_pkru(cpu, (u32)cpu->gpr[X86_RAX]);
    return 0;
}
