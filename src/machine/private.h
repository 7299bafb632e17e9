/* What the files of src/machine share. */
#ifndef TRIODE_MACHINE_PRIVATE_H
#define TRIODE_MACHINE_PRIVATE_H

#include <pthread.h>

#include "device/device.h"
#include "device/image.h"
#include "machine/loop.h"
#include "machine/machine.h"
#include "machine/stream.h"

#define MACHINE_MAX_CPUS 64
#define MACHINE_MAX_DEVICES 32
#define MACHINE_MAX_RAM_SLOTS 8
#define MACHINE_IO_READER 255 /* the I/O thread's index as a reader of guest memory */

/* ---- Board's memory map ------------------------------------------------------------------- */

enum { MAP_RAM = 1, MAP_RESERVED = 2, MAP_ACPI = 3 }; /* E820's numbers */

struct machine_map {
    unsigned count;
    struct {
        u64 first, size;
        u32 type;
    } ranges[16];
};

/* RAM as the engine maps it. */
struct machine_ram_slot {
    u64 gpa, size, offset; /* offset in the machine's mem_ram */
    u8 *rom;               /* or read-only memory here */
};

/* Pieces of the last 256 KiB below 1 MiB that are alike. */
struct machine_shadow_run {
    u64 first, end; /* end 0: none */
    u8 mode;        /* DEVICE_SHADOW_* */
    bool rom;
};

struct machine_shadow {
    u8 modes[DEVICE_SHADOW_PIECES];
    struct machine_shadow_run slots[DEVICE_SHADOW_PIECES]; /* as the engine has them */
};

struct machine_board {
    const char *name, *help;
    u64 min_memory, max_memory;
    /* Lays out RAM (machine->slots, machine->map) and creates the devices. */
    int (*create)(struct machine *machine, struct err *err);
    /* Puts tables and the guest's program into memory and sets the first vCPU's registers. */
    int (*boot)(struct machine *machine, struct err *err);
    /* Suspend to RAM: where the guest wants to go on, 0 if it did not say; and sets the first
     * vCPU's registers for that in a machine that has its memory still. */
    u32 (*waking_vector)(struct machine *machine);
    int (*wake)(struct machine *machine, u32 vector, struct err *err);
};

/* ---- vCPUs -------------------------------------------------------------------------------- */

/* X(constant, name): the run states of a vCPU's thread. */
#define MACHINE_VCPU_STATES(X)                                                                     \
    X(CREATED, "created")   /* no thread yet */                                                    \
    X(RUNNING, "running")   /* in the engine */                                                    \
    X(HANDLING, "handling") /* in a machine_exit_* handler */                                      \
    X(STOPPED, "stopped")   /* the thread has left its loop */

enum machine_vcpu_state {
#define X(constant, name) MACHINE_VCPU_##constant,
    MACHINE_VCPU_STATES(X)
#undef X
};

/* Rows of exits.def, in their order. */
enum machine_exit_row {
#define X(number, suffix, sentence) MACHINE_EXIT_##suffix,
#include "engine/exits.def"
#undef X
    MACHINE_EXIT_ROWS
};

/* ---- The debugger's part of a vCPU (gdb.h) -------------------------------------------------- */

enum gdb_stop_kind {
    GDB_STOP_STEP, /* nothing to say but the signal */
    GDB_STOP_SOFTWARE,
    GDB_STOP_HARDWARE,
    GDB_STOP_WRITE,
    GDB_STOP_READ,
    GDB_STOP_ACCESS,
};

struct gdb_stop {
    int signal; /* 0: nothing to report */
    enum gdb_stop_kind kind;
    u64 address;
};

struct gdb_vcpu {
    u32 held;     /* the thread is to park; atomic, changed under gdb's lock */
    bool parked;  /* it has; gdb's lock */
    bool at_rest; /* the CPU is between two instructions; the thread's own */
    enum { GDB_HOLD, GDB_RUN, GDB_STEP } resume; /* I/O thread's: what it does when it goes on */
    struct gdb_stop stop;                        /* gdb's lock, or parked */
    struct kvm_guest_debug applied;              /* as the engine has it */
};

struct gdb;

struct machine_vcpu {
    struct machine *machine;
    struct vcpu *vcpu;
    unsigned index;
    enum machine_vcpu_state state;
    pthread_t thread;
    bool has_thread;
    u64 exits[MACHINE_EXIT_ROWS];
    u64 engine_ns, machine_ns; /* wall time inside run() and inside handlers */
    struct gdb_vcpu debug;
};

enum machine_verdict { MACHINE_RESUME, MACHINE_STOP, MACHINE_ERROR };

/* Dispatches run->exit_reason through the table made from exits.def. MACHINE_STOP and MACHINE_ERROR
 * end the vCPU's thread, after machine_finish was called. */
enum machine_verdict machine_handle_exit(struct machine *machine, struct machine_vcpu *vcpu,
                                         struct kvm_run *run);
/* machine_finish with the registers of the vCPU that caused it, in its thread. */
void machine_vcpu_finish(struct machine_vcpu *vcpu, enum machine_end end, const char *text);
int machine_vcpus_start(struct machine *machine, struct err *err);
void machine_vcpus_join(struct machine *machine);
void machine_kick_all(struct machine *machine);

/* In vCPU threads; there is a GDB server. gdb_park waits until the debugger lets the vCPU go or the
 * run ends. gdb_debug_exit handles KVM_EXIT_DEBUG. gdb_shutdown shows a triple fault to a
 * debugger. */
void gdb_park(struct machine_vcpu *vcpu);
enum machine_verdict gdb_debug_exit(struct machine_vcpu *vcpu, const struct kvm_run *run);
void gdb_shutdown(struct machine_vcpu *vcpu);

/* ---- The machine -------------------------------------------------------------------------- */

struct machine {
    struct machine_config config; /* with own copies of its strings */
    const struct engine_ops *ops;
    const struct machine_board *board;

    struct mem *mem;
    struct mem_ram ram;
    struct machine_ram_slot slots[MACHINE_MAX_RAM_SLOTS];
    unsigned slot_count;
    struct machine_map map;
    struct machine_shadow shadow;

    struct device_bus ports, memory;
    struct device_env env;
    struct device *fw_cfg;
    struct device *iommu; /* NULL without */
    u8 *rom;              /* the firmware, mapped */
    u64 rom_size;
    struct device *devices[MACHINE_MAX_DEVICES];
    unsigned device_count;
    struct disk_image images[MACHINE_MAX_DISKS];
    unsigned image_count;
    struct fd_stream *serial, *debug; /* NULL without */
    struct gdb *gdb;                  /* NULL without */

    struct vm *vm;
    struct machine_vcpu vcpus[MACHINE_MAX_CPUS];
    unsigned running; /* vCPU threads that have not left their loop; atomic */

    struct loop loop;
    pthread_t io_thread;
    bool has_io_thread;
    int done_fd;

    pthread_mutex_t lock; /* of end, error, report, *_wanted */
    u32 end;              /* enum machine_end; atomic */
    u32 stopping;         /* vCPU threads are to leave their loops; atomic */
    bool reset_wanted, sleep_wanted, wake_wanted;
    int exit_status; /* with MACHINE_EXITED */
    struct err error;
    struct strbuf report;
    u64 started_ns, ended_ns;
    u64 resets;
};

/* device_env's shadow and shadow_write; machine_shadow_map shows all to a new VM, and _unmap takes
 * it from guest memory when that VM is gone. */
void machine_shadow_set(void *opaque, const u8 modes[DEVICE_SHADOW_PIECES]);
void machine_shadow_write(void *opaque, u64 gpa, unsigned size, u64 value);
int machine_shadow_map(struct machine *machine);
void machine_shadow_unmap(struct machine *machine);

/* Fills fw_cfg for firmware: memory map, ACPI tables, where the console is. */
struct acpi_config;
int machine_put_firmware_files(struct machine *machine, const struct acpi_config *acpi,
                               u64 console_port, struct err *err);

/* Ends the run for reason @end unless another thread already did; @text (may be NULL) is the
 * sentence for machine_error. Any thread. */
void machine_finish(struct machine *machine, enum machine_end end, const char *text);

/* Adds a device of the board. machine_add_pci: a function behind the bridge @host; @image may be
 * NULL. */
int machine_add_pci(struct machine *machine, const char *name, const char *options,
                    struct device *host, struct disk_image *image, struct device **dev,
                    struct err *err);
/* Opens the disk's image, which the machine closes. */
int machine_open_image(struct machine *machine, const struct machine_disk *disk,
                       struct disk_image **image, struct err *err);
int machine_add_device(struct machine *machine, const char *name, const char *options,
                       struct stream *stream, struct device **dev, struct err *err);

/* Appends registers, control registers, segments and the instructions at RIP. The vCPU is not in
 * run(). */
void machine_dump_vcpu(struct vcpu *vcpu, struct strbuf *out);

/* CPUID for engines that do not bring their own; see cpuid.c. */
int machine_set_cpuid(struct machine *machine, struct vcpu *vcpu, struct err *err);
/* A feature bit of @vcpu's CPUID; @reg: 0 EAX to 3 EDX. */
bool machine_cpu_has(struct machine *machine, struct vcpu *vcpu, u32 leaf, unsigned reg,
                     unsigned bit);

#endif
