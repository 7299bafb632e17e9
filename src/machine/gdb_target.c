/* What a debugger does to the guest: stop, resume, breakpoints, memory. */
#include <errno.h>
#include <string.h>

#include "base/bits.h"
#include "base/thread.h"
#include "machine/gdb.h"

#define INT3 0xcc
#define DR6_STEP BIT(14)

unsigned gdb_cpus(const struct gdb *gdb)
{
    return gdb->machine->config.topology.cpus;
}

struct machine_vcpu *gdb_vcpu(struct gdb *gdb, unsigned index)
{
    return &gdb->machine->vcpus[index];
}

/* ---- The vCPU threads' side ------------------------------------------------------------------ */

static bool all_parked(struct gdb *gdb)
{
    for (unsigned i = 0; i < gdb_cpus(gdb); i++)
        if (!gdb_vcpu(gdb, i)->debug.parked)
            return false;
    return true;
}

void gdb_park(struct machine_vcpu *vcpu)
{
    struct machine *machine = vcpu->machine;
    struct gdb *gdb = machine->gdb;

    mutex_lock(&gdb->lock);
    vcpu->debug.parked = true;
    if (all_parked(gdb))
        loop_wake(&machine->loop);
    while (vcpu->debug.held && !__atomic_load_n(&machine->stopping, __ATOMIC_SEQ_CST))
        pthread_cond_wait(&gdb->cond, &gdb->lock);
    vcpu->debug.parked = false;
    mutex_unlock(&gdb->lock);
}

/* The vCPU has something to report; the I/O thread stops the others. */
static void stop_at(struct machine_vcpu *vcpu, int signal, enum gdb_stop_kind kind, u64 address)
{
    struct gdb *gdb = vcpu->machine->gdb;

    mutex_lock(&gdb->lock);
    vcpu->debug.stop = (struct gdb_stop){.signal = signal, .kind = kind, .address = address};
    __atomic_store_n(&vcpu->debug.held, true, __ATOMIC_SEQ_CST);
    gdb->stop_wanted = true;
    mutex_unlock(&gdb->lock);
    loop_wake(&vcpu->machine->loop);
}

static bool translate(struct machine_vcpu *vcpu, u64 gva, u64 *gpa)
{
    struct kvm_translation t = {.linear_address = gva};

    if (vcpu->machine->ops->translate(vcpu->vcpu, &t) || !t.valid)
        return false;
    *gpa = t.physical_address;
    return true;
}

/* INT3 at @gva: one of ours, through whatever mapping? */
static bool is_software(struct gdb *gdb, struct machine_vcpu *vcpu, u64 gva)
{
    u64 gpa = ~0ull;

    translate(vcpu, gva, &gpa);
    for (unsigned i = 0; i < gdb->breakpoint_count; i++) {
        const struct gdb_breakpoint *b = &gdb->breakpoints[i];

        if (b->kind == GDB_SOFTWARE && b->present && (b->gva == gva || b->gpa == gpa))
            return true;
    }
    return false;
}

static enum machine_verdict give_back(struct machine_vcpu *vcpu, u32 what)
{
    struct kvm_guest_debug debug = vcpu->debug.applied;

    debug.control |= what;
    return vcpu->machine->ops->set_guest_debug(vcpu->vcpu, &debug) ? MACHINE_ERROR : MACHINE_RESUME;
}

enum machine_verdict gdb_debug_exit(struct machine_vcpu *vcpu, const struct kvm_run *run)
{
    static const enum gdb_stop_kind stops[GDB_KINDS] = {
        [GDB_EXECUTE] = GDB_STOP_HARDWARE,
        [GDB_WRITE] = GDB_STOP_WRITE,
        [GDB_READ] = GDB_STOP_READ,
        [GDB_ACCESS] = GDB_STOP_ACCESS,
    };
    const struct kvm_debug_exit_arch *arch = &run->debug.arch;
    struct gdb *gdb = vcpu->machine->gdb;

    if (arch->exception == 3) {
        if (!is_software(gdb, vcpu, arch->pc))
            return give_back(vcpu, KVM_GUESTDBG_INJECT_BP);
        stop_at(vcpu, GDB_SIGTRAP, GDB_STOP_SOFTWARE, arch->pc);
        return MACHINE_RESUME;
    }
    for (unsigned i = 0; i < GDB_HARDWARE; i++) {
        const struct gdb_breakpoint *b = &gdb->breakpoints[gdb->hardware[i].owner];

        if (!(arch->dr6 >> i & gdb->dr7 >> (2 * i + 1) & 1))
            continue;
        stop_at(vcpu, GDB_SIGTRAP, stops[b->kind], b->gva);
        return MACHINE_RESUME;
    }
    if (!(arch->dr6 & DR6_STEP) || !(vcpu->debug.applied.control & KVM_GUESTDBG_SINGLESTEP))
        return give_back(vcpu, KVM_GUESTDBG_INJECT_DB);
    stop_at(vcpu, GDB_SIGTRAP, GDB_STOP_STEP, arch->pc);
    return MACHINE_RESUME;
}

void gdb_shutdown(struct machine_vcpu *vcpu)
{
    struct gdb *gdb = vcpu->machine->gdb;
    bool attached;

    mutex_lock(&gdb->lock);
    attached = gdb->attached;
    mutex_unlock(&gdb->lock);
    if (!attached)
        return;
    stop_at(vcpu, GDB_SIGSEGV, GDB_STOP_STEP, 0);
    gdb_park(vcpu);
}

/* ---- Stop and go ----------------------------------------------------------------------------- */

void gdb_hold_all(struct gdb *gdb)
{
    bool kick[MACHINE_MAX_CPUS] = {false};

    mutex_lock(&gdb->lock);
    gdb->stop_wanted = false;
    gdb->attached = gdb->client.fd >= 0;
    for (unsigned i = 0; i < gdb_cpus(gdb); i++) {
        struct machine_vcpu *vcpu = gdb_vcpu(gdb, i);

        __atomic_store_n(&vcpu->debug.held, true, __ATOMIC_SEQ_CST);
        kick[i] = !vcpu->debug.parked && vcpu->has_thread;
    }
    mutex_unlock(&gdb->lock);
    for (unsigned i = 0; i < gdb_cpus(gdb); i++)
        if (kick[i])
            gdb->machine->ops->kick(gdb_vcpu(gdb, i)->vcpu);
}

bool gdb_all_parked(struct gdb *gdb)
{
    bool parked;

    mutex_lock(&gdb->lock);
    parked = all_parked(gdb);
    mutex_unlock(&gdb->lock);
    return parked;
}

/* A stop that came while another was reported. A breakpoint is met again and a step just taken
 * again, but a watched access is over. */
static bool must_report(const struct machine_vcpu *vcpu)
{
    switch (vcpu->debug.stop.kind) {
    case GDB_STOP_WRITE:
    case GDB_STOP_READ:
    case GDB_STOP_ACCESS:
        return vcpu->debug.stop.signal != 0;
    default:
        return false;
    }
}

bool gdb_release(struct gdb *gdb)
{
    for (unsigned i = 0; i < gdb_cpus(gdb); i++)
        if (gdb_vcpu(gdb, i)->debug.resume != GDB_HOLD && must_report(gdb_vcpu(gdb, i)))
            return false;
    for (unsigned i = 0; i < gdb_cpus(gdb); i++)
        gdb_apply(gdb, gdb_vcpu(gdb, i));
    mutex_lock(&gdb->lock);
    gdb->attached = gdb->client.fd >= 0;
    for (unsigned i = 0; i < gdb_cpus(gdb); i++) {
        struct machine_vcpu *vcpu = gdb_vcpu(gdb, i);

        if (vcpu->debug.resume == GDB_HOLD)
            continue;
        vcpu->debug.stop.signal = 0;
        __atomic_store_n(&vcpu->debug.held, false, __ATOMIC_SEQ_CST);
    }
    pthread_cond_broadcast(&gdb->cond);
    mutex_unlock(&gdb->lock);
    return true;
}

void gdb_let_go(struct gdb *gdb)
{
    while (gdb->breakpoint_count) {
        const struct gdb_breakpoint *last = &gdb->breakpoints[gdb->breakpoint_count - 1];

        gdb_remove(gdb, last->kind, last->gva, last->len);
    }
    for (unsigned i = 0; i < gdb_cpus(gdb); i++) {
        gdb_vcpu(gdb, i)->debug.stop.signal = 0;
        gdb_vcpu(gdb, i)->debug.resume = GDB_RUN;
    }
    gdb_release(gdb);
}

int gdb_apply(struct gdb *gdb, struct machine_vcpu *vcpu)
{
    struct kvm_guest_debug debug = {0};
    int ret;

    if (gdb->breakpoint_count)
        debug.control = KVM_GUESTDBG_USE_SW_BP;
    if (gdb->dr7) {
        debug.control |= KVM_GUESTDBG_USE_HW_BP;
        for (unsigned i = 0; i < GDB_HARDWARE; i++)
            debug.arch.debugreg[i] = gdb->hardware[i].address;
        debug.arch.debugreg[7] = gdb->dr7 | 0x600; /* GE, and the bit that is always 1 */
    }
    if (vcpu->debug.resume == GDB_STEP)
        debug.control |= KVM_GUESTDBG_SINGLESTEP | (gdb->debug_flags & KVM_GUESTDBG_BLOCKIRQ);
    if (debug.control)
        debug.control |= KVM_GUESTDBG_ENABLE;
    if (!memcmp(&debug, &vcpu->debug.applied, sizeof(debug)))
        return 0;
    if (!vcpu->machine->ops->set_guest_debug)
        return -EOPNOTSUPP;
    ret = vcpu->machine->ops->set_guest_debug(vcpu->vcpu, &debug);
    if (!ret)
        vcpu->debug.applied = debug;
    return ret;
}

/* ---- Memory ---------------------------------------------------------------------------------- */

/* Where [address, address+len) begins physically and how much of it lies in the same page. */
static bool locate(struct gdb *gdb, u64 address, size_t len, u64 *gpa, size_t *piece)
{
    *piece = MEM_PAGE_SIZE - (address & (MEM_PAGE_SIZE - 1));
    if (*piece > len)
        *piece = len;
    *gpa = address;
    return gdb->physical || translate(gdb_vcpu(gdb, gdb->selected), address, gpa);
}

/* The software breakpoint at physical address @gpa + *@at or behind it, before @gpa + @len. */
static struct gdb_breakpoint *next_int3(struct gdb *gdb, unsigned *index, u64 gpa, size_t len)
{
    while (*index < gdb->breakpoint_count) {
        struct gdb_breakpoint *b = &gdb->breakpoints[(*index)++];

        if (b->kind == GDB_SOFTWARE && b->present && b->gpa - gpa < len)
            return b;
    }
    return NULL;
}

size_t gdb_read(struct gdb *gdb, u64 address, void *buf, size_t len)
{
    size_t done = 0, piece;
    u64 gpa;

    while (done < len && locate(gdb, address + done, len - done, &gpa, &piece)) {
        u8 *to = (u8 *)buf + done;
        struct gdb_breakpoint *b;
        unsigned index = 0;

        if (mem_read(gdb->machine->mem, gpa, to, piece))
            break;
        while ((b = next_int3(gdb, &index, gpa, piece)))
            if (to[b->gpa - gpa] == INT3)
                to[b->gpa - gpa] = b->saved;
        done += piece;
    }
    return done;
}

static int write_piece(struct gdb *gdb, u64 gpa, const u8 *from, size_t len)
{
    struct mem *mem = gdb->machine->mem;
    struct gdb_breakpoint *b;
    unsigned index = 0;
    static const u8 int3 = INT3;

    if (!mem_hva(mem, gpa, len, true) || mem_write(mem, gpa, from, len))
        return -EFAULT;
    while ((b = next_int3(gdb, &index, gpa, len))) {
        b->saved = from[b->gpa - gpa];
        mem_write(mem, b->gpa, &int3, 1);
    }
    return 0;
}

size_t gdb_write(struct gdb *gdb, u64 address, const void *buf, size_t len)
{
    size_t done = 0, piece;
    u64 gpa;

    while (done < len && locate(gdb, address + done, len - done, &gpa, &piece)) {
        if (write_piece(gdb, gpa, (const u8 *)buf + done, piece))
            break;
        done += piece;
    }
    return done;
}

/* ---- Breakpoints ----------------------------------------------------------------------------- */

static int plant(struct gdb *gdb, struct gdb_breakpoint *b)
{
    static const u8 int3 = INT3;
    struct mem *mem = gdb->machine->mem;

    if (!translate(gdb_vcpu(gdb, gdb->selected), b->gva, &b->gpa) || !mem_hva(mem, b->gpa, 1, true))
        return -EFAULT;
    /* Another mapping may have one at the same place; what was there is what that one knows. */
    for (unsigned i = 0; i < gdb->breakpoint_count; i++)
        if (gdb->breakpoints[i].kind == GDB_SOFTWARE && gdb->breakpoints[i].present &&
            gdb->breakpoints[i].gpa == b->gpa) {
            b->saved = gdb->breakpoints[i].saved;
            b->present = true;
            return 0;
        }
    if (mem_read(mem, b->gpa, &b->saved, 1))
        return -EFAULT;
    b->present = true;
    return mem_write(mem, b->gpa, &int3, 1);
}

static void dig_out(struct gdb *gdb, const struct gdb_breakpoint *b)
{
    struct mem *mem = gdb->machine->mem;
    u8 now;

    if (!b->present)
        return;
    for (unsigned i = 0; i < gdb->breakpoint_count; i++) {
        const struct gdb_breakpoint *other = &gdb->breakpoints[i];

        if (other != b && other->kind == GDB_SOFTWARE && other->present && other->gpa == b->gpa)
            return;
    }
    /* The guest may have put other code there meanwhile. */
    if (!mem_read(mem, b->gpa, &now, 1) && now == INT3)
        mem_write(mem, b->gpa, &b->saved, 1);
}

/* Debug registers watch 1, 2, 4 or 8 aligned bytes (SDM volume 3, 18.2.5): takes as many as the
 * range needs. */
static int assign(struct gdb *gdb, unsigned owner)
{
    static const u8 type[GDB_KINDS] = {
        [GDB_EXECUTE] = 0, [GDB_WRITE] = 1, [GDB_READ] = 3, [GDB_ACCESS] = 3};
    static const u8 length_code[] = {[1] = 0, [2] = 1, [4] = 3, [8] = 2};
    const struct gdb_breakpoint *b = &gdb->breakpoints[owner];
    u64 at = b->gva, left = b->kind == GDB_EXECUTE ? 1 : b->len;

    for (unsigned i = 0; i < GDB_HARDWARE && left; i++) {
        u64 piece = 8;

        if (gdb->dr7 >> (2 * i + 1) & 1)
            continue;
        while (piece > left || at & (piece - 1))
            piece /= 2;
        gdb->hardware[i].address = at;
        gdb->hardware[i].owner = owner;
        gdb->dr7 |= BIT(2 * i + 1) | (u64)(type[b->kind] | length_code[piece] << 2) << (16 + 4 * i);
        at += piece;
        left -= piece;
    }
    return left ? -ENOSPC : 0;
}

/* All anew: what is there is at most four. */
static int assign_all(struct gdb *gdb)
{
    int ret = 0;

    gdb->dr7 = 0;
    memset(gdb->hardware, 0, sizeof(gdb->hardware));
    for (unsigned i = 0; i < gdb->breakpoint_count && !ret; i++)
        if (gdb->breakpoints[i].kind != GDB_SOFTWARE)
            ret = assign(gdb, i);
    return ret;
}

static struct gdb_breakpoint *find(struct gdb *gdb, enum gdb_kind kind, u64 gva, u64 len)
{
    for (unsigned i = 0; i < gdb->breakpoint_count; i++) {
        struct gdb_breakpoint *b = &gdb->breakpoints[i];

        if (b->kind == kind && b->gva == gva && b->len == len)
            return b;
    }
    return NULL;
}

int gdb_insert(struct gdb *gdb, enum gdb_kind kind, u64 gva, u64 len)
{
    struct gdb_breakpoint *b = find(gdb, kind, gva, len);
    int ret;

    if (b && (b->present || kind != GDB_SOFTWARE))
        return 0;
    if (b)
        return plant(gdb, b);
    if (gdb->breakpoint_count == GDB_MAX_BREAKPOINTS)
        return -ENOSPC;
    if (kind > GDB_EXECUTE && !len)
        return -EINVAL;
    if (!gdb->machine->ops->set_guest_debug)
        return -EOPNOTSUPP;
    b = &gdb->breakpoints[gdb->breakpoint_count];
    *b = (struct gdb_breakpoint){.kind = kind, .gva = gva, .len = len};
    ret = kind == GDB_SOFTWARE ? plant(gdb, b) : 0;
    if (ret)
        return ret;
    gdb->breakpoint_count++;
    if (kind != GDB_SOFTWARE)
        ret = assign_all(gdb);
    for (unsigned i = 0; i < gdb_cpus(gdb) && !ret; i++)
        ret = gdb_apply(gdb, gdb_vcpu(gdb, i));
    if (ret)
        gdb_remove(gdb, kind, gva, len);
    return ret;
}

int gdb_remove(struct gdb *gdb, enum gdb_kind kind, u64 gva, u64 len)
{
    struct gdb_breakpoint *b = find(gdb, kind, gva, len);

    if (!b)
        return 0;
    if (kind == GDB_SOFTWARE)
        dig_out(gdb, b);
    *b = gdb->breakpoints[--gdb->breakpoint_count];
    return assign_all(gdb);
}
