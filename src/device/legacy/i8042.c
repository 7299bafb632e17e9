/*
 * The PC's keyboard controller (Intel UPI-42 with IBM's PC/AT firmware) with nothing plugged into
 * it: both ports answer as an empty socket does, by a time-out. Software uses what else hangs on
 * the chip: the self test, the A20 line and the CPU's reset; port 0x92 gives the latter two faster.
 * A20 is a bit to read back; addresses are never wrapped at 1 MiB.
 */
#include <errno.h>
#include <string.h>

#include "device/device.h"

enum {
    STATUS_OBF = 0x01, /* output buffer full */
    STATUS_SYS = 0x04, /* self test passed */
    STATUS_CMD = 0x08, /* last write went to port 0x64 */
    STATUS_UNLOCKED = 0x10,
    STATUS_AUX = 0x20, /* the byte is the mouse's */
    STATUS_TIMEOUT = 0x40,

    CONFIG_KBD_IRQ = 0x01,
    CONFIG_AUX_IRQ = 0x02,
    CONFIG_SYS = 0x04,
    CONFIG_KBD_OFF = 0x10,
    CONFIG_AUX_OFF = 0x20,
    CONFIG_XLATE = 0x40,

    OUTPUT_NO_RESET = 0x01,
    OUTPUT_A20 = 0x02,

    NO_DEVICE = 0xfe, /* what the controller hands over when a device stays silent */
    KBD_IRQ = 1,
    AUX_IRQ = 12,
};

#define RAM_SIZE 32

struct i8042_state {
    u8 ram[RAM_SIZE]; /* byte 0 is the configuration */
    u8 status;
    u8 output_port;
    u8 data;    /* the output buffer */
    u8 command; /* waits for its parameter at port 0x60; 0: none */
    u8 port92;
};

struct i8042 {
    struct device dev;
    struct i8042_state state;
};

static struct i8042 *to_i8042(struct device *dev)
{
    return container_of(dev, struct i8042, dev);
}

static void update_irqs(struct i8042 *kbc)
{
    const struct i8042_state *s = &kbc->state;
    const struct device_env *env = kbc->dev.env;
    bool full = s->status & STATUS_OBF, aux = s->status & STATUS_AUX;

    env->irq_set(env->opaque, KBD_IRQ, full && !aux && (s->ram[0] & CONFIG_KBD_IRQ));
    env->irq_set(env->opaque, AUX_IRQ, full && aux && (s->ram[0] & CONFIG_AUX_IRQ));
}

static void reply(struct i8042 *kbc, u8 data, u8 flags)
{
    struct i8042_state *s = &kbc->state;

    s->data = data;
    s->status &= ~(STATUS_AUX | STATUS_TIMEOUT);
    s->status |= STATUS_OBF | flags;
    update_irqs(kbc);
}

static void write_output_port(struct i8042 *kbc, u8 value)
{
    const struct device_env *env = kbc->dev.env;

    kbc->state.output_port = value;
    if (!(value & OUTPUT_NO_RESET))
        env->request(env->opaque, DEVICE_REQUEST_RESET);
}

static void command(struct i8042 *kbc, u8 value)
{
    struct i8042_state *s = &kbc->state;
    const struct device_env *env = kbc->dev.env;

    s->command = 0;
    switch (value) {
    case 0x20 ... 0x3f: /* read RAM */
        reply(kbc, s->ram[value & 0x1f], 0);
        break;
    case 0x60 ... 0x7f: /* write RAM */
    case 0xd1:          /* write output port */
    case 0xd2:          /* write keyboard output buffer */
    case 0xd3:          /* write mouse output buffer */
    case 0xd4:          /* write to mouse */
        s->command = value;
        break;
    case 0xa7:
        s->ram[0] |= CONFIG_AUX_OFF;
        break;
    case 0xa8:
        s->ram[0] &= ~CONFIG_AUX_OFF;
        break;
    case 0xa9: /* test mouse port: no fault on the wires */
    case 0xab: /* test keyboard port */
        reply(kbc, 0x00, 0);
        break;
    case 0xaa: /* self test */
        s->status |= STATUS_SYS;
        reply(kbc, 0x55, 0);
        break;
    case 0xad:
        s->ram[0] |= CONFIG_KBD_OFF;
        break;
    case 0xae:
        s->ram[0] &= ~CONFIG_KBD_OFF;
        break;
    case 0xc0: /* input port: keyboard not locked */
        reply(kbc, 0x80, 0);
        break;
    case 0xd0:
        reply(kbc, s->output_port, 0);
        break;
    case 0xdd:
        s->output_port &= ~OUTPUT_A20;
        break;
    case 0xdf:
        s->output_port |= OUTPUT_A20;
        break;
    case 0xf0 ... 0xff: /* pulse the output lines whose bits are 0 */
        if (!(value & OUTPUT_NO_RESET))
            env->request(env->opaque, DEVICE_REQUEST_RESET);
        break;
    }
}

static void parameter(struct i8042 *kbc, u8 value)
{
    struct i8042_state *s = &kbc->state;
    u8 command = s->command;

    s->command = 0;
    switch (command) {
    case 0x60 ... 0x7f:
        s->ram[command & 0x1f] = value;
        if (command == 0x60)
            s->status = (s->status & ~STATUS_SYS) | (value & CONFIG_SYS ? STATUS_SYS : 0);
        update_irqs(kbc);
        break;
    case 0xd1:
        write_output_port(kbc, value);
        break;
    case 0xd2:
        reply(kbc, value, 0);
        break;
    case 0xd3:
        reply(kbc, value, STATUS_AUX);
        break;
    case 0xd4:
        reply(kbc, NO_DEVICE, STATUS_AUX | STATUS_TIMEOUT);
        break;
    default: /* a byte for the keyboard */
        s->ram[0] &= ~CONFIG_KBD_OFF;
        reply(kbc, NO_DEVICE, STATUS_TIMEOUT);
        break;
    }
}

static u64 read_data(struct device *dev, u64 offset, unsigned size)
{
    struct i8042 *kbc = to_i8042(dev);

    (void)offset;
    (void)size;
    kbc->state.status &= ~(STATUS_OBF | STATUS_AUX | STATUS_TIMEOUT);
    update_irqs(kbc);
    return kbc->state.data;
}

static void write_data(struct device *dev, u64 offset, unsigned size, u64 value)
{
    struct i8042 *kbc = to_i8042(dev);

    (void)offset;
    (void)size;
    kbc->state.status &= ~STATUS_CMD;
    parameter(kbc, (u8)value);
}

static u64 read_status(struct device *dev, u64 offset, unsigned size)
{
    (void)offset;
    (void)size;
    return to_i8042(dev)->state.status;
}

static void write_command(struct device *dev, u64 offset, unsigned size, u64 value)
{
    struct i8042 *kbc = to_i8042(dev);

    (void)offset;
    (void)size;
    kbc->state.status |= STATUS_CMD;
    command(kbc, (u8)value);
}

static u64 read_port92(struct device *dev, u64 offset, unsigned size)
{
    (void)offset;
    (void)size;
    return to_i8042(dev)->state.port92;
}

static void write_port92(struct device *dev, u64 offset, unsigned size, u64 value)
{
    struct i8042 *kbc = to_i8042(dev);

    (void)offset;
    (void)size;
    if (value & ~kbc->state.port92 & 1) /* a rising edge resets */
        dev->env->request(dev->env->opaque, DEVICE_REQUEST_RESET);
    kbc->state.port92 = (u8)value;
}

static void reset(struct device *dev)
{
    struct i8042 *kbc = to_i8042(dev);

    kbc->state = (struct i8042_state){
        .ram[0] = CONFIG_SYS | CONFIG_XLATE | CONFIG_KBD_OFF | CONFIG_AUX_OFF,
        .status = STATUS_SYS | STATUS_UNLOCKED,
        .output_port = 0xcc | OUTPUT_NO_RESET | OUTPUT_A20,
        .port92 = 0x02,
    };
    update_irqs(kbc);
}

static void loaded(struct device *dev)
{
    update_irqs(to_i8042(dev));
}

static int create(struct device *dev, const char *options, struct err *err)
{
    const struct device_region regions[] = {
        {0x60, 1, 1, read_data, write_data, dev},
        {0x64, 1, 1, read_status, write_command, dev},
        {0x92, 1, 1, read_port92, write_port92, dev},
    };
    int ret = device_options_check(options, "", err);

    for (size_t i = 0; !ret && i < ARRAY_SIZE(regions); i++) {
        ret = device_bus_add(dev->ports, &regions[i]);
        if (ret)
            err_set(err, ret, "port %#" PRIx64 " is taken", regions[i].first);
    }
    return ret;
}

const struct device_class device_class_i8042 = {
    DEVICE_CLASS(struct i8042), .state_version = 1, .create = create, .reset = reset,
    .loaded = loaded,
};
