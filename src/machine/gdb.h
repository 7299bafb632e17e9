/*
 * The GDB server: what its files share. Inside src/machine only.
 *
 * gdb.c has sockets and states, gdb_commands.c answers packets, gdb_target.c stops, resumes and
 * looks at the guest, gdb_regs.c knows registers, gdb_packet.c framing. All of it runs in the I/O
 * thread, but for gdb_park, gdb_debug_exit and gdb_shutdown, which are the vCPU threads'.
 *
 * While a debugger looks, every vCPU is parked: its thread waits outside the engine with the CPU
 * between two instructions. Breakpoints and the guest's state are touched then only, so that vCPU
 * threads read the table of breakpoints without a lock.
 */
#ifndef TRIODE_MACHINE_GDB_H
#define TRIODE_MACHINE_GDB_H

#include "machine/gdb_packet.h"
#include "machine/private.h"

#define GDB_MAX_BREAKPOINTS 1024
#define GDB_HARDWARE 4 /* debug registers */
#define GDB_INPUT 4096

#define GDB_SIGINT 2 /* GDB's numbers */
#define GDB_SIGTRAP 5
#define GDB_SIGSEGV 11

/* Numbers of the Z packets. */
enum gdb_kind { GDB_SOFTWARE, GDB_EXECUTE, GDB_WRITE, GDB_READ, GDB_ACCESS, GDB_KINDS };

struct gdb_breakpoint {
    enum gdb_kind kind;
    u64 gva;
    u64 len;      /* of watched data */
    u64 gpa;      /* software: where INT3 is, */
    u8 saved;     /* and what was there */
    bool present; /* false: memory was reset since */
};

enum gdb_state {
    GDB_DETACHED, /* nobody looks; the guest runs, or waits for the first debugger */
    GDB_STOPPING, /* vCPUs are on their way to be parked */
    GDB_STOPPED,  /* all are */
    GDB_RUNNING,  /* resumed by the debugger */
};

struct gdb {
    struct machine *machine;
    struct loop_fd listener, client;
    char address[256];
    char path[108]; /* of a socket in the file system, to be removed */
    bool wait;      /* --gdb-wait: until the first debugger */
    enum gdb_state state;
    bool reply_due;   /* the debugger waits for a stop reply */
    bool interrupted; /* by Ctrl-C */
    bool closing;     /* the connection ends when the output is out */
    bool no_ack;
    bool physical;     /* addresses of memory packets are guest-physical */
    unsigned selected; /* vCPU of g, m ...: Hg */
    unsigned resumed;  /* vCPU of c and s: Hc */
    struct gdb_parser parser;
    u8 input[GDB_INPUT];
    size_t input_len, input_at;
    struct strbuf output, reply, last; /* framed and not written; reply under way; last packet */
    size_t written;
    struct strbuf description; /* target.xml */
    u32 debug_flags;           /* KVM_GUESTDBG_* that the engine knows */

    struct gdb_breakpoint breakpoints[GDB_MAX_BREAKPOINTS];
    unsigned breakpoint_count;
    struct {
        u64 address;
        unsigned owner; /* index of the breakpoint */
    } hardware[GDB_HARDWARE];
    u64 dr7;

    pthread_mutex_t lock; /* of what vCPU threads and the I/O thread share: struct gdb_vcpu */
    pthread_cond_t cond;
    bool stop_wanted; /* a vCPU stopped by itself */
    bool attached;    /* a debugger is there to hear of it */
};

/* ---- gdb.c --------------------------------------------------------------------------------- */

/* Waits for debuggers at @text, "PORT", "tcp:[HOST:]PORT" or "unix:PATH". -EINVAL and the like with
 * @err set. */
int gdb_open(struct machine *machine, const char *text, bool wait, struct err *err);
void gdb_close(struct machine *machine);
/* In the I/O thread: after loop_wake; when the run has ended; between a reset and the vCPUs'
 * start. */
void gdb_woken(struct machine *machine);
void gdb_ended(struct machine *machine);
void gdb_reset(struct machine *machine);
/* Frames gdb->reply and empties it. */
void gdb_send(struct gdb *gdb);
/* After gdb_release: the debugger waits for a stop. */
void gdb_running(struct gdb *gdb);
/* The debugger wants no more: the guest goes on, the connection ends. */
void gdb_detach(struct gdb *gdb);
/* Stops the guest soon. */
void gdb_stop(struct gdb *gdb);

/* ---- gdb_commands.c ------------------------------------------------------------------------- */

/* Answers the packet in gdb->parser. All vCPUs are parked. */
void gdb_command(struct gdb *gdb);
/* Sends why the guest stopped. */
void gdb_send_stop(struct gdb *gdb);

/* ---- gdb_target.c --------------------------------------------------------------------------- */

unsigned gdb_cpus(const struct gdb *gdb);
struct machine_vcpu *gdb_vcpu(struct gdb *gdb, unsigned index);
void gdb_hold_all(struct gdb *gdb);
bool gdb_all_parked(struct gdb *gdb);
/* Lets vCPUs go whose machine_vcpu.debug.resume is not GDB_HOLD; false (and none goes) when one of
 * them has a stop to report first. */
bool gdb_release(struct gdb *gdb);
/* Takes all breakpoints out and lets all vCPUs run. */
void gdb_let_go(struct gdb *gdb);
/* Gives the engine what is to be watched of @vcpu. 0 or a negative errno. */
int gdb_apply(struct gdb *gdb, struct machine_vcpu *vcpu);

/* Reads or writes as far as memory goes; answers how many bytes. Breakpoints are not seen. */
size_t gdb_read(struct gdb *gdb, u64 address, void *buf, size_t len);
size_t gdb_write(struct gdb *gdb, u64 address, const void *buf, size_t len);

/* 0 or a negative errno; -ENOSPC: no room for another. Inserting twice is inserting once. */
int gdb_insert(struct gdb *gdb, enum gdb_kind kind, u64 gva, u64 len);
int gdb_remove(struct gdb *gdb, enum gdb_kind kind, u64 gva, u64 len);

/* ---- gdb_regs.c ----------------------------------------------------------------------------- */

#define GDB_REGISTER_BYTES 16 /* the widest */

void gdb_describe_target(struct strbuf *xml);
unsigned gdb_register_count(void);
unsigned gdb_register_bytes(unsigned number);

struct gdb_context; /* a vCPU's registers, read once */

/* NULL when they cannot be read. Ended by gdb_context_free. */
struct gdb_context *gdb_context_read(struct vcpu *vcpu);
void gdb_context_free(struct gdb_context *context);
/* Gives the vCPU what was changed. -EINVAL for what no instruction could have done. */
int gdb_context_write(struct vcpu *vcpu, struct gdb_context *context);
void gdb_register_get(const struct gdb_context *context, unsigned number, u8 *bytes);
void gdb_register_set(struct gdb_context *context, unsigned number, const u8 *bytes);

#endif
