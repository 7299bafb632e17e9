/* Extended page tables: guest-physical to L1's physical addresses. SDM 29.3. */
#include "guest/x86/x86_internal.h"
#include "vmx/nested.h"

#define EPT_READ BIT(0)
#define EPT_WRITE BIT(1)
#define EPT_EXECUTE BIT(2)
#define EPT_RWX 7ull
#define EPT_TYPE(entry) bits(entry, 5, 3)
#define EPT_LARGE BIT(7)
#define EPT_ACCESSED BIT(8)
#define EPT_DIRTY BIT(9)
#define EPT_EXECUTE_USER BIT(10) /* with mode-based execute control */
#define EPT_SUPPRESS_VE BIT(63)
#define EPTP_WALK(eptp) bits(eptp, 5, 3)
#define EPTP_AD BIT(6)
#define ADDRESS_MASK (mask_low(52) & ~0xfffull)

struct ept_walk {
    struct x86_cpu *cpu;
    u64 gpa, gva;
    enum guest_access access;
    bool walk_entry, probe;
    bool flags; /* accessed and dirty flags are in use */
    bool mode_based;
    u64 rights; /* of all levels */
    u64 last;   /* entry read last */
};

bool vmx_valid_eptp(const struct x86_cpu *cpu, u64 eptp)
{
    u64 type = eptp & 7;

    return (type == 0 || type == 6) && EPTP_WALK(eptp) == 3 && !bits(eptp, 11, 7) &&
           !(eptp & ADDRESS_MASK & ~cpu->phys_mask) && !(eptp >> 52);
}

/* SDM 29.3.3.1: write without read, a memory type that is none, reserved bits. */
static bool misconfigured(const struct ept_walk *walk, u64 entry, unsigned shift, bool leaf)
{
    u64 type = EPT_TYPE(entry), reserved = ADDRESS_MASK & ~walk->cpu->phys_mask;

    if (!(entry & EPT_READ) && entry & EPT_WRITE)
        return true;
    if (leaf) {
        if (type == 2 || type == 3 || type == 7)
            return true;
        if (shift > 12)
            reserved |= mask_low(shift) & ~0xfffull;
    } else {
        reserved |= shift == 39 ? 0xf8 : 0x78;
    }
    return entry & reserved;
}

static NORETURN void leave(struct ept_walk *walk, u32 reason, u64 qualification)
{
    struct x86_cpu *cpu = walk->cpu;
    struct vmx_cpu *vmx = vmx_of(cpu);

    vmx->exit_to = &vmx->nested;
    cpu->loading_pdptes = false;
    cpu->vmexit = (struct x86_vmexit){.reason = reason,
                                      .qualification = qualification,
                                      .linear = walk->gva,
                                      .physical = walk->gpa};
    guest_leave(&cpu->common, X86_EXIT_VMEXIT);
}

/* SDM 26.5.7.1. */
static bool convertible(const struct ept_walk *walk)
{
    struct x86_cpu *cpu = walk->cpu;
    const struct vmcs *v = &vmx_of(cpu)->nested.vmcs;
    u32 busy = ~0u;

    return vmx_proc2(v, VMX_C_ept_violation_ve) && cpu->cr0 & X86_CR0_PE &&
           !vmx_of(cpu)->delivering.valid && !(walk->last & EPT_SUPPRESS_VE) &&
           !mem_read(cpu->common.mem, v->virtualization_exception_information_address + 4, &busy,
                     4) &&
           !busy;
}

/* SDM 26.5.7.2: the information area, and the exception. */
static NORETURN void raise_ve(struct ept_walk *walk, u64 qualification)
{
    struct x86_cpu *cpu = walk->cpu;
    const struct vmcs *v = &vmx_of(cpu)->nested.vmcs;
    const struct {
        u32 reason, busy;
        u64 qualification, linear, physical;
        u16 eptp_index;
    } __attribute__((packed))
    area = {VMX_REASON_ept_violation, ~0u, qualification, walk->gva, walk->gpa, v->eptp_index};

    mem_write(cpu->common.mem, v->virtualization_exception_information_address, &area,
              sizeof(area));
    cpu->loading_pdptes = false;
    x86_raise(cpu, X86_VE);
}

/* SDM 29.3.3.2: with accessed and dirty flags, reads of paging structures count as writes too, but
 * not loads of PDPTEs. */
static bool writes_entries(const struct ept_walk *walk)
{
    return walk->flags && !walk->cpu->loading_pdptes;
}

/* SDM table 28-7. */
static bool violation(struct ept_walk *walk)
{
    u64 q = walk->access == GUEST_READ    ? EPT_READ
            : walk->access == GUEST_WRITE ? EPT_WRITE
                                          : EPT_EXECUTE;

    if (walk->probe)
        return false;
    /* SDM 29.4.3.1: what is cached for the linear address is invalidated. */
    walk->cpu->common.memory->flush_page(&walk->cpu->common, walk->gva);
    /* Setting flags reads and writes. */
    if (walk->walk_entry && (writes_entries(walk) || walk->access == GUEST_WRITE))
        q = EPT_READ | EPT_WRITE;
    q |= (walk->rights & EPT_RWX) << 3 | (walk->cpu->loading_pdptes ? 0 : BIT(7));
    if (walk->mode_based && walk->rights & EPT_EXECUTE_USER)
        q |= BIT(6);
    if (!walk->walk_entry)
        q |= BIT(8) | (u64)walk->cpu->walk_rights << 9;
    if (convertible(walk))
        raise_ve(walk, q);
    leave(walk, VMX_REASON_ept_violation, q);
}

static u64 wanted(const struct ept_walk *walk)
{
    if (walk->walk_entry && writes_entries(walk))
        return EPT_READ | EPT_WRITE;
    if (walk->access == GUEST_FETCH)
        return walk->mode_based && walk->cpu->walk_rights & 1 ? EPT_EXECUTE_USER : EPT_EXECUTE;
    return walk->access == GUEST_READ ? EPT_READ : EPT_WRITE;
}

/* Sets flags in the entry at @at if they are not set; false: it changed meanwhile. */
static bool set_flags(struct ept_walk *walk, u64 at, u64 entry, u64 flags)
{
    u64 *hva;

    if ((entry & flags) == flags)
        return true;
    hva = (u64 *)mem_hva(walk->cpu->common.mem, at, 8, true);
    if (!hva)
        return true;
    if (!__atomic_compare_exchange_n(hva, &entry, entry | flags, false, __ATOMIC_SEQ_CST,
                                     __ATOMIC_SEQ_CST))
        return false;
    mem_wrote(walk->cpu->common.mem, at, 8);
    return true;
}

struct ept_path {
    u64 at[4], entry[4];
    unsigned n;
};

/* 1: path and leaf found; 0: violation; -1: misconfiguration. */
static int descend(struct ept_walk *walk, u64 eptp, struct ept_path *path, unsigned *shift)
{
    u64 table = eptp & ADDRESS_MASK;

    walk->rights = EPT_RWX | EPT_EXECUTE_USER;
    path->n = 0;
    for (*shift = 39;; *shift -= 9) {
        u64 at = table | (walk->gpa >> *shift & 0x1ff) << 3, entry;
        bool leaf;

        if (mem_read(walk->cpu->common.mem, at, &entry, 8))
            entry = 0; /* nothing there: not present */
        walk->last = entry;
        if (!(entry & (walk->mode_based ? EPT_RWX | EPT_EXECUTE_USER : EPT_RWX))) {
            walk->rights = 0;
            return 0;
        }
        leaf = *shift == 12 || ((*shift == 21 || *shift == 30) && entry & EPT_LARGE);
        if (misconfigured(walk, entry, *shift, leaf))
            return -1;
        walk->rights &= entry;
        path->at[path->n] = at;
        path->entry[path->n++] = entry;
        if (leaf)
            return 1;
        table = entry & ADDRESS_MASK;
    }
}

/* SDM 29.3.6: page-modification logging, before the dirty flag is set. */
static void log_page(struct ept_walk *walk)
{
    struct x86_cpu *cpu = walk->cpu;
    struct vmcs *v = &vmx_of(cpu)->nested.vmcs;
    u64 gpa = walk->gpa & ~0xfffull;

    if (!vmx_proc2(v, VMX_C_enable_pml))
        return;
    if (v->pml_index > 511)
        leave(walk, VMX_REASON_page_modification_log_full, 0);
    mem_write(cpu->common.mem, v->pml_address + v->pml_index * 8ull, &gpa, sizeof(gpa));
    v->pml_index--;
}

static bool update_flags(struct ept_walk *walk, const struct ept_path *path)
{
    bool write = wanted(walk) & EPT_WRITE;

    if (!walk->flags || walk->probe)
        return true;
    for (unsigned i = 0; i < path->n; i++) {
        u64 flags = EPT_ACCESSED | (i == path->n - 1 && write ? EPT_DIRTY : 0);

        if (flags & EPT_DIRTY && !(path->entry[i] & EPT_DIRTY))
            log_page(walk);
        if (!set_flags(walk, path->at[i], path->entry[i], flags))
            return false;
    }
    return true;
}

static bool walk_ept(struct x86_cpu *cpu, u64 gpa, u64 gva, enum guest_access access,
                     bool walk_entry, bool probe, struct guest_page *page)
{
    u64 eptp = vmx_of(cpu)->nested.vmcs.ept_pointer;
    struct ept_walk walk = {
        .cpu = cpu,
        .gpa = gpa,
        .gva = gva,
        .access = access,
        .walk_entry = walk_entry,
        .probe = probe,
        .flags = eptp & EPTP_AD,
        .mode_based = vmx_proc2(&vmx_of(cpu)->nested.vmcs, VMX_C_mode_based_execute_control)};
    struct ept_path path;
    unsigned shift;
    u64 leaf;

    do {
        int found = gpa >> 48 ? 0 : descend(&walk, eptp, &path, &shift);

        if (found < 0) {
            if (probe)
                return false;
            leave(&walk, VMX_REASON_ept_misconfiguration, 0);
        }
        if (!found || (walk.rights & wanted(&walk)) != wanted(&walk))
            return violation(&walk);
    } while (!update_flags(&walk, &path));
    leaf = path.entry[path.n - 1];
    page->gpa = (leaf & ADDRESS_MASK & ~mask_low(shift)) | (gpa & mask_low(shift) & ~0xfffull);
    page->page_shift = (u8)shift;
    page->readable = walk.rights & EPT_READ;
    /* Until the dirty flag is set the next write must come by again. */
    page->writable =
        walk.rights & EPT_WRITE && (!walk.flags || leaf & EPT_DIRTY || wanted(&walk) & EPT_WRITE);
    page->global = false;
    return true;
}

/* SDM 30.4.1: accesses to the APIC-access page, by address in L1's memory, are seen elsewhere, but
 * for those that are not linear. Without EPT the latter are physical, and need not be seen
 * (30.4.6.2). */
static void apic_access_page(struct x86_cpu *cpu, const struct vmcs *v, u64 gva,
                             enum guest_access access, bool walk_entry, bool probe,
                             struct guest_page *page)
{
    if (!vmx_proc2(v, VMX_C_virtualize_apic_accesses) || page->gpa != v->apic_access_address)
        return;
    if (walk_entry) {
        if (vmx_proc2(v, VMX_C_enable_ept) && !probe)
            vmx_apic_walk(cpu);
        return;
    }
    if (access == GUEST_FETCH && !probe)
        vmx_apic_fetch(cpu, gva);
    page->gpa = VMX_APIC_PAGE;
    page->page_shift = 12;
}

bool vmx_second_level(struct x86_cpu *cpu, u64 gpa, u64 gva, enum guest_access access,
                      bool walk_entry, bool probe, struct guest_page *page)
{
    const struct vmcs *v = &vmx_of(cpu)->nested.vmcs;

    if (vmx_proc2(v, VMX_C_enable_ept)) {
        if (!walk_ept(cpu, gpa, gva, access, walk_entry, probe, page))
            return false;
    } else {
        *page = (struct guest_page){
            .gpa = gpa & ~0xfffull, .readable = true, .writable = true, .page_shift = 30};
    }
    apic_access_page(cpu, v, gva, access, walk_entry, probe, page);
    return true;
}

void vmx_update_second_level(struct x86_cpu *cpu)
{
    const struct vmx_cpu *vmx = vmx_of(cpu);
    const struct vmcs *v = vmx_inner(cpu);
    bool ept = v && vmx_proc2(v, VMX_C_enable_ept);

    cpu->hooks =
        ept || (v && vmx_proc2(v, VMX_C_virtualize_apic_accesses)) ? vmx->hooks_ept : vmx->hooks;
    cpu->common.space_tag = 0;
    if (!v)
        return;
    cpu->common.space_tag = VMX_TAG_NONROOT;
    if (vmx_proc2(v, VMX_C_enable_vpid))
        cpu->common.space_tag |= v->virtual_processor_identifier;
    if (ept)
        cpu->common.space_tag |= vmx_eptp_tag(v->ept_pointer);
    if (vmx_proc2(v, VMX_C_mode_based_execute_control))
        cpu->common.space_tag |= VMX_TAG_MODE_BASED;
    if (vmx_proc2(v, VMX_C_virtualize_apic_accesses))
        cpu->common.space_tag |= VMX_TAG_APIC_PAGE;
}
