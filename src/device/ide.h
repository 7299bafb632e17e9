/* What a board plugs into its IDE controller. */
#ifndef TRIODE_DEVICE_IDE_H
#define TRIODE_DEVICE_IDE_H

#include "device/device.h"
#include "device/image.h"

/* Makes @image drive 0 of channel 0 or 1; before the machine runs. It outlives the device. */
void device_ide_set_disk(struct device *ide, unsigned channel, struct disk_image *image);

#endif
