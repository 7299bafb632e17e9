/* ACPI tables of the pc board. Inside src/machine only. */
#ifndef TRIODE_MACHINE_ACPI_H
#define TRIODE_MACHINE_ACPI_H

#include "base/err.h"
#include "engine/engine.h"
#include "mem/mem.h"

/* What the tables describe. */
struct acpi_config {
    const struct engine_topology *topology;
    u64 ecam;                  /* gpa of 256 buses' configuration space */
    u64 mmio_first, mmio_last; /* PCI windows below 4 GiB */
    u64 mmio2_first, mmio2_last;
    u64 high_first, high_last; /* above RAM */
    u32 io_apic, local_apic;   /* gpa */
    u32 hpet;
    u32 iommu;   /* gpa of its registers, 0 for none */
    bool remaps; /* it remaps interrupts */
    u16 pm_base; /* ports of the acpi-pm device */
    u8 sci;      /* its interrupt */
    u16 serial_port;
    u8 serial_irq;
    bool sleeps; /* suspend to RAM: \_S3 */
};

/* Writes all tables to [@gpa, @gpa + @size) and sets *@rsdp. -ENOSPC when they do not fit. */
int acpi_put_tables(struct mem *mem, const struct acpi_config *config, u64 gpa, u64 size, u64 *rsdp,
                    struct err *err);

/* Where the system whose tables were put at @gpa wants to go on after sleep (ACPI 6.4, 5.2.10): an
 * address for real mode, or 0. */
u32 acpi_waking_vector(struct mem *mem, u64 gpa);

#endif
