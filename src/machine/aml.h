/*
 * ACPI machine language, assembled by hand (ACPI 6.4, chapter 20). Packages and scopes nest:
 * aml_begin_* ... aml_end fills in the length. Inside src/machine only.
 */
#ifndef TRIODE_MACHINE_AML_H
#define TRIODE_MACHINE_AML_H

#include "base/strbuf.h"
#include "base/types.h"

#define AML_MAX_DEPTH 8

struct aml {
    struct strbuf code;
    size_t open[AML_MAX_DEPTH]; /* where the lengths of the open packages stand */
    unsigned depth;
};

/* Names are of four characters, "_SB_"; a leading backslash is the root. */
void aml_begin_scope(struct aml *aml, const char *name);
void aml_begin_device(struct aml *aml, const char *name);
void aml_begin_method(struct aml *aml, const char *name, unsigned arguments);
void aml_begin_package(struct aml *aml, u8 elements);
void aml_end(struct aml *aml);

void aml_name(struct aml *aml, const char *name); /* Name (name, ...): its value follows */
void aml_integer(struct aml *aml, u64 value);
void aml_string(struct aml *aml, const char *text);
void aml_eisa_id(struct aml *aml, const char *id); /* "PNP0A03" */
void aml_bytes(struct aml *aml, const void *data, size_t len);

/* Resource descriptors (ACPI 6.4, 6.4), between aml_begin_resources and aml_end_resources. */
void aml_begin_resources(struct aml *aml);
void aml_io(struct aml *aml, u16 first, u8 len);
void aml_irq(struct aml *aml, unsigned irq);
void aml_memory32(struct aml *aml, u32 first, u32 len);
enum aml_space { AML_SPACE_MEMORY, AML_SPACE_IO, AML_SPACE_BUS };
void aml_word_space(struct aml *aml, enum aml_space space, u16 first, u16 last);
void aml_dword_memory(struct aml *aml, u32 first, u32 last);
void aml_qword_memory(struct aml *aml, u64 first, u64 last);
void aml_end_resources(struct aml *aml);

#endif
