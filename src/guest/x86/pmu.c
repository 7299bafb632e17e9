/*
 * Architectural performance monitoring, version 2 (SDM vol. 3 chapter 20): four general and three
 * fixed counters of 48 bits. Cycles are ticks at the TSC's rate of the time in which the engine has
 * the CPU run; instructions and branches are counted by lifted code, and only while a counter wants
 * them.
 */
#include "guest/x86/pmu.h"
#include "guest/x86/x86_internal.h"

enum {
    MSR_PMC = 0xc1,
    MSR_PERFEVTSEL = 0x186,
    MSR_FIXED_CTR = 0x309,
    MSR_PERF_CAPABILITIES = 0x345,
    MSR_FIXED_CTR_CTRL = 0x38d,
    MSR_PERF_GLOBAL_STATUS = 0x38e,
    MSR_PERF_GLOBAL_CTRL = 0x38f,
    MSR_PERF_GLOBAL_OVF_CTRL = 0x390,
    MSR_A_PMC = 0x4c1,
};

#define GENERAL X86_PMU_GENERAL
#define FIXED X86_PMU_FIXED
#define COUNTERS (GENERAL + FIXED)
#define VALUE_MASK mask_low(X86_PMU_WIDTH)

/* IA32_PERFEVTSELx, SDM vol. 3 20.2.1.1: AnyThread (bit 21) came with version 3. */
#define SELECT_EVENT 0xffffull
#define SELECT_USR BIT(16)
#define SELECT_OS BIT(17)
#define SELECT_EDGE BIT(18)
#define SELECT_INT BIT(20)
#define SELECT_EN BIT(22)
#define SELECT_CMASK (0xffull << 24)
#define SELECT_VALID (mask_low(32) & ~BIT(21))
/* IA32_FIXED_CTR_CTRL: four bits a counter: OS, USR, (AnyThread), PMI. */
#define FIXED_OS 1u
#define FIXED_USR 2u
#define FIXED_PMI 8u
#define FIXED_VALID 0xbbbull
#define OVF_BUFFER BIT(62)
#define COND_CHANGED BIT(63)
/* IA32_PERF_CAPABILITIES: last branches are recorded as 64-bit linear addresses (SDM vol. 3
 * 18.4.8.1). */
#define LBR_FORMAT_LINEAR 1ull
#define FULL_WIDTH_WRITE BIT(13)

#define FAR_AWAY ((s64)1 << 62)

/* Which bit of the global registers is counter @i's: 0 to 3 general, then the fixed ones. */
static u64 global_bit(unsigned i)
{
    return i < GENERAL ? BIT(i) : BIT(32 + i - GENERAL);
}

/* Conditions on the number of events a cycle need a pipeline: such a counter stands still, as do
 * those of events that CPUID says are not there. */
static enum x86_pmu_event general_event(u64 select)
{
    if (!(select & SELECT_EN) || select & (SELECT_EDGE | SELECT_CMASK))
        return X86_PMU_NONE;
    switch (select & SELECT_EVENT) {
    case 0x003c: /* core cycles: the core's frequency is that of the TSC */
    case 0x013c: /* reference cycles */
        return X86_PMU_CYCLES;
    case 0x00c0:
        return X86_PMU_INSNS;
    case 0x00c4:
        return X86_PMU_BRANCHES;
    default:
        return X86_PMU_NONE;
    }
}

static unsigned fixed_control(const struct x86_pmu *pmu, unsigned i)
{
    return pmu->fixed_control >> 4 * (i - GENERAL) & 15;
}

static enum x86_pmu_event event_of(const struct x86_pmu *pmu, unsigned i)
{
    if (!(pmu->global_control & global_bit(i)))
        return X86_PMU_NONE;
    if (i < GENERAL)
        return general_event(pmu->select[i]);
    return i == GENERAL ? X86_PMU_INSNS : X86_PMU_CYCLES;
}

static bool counts_at(const struct x86_pmu *pmu, unsigned i, bool user)
{
    if (i < GENERAL)
        return pmu->select[i] & (user ? SELECT_USR : SELECT_OS);
    return fixed_control(pmu, i) & (user ? FIXED_USR : FIXED_OS);
}

static bool interrupts(const struct x86_pmu *pmu, unsigned i)
{
    return i < GENERAL ? pmu->select[i] & SELECT_INT : fixed_control(pmu, i) & FIXED_PMI;
}

static u64 cycles(struct x86_cpu *cpu)
{
    if (cpu->hooks && cpu->hooks->cycles)
        return cpu->hooks->cycles(cpu);
    return __builtin_ia32_rdtsc();
}

/* Adds to the counters of @which; true: one that interrupts has overflowed. */
static bool add(struct x86_pmu *pmu, u32 which, u64 n)
{
    bool interrupt = false;

    for (unsigned i = 0; n && i < COUNTERS; i++) {
        if (!(which >> i & 1))
            continue;
        pmu->value[i] += n;
        if (pmu->value[i] >> X86_PMU_WIDTH) {
            pmu->value[i] &= VALUE_MASK;
            pmu->global_status |= global_bit(i);
            interrupt |= interrupts(pmu, i);
        }
    }
    return interrupt;
}

/* SDM vol. 3 18.4.7: what IA32_DEBUGCTL freezes stays so until software sets it going again. */
static void interrupt(struct x86_cpu *cpu)
{
    if (cpu->msr_debugctl & X86_DEBUGCTL_FREEZE_PERFMON)
        cpu->pmu.global_control = 0;
    if (cpu->msr_debugctl & X86_DEBUGCTL_FREEZE_LBRS) {
        cpu->msr_debugctl &= ~X86_DEBUGCTL_LBR;
        x86_update_mode(cpu);
    }
    if (cpu->hooks && cpu->hooks->performance_interrupt)
        cpu->hooks->performance_interrupt(cpu);
}

/* Brings the counters up to date. */
static void collect(struct x86_cpu *cpu)
{
    struct x86_pmu *pmu = &cpu->pmu;
    bool due;

    due = add(pmu, pmu->counting[X86_PMU_INSNS], (u64)(pmu->insns_from - pmu->insns_left));
    due |=
        add(pmu, pmu->counting[X86_PMU_BRANCHES], (u64)(pmu->branches_from - pmu->branches_left));
    pmu->insns_from = pmu->insns_left;
    pmu->branches_from = pmu->branches_left;
    if (pmu->counting[X86_PMU_CYCLES]) {
        u64 now = cycles(cpu);

        due |= add(pmu, pmu->counting[X86_PMU_CYCLES], now - pmu->cycles_from);
        pmu->cycles_from = now;
    }
    if (due)
        interrupt(cpu);
}

/* Events until the first of the counters @which overflows, if that interrupts. */
static s64 distance(const struct x86_pmu *pmu, u32 which)
{
    s64 least = FAR_AWAY;

    for (unsigned i = 0; i < COUNTERS; i++) {
        s64 left = (s64)(BIT(X86_PMU_WIDTH) - pmu->value[i]);

        if (which >> i & 1 && interrupts(pmu, i) && left < least)
            least = left;
    }
    return least;
}

/* The engine's alarm is set anew only to go off earlier: when it does it is seen how things
 * stand. */
static void set_alarm(struct x86_cpu *cpu)
{
    struct x86_pmu *pmu = &cpu->pmu;
    s64 left = distance(pmu, pmu->counting[X86_PMU_CYCLES]);
    u64 at = pmu->cycles_from + (u64)left;

    if (left == FAR_AWAY || !cpu->hooks || !cpu->hooks->cycles_alarm)
        return;
    if (pmu->alarm && pmu->alarm <= at)
        return;
    pmu->alarm = at;
    cpu->hooks->cycles_alarm(cpu, (u64)left);
}

/* What counts from here on, after any change of control, privilege or halt. Counters are up to
 * date. */
static void choose(struct x86_cpu *cpu)
{
    struct x86_pmu *pmu = &cpu->pmu;
    bool ticking = pmu->counting[X86_PMU_CYCLES];

    pmu->user = cpu->cpl;
    pmu->on = pmu->by_level = false;
    memset(pmu->counting, 0, sizeof(pmu->counting));
    for (unsigned i = 0; i < COUNTERS; i++) {
        enum x86_pmu_event event = event_of(pmu, i);

        if (event == X86_PMU_NONE || !(counts_at(pmu, i, true) || counts_at(pmu, i, false)))
            continue;
        pmu->on = true;
        pmu->by_level |= counts_at(pmu, i, true) != counts_at(pmu, i, false);
        if (counts_at(pmu, i, pmu->user))
            pmu->counting[event] |= 1u << i;
    }
    if (pmu->halted)
        pmu->counting[X86_PMU_CYCLES] = 0;
    pmu->insns_left = pmu->insns_from = distance(pmu, pmu->counting[X86_PMU_INSNS]);
    pmu->branches_left = pmu->branches_from = distance(pmu, pmu->counting[X86_PMU_BRANCHES]);
    pmu->mode = (pmu->counting[X86_PMU_INSNS] ? X86_MODE_COUNT_INSNS : 0) |
                (pmu->counting[X86_PMU_BRANCHES] ? X86_MODE_COUNT_BRANCHES : 0);
    if (pmu->counting[X86_PMU_CYCLES]) {
        if (!ticking) /* else they have just been collected */
            pmu->cycles_from = cycles(cpu);
        set_alarm(cpu);
    }
}

/* The counters up to date, and the mode word with them. */
static void update(struct x86_cpu *cpu)
{
    collect(cpu);
    choose(cpu);
    cpu->common.mode = (cpu->common.mode & ~(u32)X86_MODE_COUNT) | cpu->pmu.mode;
}

u32 x86_pmu_mode(struct x86_cpu *cpu)
{
    if (cpu->pmu.by_level && cpu->pmu.user != (cpu->cpl != 0)) {
        collect(cpu);
        choose(cpu);
    }
    return cpu->pmu.mode;
}

void x86_pmu_look(struct x86_cpu *cpu)
{
    struct x86_pmu *pmu = &cpu->pmu;
    bool alarm = pmu->alarm && __atomic_exchange_n(&pmu->alarm_gone_off, false, __ATOMIC_SEQ_CST);

    if (likely(!alarm && pmu->insns_left > 0 && pmu->branches_left > 0))
        return;
    if (alarm)
        pmu->alarm = 0;
    update(cpu);
}

void x86_pmu_halt(struct x86_cpu *cpu, bool halted)
{
    if (cpu->pmu.halted == halted)
        return;
    cpu->pmu.halted = halted;
    if (cpu->pmu.on)
        update(cpu);
}

void x86_pmu_retired(struct x86_cpu *cpu, u32 modes, bool branch)
{
    modes &= cpu->common.mode;
    if (modes & X86_MODE_COUNT_INSNS)
        cpu->pmu.insns_left--;
    if (branch && modes & X86_MODE_COUNT_BRANCHES)
        cpu->pmu.branches_left--;
}

u64 x86_pmu_global_valid(void)
{
    return mask_low(GENERAL) | mask_low(FIXED) << 32;
}

void x86_pmu_set_global(struct x86_cpu *cpu, u64 value)
{
    collect(cpu);
    cpu->pmu.global_control = value & x86_pmu_global_valid();
    update(cpu);
}

void x86_pmu_reset(struct x86_cpu *cpu)
{
    bool halted = cpu->pmu.halted;

    memset(&cpu->pmu, 0, sizeof(cpu->pmu));
    cpu->pmu.halted = halted;
    cpu->pmu.global_control = mask_low(GENERAL);
    update(cpu);
}

/* --- registers --- */

/* The counter that @msr is, or -1; *@full: not by the low 32 bits, as IA32_PMCx are written. */
static int counter_msr(u32 msr, bool *full)
{
    *full = true;
    if (msr >= MSR_FIXED_CTR && msr < MSR_FIXED_CTR + FIXED)
        return (int)(GENERAL + msr - MSR_FIXED_CTR);
    if (msr >= MSR_A_PMC && msr < MSR_A_PMC + GENERAL)
        return (int)(msr - MSR_A_PMC);
    *full = false;
    return msr >= MSR_PMC && msr < MSR_PMC + GENERAL ? (int)(msr - MSR_PMC) : -1;
}

static bool exists(struct x86_cpu *cpu, u32 msr)
{
    switch (msr) {
    case MSR_PMC ... MSR_PMC + GENERAL - 1:
    case MSR_PERFEVTSEL ... MSR_PERFEVTSEL + GENERAL - 1:
    case MSR_FIXED_CTR ... MSR_FIXED_CTR + FIXED - 1:
    case MSR_PERF_CAPABILITIES:
    case MSR_FIXED_CTR_CTRL ... MSR_PERF_GLOBAL_OVF_CTRL:
    case MSR_A_PMC ... MSR_A_PMC + GENERAL - 1:
        return x86_has(cpu, X86_FEATURE_PMU);
    default:
        return false;
    }
}

bool x86_pmu_read_msr(struct x86_cpu *cpu, u32 msr, u64 *value)
{
    struct x86_pmu *pmu = &cpu->pmu;
    bool full;
    int counter = counter_msr(msr, &full);

    if (!exists(cpu, msr))
        return false;
    update(cpu);
    if (counter >= 0) {
        *value = pmu->value[counter];
        return true;
    }
    switch (msr) {
    case MSR_PERFEVTSEL ... MSR_PERFEVTSEL + GENERAL - 1:
        *value = pmu->select[msr - MSR_PERFEVTSEL];
        return true;
    case MSR_PERF_CAPABILITIES:
        *value = FULL_WIDTH_WRITE | LBR_FORMAT_LINEAR;
        return true;
    case MSR_FIXED_CTR_CTRL:
        *value = pmu->fixed_control;
        return true;
    case MSR_PERF_GLOBAL_STATUS:
        *value = pmu->global_status;
        return true;
    case MSR_PERF_GLOBAL_CTRL:
        *value = pmu->global_control;
        return true;
    case MSR_PERF_GLOBAL_OVF_CTRL:
        *value = 0;
        return true;
    }
    return false;
}

/* SDM vol. 3 20.2.8: IA32_PMCx take 32 bits and extend their sign, IA32_A_PMCx and the fixed
 * counters all of their width; bits beyond that are reserved. */
static bool write_counter(struct x86_pmu *pmu, int counter, bool full, u64 value)
{
    if (full && value & ~VALUE_MASK)
        return false;
    pmu->value[counter] = (full ? value : (u64)(s64)(s32)value) & VALUE_MASK;
    return true;
}

static bool write(u64 *field, u64 value, u64 valid)
{
    if (value & ~valid)
        return false;
    *field = value;
    return true;
}

bool x86_pmu_write_msr(struct x86_cpu *cpu, u32 msr, u64 value)
{
    struct x86_pmu *pmu = &cpu->pmu;
    u64 clearable = x86_pmu_global_valid() | OVF_BUFFER | COND_CHANGED;
    bool full, ok = false;
    int counter = counter_msr(msr, &full);

    if (!exists(cpu, msr))
        return false;
    collect(cpu);
    if (counter >= 0) {
        ok = write_counter(pmu, counter, full, value);
    } else {
        switch (msr) {
        case MSR_PERFEVTSEL ... MSR_PERFEVTSEL + GENERAL - 1:
            ok = write(&pmu->select[msr - MSR_PERFEVTSEL], value, SELECT_VALID);
            break;
        case MSR_FIXED_CTR_CTRL:
            ok = write(&pmu->fixed_control, value, FIXED_VALID);
            break;
        case MSR_PERF_GLOBAL_CTRL:
            ok = write(&pmu->global_control, value, x86_pmu_global_valid());
            break;
        case MSR_PERF_GLOBAL_OVF_CTRL:
            ok = !(value & ~clearable);
            if (ok)
                pmu->global_status &= ~value;
            break;
        }
    }
    update(cpu);
    return ok;
}

bool x86_pmu_rdpmc(struct x86_cpu *cpu, u32 index, u64 *value)
{
    bool fixed = index & BIT(30);

    index &= ~(u32)BIT(30);
    if (!x86_has(cpu, X86_FEATURE_PMU) || index >= (fixed ? FIXED : GENERAL))
        return false;
    update(cpu);
    *value = cpu->pmu.value[index + (fixed ? GENERAL : 0)];
    return true;
}
