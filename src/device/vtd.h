/* What boards need of the vtd device, the IOMMU. */
#ifndef TRIODE_DEVICE_VTD_H
#define TRIODE_DEVICE_VTD_H

#include "device/device.h"

/* Width of the addresses that it makes: the CPUs' too. */
#define DEVICE_VTD_HOST_BITS 46

/* By these requester ids (bus, device, function) it knows senders of interrupts that are no PCI
 * functions, and the DMAR table names them. The bus has no other devices. */
#define DEVICE_VTD_BUS 0xf0
#define DEVICE_VTD_IO_APIC_SLOT 31
#define DEVICE_VTD_HPET_SLOT 15
#define DEVICE_VTD_SOURCE(slot) ((u16)(DEVICE_VTD_BUS << 8 | (slot) << 3))

/* Makes of a message that @source sends what arrives at the CPUs: @address has bits 31:8 of the
 * destination in its upper half, as device_env's msi takes them. False when it is blocked. Takes
 * the device's lock. */
bool device_vtd_remap(struct device *vtd, u16 source, u64 *address, u32 *data);

#endif
