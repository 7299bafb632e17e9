/*
 * The IOMMU: Intel Virtualization Technology for Directed I/O, revision 5.10 ("VT-d"), in
 * legacy mode. registers.c has the registers, walk.c the way from a request to an address, faults.c
 * their recording and the events, queue.c invalidation, interrupts.c interrupt remapping.
 *
 * Nothing is cached: each request reads the tables, so that invalidation has nothing to forget and
 * only waits for the requests under way. All DMA is the I/O thread's, one request after the other.
 */
#ifndef TRIODE_DEVICE_VTD_VTD_H
#define TRIODE_DEVICE_VTD_VTD_H

#include "base/bits.h"
#include "device/vtd.h"

#define VTD_FAULTS 8
#define VTD_PAGES 0xfffffffffffff000ull
#define VTD_IOTLB_OFFSET 0x500
#define VTD_FAULT_OFFSET 0x400
#define VTD_QUEUE_OFFSET 0x7fff0

enum {
    VTD_GCMD_TE = BIT(31), /* the same bits of GSTS say what is in effect */
    VTD_GCMD_SRTP = BIT(30),
    VTD_GCMD_QIE = BIT(26),
    VTD_GCMD_IRE = BIT(25),
    VTD_GCMD_SIRTP = BIT(24),
    VTD_GCMD_CFI = BIT(23),

    VTD_FSTS_PFO = BIT(0),
    VTD_FSTS_PPF = BIT(1),
    VTD_FSTS_IQE = BIT(4),
    VTD_FSTS_FRI_SHIFT = 8,

    VTD_EVENT_MASKED = BIT(31), /* FECTL, IECTL */
    VTD_EVENT_PENDING = BIT(30),

    VTD_IQA_SIZE = 7,
    VTD_ICS_IWC = BIT(0),
    VTD_IRTA_EIME = BIT(11),
    VTD_IRTA_SIZE = 15,
};

/* Why a request was blocked (VT-d 7.1.3, 5.1.4.1). */
enum vtd_fault {
    VTD_OK = 0,
    VTD_NO_ROOT = 0x01,
    VTD_NO_CONTEXT = 0x02,
    VTD_BAD_CONTEXT = 0x03,
    VTD_BEYOND_WIDTH = 0x04,
    VTD_NO_WRITE = 0x05,
    VTD_NO_READ = 0x06,
    VTD_PAGING_ACCESS = 0x07, /* the entry is not in memory */
    VTD_ROOT_ACCESS = 0x08,
    VTD_CONTEXT_ACCESS = 0x09,
    VTD_ROOT_RESERVED = 0x0a,
    VTD_CONTEXT_RESERVED = 0x0b,
    VTD_PAGING_RESERVED = 0x0c,
    VTD_TO_INTERRUPTS = 0x0e, /* the result is no memory */

    VTD_INTERRUPT_RESERVED = 0x20,
    VTD_INTERRUPT_INDEX = 0x21,
    VTD_INTERRUPT_ABSENT = 0x22,
    VTD_INTERRUPT_ACCESS = 0x23,
    VTD_ENTRY_RESERVED = 0x24,
    VTD_COMPATIBILITY = 0x25,
    VTD_WRONG_SOURCE = 0x26,
};

enum vtd_register {
#define X(name, offset, bytes, writable, cleared) VTD_##name,
#include "device/vtd/registers.def"
#undef X
    VTD_REGISTERS
};

struct vtd_state {
    u64 regs[VTD_REGISTERS];
    struct {
        u64 information, source;
    } faults[VTD_FAULTS];
    u32 next_fault;
    u64 root, interrupts; /* RTADDR and IRTA as they were when software set the pointers */
};

struct vtd {
    struct device dev;
    struct vtd_state state;
    bool remaps; /* has interrupt remapping */
    bool queue_busy;
    u64 begun, ended; /* pieces of DMA */
    pthread_cond_t done;
};

static inline struct vtd *to_vtd(struct device *dev)
{
    return container_of(dev, struct vtd, dev);
}

/* ---- For PCI functions; these take the lock -------------------------------------------------- */

/* The memory behind @address for @source, which reads or writes @len bytes there: *@len becomes
 * what lies in one piece. -EFAULT when the request is blocked. */
int vtd_translate(struct device *dev, u16 source, u64 address, bool write, u64 *gpa, u64 *len);

/* Around each piece of work of a device; addresses do not outlive it, and invalidation waits for
 * it. */
void vtd_begin(struct device *dev);
void vtd_end(struct device *dev);

/* ---- Between the files; lock held ------------------------------------------------------------ */

/* Records that a request of @source was blocked. @information: bits 63:12 of the record. */
void vtd_record(struct vtd *vtd, enum vtd_fault reason, u16 source, u64 information, bool read);

/* The queue found a descriptor that is none. */
void vtd_queue_error(struct vtd *vtd);

/* To be called after status bits or masks were written. */
void vtd_status_written(struct vtd *vtd);

/* A wait descriptor asked for an interrupt. */
void vtd_wait_done(struct vtd *vtd);

/* A write to the fault records. */
void vtd_write_fault(struct vtd *vtd, u64 offset, unsigned size, u64 value);

/* Carries out what is in the queue. It gives up the lock while it waits. */
void vtd_run_queue(struct vtd *vtd);

/* Waits, without the lock, until what is under way has ended. */
void vtd_drain(struct vtd *vtd);

#endif
