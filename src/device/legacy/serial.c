/*
 * 16550A UART (National Semiconductor PC16550D data sheet). Characters leave at once, whatever the
 * divisor says, unless the back end is full; they arrive as fast as the guest reads them. Only the
 * receiver's character timeout keeps the line's speed, because drivers count on the FIFO trigger.
 */
#include <errno.h>
#include <string.h>

#include "base/clock.h"
#include "base/thread.h"
#include "device/device.h"

#define FIFO_SIZE 16
#define UART_CLOCK 1843200ull /* Hz; 16 cycles a bit at divisor 1 */

enum { RBR_THR = 0, IER = 1, IIR_FCR = 2, LCR = 3, MCR = 4, LSR = 5, MSR = 6, SCR = 7 };

enum {
    IER_RDI = 0x01,
    IER_THRI = 0x02,
    IER_RLSI = 0x04,
    IER_MSI = 0x08,
    IER_ALL = 0x0f,

    IIR_MSI = 0x00,
    IIR_NONE = 0x01,
    IIR_THRI = 0x02,
    IIR_RDI = 0x04,
    IIR_RLSI = 0x06,
    IIR_TIMEOUT = 0x0c,
    IIR_FIFO = 0xc0,

    FCR_ENABLE = 0x01,
    FCR_CLEAR_RX = 0x02,
    FCR_CLEAR_TX = 0x04,
    FCR_KEPT = 0xc9, /* trigger level, DMA mode, enable */

    LCR_BREAK = 0x40,
    LCR_DLAB = 0x80,

    MCR_DTR = 0x01,
    MCR_RTS = 0x02,
    MCR_OUT1 = 0x04,
    MCR_OUT2 = 0x08,
    MCR_LOOP = 0x10,
    MCR_ALL = 0x1f,

    LSR_DR = 0x01,
    LSR_OE = 0x02,
    LSR_PE = 0x04,
    LSR_FE = 0x08,
    LSR_BI = 0x10,
    LSR_THRE = 0x20,
    LSR_TEMT = 0x40,
    LSR_FIFO_ERROR = 0x80,
    LSR_ERRORS = LSR_OE | LSR_PE | LSR_FE | LSR_BI,

    MSR_DELTAS = 0x0f,
    MSR_TERI = 0x04,
    MSR_CTS = 0x10,
    MSR_DSR = 0x20,
    MSR_RI = 0x40,
    MSR_DCD = 0x80,
};

struct serial_state {
    u8 ier, fcr, lcr, mcr, msr, scr;
    u16 divisor;
    u8 line_errors;     /* LSR_OE, and PE, FE, BI of the character at the FIFO's head */
    u8 thre_pending;    /* the transmitter-empty interrupt waits to be seen */
    u8 timeout_pending; /* the character-timeout interrupt */
    u8 refused;         /* the back end was told to wait for room() */
    u8 rx_count, tx_count;
    u8 rx[FIFO_SIZE], rx_errors[FIFO_SIZE];
    u8 tx[FIFO_SIZE];
};

struct serial {
    struct device dev;
    struct serial_state state;
    struct device_timer timeout;
    unsigned irq;
    bool line_high;
    bool ignores_rts;
};

static struct serial *to_serial(struct device *dev)
{
    return container_of(dev, struct serial, dev);
}

static bool fifo_enabled(const struct serial_state *s)
{
    return s->fcr & FCR_ENABLE;
}

static unsigned rx_room(const struct serial_state *s)
{
    return (fifo_enabled(s) ? FIFO_SIZE : 1) - s->rx_count;
}

static unsigned rx_trigger(const struct serial_state *s)
{
    static const u8 levels[] = {1, 4, 8, 14};

    return fifo_enabled(s) ? levels[s->fcr >> 6] : 1;
}

/* The source with the highest priority among those enabled (data sheet, table V). */
static u8 interrupt_id(const struct serial_state *s)
{
    if ((s->ier & IER_RLSI) && (s->line_errors & LSR_ERRORS))
        return IIR_RLSI;
    if ((s->ier & IER_RDI) && s->rx_count >= rx_trigger(s))
        return IIR_RDI;
    if ((s->ier & IER_RDI) && s->timeout_pending)
        return IIR_TIMEOUT;
    if ((s->ier & IER_THRI) && s->thre_pending)
        return IIR_THRI;
    if ((s->ier & IER_MSI) && (s->msr & MSR_DELTAS))
        return IIR_MSI;
    return IIR_NONE;
}

/* On a PC, OUT2 drives the gate between the UART's interrupt pin and the line. */
static bool line_level(const struct serial_state *s)
{
    return (s->mcr & MCR_OUT2) && interrupt_id(s) != IIR_NONE;
}

static void drive_irq(struct serial *serial)
{
    serial->line_high = line_level(&serial->state);
    serial->dev.env->irq_set(serial->dev.env->opaque, serial->irq, serial->line_high);
}

static void update_irq(struct serial *serial)
{
    if (serial->line_high != line_level(&serial->state))
        drive_irq(serial);
}

/* Four character times without a read or an arrival raise the timeout interrupt. */
static void arm_timeout(struct serial *serial)
{
    const struct serial_state *s = &serial->state;
    u64 bits = 4 * (1 + 5 + (s->lcr & 3) + (s->lcr >> 3 & 1) + 1 + (s->lcr >> 2 & 1));
    u64 divisor = s->divisor ? s->divisor : 65536;
    u64 deadline = 0;

    if (fifo_enabled(s) && s->rx_count && s->rx_count < rx_trigger(s))
        deadline = clock_mono_ns() + bits * 16 * divisor * NSEC_PER_SEC / UART_CLOCK;
    serial->dev.env->timer_set(serial->dev.env->opaque, &serial->timeout, deadline);
}

static void timeout_fired(void *opaque)
{
    struct serial *serial = opaque;

    mutex_lock(&serial->dev.lock);
    if (fifo_enabled(&serial->state) && serial->state.rx_count)
        serial->state.timeout_pending = 1;
    update_irq(serial);
    mutex_unlock(&serial->dev.lock);
}

static void rx_put(struct serial *serial, u8 byte, u8 errors)
{
    struct serial_state *s = &serial->state;

    if (!rx_room(s)) {
        s->line_errors |= LSR_OE; /* without FIFO the new byte replaces the old one */
        if (!fifo_enabled(s))
            s->rx[0] = byte;
        return;
    }
    s->rx[s->rx_count] = byte;
    s->rx_errors[s->rx_count] = errors;
    if (!s->rx_count++)
        s->line_errors |= errors;
}

static void tell_room(struct serial *serial)
{
    if (!serial->state.refused || !serial->dev.stream)
        return;
    serial->state.refused = 0;
    serial->dev.stream->room(serial->dev.stream->backend);
}

static u8 rx_get(struct serial *serial)
{
    struct serial_state *s = &serial->state;
    u8 byte = s->rx[0];

    if (!s->rx_count)
        return 0;
    s->rx_count--;
    memmove(s->rx, s->rx + 1, s->rx_count);
    memmove(s->rx_errors, s->rx_errors + 1, s->rx_count);
    if (s->rx_count)
        s->line_errors |= s->rx_errors[0];
    s->timeout_pending = 0;
    arm_timeout(serial);
    tell_room(serial);
    return byte;
}

static void rx_clear(struct serial *serial)
{
    struct serial_state *s = &serial->state;

    s->rx_count = 0;
    s->timeout_pending = 0;
    s->line_errors &= LSR_OE;
    arm_timeout(serial);
    tell_room(serial);
}

/* Moves what it can from the transmit FIFO to the back end. */
static void tx_drain(struct serial *serial)
{
    struct serial_state *s = &serial->state;
    struct stream *stream = serial->dev.stream;
    size_t sent = stream ? stream->send(stream->backend, s->tx, s->tx_count) : s->tx_count;

    s->tx_count -= sent;
    memmove(s->tx, s->tx + sent, s->tx_count);
    if (!s->tx_count)
        s->thre_pending = 1;
}

static void tx_put(struct serial *serial, u8 byte)
{
    struct serial_state *s = &serial->state;
    unsigned room = fifo_enabled(s) ? FIFO_SIZE : 1;

    s->thre_pending = 0;
    if (s->mcr & MCR_LOOP) {
        rx_put(serial, byte, 0);
        arm_timeout(serial);
        s->thre_pending = 1;
        return;
    }
    if (s->tx_count < room)
        s->tx[s->tx_count++] = byte;
    tx_drain(serial);
}

static u8 line_status(const struct serial_state *s)
{
    u8 lsr = s->line_errors;

    if (s->rx_count)
        lsr |= LSR_DR;
    if (!s->tx_count)
        lsr |= LSR_THRE | LSR_TEMT;
    for (unsigned i = 0; fifo_enabled(s) && i < s->rx_count; i++)
        if (s->rx_errors[i])
            lsr |= LSR_FIFO_ERROR;
    return lsr;
}

/* The modem's lines: all ready outside loopback, the outputs folded back within it. */
static void update_modem(struct serial_state *s)
{
    u8 lines = MSR_CTS | MSR_DSR | MSR_DCD, changed;

    if (s->mcr & MCR_LOOP)
        lines = (s->mcr & MCR_RTS ? MSR_CTS : 0) | (s->mcr & MCR_DTR ? MSR_DSR : 0) |
                (s->mcr & MCR_OUT1 ? MSR_RI : 0) | (s->mcr & MCR_OUT2 ? MSR_DCD : 0);
    changed = (lines ^ s->msr) >> 4;
    if (lines & MSR_RI)
        changed &= ~MSR_TERI; /* only the ring's end counts */
    s->msr = lines | (s->msr & MSR_DELTAS) | changed;
}

static u64 read_port(struct device *dev, u64 offset, unsigned size)
{
    struct serial *serial = to_serial(dev);
    struct serial_state *s = &serial->state;
    u8 value = 0;

    (void)size;
    switch (offset) {
    case RBR_THR:
        value = s->lcr & LCR_DLAB ? (u8)s->divisor : rx_get(serial);
        break;
    case IER:
        value = s->lcr & LCR_DLAB ? s->divisor >> 8 : s->ier;
        break;
    case IIR_FCR:
        value = interrupt_id(s);
        if (value == IIR_THRI)
            s->thre_pending = 0;
        value |= fifo_enabled(s) ? IIR_FIFO : 0;
        break;
    case LCR:
        value = s->lcr;
        break;
    case MCR:
        value = s->mcr;
        break;
    case LSR:
        value = line_status(s);
        s->line_errors = 0;
        if (s->rx_count)
            s->rx_errors[0] = 0;
        break;
    case MSR:
        value = s->msr;
        s->msr &= ~MSR_DELTAS;
        break;
    case SCR:
        value = s->scr;
        break;
    }
    update_irq(serial);
    return value;
}

static void write_fcr(struct serial *serial, u8 value)
{
    struct serial_state *s = &serial->state;
    bool toggled = (value ^ s->fcr) & FCR_ENABLE;

    /* The other bits are only taken together with the enable bit. */
    s->fcr = value & FCR_ENABLE ? value & FCR_KEPT : 0;
    if (toggled || (value & FCR_CLEAR_RX))
        rx_clear(serial);
    if (toggled || (value & FCR_CLEAR_TX)) {
        s->tx_count = 0;
        s->thre_pending = 1;
    }
}

static void write_port(struct device *dev, u64 offset, unsigned size, u64 wide)
{
    struct serial *serial = to_serial(dev);
    struct serial_state *s = &serial->state;
    u8 value = (u8)wide;

    (void)size;
    switch (offset) {
    case RBR_THR:
        if (s->lcr & LCR_DLAB)
            s->divisor = (s->divisor & 0xff00) | value;
        else
            tx_put(serial, value);
        break;
    case IER:
        if (s->lcr & LCR_DLAB) {
            s->divisor = (s->divisor & 0x00ff) | value << 8;
            break;
        }
        if ((value & ~s->ier & IER_THRI) && !s->tx_count)
            s->thre_pending = 1; /* enabling it while empty raises it */
        s->ier = value & IER_ALL;
        break;
    case IIR_FCR:
        write_fcr(serial, value);
        break;
    case LCR:
        s->lcr = value;
        break;
    case MCR:
        s->mcr = value & MCR_ALL;
        update_modem(s);
        if (s->mcr & MCR_RTS)
            tell_room(serial);
        break;
    case SCR:
        s->scr = value;
        break;
    }
    update_irq(serial);
}

/*
 * The other side honours RTS: input given before a driver has the port open waits for it, instead
 * of being cleared away when the driver sets the port up. With rts=0 it does not, because firmware
 * reads a port whose RTS it never raised.
 */
static size_t receive(void *device, const u8 *data, size_t len)
{
    struct serial *serial = device;
    struct serial_state *s = &serial->state;
    size_t taken = 0;

    mutex_lock(&serial->dev.lock);
    if (s->mcr & MCR_LOOP) {
        taken = len; /* the line is cut off */
    } else if (!(s->mcr & MCR_RTS) && !serial->ignores_rts) {
        s->refused = 1;
    } else {
        while (taken < len && rx_room(s))
            rx_put(serial, data[taken++], 0);
        if (taken < len)
            s->refused = 1;
        if (taken)
            arm_timeout(serial);
    }
    update_irq(serial);
    mutex_unlock(&serial->dev.lock);
    return taken;
}

static void writable(void *device)
{
    struct serial *serial = device;

    mutex_lock(&serial->dev.lock);
    if (serial->state.tx_count)
        tx_drain(serial);
    update_irq(serial);
    mutex_unlock(&serial->dev.lock);
}

static void line_break(void *device)
{
    struct serial *serial = device;

    mutex_lock(&serial->dev.lock);
    rx_put(serial, 0, LSR_BI);
    arm_timeout(serial);
    update_irq(serial);
    mutex_unlock(&serial->dev.lock);
}

static void reset(struct device *dev)
{
    struct serial *serial = to_serial(dev);
    bool refused = serial->state.refused;

    serial->state = (struct serial_state){
        .divisor = 12, /* 9600 baud, as firmware leaves it */
        .msr = MSR_CTS | MSR_DSR | MSR_DCD,
    };
    arm_timeout(serial);
    update_irq(serial);
    if (refused && dev->stream)
        dev->stream->room(dev->stream->backend);
}

static void loaded(struct device *dev)
{
    struct serial *serial = to_serial(dev);

    drive_irq(serial);
    arm_timeout(serial);
}

static int create(struct device *dev, const char *options, struct err *err)
{
    struct serial *serial = to_serial(dev);
    u64 port = 0x3f8, irq = 4, rts = 1;
    int ret = device_options_check(options, "port,irq,rts", err);

    if (!ret)
        ret = device_option_number(options, "port", 0xfff8, &port, err);
    if (!ret)
        ret = device_option_number(options, "irq", 23, &irq, err);
    if (!ret)
        ret = device_option_number(options, "rts", 1, &rts, err);
    if (ret)
        return ret;
    serial->irq = (unsigned)irq;
    serial->ignores_rts = !rts;
    serial->timeout.fire = timeout_fired;
    serial->timeout.opaque = serial;
    if (dev->stream) {
        dev->stream->device = serial;
        dev->stream->receive = receive;
        dev->stream->writable = writable;
        dev->stream->line_break = line_break;
    }
    ret =
        device_bus_add(dev->ports, &(struct device_region){port, 8, 1, read_port, write_port, dev});
    return ret ? err_set(err, ret, "ports at %#" PRIx64 " are taken", port) : 0;
}

static void destroy(struct device *dev)
{
    struct serial *serial = to_serial(dev);

    dev->env->timer_set(dev->env->opaque, &serial->timeout, 0);
}

const struct device_class device_class_serial = {
    DEVICE_CLASS(struct serial), .state_version = 1, .create = create,
    .destroy = destroy,          .reset = reset,     .loaded = loaded,
};
