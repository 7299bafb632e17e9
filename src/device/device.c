/* Creation, reset, saving and loading: what all devices have in common. */
#include "device/device.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/thread.h"

#define X(suffix, name, options, help) extern const struct device_class device_class_##suffix;
#include "device/devices.def"
#undef X

static const struct device_info infos[] = {
#define X(suffix, name, options, help) {name, options, help, &device_class_##suffix},
#include "device/devices.def"
#undef X
};

const struct device_info *device_info_at(size_t index)
{
    return index < ARRAY_SIZE(infos) ? &infos[index] : NULL;
}

const struct device_info *device_info_find(const char *name)
{
    for (size_t i = 0; i < ARRAY_SIZE(infos); i++)
        if (!strcmp(infos[i].name, name))
            return &infos[i];
    return NULL;
}

static void forget_regions(struct device *dev)
{
    if (dev->ports)
        device_bus_forget(dev->ports, dev);
    if (dev->memory)
        device_bus_forget(dev->memory, dev);
}

int device_create(struct device **out, const char *name, const char *options,
                  const struct device_place *place, struct err *err)
{
    const struct device_info *info = device_info_find(name);
    struct device *dev;
    int ret;

    if (!info)
        return err_set(err, -ENOENT, "there is no device \"%s\"", name);
    dev = calloc(1, info->class->size);
    if (!dev)
        return err_set(err, -ENOMEM, "out of memory for device %s", name);
    dev->class = info->class;
    dev->name = info->name;
    dev->env = place->env;
    dev->ports = place->ports;
    dev->memory = place->memory;
    dev->stream = place->stream;
    dev->parent = place->parent;
    dev->image = place->image;
    mutex_init(&dev->lock);
    ret = dev->class->create(dev, options ? options : "", err);
    if (ret) {
        forget_regions(dev);
        free(dev);
        return err_context(err, ret, "device %s", name);
    }
    device_reset(dev);
    *out = dev;
    return 0;
}

void device_destroy(struct device *dev)
{
    if (!dev)
        return;
    forget_regions(dev);
    if (dev->class->destroy)
        dev->class->destroy(dev);
    pthread_mutex_destroy(&dev->lock);
    free(dev);
}

void device_reset(struct device *dev)
{
    mutex_lock(&dev->lock);
    dev->class->reset(dev);
    mutex_unlock(&dev->lock);
}

void device_woken(struct device *dev)
{
    mutex_lock(&dev->lock);
    if (dev->class->standby && dev->class->loaded)
        dev->class->loaded(dev);
    mutex_unlock(&dev->lock);
}

size_t device_state_size(const struct device *dev)
{
    return sizeof(u32) + dev->class->state_size;
}

void device_save(struct device *dev, void *buf)
{
    mutex_lock(&dev->lock);
    memcpy(buf, &dev->class->state_version, sizeof(u32));
    memcpy((u8 *)buf + sizeof(u32), (u8 *)dev + dev->class->state_offset, dev->class->state_size);
    mutex_unlock(&dev->lock);
}

int device_load(struct device *dev, const void *buf, size_t len)
{
    u32 version;

    if (len != device_state_size(dev))
        return -EINVAL;
    memcpy(&version, buf, sizeof(version));
    if (version != dev->class->state_version)
        return -EINVAL;
    mutex_lock(&dev->lock);
    memcpy((u8 *)dev + dev->class->state_offset, (const u8 *)buf + sizeof(u32),
           dev->class->state_size);
    if (dev->class->loaded)
        dev->class->loaded(dev);
    mutex_unlock(&dev->lock);
    return 0;
}

/* Where the value of @key starts in @options, and its length. NULL without the key. */
static const char *option_value(const char *options, const char *key, size_t *len)
{
    size_t key_len = strlen(key);

    while (*options) {
        size_t item = strcspn(options, ",");

        if (item > key_len && !strncmp(options, key, key_len) && options[key_len] == '=') {
            *len = item - key_len - 1;
            return options + key_len + 1;
        }
        options += item + (options[item] == ',');
    }
    return NULL;
}

int device_option_number(const char *options, const char *key, u64 max, u64 *value, struct err *err)
{
    char text[32], *end;
    const char *start;
    size_t len;
    u64 number;

    start = option_value(options, key, &len);
    if (!start)
        return 0;
    if (!len || len >= sizeof(text))
        return err_set(err, -EINVAL, "%s=%.*s is not a number", key, (int)len, start);
    memcpy(text, start, len);
    text[len] = '\0';
    errno = 0;
    number = strtoull(text, &end, 0);
    if (*end || errno || text[0] == '-')
        return err_set(err, -EINVAL, "%s=%s is not a number", key, text);
    if (number > max)
        return err_set(err, -EINVAL, "%s=%s is above %#" PRIx64, key, text, max);
    *value = number;
    return 0;
}

int device_options_check(const char *options, const char *known, struct err *err)
{
    while (*options) {
        size_t item = strcspn(options, ","), key = strcspn(options, "=,");
        const char *at = known;
        bool found = false;

        while (*at && !found) {
            size_t len = strcspn(at, ",");

            found = len == key && !strncmp(at, options, key) && key < item;
            at += len + (at[len] == ',');
        }
        if (!found)
            return err_set(err, -EINVAL, "unknown option \"%.*s\" (known: %s)", (int)item, options,
                           *known ? known : "none");
        options += item + (options[item] == ',');
    }
    return 0;
}
