/*
 * virtio devices over PCI (Virtual I/O Device (VIRTIO) Version 1.2): transport and split queues,
 * shared by the devices in this folder. Only the 1.x interface; all devices have VERSION_1.
 */
#ifndef TRIODE_DEVICE_VIRTIO_H
#define TRIODE_DEVICE_VIRTIO_H

#include <sys/uio.h>

#include "device/pci/pci.h"

#define VIRTIO_MAX_QUEUES 4
#define VIRTIO_MAX_SIZE 256
/* Pieces of memory in a buffer: behind an IOMMU each descriptor of VIRTIO_PAGED_BYTES may be pages
 * that lie apart. */
#define VIRTIO_PAGED_BYTES (64 * KiB)
#define VIRTIO_MAX_PIECES (VIRTIO_MAX_SIZE * (64 / 4 + 1))
#define VIRTIO_CONFIG_BYTES 64
#define VIRTIO_NO_VECTOR 0xffff

enum {
    VIRTIO_STATUS_DRIVER_OK = 4,
    VIRTIO_STATUS_FEATURES_OK = 8,
    VIRTIO_STATUS_NEEDS_RESET = 64,

    VIRTIO_F_INDIRECT = 28,
    VIRTIO_F_EVENT_IDX = 29,
    VIRTIO_F_VERSION_1 = 32,
    VIRTIO_F_ACCESS_PLATFORM = 33,
};

struct virtio_queue {
    u64 desc, driver, device; /* bus addresses of descriptors, available ring, used ring */
    u16 size, vector;
    u16 next;      /* available index up to which buffers were taken */
    u16 used;      /* used index */
    u16 told_used; /* used index at the last interrupt */
    u8 enabled, told;
};

/* First member of each device's state. */
struct virtio_state {
    struct pci_config config;
    struct pci_msix msix;
    u64 features; /* what the driver took */
    u32 device_select, driver_select;
    u16 queue_select, config_vector;
    u8 status, isr, generation;
    struct virtio_queue queues[VIRTIO_MAX_QUEUES];
};

struct virtio;

struct virtio_ops {
    u16 id; /* device type (VIRTIO 1.2, chapter 5) */
    u16 pci_class;
    u64 features; /* beside the transport's own */
    unsigned queues, size;
    unsigned config_bytes;
    /* Fills the configuration space; lock held. */
    void (*get_config)(struct virtio *v, u8 *config);
    u64 (*get_features)(struct virtio *v); /* more of them, or NULL */
    /* Takes and completes what is in queue @q. In the I/O thread, with the lock held; it may be
     * given up meanwhile, between virtio_begin and virtio_end. */
    void (*work)(struct virtio *v, unsigned q);
};

/* A device's struct starts with this, its member "state" with struct virtio_state. */
struct virtio {
    struct device dev;
    struct pci_unit unit;
    const struct virtio_ops *ops;
    struct virtio_state *state;
    struct device_timer kick;
    u32 kicked; /* queues to look at */
    bool busy;  /* work is under way without the lock */
    pthread_cond_t idle;
    unsigned
        config_cap; /* offset of the capability that reaches BARs through configuration space */
};

/* For create, destroy, reset and loaded of the device's class. @options: "slot=N". */
int virtio_create(struct virtio *v, const struct virtio_ops *ops, struct virtio_state *state,
                  const char *options, struct err *err);
void virtio_destroy(struct virtio *v);
void virtio_reset(struct virtio *v);
void virtio_loaded(struct virtio *v);

/* The lock is given up between the two; a guest that resets the device then waits for the end. */
void virtio_begin(struct virtio *v);
/* False when the device was reset meanwhile: nothing may be completed. */
bool virtio_end(struct virtio *v);

/* How many buffers work() may serve at once: the I/O thread has others to serve, and a driver that
 * never stops must not have it to itself. virtio_again has the rest served a moment later. */
#define VIRTIO_BATCH 128
void virtio_again(struct virtio *v, unsigned q);

/* A buffer taken from a queue: what the device reads, then what it writes, by host address. */
struct virtio_chain {
    u16 head;
    unsigned out, in; /* pieces of each */
    u64 out_bytes, in_bytes;
    struct iovec pieces[VIRTIO_MAX_PIECES];
    u64 gpas[VIRTIO_MAX_PIECES], lens[VIRTIO_MAX_PIECES]; /* as taken; users may eat pieces */
};

/* 1 with *@chain filled, 0 when the queue is empty. -EINVAL when the driver broke the queue: the
 * device then needs a reset, and has said so. */
int virtio_take(struct virtio *v, unsigned q, struct virtio_chain *chain);
/* Hands a buffer back with @written bytes in it. */
void virtio_give(struct virtio *v, unsigned q, const struct virtio_chain *chain, u32 written);
/* Interrupts if the driver wants to hear of what was given back. */
void virtio_notify(struct virtio *v, unsigned q);
/* Tells memory's owner that what the device may write of the chain was written. */
void virtio_wrote_all(struct virtio *v, const struct virtio_chain *chain);
void virtio_broken(struct virtio *v);

#endif
