/*
 * Devices: what a board is made of besides CPUs, interrupt controllers and memory.
 *
 * A device is one file, one row in devices.def and one struct device_class. It sees the world
 * through struct device_env alone: guest memory, interrupt lines, timers and requests to the
 * machine. It never sees an engine. Its whole mutable state is one plain struct without pointers,
 * so that saving and loading it is a copy.
 *
 * Locks: a handler, a timer and a stream's callbacks run with the device's lock held by the caller
 * in this folder (bus.c, device.c) or taken by the device itself, as each function below says. The
 * callbacks of device_env may be called under it and never call back into a device.
 */
#ifndef TRIODE_DEVICE_H
#define TRIODE_DEVICE_H

#include <pthread.h>

#include "base/err.h"
#include "base/list.h"
#include "base/types.h"
#include "mem/mem.h"

struct device;

/* ---- What a machine gives its devices ---------------------------------------------------- */

/* A one-shot timer on clock_mono_ns. The machine's I/O thread calls fire(opaque) once the deadline
 * is past, with no lock held. The owner fills fire and opaque; the rest belongs to the machine. */
struct device_timer {
    void (*fire)(void *opaque);
    void *opaque;
    u64 deadline_ns; /* 0: not armed */
    struct list node;
};

/* What a device may ask of the machine. */
enum device_request {
    DEVICE_REQUEST_POWER_OFF,
    DEVICE_REQUEST_RESET,
    DEVICE_REQUEST_SLEEP, /* suspend to RAM: CPUs and devices lose power, memory does not */
    DEVICE_REQUEST_WAKE,  /* an end of that; without meaning in a machine that is awake */
};

/* The memory from 768 KiB to 1 MiB in pieces of 16 KiB, the last one of 64 KiB, and what each does;
 * without READ it shows the firmware. */
#define DEVICE_SHADOW_PIECES 13
enum { DEVICE_SHADOW_READ = 1, DEVICE_SHADOW_WRITE = 2 };

struct device_env {
    struct mem *mem;
    void *opaque; /* passed to each callback */

    /* Sets interrupt line @line (a global system interrupt: 0..15 ISA, 16..23 PCI). */
    void (*irq_set)(void *opaque, unsigned line, int level);

    /* Arms @timer for @deadline_ns of clock_mono_ns, replacing an earlier deadline; 0 disarms it.
     * A timer that is just firing may fire once more after being disarmed. */
    void (*timer_set)(void *opaque, struct device_timer *timer, u64 deadline_ns);

    /* Carried out soon, by another thread; the caller goes on. */
    void (*request)(void *opaque, enum device_request request);

    /* Sends a message-signalled interrupt: a write of @data to @address (SDM 11.11). May be NULL
     * where no device has one. */
    void (*msi)(void *opaque, u64 address, u32 data);

    /* Connects the PIT's channel 0 to line 0, or cuts it off for the HPET to drive that line. May
     * be NULL. */
    void (*pit_connect)(void *opaque, bool connected);

    /* The pieces of DEVICE_SHADOW_* have these modes from now on. May be NULL. */
    void (*shadow)(void *opaque, const u8 modes[DEVICE_SHADOW_PIECES]);
    /* Writes to the RAM below a piece that has WRITE without READ. */
    void (*shadow_write)(void *opaque, u64 gpa, unsigned size, u64 value);

    /* Ends the run with exit status @status, as request does. May be NULL. */
    void (*exit)(void *opaque, int status);

    /* Drops whatever maps the guest page at @gpa; its contents stay. May be NULL. */
    void (*drop_page)(void *opaque, u64 gpa);
};

/*
 * A two-way byte stream between a device and what stands behind it (terminal, file, pty). The back
 * end fills its half before the device is created, the device fills its half in create().
 */
struct stream {
    /* Back end's half. May be called under the device's lock; neither calls back at once. */
    void *backend;
    /* Takes up to @len bytes, answers how many; if fewer, it calls writable() later. */
    size_t (*send)(void *backend, const u8 *data, size_t len);
    /* The device, having refused input before, has room again. */
    void (*room)(void *backend);

    /* Device's half. These take the device's lock. */
    void *device;
    /* Offers @len bytes of input, answers how many were taken. */
    size_t (*receive)(void *device, const u8 *data, size_t len);
    void (*writable)(void *device);
    void (*line_break)(void *device);
};

/* ---- Buses ------------------------------------------------------------------------------- */

typedef u64 (*device_read_fn)(struct device *dev, u64 offset, unsigned size);
typedef void (*device_write_fn)(struct device *dev, u64 offset, unsigned size, u64 value);

/* A range of I/O ports or of physical addresses. The handlers are called with the device's lock
 * held and an @offset from @first; @size is a power of two up to @widest, and @offset a multiple
 * of it: wider and unaligned accesses are split by the bus, lowest address first. */
struct device_region {
    u64 first, len;
    unsigned widest; /* 1, 2, 4 or 8 */
    device_read_fn read;
    device_write_fn write;
    struct device *dev;
};

#define DEVICE_BUS_MAX_REGIONS 128

/* Lookups take no lock: they copy a region out under a sequence count. */
struct device_bus {
    pthread_mutex_t lock; /* of writers */
    u32 sequence;         /* odd while the table changes */
    u32 count;
    struct device_region regions[DEVICE_BUS_MAX_REGIONS]; /* sorted by first, disjoint */
};

void device_bus_init(struct device_bus *bus);

/* 0; -EEXIST when the range overlaps another; -ENOSPC when the table is full; -EINVAL. */
int device_bus_add(struct device_bus *bus, const struct device_region *region);

/* Takes away the region that starts at @first. -ENOENT when there is none. A vCPU that looked it up
 * just before may still be inside its handler. */
int device_bus_remove(struct device_bus *bus, u64 first);

/* Takes away all regions of @dev. For the thread that builds and tears down the board. */
void device_bus_forget(struct device_bus *bus, const struct device *dev);

/* @size is 1, 2, 4 or 8. Where no device answers, a read gives all ones and a write is lost; the
 * result says whether every byte had a device. */
bool device_bus_read(struct device_bus *bus, u64 addr, unsigned size, u64 *value);
bool device_bus_write(struct device_bus *bus, u64 addr, unsigned size, u64 value);

/* ---- Devices ----------------------------------------------------------------------------- */

struct device_class {
    size_t size; /* of the device's struct, whose first member is struct device */
    size_t state_offset, state_size;
    u32 state_version; /* changes with the layout of the state */

    /* Sets up, adds regions; the struct is zeroed but for its struct device. */
    int (*create)(struct device *dev, const char *options, struct err *err);
    void (*destroy)(struct device *dev); /* or NULL; only after machine threads have ended */
    void (*reset)(struct device *dev);   /* to power-on state; lock held */
    void (*loaded)(struct device *dev);  /* or NULL: re-arm timers, re-drive lines; lock held */
    bool standby; /* has power while the machine sleeps, so that waking is no reset for it */
};

#define DEVICE_CLASS(type)                                                                         \
    .size = sizeof(type), .state_offset = offsetof(type, state),                                   \
    .state_size = sizeof(((type *)0)->state)

struct device {
    const struct device_class *class;
    const char *name; /* of its row in devices.def */
    const struct device_env *env;
    struct device_bus *ports, *memory;
    struct stream *stream;    /* the device's back end, NULL for none */
    struct disk_image *image; /* a disk's back end, NULL for none */
    struct device *parent;    /* a PCI function's host bridge, else NULL */
    pthread_mutex_t lock;
};

/* What a board passes to the devices it creates. */
struct device_place {
    const struct device_env *env;
    struct device_bus *ports, *memory;
    struct stream *stream;
    struct device *parent;
    struct disk_image *image;
};

/* A row of devices.def. */
struct device_info {
    const char *name, *options, *help;
    const struct device_class *class;
};

/* The row called @name, or NULL. device_info_at counts from 0 and ends with NULL. */
const struct device_info *device_info_find(const char *name);
const struct device_info *device_info_at(size_t index);

/* Creates the device called @name in its power-on state. @options is "key=value,..." or NULL.
 * -ENOENT: no such device; -EINVAL: bad options; others from the bus or memory. */
int device_create(struct device **dev, const char *name, const char *options,
                  const struct device_place *place, struct err *err);
void device_destroy(struct device *dev);
void device_reset(struct device *dev);

/* After sleep, with new interrupt controllers: a device that had power drives its lines again. */
void device_woken(struct device *dev);

/* The whole state as bytes: a u32 version, then the class's state struct. */
size_t device_state_size(const struct device *dev);
void device_save(struct device *dev, void *buf);
/* -EINVAL when @len or the version do not fit; the device is then unchanged. */
int device_load(struct device *dev, const void *buf, size_t len);

/* Reads the number after "@key=" in @options into *@value, which keeps its value without such a
 * key. -EINVAL with @err set when it is not a number or above @max. */
int device_option_number(const char *options, const char *key, u64 max, u64 *value,
                         struct err *err);
/* -EINVAL with @err set when @options has a key that is not in the comma-separated list @known. */
int device_options_check(const char *options, const char *known, struct err *err);

/* ---- What boards set in particular devices ------------------------------------------------ */

/* The memory sizes firmware leaves in the CMOS: bytes below and above 4 GiB. */
void device_rtc_set_memory(struct device *rtc, u64 below_4g, u64 above_4g);

/* Whether the clock drives line 8, or the HPET does. Takes the clock's lock. */
void device_rtc_connect(struct device *rtc, bool connected);

/* The ACPI hardware that the clock's alarm shall tell; it outlives the clock's use. */
void device_rtc_set_pm(struct device *rtc, struct device *acpi_pm);

/* The alarm came: RTC_STS rises (ACPI 6.4, 4.8.3.1.1). Takes the device's lock. */
void device_acpi_pm_alarm(struct device *acpi_pm);

/* SLP_TYP value the board's \_S5 names (ACPI 6.4, 16.1.6), fixed in the acpi-pm device. UEFI
 * firmware for this chipset takes this one for granted. */
#define DEVICE_ACPI_SLP_TYP_S5 0
#define DEVICE_ACPI_SLP_TYP_S3 1 /* likewise \_S3 */

#endif
