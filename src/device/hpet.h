/* What a board sets in the hpet device. */
#ifndef TRIODE_DEVICE_HPET_H
#define TRIODE_DEVICE_HPET_H

#include "device/device.h"

/* The register block's bits 31:0 that the ACPI table repeats: revision, timers, vendor. */
#define DEVICE_HPET_ID 0x8086a201u
#define DEVICE_HPET_MIN_TICK 0x80 /* ticks that a periodic timer should at least have */

/* The clock whose line 8 legacy replacement takes; it outlives the hpet's use. */
void device_hpet_set_rtc(struct device *hpet, struct device *rtc);

#endif
