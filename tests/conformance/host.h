/* The host side of the conformance suite: a small VM around an engine, and what guests ask of
 * it. */
#ifndef CONFORMANCE_HOST_H
#define CONFORMANCE_HOST_H

#include "../unit/unit.h"

#include <pthread.h>
#include <stdatomic.h>

#include "base/bits.h"
#include "engine/engine.h"
#include "protocol.h"

#define MAX_CPUS 4
#define CPUID_ROOM 256

enum guest_mode { MODE_NONE, MODE_REAL, MODE_PROT32, MODE_LONG64 };

struct access {
    u32 what, address;
};

struct host;

struct host_cpu {
    struct host *host;
    struct vcpu *vcpu;
    pthread_t thread;
    bool thread_started;
    atomic_bool nmi_wanted;
    u32 line[5]; /* an EXPECT on its way */
    unsigned words;
};

struct host {
    struct host *next; /* all that live */
    const struct engine_ops *ops;
    struct engine *engine;
    struct mem *mem;
    struct mem_ram ram;
    struct vm *vm;
    struct host_cpu cpu[MAX_CPUS];
    unsigned cpus;
    struct kvm_cpuid2 *cpuid;

    /* Results. */
    pthread_mutex_t lock;
    pthread_cond_t changed;
    atomic_bool stop, hung;
    atomic_uint orders; /* delayed commands under way */
    bool done;
    u32 checks, checks_named, last_line;
    char trouble[4096]; /* what went wrong, lines */
    char console[1024];

    /* The test devices. */
    u8 regs[PORT_REGS_COUNT];
    u8 page[4096];
    struct access last;
    u32 accesses;
    u32 arg_a, arg_b;
    u8 stream_next;
    u8 queue[8192];
    u32 queue_head, queue_tail;
};

/* A VM with the suite's memory and @cpus vCPUs in power-on state. Fails the cmocka test (or skips
 * it, see host_give_up) when the engine refuses. */
struct host *host_create(unsigned cpus);
void host_destroy(struct host *host);
/* A cmocka teardown: destroys what a test that failed or skipped left behind. */
int host_destroy_all(void **state);

/* Puts vCPU 0 to LOAD_GPA in @mode; the tables that the mode needs are in memory afterwards. */
void host_enter(struct host *host, enum guest_mode mode);
void host_load(struct host *host, u64 gpa, const void *code, size_t len);

/* Runs all vCPUs in threads until the guest is done, fails, or @limit_ms pass. */
void host_run(struct host *host, unsigned limit_ms);

/* Runs vCPU 0 in the calling thread for one exit, kicked after ten seconds; what vcpu_run gave. */
int host_run_once(struct host *host);

/* In host_run's threads and for tests with their own loop: true when the exit was for one of the
 * suite's devices. */
bool host_handle_exit(struct host_cpu *cpu);

/* Loads guests/@name.bin, runs it in @mode, compares. */
void run_guest(const char *name, enum guest_mode mode, unsigned cpus, unsigned limit_ms);

/* A failed comparison on an engine that is known not to be what it says (a /dev/kvm that emulates)
 * skips the test and says why; on any other it fails it. */
void host_give_up(const char *fmt, ...) PRINTF_LIKE(1, 2);
#define CHECK(condition)                                                                           \
    do {                                                                                           \
        if (!(condition))                                                                          \
            host_give_up("%s:%d: %s", __FILE__, __LINE__, #condition);                             \
    } while (0)
#define CHECK_EQUAL(got, want)                                                                     \
    do {                                                                                           \
        u64 got_ = (got), want_ = (want);                                                          \
        if (got_ != want_)                                                                         \
            host_give_up("%s:%d: %s is 0x%" PRIx64 ", wanted 0x%" PRIx64, __FILE__, __LINE__,      \
                         #got, got_, want_);                                                       \
    } while (0)

extern const struct engine_ops *test_ops;
extern char test_doubt[640]; /* why failures are no news on this engine; empty when they are */

/* The tests that the host drives itself: X(function) */
#define STATE_TESTS(X)                                                                             \
    X(power_on_state)                                                                              \
    X(reset_vector)                                                                                \
    X(regs_round_trip)                                                                             \
    X(sregs_round_trip)                                                                            \
    X(fpu_round_trip)                                                                              \
    X(xsave_round_trip)                                                                            \
    X(xcrs_round_trip)                                                                             \
    X(msrs_round_trip)                                                                             \
    X(msrs_stop_at_unknown)                                                                        \
    X(lapic_round_trip)                                                                            \
    X(vcpu_events_round_trip)                                                                      \
    X(mp_state_round_trip)                                                                         \
    X(debugregs_round_trip)                                                                        \
    X(cpuid_round_trip)                                                                            \
    X(irqchip_round_trip)                                                                          \
    X(pit_round_trip)                                                                              \
    X(clock_round_trip)                                                                            \
    X(regs_reach_the_guest)                                                                        \
    X(translate_walks_tables)

#define RUN_TESTS(X)                                                                               \
    X(io_exit_record)                                                                              \
    X(mmio_exit_record)                                                                            \
    X(string_io_exit_record)                                                                       \
    X(unknown_exits_wait_for_completion)                                                           \
    X(dirty_log)                                                                                   \
    X(memory_slot_moves)                                                                           \
    X(read_only_slot)                                                                              \
    X(kick_before_run)                                                                             \
    X(kick_in_loop)                                                                                \
    X(kick_in_halt)                                                                                \
    X(kick_in_sipi_wait)                                                                           \
    X(kick_storm)                                                                                  \
    X(triple_fault)                                                                                \
    X(single_step)                                                                                 \
    X(software_breakpoint)                                                                         \
    X(hardware_breakpoint)                                                                         \
    X(breakpoint_in_a_loop)                                                                        \
    X(watchpoints)                                                                                 \
    X(steps_over_what_exits)                                                                       \
    X(steps_into_handlers)                                                                         \
    X(breakpoint_given_back)                                                                       \
    X(injected_exception)                                                                          \
    X(state_moves_to_another_vm)                                                                   \
    X(mmio_completes_before_a_kick)                                                                \
    X(statistics)

#define X(name) void name(void **state);
STATE_TESTS(X)
RUN_TESTS(X)
#undef X

#endif
