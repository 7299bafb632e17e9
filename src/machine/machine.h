/*
 * A machine: a board with its devices, memory, vCPU threads and I/O thread, driven by an engine.
 *
 * Life: machine_create, machine_start, wait until machine_done_fd() is readable or call
 * machine_stop, machine_join, read the results, machine_destroy. A guest's reset happens inside.
 */
#ifndef TRIODE_MACHINE_H
#define TRIODE_MACHINE_H

#include "base/err.h"
#include "base/strbuf.h"
#include "base/types.h"
#include "engine/engine.h"

struct machine;

/* How a run ended. */
enum machine_end {
    MACHINE_RUNNING,
    MACHINE_POWER_OFF,    /* the guest switched itself off */
    MACHINE_RESET,        /* the guest reset itself and the configuration says to end then */
    MACHINE_STOPPED,      /* machine_stop */
    MACHINE_TRIPLE_FAULT, /* a vCPU shut down; machine_report has the registers */
    MACHINE_EXITED,       /* the guest ended it with a status: machine_exit_status */
    MACHINE_PANIC,        /* the guest told us that it crashed */
    MACHINE_FAILED,       /* an engine or the machine could not go on; machine_error says why */
};

enum machine_serial_kind { MACHINE_SERIAL_NONE, MACHINE_SERIAL_FDS, MACHINE_SERIAL_PTY };

/* What stands behind a serial port. */
struct machine_serial {
    enum machine_serial_kind kind;
    int in, out;      /* FDS: -1 for none; they stay the caller's */
    bool never_pause; /* go on reading when the guest does not, so that the filter sees all */
    /* Sees input before the guest, in the I/O thread: edits @data in place, answers what is left
     * of @len. May be NULL. */
    size_t (*filter)(void *opaque, u8 *data, size_t len);
    void *opaque;
};

/* By which of its entries a Linux bzImage is started. AUTO: the 64-bit one, or the 32-bit one of a
 * kernel that has no other; and the kernel is unpacked first if the configuration says so. */
enum machine_entry { MACHINE_ENTRY_AUTO, MACHINE_ENTRY_64, MACHINE_ENTRY_32, MACHINE_ENTRY_16 };

#define MACHINE_MAX_DISKS 8

struct machine_disk {
    const char *path;
    bool read_only, ide;
};

struct machine_config {
    struct engine *engine;
    const char *board;           /* row of boards.def */
    const char *kernel, *initrd; /* paths, the latter may be NULL; Multiboot: modules */
    const char *firmware;        /* path: it runs from the reset vector; then there is no kernel */
    const char *append;          /* command line; NULL: what suits the kernel */
    struct machine_disk disks[MACHINE_MAX_DISKS];
    unsigned disk_count;
    bool rng;          /* a virtio-rng */
    bool iommu;        /* a VT-d unit for all of PCI */
    bool test_devices; /* what --test-devices adds */
    bool unpack;       /* decompress a bzImage's payload here and enter it directly */
    u64 memory;        /* bytes of RAM */
    enum machine_entry entry;
    struct engine_topology topology;
    const char *cpu_model; /* NULL: the engine's default */
    bool jit;
    u64 code_cache_bytes; /* soft engine; 0: its default */
    bool count_insns;
    u32 dump_stages;
    u64 dump_first, dump_last;
    bool end_on_reset;
    bool reset_on_triple_fault;          /* instead of MACHINE_TRIPLE_FAULT */
    struct machine_serial serial, debug; /* COM1; port 0x402 and 0xE9 */
    const char
        *gdb;      /* where a debugger finds us: "PORT", "tcp:[HOST:]PORT", "unix:PATH"; or NULL */
    bool gdb_wait; /* the guest does not start before one came and let it */
};

/* Takes over nothing of @config but copies its strings; the engine outlives the machine. Everything
 * a user can get wrong is found here: -EINVAL and the like with @err set. */
int machine_create(struct machine **machine, const struct machine_config *config, struct err *err);

/* Starts the I/O thread, and that the vCPUs. */
int machine_start(struct machine *machine, struct err *err);

/* Readable (poll) once the run has ended. Owned by the machine. */
int machine_done_fd(const struct machine *machine);

/* Asks for the end, from any thread, soon. The first reason given stays. */
void machine_stop(struct machine *machine);

/* Waits for all threads; answers how the run ended. */
enum machine_end machine_join(struct machine *machine);

/* Like machine_join with a time limit: false when a thread has not ended after @ns. */
bool machine_join_for(struct machine *machine, u64 ns, enum machine_end *end);

/* After MACHINE_EXITED: the status, 0 to 255. */
int machine_exit_status(const struct machine *machine);

/* After the end: one sentence ("" if there is nothing to say) and a register dump of the vCPU that
 * ended the run ("" without). Owned by the machine. */
const char *machine_error(const struct machine *machine);
const char *machine_report(const struct machine *machine);

/* Sends a break on COM1; from the serial filter. */
void machine_serial_break(struct machine *machine);

/* The process is the terminal's foreground job again: go on reading. */
void machine_serial_resume(struct machine *machine);

/* The slave's path when the serial port is a pty, else NULL. */
const char *machine_serial_path(const struct machine *machine);

/* Where the GDB server listens, as GDB's "target remote" wants it; NULL without. */
const char *machine_gdb_address(const struct machine *machine);

/* Appends the table of --stats: exits by reason, the engine's numbers, where time went. */
void machine_stats(struct machine *machine, struct strbuf *out);

void machine_destroy(struct machine *machine);

/* ---- Topology ---------------------------------------------------------------------------- */

/* Parses "N,sockets=S,cores=C,threads=T" as QEMU does: what is missing is computed, cores first.
 * -EINVAL with the arithmetic in @err. */
int machine_topology_parse(const char *text, struct engine_topology *topology, struct err *err);

/* APIC id of vCPU @index: thread, core and socket number in bit fields as wide as they need
 * (SDM 9.9.3). */
u32 machine_apic_id(const struct engine_topology *topology, unsigned index);
/* Widths of the thread and of the thread-and-core part of an APIC id. */
unsigned machine_thread_bits(const struct engine_topology *topology);
unsigned machine_package_bits(const struct engine_topology *topology);

#endif
