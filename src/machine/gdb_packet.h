/* Framing of the GDB remote serial protocol (GDB manual, appendix E.1). Inside src/machine only. */
#ifndef TRIODE_MACHINE_GDB_PACKET_H
#define TRIODE_MACHINE_GDB_PACKET_H

#include "base/strbuf.h"
#include "base/types.h"

#define GDB_PACKET_MAX 0x4000 /* bytes of a packet's contents, as PacketSize tells */

enum gdb_event {
    GDB_EVENT_NONE,      /* more bytes are needed */
    GDB_EVENT_PACKET,    /* data, len: a packet whose checksum is right */
    GDB_EVENT_BAD,       /* one whose checksum is wrong */
    GDB_EVENT_TOO_LONG,  /* one whose checksum is right, but which did not fit */
    GDB_EVENT_INTERRUPT, /* Ctrl-C */
    GDB_EVENT_NAK,       /* the last packet is wanted again */
};

/* What a byte stream is taken for. All zeroes is the state at a connection's start. */
struct gdb_parser {
    enum { GDB_BETWEEN, GDB_INSIDE, GDB_ESCAPED, GDB_SUM_HIGH, GDB_SUM_LOW } state;
    u8 sum, wanted; /* of the bytes so far; what the packet says */
    bool bad, too_long;
    size_t len;
    char data[GDB_PACKET_MAX + 1]; /* escapes resolved, NUL-terminated */
};

/* Takes the next byte. Whatever comes between packets and means nothing is passed over; '$' inside
 * a packet starts a new one, because it must be escaped there. */
enum gdb_event gdb_parse(struct gdb_parser *parser, u8 byte);

/* Appends @data as a packet, with escapes and checksum. */
void gdb_frame(struct strbuf *out, const char *data, size_t len);

/* Reads 1 to 16 hexadecimal digits and moves *@at behind them. False: none, or more. */
bool gdb_parse_hex(const char **at, u64 *value);

/* Appends @len bytes as pairs of digits. */
void gdb_put_bytes(struct strbuf *out, const void *data, size_t len);

/* Reads 2 * @len digits. False when there are not so many at @text. */
bool gdb_parse_bytes(const char *text, void *data, size_t len);

#endif
