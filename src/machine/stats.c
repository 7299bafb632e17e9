/* --stats: what the run cost. */
#include <string.h>
#include <sys/resource.h>

#include "base/clock.h"
#include "machine/private.h"

#define MAX_STATS 256
#define INSTRUCTIONS "guest_insns" /* the engine statistic that MIPS is computed from */

static const char *const exit_names[] = {
#define X(number, suffix, sentence) [MACHINE_EXIT_##suffix] = #suffix,
#include "engine/exits.def"
#undef X
};

static double seconds(u64 ns)
{
    return (double)ns / NSEC_PER_SEC;
}

static void exits(const struct machine *machine, struct strbuf *out)
{
    for (unsigned row = 0; row < MACHINE_EXIT_ROWS; row++) {
        u64 sum = 0;

        for (unsigned i = 0; i < machine->config.topology.cpus; i++)
            sum += machine->vcpus[i].exits[row];
        if (sum)
            strbuf_printf(out, "  %-32s %14" PRIu64 "\n", exit_names[row], sum);
    }
}

/* Adds @add to the statistics of the same names in @sum. */
static int merge(struct engine_stat *sum, int count, const struct engine_stat *add, int added)
{
    for (int i = 0; i < added; i++) {
        int at = 0;

        while (at < count && strcmp(sum[at].name, add[i].name))
            at++;
        if (at < count)
            sum[at].value += add[i].value;
        else if (count < MAX_STATS)
            sum[count++] = add[i];
    }
    return count;
}

static int collect(struct machine *machine, struct engine_stat *sum)
{
    struct engine_stat some[MAX_STATS];
    int count = 0, got;

    if (machine->ops->vm_stats && machine->vm) {
        got = machine->ops->vm_stats(machine->vm, some, MAX_STATS);
        count = merge(sum, count, some, got);
    }
    for (unsigned i = 0; i < machine->config.topology.cpus; i++) {
        if (!machine->ops->vcpu_stats || !machine->vcpus[i].vcpu)
            continue;
        got = machine->ops->vcpu_stats(machine->vcpus[i].vcpu, some, MAX_STATS);
        count = merge(sum, count, some, got);
    }
    return count;
}

/*
 * The three modes of a virtualized CPU: an engine that tells its own share apart from the guest's
 * does so by the statistics "guest_ns" and "soft_ns"; else all of its run() counts as the guest's.
 */
static void times(const struct machine *machine, const struct engine_stat *stats, int count,
                  struct strbuf *out)
{
    u64 engine = 0, handlers = 0, guest = 0, soft = 0, insns = 0, busy;
    u64 wall = machine->ended_ns - machine->started_ns;

    for (unsigned i = 0; i < machine->config.topology.cpus; i++) {
        engine += machine->vcpus[i].engine_ns;
        handlers += machine->vcpus[i].machine_ns;
    }
    for (int i = 0; i < count; i++) {
        if (!strcmp(stats[i].name, "guest_ns"))
            guest = stats[i].value;
        else if (!strcmp(stats[i].name, "soft_ns"))
            soft = stats[i].value;
        else if (!strcmp(stats[i].name, INSTRUCTIONS))
            insns = stats[i].value;
    }
    strbuf_printf(out, "time\n  %-32s %14.3f s\n", "wall clock", seconds(wall));
    if (guest || soft) {
        strbuf_printf(out, "  %-32s %14.3f s\n", "vCPUs in guest code", seconds(guest));
        strbuf_printf(out, "  %-32s %14.3f s\n", "vCPUs in the soft engine", seconds(soft));
    } else {
        strbuf_printf(out, "  %-32s %14.3f s\n", "vCPUs in the engine", seconds(engine));
    }
    strbuf_printf(out, "  %-32s %14.3f s\n", "vCPUs in the machine", seconds(handlers));
    /* run() includes the sleep of halted CPUs, the engine's own times do not. */
    busy = guest + soft ? guest + soft : engine;
    if (insns && busy)
        strbuf_printf(out, "  %-32s %14.1f MIPS\n", "guest instructions",
                      (double)insns / ((double)busy / 1000));
}

void machine_stats(struct machine *machine, struct strbuf *out)
{
    struct engine_stat stats[MAX_STATS];
    struct rusage usage = {0};
    int count = collect(machine, stats);

    getrusage(RUSAGE_SELF, &usage);
    strbuf_printf(out, "exits to the machine\n");
    exits(machine, out);
    if (count)
        strbuf_printf(out, "%s engine\n", machine->ops->name);
    for (int i = 0; i < count; i++)
        strbuf_printf(out, "  %-32s %14" PRIu64 "\n", stats[i].name, stats[i].value);
    times(machine, stats, count, out);
    strbuf_printf(out, "  %-32s %14.3f s\n", "CPU time of the process",
                  (double)usage.ru_utime.tv_sec + (double)usage.ru_utime.tv_usec / 1e6 +
                      (double)usage.ru_stime.tv_sec + (double)usage.ru_stime.tv_usec / 1e6);
    strbuf_printf(out, "memory\n  %-32s %14ld KiB\n", "peak resident", usage.ru_maxrss);
    strbuf_printf(out, "guest resets\n  %-32s %14" PRIu64 "\n", "resets", machine->resets);
}
