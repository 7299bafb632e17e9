/* --smp: how many vCPUs, and how they sit in sockets, cores and threads. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "machine/machine.h"

#define MAX_CPUS 64

/* A decimal number that ends at a comma or at the end; -1 when it is none or too large. */
static long parse_number(const char *text, const char **end)
{
    char *after;
    long value;

    if (*text < '0' || *text > '9')
        return -1;
    errno = 0;
    value = strtol(text, &after, 10);
    *end = after;
    return errno || (*after && *after != ',') ? -1 : value;
}

static int parse_item(const char *item, const char **end, unsigned first, struct engine_topology *t,
                      struct err *err)
{
    const struct {
        const char *key;
        unsigned *field;
    } keys[] = {
        {"cpus=", &t->cpus},
        {"sockets=", &t->sockets},
        {"cores=", &t->cores},
        {"threads=", &t->threads},
    };
    int item_len = (int)strcspn(item, ",");
    unsigned *field = first ? &t->cpus : NULL;
    const char *number = item;
    long value;

    for (size_t i = 0; i < ARRAY_SIZE(keys); i++) {
        if (!strncmp(item, keys[i].key, strlen(keys[i].key))) {
            field = keys[i].field;
            number = item + strlen(keys[i].key);
        }
    }
    if (!field)
        return err_set(err, -EINVAL,
                       "--smp: \"%.*s\" is not sockets=, cores= or threads=", item_len, item);
    value = parse_number(number, end);
    if (value < 0)
        return err_set(err, -EINVAL, "--smp: \"%.*s\" has no number", item_len, item);
    if (value < 1 || value > MAX_CPUS)
        return err_set(err, -EINVAL, "--smp: \"%.*s\" is outside 1 to %d", item_len, item,
                       MAX_CPUS);
    *field = (unsigned)value;
    return 0;
}

/* Fills in what the user left out: threads 1, one socket, the rest cores. */
static void complete(struct engine_topology *t)
{
    unsigned cpus = t->cpus ? t->cpus : 1;

    if (!t->threads)
        t->threads = t->cpus && t->sockets && t->cores ? cpus / (t->sockets * t->cores) : 1;
    if (!t->sockets)
        t->sockets = t->cpus && t->cores ? cpus / (t->cores * t->threads) : 1;
    if (!t->cores)
        t->cores = cpus / (t->sockets * t->threads);
    if (!t->threads)
        t->threads = 1;
    if (!t->sockets)
        t->sockets = 1;
    if (!t->cores)
        t->cores = 1;
    if (!t->cpus)
        t->cpus = t->sockets * t->cores * t->threads;
}

int machine_topology_parse(const char *text, struct engine_topology *topology, struct err *err)
{
    struct engine_topology t = {0};
    const char *at = text;
    unsigned product;

    for (unsigned first = 1;; first = 0) {
        int ret = parse_item(at, &at, first, &t, err);

        if (ret)
            return ret;
        if (!*at)
            break;
        at++;
    }
    complete(&t);
    product = t.sockets * t.cores * t.threads;
    if (product != t.cpus)
        return err_set(
            err, -EINVAL, "--smp %s: %u socket%s x %u core%s x %u thread%s = %u, not %u vCPU%s",
            text, t.sockets, t.sockets == 1 ? "" : "s", t.cores, t.cores == 1 ? "" : "s", t.threads,
            t.threads == 1 ? "" : "s", product, t.cpus, t.cpus == 1 ? "" : "s");
    if (t.cpus > MAX_CPUS)
        return err_set(err, -EINVAL, "--smp %s: %u vCPUs are more than %d", text, t.cpus, MAX_CPUS);
    *topology = t;
    return 0;
}

/* Bits that number @count things from 0. */
static unsigned width(unsigned count)
{
    return count <= 1 ? 0 : 32 - (unsigned)__builtin_clz(count - 1);
}

unsigned machine_thread_bits(const struct engine_topology *t)
{
    return width(t->threads);
}

unsigned machine_package_bits(const struct engine_topology *t)
{
    return width(t->threads) + width(t->cores);
}

u32 machine_apic_id(const struct engine_topology *t, unsigned index)
{
    unsigned thread = index % t->threads, core = index / t->threads % t->cores;
    unsigned socket = index / (t->threads * t->cores);

    return socket << machine_package_bits(t) | core << machine_thread_bits(t) | thread;
}
