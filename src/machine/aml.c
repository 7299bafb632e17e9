/* The assembler behind aml.h. Opcodes: ACPI 6.4, table 20.x; resources: 6.4.2 and 6.4.3. */
#include "machine/aml.h"

#include <ctype.h>
#include <string.h>

#include "base/log.h"

enum {
    OP_ZERO = 0x00,
    OP_ONE = 0x01,
    OP_NAME = 0x08,
    OP_BYTE = 0x0a,
    OP_WORD = 0x0b,
    OP_DWORD = 0x0c,
    OP_STRING = 0x0d,
    OP_QWORD = 0x0e,
    OP_SCOPE = 0x10,
    OP_BUFFER = 0x11,
    OP_PACKAGE = 0x12,
    OP_METHOD = 0x14,
    OP_EXTENDED = 0x5b,
    OP_EXTENDED_DEVICE = 0x82,
    ROOT = '\\',

    LENGTH_BYTES = 3, /* package lengths are always written in three bytes: up to 1 MiB */
    RESOURCE_END = 0x79,
};

static void byte(struct aml *aml, u8 value)
{
    strbuf_append(&aml->code, (const char *)&value, 1);
}

void aml_bytes(struct aml *aml, const void *data, size_t len)
{
    strbuf_append(&aml->code, data, len);
}

static void word(struct aml *aml, u16 value)
{
    aml_bytes(aml, &value, sizeof(value));
}

static void dword(struct aml *aml, u32 value)
{
    aml_bytes(aml, &value, sizeof(value));
}

static void qword(struct aml *aml, u64 value)
{
    aml_bytes(aml, &value, sizeof(value));
}

static void begin(struct aml *aml)
{
    BUG_ON(aml->depth == AML_MAX_DEPTH);
    aml->open[aml->depth++] = aml->code.len;
    aml_bytes(aml, "\0\0", LENGTH_BYTES);
}

void aml_end(struct aml *aml)
{
    size_t at, len;

    BUG_ON(!aml->depth);
    at = aml->open[--aml->depth];
    if (aml->code.failed)
        return;
    len = aml->code.len - at;                         /* the length counts itself */
    aml->code.text[at] = (char)(2 << 6 | (len & 15)); /* two more bytes, four low bits */
    aml->code.text[at + 1] = (char)(len >> 4);
    aml->code.text[at + 2] = (char)(len >> 12);
}

static void name_string(struct aml *aml, const char *name)
{
    if (*name == ROOT)
        byte(aml, (u8)*name++);
    BUG_ON(strlen(name) != 4);
    aml_bytes(aml, name, 4);
}

void aml_begin_scope(struct aml *aml, const char *name)
{
    byte(aml, OP_SCOPE);
    begin(aml);
    name_string(aml, name);
}

void aml_begin_device(struct aml *aml, const char *name)
{
    byte(aml, OP_EXTENDED);
    byte(aml, OP_EXTENDED_DEVICE);
    begin(aml);
    name_string(aml, name);
}

void aml_begin_method(struct aml *aml, const char *name, unsigned arguments)
{
    byte(aml, OP_METHOD);
    begin(aml);
    name_string(aml, name);
    byte(aml, (u8)arguments);
}

void aml_begin_package(struct aml *aml, u8 elements)
{
    byte(aml, OP_PACKAGE);
    begin(aml);
    byte(aml, elements);
}

void aml_name(struct aml *aml, const char *name)
{
    byte(aml, OP_NAME);
    name_string(aml, name);
}

void aml_integer(struct aml *aml, u64 value)
{
    if (value <= 1) {
        byte(aml, value ? OP_ONE : OP_ZERO);
    } else if (value <= 0xff) {
        byte(aml, OP_BYTE);
        byte(aml, (u8)value);
    } else if (value <= 0xffff) {
        byte(aml, OP_WORD);
        word(aml, (u16)value);
    } else if (value <= 0xffffffff) {
        byte(aml, OP_DWORD);
        dword(aml, (u32)value);
    } else {
        byte(aml, OP_QWORD);
        qword(aml, value);
    }
}

void aml_string(struct aml *aml, const char *text)
{
    byte(aml, OP_STRING);
    aml_bytes(aml, text, strlen(text) + 1);
}

/* Three letters of five bits, four hexadecimal digits, big-endian (ACPI 6.4, 19.3.4). */
void aml_eisa_id(struct aml *aml, const char *id)
{
    u32 value = 0;

    for (unsigned i = 0; i < 3; i++)
        value = value << 5 | (u32)(id[i] - 'A' + 1);
    for (unsigned i = 3; i < 7; i++)
        value = value << 4 | (u32)(isdigit((u8)id[i]) ? id[i] - '0' : id[i] - 'A' + 10);
    byte(aml, OP_DWORD);
    dword(aml, __builtin_bswap32(value));
}

/* A buffer whose size, like its package length, is filled in at the end. */
void aml_begin_resources(struct aml *aml)
{
    byte(aml, OP_BUFFER);
    begin(aml);
    byte(aml, OP_WORD);
    word(aml, 0);
}

void aml_end_resources(struct aml *aml)
{
    size_t at, size;

    byte(aml, RESOURCE_END);
    byte(aml, 0); /* checksum 0: not computed */
    at = aml->open[aml->depth - 1] + LENGTH_BYTES + 1;
    size = aml->code.len - (at + 2);
    if (!aml->code.failed) {
        aml->code.text[at] = (char)size;
        aml->code.text[at + 1] = (char)(size >> 8);
    }
    aml_end(aml);
}

void aml_io(struct aml *aml, u16 first, u8 len)
{
    byte(aml, 0x47);
    byte(aml, 1); /* 16 address lines decoded */
    word(aml, first);
    word(aml, first);
    byte(aml, 1); /* alignment */
    byte(aml, len);
}

void aml_irq(struct aml *aml, unsigned irq)
{
    byte(aml, 0x22); /* edge, active high, exclusive */
    word(aml, (u16)(1u << irq));
}

void aml_memory32(struct aml *aml, u32 first, u32 len)
{
    byte(aml, 0x86);
    word(aml, 9);
    byte(aml, 1); /* writeable */
    dword(aml, first);
    dword(aml, len);
}

enum {
    SPACE_PRODUCER = 0,
    SPACE_FIXED = 0x0c,  /* minimum and maximum are fixed, positive decode */
    FLAGS_MEMORY = 0x01, /* read-write, not cacheable */
    FLAGS_IO = 0x03,     /* all of the range */
};

static void space_head(struct aml *aml, u8 tag, u16 len, enum aml_space space)
{
    static const u8 flags[] = {
        [AML_SPACE_MEMORY] = FLAGS_MEMORY, [AML_SPACE_IO] = FLAGS_IO, [AML_SPACE_BUS] = 0};

    byte(aml, tag);
    word(aml, len);
    byte(aml, (u8)space);
    byte(aml, SPACE_FIXED | SPACE_PRODUCER);
    byte(aml, flags[space]);
}

void aml_word_space(struct aml *aml, enum aml_space space, u16 first, u16 last)
{
    space_head(aml, 0x88, 13, space);
    word(aml, 0); /* granularity */
    word(aml, first);
    word(aml, last);
    word(aml, 0); /* translation */
    word(aml, (u16)(last - first + 1));
}

void aml_dword_memory(struct aml *aml, u32 first, u32 last)
{
    space_head(aml, 0x87, 23, AML_SPACE_MEMORY);
    dword(aml, 0);
    dword(aml, first);
    dword(aml, last);
    dword(aml, 0);
    dword(aml, last - first + 1);
}

void aml_qword_memory(struct aml *aml, u64 first, u64 last)
{
    space_head(aml, 0x8a, 43, AML_SPACE_MEMORY);
    qword(aml, 0);
    qword(aml, first);
    qword(aml, last);
    qword(aml, 0);
    qword(aml, last - first + 1);
}
