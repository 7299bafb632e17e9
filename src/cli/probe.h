/*
 * What the engines of this host are good for, found out by running a small guest with a time limit
 * instead of by the presence of a file.
 */
#ifndef TRIODE_PROBE_H
#define TRIODE_PROBE_H

#include "engine/engine.h"

struct probe_result {
    bool usable;
    bool emulated;      /* it runs, but far slower than the host CPU runs the same code */
    double mips;        /* million guest instructions a second of CPU time; 0 when not measured */
    double native_mips; /* the same loop on the host CPU; 0 when not measured */
    char reason[512];   /* one sentence: why usable, or why not */
};

/*
 * Opens the engine and runs the probe's guest: port I/O, CPUID, a page fault, SYSCALL, SSE, MMIO, a
 * local APIC timer that ends HLT, and a counting loop for the speed. Takes 20 to 200 ms, at worst
 * the time limit of five seconds. Answers 0 with @out filled, also when the engine is not usable;
 * -ENOMEM when the host has no memory for the guest.
 */
int probe_engine(const struct engine_ops *ops, struct probe_result *out);

/* `triode probe`: one line an engine. Exit status 0 when at least one is usable. */
int cli_cmd_probe(int argc, char **argv);

#endif
