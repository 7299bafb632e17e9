/* The PCI transport (VIRTIO 1.2, 4.1): capabilities, common configuration, notification, ISR. */
#include <errno.h>
#include <string.h>

#include "base/bits.h"
#include "base/clock.h"
#include "base/thread.h"
#include "device/virtio/virtio.h"

/* One memory BAR holds all structures, a page each; another has MSI-X. */
enum {
    BAR_MSIX = 1,
    BAR_MAIN = 4,
    PAGE = 0x1000,
    COMMON = 0 * PAGE,
    ISR = 1 * PAGE,
    DEVICE = 2 * PAGE,
    NOTIFY = 3 * PAGE,
    MAIN_BYTES = 4 * PAGE,
    NOTIFY_STEP = 4,

    CAP_COMMON = 1,
    CAP_NOTIFY = 2,
    CAP_ISR = 3,
    CAP_DEVICE = 4,
    CAP_PCI = 5,

    CFG_BAR = 4, /* within the CAP_PCI capability */
    CFG_OFFSET = 8,
    CFG_LENGTH = 12,
    CFG_DATA = 16,

    VENDOR = 0x1af4,
    FIRST_DEVICE = 0x1040,
};

#define TRANSPORT_FEATURES                                                                         \
    (BIT(VIRTIO_F_INDIRECT) | BIT(VIRTIO_F_EVENT_IDX) | BIT(VIRTIO_F_VERSION_1))

/* Registers of the common configuration structure (4.1.4.3). */
enum {
    DEVICE_FEATURE_SELECT = 0x00,
    DEVICE_FEATURE = 0x04,
    DRIVER_FEATURE_SELECT = 0x08,
    DRIVER_FEATURE = 0x0c,
    CONFIG_VECTOR = 0x10,
    NUM_QUEUES = 0x12,
    STATUS = 0x14,
    GENERATION = 0x15,
    QUEUE_SELECT = 0x16,
    QUEUE_SIZE = 0x18,
    QUEUE_VECTOR = 0x1a,
    QUEUE_ENABLE = 0x1c,
    QUEUE_NOTIFY_OFF = 0x1e,
    QUEUE_DESC = 0x20,
    QUEUE_DRIVER = 0x28,
    QUEUE_DEVICE = 0x30,
    COMMON_BYTES = 0x38,
};

static struct virtio *to_virtio(struct device *dev)
{
    return container_of(dev, struct virtio, dev);
}

static u64 offered(struct virtio *v)
{
    return v->ops->features | TRANSPORT_FEATURES |
           (pci_has_iommu(&v->unit) ? BIT(VIRTIO_F_ACCESS_PLATFORM) : 0) |
           (v->ops->get_features ? v->ops->get_features(v) : 0);
}

static struct virtio_queue *selected(struct virtio *v)
{
    return v->state->queue_select < v->ops->queues ? &v->state->queues[v->state->queue_select]
                                                   : NULL;
}

/* ---- Work ---------------------------------------------------------------------------------- */

void virtio_begin(struct virtio *v)
{
    v->busy = true;
    mutex_unlock(&v->dev.lock);
}

bool virtio_end(struct virtio *v)
{
    mutex_lock(&v->dev.lock);
    v->busy = false;
    pthread_cond_broadcast(&v->idle);
    return v->state->status & VIRTIO_STATUS_DRIVER_OK;
}

static bool ready(const struct virtio *v, unsigned q)
{
    return (v->state->status & (VIRTIO_STATUS_DRIVER_OK | VIRTIO_STATUS_NEEDS_RESET)) ==
               VIRTIO_STATUS_DRIVER_OK &&
           v->state->queues[q].enabled && pci_is_master(&v->unit);
}

static void work(void *opaque)
{
    struct virtio *v = opaque;
    u32 kicked;

    mutex_lock(&v->dev.lock);
    kicked = v->kicked;
    v->kicked = 0;
    for (; kicked; kicked &= kicked - 1) {
        unsigned q = (unsigned)__builtin_ctz(kicked);

        if (!ready(v, q))
            continue;
        pci_dma_begin(&v->unit);
        v->ops->work(v, q);
        pci_dma_end(&v->unit);
    }
    mutex_unlock(&v->dev.lock);
}

void virtio_again(struct virtio *v, unsigned q)
{
    enum { PAUSE_NS = 20000 };

    v->kicked |= 1u << q;
    v->dev.env->timer_set(v->dev.env->opaque, &v->kick, clock_mono_ns() + PAUSE_NS);
}

static void kick(struct virtio *v, u32 queues)
{
    bool asleep = !v->kicked;

    v->kicked |= queues;
    if (v->kicked && asleep)
        v->dev.env->timer_set(v->dev.env->opaque, &v->kick, 1);
}

/* ---- Common configuration ------------------------------------------------------------------ */

static void reset_driver(struct virtio *v)
{
    struct virtio_state *s = v->state;

    s->status = 0; /* nothing that is under way will be completed */
    while (v->busy)
        pthread_cond_wait(&v->idle, &v->dev.lock);
    v->kicked = 0;
    s->features = 0;
    s->device_select = s->driver_select = 0;
    s->queue_select = s->isr = 0;
    s->config_vector = VIRTIO_NO_VECTOR;
    for (unsigned i = 0; i < VIRTIO_MAX_QUEUES; i++)
        s->queues[i] = (struct virtio_queue){.size = (u16)v->ops->size, .vector = VIRTIO_NO_VECTOR};
    pci_intx(&v->unit, false);
}

static void set_status(struct virtio *v, u8 value)
{
    struct virtio_state *s = v->state;
    u64 features = offered(v);

    if (!value) {
        reset_driver(v);
        return;
    }
    if ((value & VIRTIO_STATUS_FEATURES_OK) && !(s->status & VIRTIO_STATUS_FEATURES_OK) &&
        ((s->features & ~features) || !(s->features & BIT(VIRTIO_F_VERSION_1))))
        value &= ~VIRTIO_STATUS_FEATURES_OK;
    s->status = value | (s->status & VIRTIO_STATUS_NEEDS_RESET);
    if (s->status & VIRTIO_STATUS_DRIVER_OK)
        kick(v, (1u << v->ops->queues) - 1);
}

static void enable_queue(struct virtio *v, struct virtio_queue *q)
{
    if ((q->desc & 15) || (q->driver & 1) || (q->device & 3))
        virtio_broken(v);
    else
        q->enabled = 1;
}

static u64 read_queue(const struct virtio_queue *q, unsigned reg)
{
    switch (reg) {
    case QUEUE_SIZE:
        return q->size;
    case QUEUE_VECTOR:
        return q->vector;
    case QUEUE_ENABLE:
        return q->enabled;
    case QUEUE_DESC:
        return (u32)q->desc;
    case QUEUE_DESC + 4:
        return q->desc >> 32;
    case QUEUE_DRIVER:
        return (u32)q->driver;
    case QUEUE_DRIVER + 4:
        return q->driver >> 32;
    case QUEUE_DEVICE:
        return (u32)q->device;
    case QUEUE_DEVICE + 4:
        return q->device >> 32;
    }
    return 0;
}

static u64 read_common(struct virtio *v, unsigned reg)
{
    const struct virtio_state *s = v->state;
    const struct virtio_queue *q = selected(v);

    switch (reg) {
    case DEVICE_FEATURE_SELECT:
        return s->device_select;
    case DEVICE_FEATURE:
        return s->device_select < 2 ? (u32)(offered(v) >> 32 * s->device_select) : 0;
    case DRIVER_FEATURE_SELECT:
        return s->driver_select;
    case DRIVER_FEATURE:
        return s->driver_select < 2 ? (u32)(s->features >> 32 * s->driver_select) : 0;
    case CONFIG_VECTOR:
        return s->config_vector;
    case NUM_QUEUES:
        return v->ops->queues;
    case STATUS:
        return s->status;
    case GENERATION:
        return s->generation;
    case QUEUE_SELECT:
        return s->queue_select;
    case QUEUE_NOTIFY_OFF:
        return s->queue_select;
    }
    return q ? read_queue(q, reg) : 0;
}

static void put_half(u64 *value, bool high, u64 half)
{
    *value = high ? (u32)*value | half << 32 : (*value & ~(u64)UINT32_MAX) | (u32)half;
}

static u16 vector_or_none(const struct virtio *v, u64 value)
{
    return value < v->unit.vectors ? (u16)value : VIRTIO_NO_VECTOR;
}

/* Addresses and size of a queue are fixed once it is enabled. */
static void write_queue(struct virtio *v, struct virtio_queue *q, unsigned reg, u64 value)
{
    if (reg == QUEUE_VECTOR) {
        q->vector = vector_or_none(v, value);
        return;
    }
    if (q->enabled)
        return;
    switch (reg) {
    case QUEUE_SIZE:
        if (is_power_of_two(value) && value <= v->ops->size)
            q->size = (u16)value;
        break;
    case QUEUE_ENABLE:
        if (value == 1)
            enable_queue(v, q);
        break;
    case QUEUE_DESC:
    case QUEUE_DESC + 4:
        put_half(&q->desc, reg & 4, value);
        break;
    case QUEUE_DRIVER:
    case QUEUE_DRIVER + 4:
        put_half(&q->driver, reg & 4, value);
        break;
    case QUEUE_DEVICE:
    case QUEUE_DEVICE + 4:
        put_half(&q->device, reg & 4, value);
        break;
    }
}

static void write_common(struct virtio *v, unsigned reg, u64 value)
{
    struct virtio_state *s = v->state;

    switch (reg) {
    case DEVICE_FEATURE_SELECT:
        s->device_select = (u32)value;
        break;
    case DRIVER_FEATURE_SELECT:
        s->driver_select = (u32)value;
        break;
    case DRIVER_FEATURE:
        if (s->driver_select < 2 && !(s->status & VIRTIO_STATUS_FEATURES_OK))
            put_half(&s->features, s->driver_select, value);
        break;
    case CONFIG_VECTOR:
        s->config_vector = vector_or_none(v, value);
        break;
    case STATUS:
        set_status(v, (u8)value);
        break;
    case QUEUE_SELECT:
        s->queue_select = (u16)value;
        break;
    default:
        if (selected(v))
            write_queue(v, selected(v), reg, value);
        break;
    }
}

/* Registers have the width the driver must use (4.1.3.1): narrower reads get their part, narrower
 * writes of wide registers are lost. */
static unsigned width_of(unsigned reg)
{
    if (reg == STATUS || reg == GENERATION)
        return 1;
    return reg >= CONFIG_VECTOR && reg < QUEUE_DESC ? 2 : 4;
}

/* ---- The main BAR -------------------------------------------------------------------------- */

static u64 read_isr(struct virtio *v)
{
    u8 isr = v->state->isr;

    v->state->isr = 0;
    pci_intx(&v->unit, false);
    return isr;
}

static u64 read_main(struct device *dev, u64 offset, unsigned size)
{
    struct virtio *v = to_virtio(dev);
    unsigned in = (unsigned)offset & (PAGE - 1);
    u8 config[VIRTIO_CONFIG_BYTES] = {0};
    u64 value = 0;

    switch (offset & ~(u64)(PAGE - 1)) {
    case COMMON:
        for (unsigned done = 0; done < size && in + done < COMMON_BYTES;) {
            unsigned reg = in + done, width = width_of(reg), at = reg & (width - 1);

            value |= read_common(v, reg - at) >> at * 8 << done * 8;
            done += width - at;
        }
        break;
    case ISR:
        value = in ? 0 : read_isr(v);
        break;
    case DEVICE:
        if (in + size <= v->ops->config_bytes) {
            v->ops->get_config(v, config);
            memcpy(&value, config + in, size);
        }
        break;
    }
    return value;
}

static void write_main(struct device *dev, u64 offset, unsigned size, u64 value)
{
    struct virtio *v = to_virtio(dev);
    unsigned in = (unsigned)offset & (PAGE - 1);

    switch (offset & ~(u64)(PAGE - 1)) {
    case COMMON:
        if (in < COMMON_BYTES && size >= width_of(in) && !(in & (width_of(in) - 1)))
            write_common(v, in, value);
        break;
    case NOTIFY:
        if (in / NOTIFY_STEP < v->ops->queues)
            kick(v, 1u << in / NOTIFY_STEP);
        break;
    }
}

static u64 read_msix(struct device *dev, u64 offset, unsigned size)
{
    return pci_msix_read(&to_virtio(dev)->unit, offset, size);
}

static void write_msix(struct device *dev, u64 offset, unsigned size, u64 value)
{
    pci_msix_write(&to_virtio(dev)->unit, offset, size, value);
}

/* ---- The window in configuration space (4.1.4.9) --------------------------------------------- */

/* Size of a valid access through the window, 0 for none. */
static unsigned window(const struct virtio *v, u32 *offset)
{
    const struct pci_config *config = v->unit.config;
    unsigned cap = v->config_cap;
    u32 len = pci_get32(config, cap + CFG_LENGTH);

    *offset = pci_get32(config, cap + CFG_OFFSET);
    if (config->bytes[cap + CFG_BAR] != BAR_MAIN || (len != 1 && len != 2 && len != 4) ||
        *offset % len || *offset > MAIN_BYTES - len)
        return 0;
    return len;
}

static bool touches_window(const struct virtio *v, unsigned offset, unsigned size)
{
    return offset < v->config_cap + CFG_DATA + 4 && offset + size > v->config_cap + CFG_DATA;
}

static void reading(struct device *dev, unsigned offset, unsigned size)
{
    struct virtio *v = to_virtio(dev);
    u32 at;

    if (touches_window(v, offset, size) && window(v, &at))
        pci_put32(v->unit.config, v->config_cap + CFG_DATA,
                  (u32)read_main(dev, at, window(v, &at)));
}

static void written(struct device *dev, unsigned offset, unsigned size)
{
    struct virtio *v = to_virtio(dev);
    u32 at;

    pci_unit_written(&v->unit, offset);
    if (touches_window(v, offset, size) && window(v, &at))
        write_main(dev, at, window(v, &at), pci_get32(v->unit.config, v->config_cap + CFG_DATA));
    if (offset <= PCI_COMMAND && (v->state->status & VIRTIO_STATUS_DRIVER_OK))
        kick(v, (1u << v->ops->queues) - 1);
}

/* ---- Life ---------------------------------------------------------------------------------- */

static unsigned add_cap(struct virtio *v, u8 type, u32 offset, u32 len, unsigned more)
{
    struct pci_config *config = v->unit.config;
    unsigned at = pci_add_capability(&v->unit, PCI_CAP_VENDOR, 16 + more);

    config->bytes[at + 2] = (u8)(16 + more);
    config->bytes[at + 3] = type;
    config->bytes[at + CFG_BAR] = BAR_MAIN;
    pci_put32(config, at + CFG_OFFSET, offset);
    pci_put32(config, at + CFG_LENGTH, len);
    return at;
}

static void add_capabilities(struct virtio *v)
{
    struct pci_config *config = v->unit.config;
    unsigned at;

    add_cap(v, CAP_COMMON, COMMON, COMMON_BYTES, 0);
    add_cap(v, CAP_ISR, ISR, 1, 0);
    if (v->ops->config_bytes)
        add_cap(v, CAP_DEVICE, DEVICE, v->ops->config_bytes, 0);
    at = add_cap(v, CAP_NOTIFY, NOTIFY, v->ops->queues * NOTIFY_STEP, 4);
    pci_put32(config, at + 16, NOTIFY_STEP);
    v->config_cap = add_cap(v, CAP_PCI, 0, 0, 4);
    config->bytes[v->config_cap + CFG_BAR] = 0;
    config->writable[v->config_cap + CFG_BAR] = 0xff;
    memset(config->writable + v->config_cap + CFG_OFFSET, 0xff, 12);
    pci_add_msi(&v->unit);
    pci_add_msix(&v->unit, &v->state->msix, v->ops->queues + 1, BAR_MSIX);
}

void virtio_reset(struct virtio *v)
{
    const struct pci_identity identity = {
        .vendor = VENDOR,
        .device = FIRST_DEVICE + v->ops->id,
        .class = v->ops->pci_class,
        .subsystem_vendor = VENDOR,
        .subsystem = FIRST_DEVICE + v->ops->id,
        .revision = 1,
        .intx = true,
    };

    reset_driver(v);
    pci_unit_reset(&v->unit, &identity);
    add_capabilities(v);
}

void virtio_loaded(struct virtio *v)
{
    struct virtio_state *s = v->state;

    s->status &= 0xff;
    for (unsigned i = 0; i < VIRTIO_MAX_QUEUES; i++)
        if (!is_power_of_two(s->queues[i].size) || s->queues[i].size > v->ops->size)
            s->queues[i].size = (u16)v->ops->size;
    pci_unit_loaded(&v->unit);
    v->kicked = 0;
    if (s->status & VIRTIO_STATUS_DRIVER_OK)
        kick(v, (1u << v->ops->queues) - 1);
}

int virtio_create(struct virtio *v, const struct virtio_ops *ops, struct virtio_state *state,
                  const char *options, struct err *err)
{
    u64 slot = 0;
    int ret = device_options_check(options, "slot", err);

    if (!ret)
        ret = device_option_number(options, "slot", 31, &slot, err);
    if (ret)
        return ret;
    if (!v->dev.parent || !slot)
        return err_set(err, -EINVAL, "it needs a slot (1 to 31) on a PCI bus");
    v->ops = ops;
    v->state = state;
    v->kick = (struct device_timer){.fire = work, .opaque = v};
    v->unit.dev = &v->dev;
    v->unit.config = &state->config;
    v->unit.devfn = PCI_DEVFN((unsigned)slot, 0);
    v->unit.bars[BAR_MSIX] = (struct pci_bar){PAGE, false, 8, read_msix, write_msix};
    v->unit.bars[BAR_MAIN] = (struct pci_bar){MAIN_BYTES, false, 4, read_main, write_main};
    ret = pci_host_attach(
        v->dev.parent, v->unit.devfn,
        &(struct pci_function){
            .config = &state->config, .dev = &v->dev, .written = written, .reading = reading});
    if (ret)
        return err_set(err, ret, "PCI slot %" PRIu64 " is taken", slot);
    pthread_cond_init(&v->idle, NULL);
    return 0;
}

void virtio_destroy(struct virtio *v)
{
    v->dev.env->timer_set(v->dev.env->opaque, &v->kick, 0);
    pci_intx(&v->unit, false);
    pci_host_detach(v->dev.parent, v->unit.devfn);
    pthread_cond_destroy(&v->idle);
}
