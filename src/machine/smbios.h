/* SMBIOS tables of the pc board. Inside src/machine only. */
#ifndef TRIODE_MACHINE_SMBIOS_H
#define TRIODE_MACHINE_SMBIOS_H

#include "base/strbuf.h"
#include "engine/engine.h"

#define SMBIOS_ENTRY_BYTES 24

/* Appends the structures for a machine with that much RAM; @tables->failed says if memory ran
 * out. */
void smbios_build(struct strbuf *tables, const struct engine_topology *topology, u64 memory);

/* The 64-bit entry point for @len bytes of structures at @gpa. */
void smbios_entry(u8 entry[SMBIOS_ENTRY_BYTES], u64 gpa, u32 len);

#endif
