/* What a board puts into its fw_cfg device (QEMU, docs/specs/fw_cfg.rst). */
#ifndef TRIODE_DEVICE_FW_CFG_H
#define TRIODE_DEVICE_FW_CFG_H

#include "device/device.h"

enum {
    DEVICE_FW_CFG_SIGNATURE = 0x00,
    DEVICE_FW_CFG_ID = 0x01,
    DEVICE_FW_CFG_RAM_SIZE = 0x03, /* u64, bytes */
    DEVICE_FW_CFG_CPUS = 0x05,     /* u16, present */
    DEVICE_FW_CFG_MAX_CPUS = 0x0f, /* u16 */
    DEVICE_FW_CFG_DIRECTORY = 0x19,
};

/* Sets the item with number @key, or the file called @name, to a copy of @size bytes; while no vCPU
 * runs. -EINVAL: no such number; -ENOSPC: too many files or too long a name; -ENOMEM. */
int device_fw_cfg_add(struct device *fw_cfg, u16 key, const void *data, size_t size);
int device_fw_cfg_add_file(struct device *fw_cfg, const char *name, const void *data, size_t size);

#endif
