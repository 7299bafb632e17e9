/* Packets of the GDB remote serial protocol: "$" contents "#" checksum. */
#include "machine/gdb_packet.h"

#include <string.h>

static int digit(u8 c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    if (c >= 'A' && c <= 'F')
        return c - 'A' + 10;
    return -1;
}

static void begin(struct gdb_parser *p)
{
    p->state = GDB_INSIDE;
    p->sum = 0;
    p->len = 0;
    p->bad = p->too_long = false;
}

static void take(struct gdb_parser *p, u8 byte)
{
    if (p->len == GDB_PACKET_MAX)
        p->too_long = true;
    else
        p->data[p->len++] = (char)byte;
}

static enum gdb_event between(struct gdb_parser *p, u8 byte)
{
    switch (byte) {
    case '$':
        begin(p);
        return GDB_EVENT_NONE;
    case 3:
        return GDB_EVENT_INTERRUPT;
    case '-':
        return GDB_EVENT_NAK;
    default:
        return GDB_EVENT_NONE;
    }
}

static enum gdb_event inside(struct gdb_parser *p, u8 byte)
{
    if (byte == '$') {
        begin(p);
        return GDB_EVENT_NONE;
    }
    if (byte == '#') {
        p->bad = p->state == GDB_ESCAPED;
        p->state = GDB_SUM_HIGH;
        return GDB_EVENT_NONE;
    }
    p->sum += byte;
    if (p->state == GDB_ESCAPED) {
        take(p, byte ^ 0x20);
        p->state = GDB_INSIDE;
    } else if (byte == '}') {
        p->state = GDB_ESCAPED;
    } else {
        take(p, byte);
    }
    return GDB_EVENT_NONE;
}

static enum gdb_event checksum(struct gdb_parser *p, u8 byte)
{
    int value = digit(byte);

    if (value < 0) {
        p->bad = true;
        value = 0;
    }
    if (p->state == GDB_SUM_HIGH) {
        p->wanted = (u8)(value << 4);
        p->state = GDB_SUM_LOW;
        return GDB_EVENT_NONE;
    }
    p->state = GDB_BETWEEN;
    p->data[p->len] = '\0';
    if (p->bad || (p->wanted | (u8)value) != p->sum)
        return GDB_EVENT_BAD;
    return p->too_long ? GDB_EVENT_TOO_LONG : GDB_EVENT_PACKET;
}

enum gdb_event gdb_parse(struct gdb_parser *p, u8 byte)
{
    switch (p->state) {
    case GDB_BETWEEN:
        return between(p, byte);
    case GDB_INSIDE:
    case GDB_ESCAPED:
        return inside(p, byte);
    default:
        return checksum(p, byte);
    }
}

void gdb_frame(struct strbuf *out, const char *data, size_t len)
{
    u8 sum = 0;

    strbuf_append(out, "$", 1);
    for (size_t i = 0; i < len; i++) {
        char c = data[i];

        if (c == '$' || c == '#' || c == '}' || c == '*') {
            strbuf_append(out, "}", 1);
            sum += '}';
            c ^= 0x20;
        }
        strbuf_append(out, &c, 1);
        sum += (u8)c;
    }
    strbuf_printf(out, "#%02x", sum);
}

bool gdb_parse_hex(const char **at, u64 *value)
{
    unsigned digits = 0;

    *value = 0;
    for (; digit((u8) * *at) >= 0; (*at)++) {
        if (++digits > 16)
            return false;
        *value = *value << 4 | (u64)digit((u8) * *at);
    }
    return digits > 0;
}

void gdb_put_bytes(struct strbuf *out, const void *data, size_t len)
{
    static const char digits[] = "0123456789abcdef";
    const u8 *bytes = data;

    for (size_t i = 0; i < len; i++) {
        const char pair[] = {digits[bytes[i] >> 4], digits[bytes[i] & 15]};

        strbuf_append(out, pair, 2);
    }
}

bool gdb_parse_bytes(const char *text, void *data, size_t len)
{
    u8 *bytes = data;

    for (size_t i = 0; i < len; i++) {
        int high = digit((u8)text[2 * i]), low = high < 0 ? -1 : digit((u8)text[2 * i + 1]);

        if (low < 0)
            return false;
        bytes[i] = (u8)(high << 4 | low);
    }
    return true;
}
