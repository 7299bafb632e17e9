/*
 * What happened, one line an event, for --trace. An event that nobody asked for costs one load and
 * one test:
 *
 *     trace_emit(MSR, msr, vcpu->index, .op = "rdmsr", .msr = number, .value = value);
 *
 * evaluates its arguments only when the event is on; one left out is 0, and not printed if it is a
 * string. CPU -1 is "no CPU in particular".
 */
#ifndef TRIODE_TRACE_H
#define TRIODE_TRACE_H

#include "base/err.h"
#include "base/types.h"

enum trace_event {
#define X(constant, name, help, args) TRACE_##constant,
#include "trace/events.def"
#undef X
    TRACE_EVENTS
};

typedef const char *trace_str;
typedef u64 trace_hex;
typedef u64 trace_dec;

#define A(kind, name) trace_##kind name;
#define X(constant, name, help, args)                                                              \
    struct trace_##name##_args {                                                                   \
        args                                                                                       \
    };
#include "trace/events.def"
#undef X
#undef A

/* One bit an event: the switch. Written by trace_open and trace_close only. */
extern u64 trace_mask;

static inline bool trace_enabled(enum trace_event event)
{
    return unlikely(__atomic_load_n(&trace_mask, __ATOMIC_RELAXED) & (1ull << event));
}

/* constant and name of the row, the vCPU's index or -1, then .argument = value, ... */
#define trace_emit(constant, name, cpu, ...)                                                       \
    do {                                                                                           \
        if (trace_enabled(TRACE_##constant))                                                       \
            trace_write(TRACE_##constant, cpu, &(struct trace_##name##_args){__VA_ARGS__});        \
    } while (0)

/* Behind trace_emit. Any thread; lines do not mix. */
void trace_write(enum trace_event event, int cpu, const void *args);

/* Switches on what @spec says: EVENT[,EVENT...][:FILE], "all" being every event. Lines go to
 * standard error, or to FILE, which is made anew; as JSON objects if its name ends in ".jsonl".
 * -EINVAL for an unknown event, or the errno of opening FILE, with @err set. */
int trace_open(const char *spec, struct err *err);

/* Switches all off and writes out what is buffered. Harmless without trace_open. */
void trace_close(void);

/* Name and help sentence of event @index, NULL at and after TRACE_EVENTS. */
const char *trace_name(unsigned index);
const char *trace_help(unsigned index);

#endif
