/* Command lines: words divided by line feeds, parsed as triode run's, and each value as every kind
 * of value. */
#include "cli/cli.h"
#include "fuzz.h"
#include "machine/machine.h"
#include "soft/cpuid.h"
#include "trace/trace.h"

#define WORDS 16

static void parse_value(const char *text)
{
    struct engine_topology topology;
    struct cpuid_model model;
    struct err err;
    u64 a, b, bytes;
    bool on = false;
    u32 stages;

    if (!cli_parse_size("mem", text, &bytes, &err))
        MUST(*text >= '0' && *text <= '9');
    cli_parse_switch("jit", text, &on, &err);
    if (!cli_parse_dump(text, &stages, &a, &b, &err))
        MUST(stages && a <= b);
    if (!machine_topology_parse(text, &topology, &err)) {
        MUST(topology.cpus >= 1 && topology.cpus <= 64);
        MUST(topology.sockets && topology.cores && topology.threads);
        for (unsigned i = 0; i < topology.cpus; i++)
            machine_apic_id(&topology, i);
        if (!cpuid_parse_model(&model, text, &err) || !cpuid_parse_model(&model, NULL, &err)) {
            struct cpuid_table table;

            cpuid_build(&table, &model, &topology, 0, 1000000);
            MUST(table.count <= CPUID_MAX_ENTRIES);
        }
    }
    if (!cpuid_parse_model(&model, text, &err))
        MUST(model.name);
    if (!strchr(text, ':')) { /* no file is made */
        trace_open(text, &err);
        trace_close();
    }
}

int LLVMFuzzerTestOneInput(const u8 *data, size_t size)
{
    char *text = malloc(size + 1), *rest = text, *argv[WORDS + 1] = {"run"};
    struct cli_options options;
    struct err err = {""};
    int argc = 1, ret;

    MUST(text);
    memcpy(text, data, size);
    text[size] = '\0';
    while (rest && argc < WORDS) {
        char *end = strchr(rest, '\n');

        if (end)
            *end++ = '\0';
        argv[argc++] = rest;
        rest = end;
    }
    ret = cli_parse_options(argc, argv, &options, &err);
    MUST(!ret || err.text[0]);
    for (int i = 1; i < argc; i++)
        parse_value(argv[i]);
    free(text);
    return 0;
}
