#include <errno.h>

#include "base/log.h"
#include "opt/private.h"

struct pass {
    const char *name;
    int (*run)(struct ir_unit *unit);
    enum opt_level level; /* runs at this level and above */
};

static const struct pass pipeline[] = {
    {"phis", opt_phis, OPT_FULL},
    {"sink", opt_sink, OPT_QUICK},
};

#ifndef NDEBUG
static void verify(const struct ir_unit *unit, const char *stage)
{
    struct err err;

    if (!ir_verify(unit, &err))
        return;
    ir_print(unit, stderr);
    BUG("IR broken after %s: %s", stage, err.text);
}
#else
static void verify(const struct ir_unit *unit, const char *stage)
{
    (void)unit, (void)stage;
}
#endif

int opt_run(struct ir_unit *unit, enum opt_level level)
{
    if (unit->failed)
        return -ENOMEM;
    verify(unit, "lift");
    for (size_t i = 0; i < ARRAY_SIZE(pipeline); i++) {
        int rc;

        if (pipeline[i].level > level)
            continue;
        rc = pipeline[i].run(unit);
        if (rc)
            return rc;
        verify(unit, pipeline[i].name);
    }
    return 0;
}
