/* Ways to execute, for the harnesses of all guest CPUs. */
#ifndef TRIODE_TESTS_ISA_ENGINES_H
#define TRIODE_TESTS_ISA_ENGINES_H

#include "dbt/dbt.h"

enum isa_engine {
    ISA_INTERPRETER,
    ISA_TRANSLATOR, /* block by block; */
    ISA_REGIONS,    /* and loops, all that go round a second time, as regions */
    ISA_ENGINES
};

/* With @dump each stage of what is translated goes to stderr. */
static inline struct dbt_config isa_dbt_config(const struct guest_ops *guest,
                                               enum isa_engine engine, bool dump)
{
    return (struct dbt_config){
        .guest = guest,
        .jit = engine != ISA_INTERPRETER,
        .hot = engine == ISA_REGIONS ? 1 : ~0u,
        .dump_stages = dump ? DBT_DUMP_GUEST | DBT_DUMP_LIFT | DBT_DUMP_OPT | DBT_DUMP_HOST : 0,
        .dump_last = ~0ull,
    };
}

#endif
