/* What the guests and their host agree on; read by the assembler too. */
#ifndef CONFORMANCE_PROTOCOL_H
#define CONFORMANCE_PROTOCOL_H

/* Results. Five 32-bit words to PORT_EXPECT are one comparison: line, got (low, high), wanted (low,
 * high). A word to PORT_DONE ends the guest: the number of comparisons it made. */
#define PORT_EXPECT 0x500
#define PORT_DONE 0x504
#define PORT_DELAY 0x80    /* accesses do nothing */
#define PORT_CONSOLE 0x508 /* bytes, for debugging */

/* Requests to the host: arguments first, then the command. */
#define PORT_ARG_A 0x510
#define PORT_ARG_B 0x514
#define PORT_COMMAND 0x518

#define COMMAND_IRQ 1         /* line A to level B */
#define COMMAND_PULSE 2       /* line A up and down */
#define COMMAND_MSI 3         /* address A, data B */
#define COMMAND_NMI 4         /* to vCPU A */
#define COMMAND_DELAYED 0x100 /* or'ed in: in 10 ms, by another thread */

/* Registers 0x520..0x52f remember what was written, byte by byte; reads give it back. */
#define PORT_REGS 0x520
#define PORT_REGS_COUNT 16
/* The last access to a test port or the test MMIO page: size | write << 8 | elements << 16. */
#define PORT_LAST_ACCESS 0x540
#define PORT_LAST_ADDRESS 0x544 /* port, or offset in the MMIO page */
#define PORT_ACCESSES 0x548     /* how many since the last read of this port */
/* Bytes written here queue up; reads give 1, 2, 3 ... byte by byte. */
#define PORT_STREAM 0x550
#define PORT_STREAM_RESET 0x554
#define PORT_STREAM_POP 0x558 /* in: the oldest queued byte, 0xffffffff when there is none */

/* Guest memory. */
#define RAM_BYTES 0x1000000
#define TABLES_GPA 0x1000 /* long mode: PML4, PDPT, 4 page directories; 4 GiB identity, U/S = 1 */
#define GDT_GPA 0x7000
#define TRAMPOLINE_GPA 0x8000
#define LOAD_GPA 0x10000
#define STACK_TOP 0x90000
#define LOW_HOLE_GPA 0xa0000 /* 128 KiB of MMIO */
#define LOW_HOLE_BYTES 0x20000
#define ROM_GPA 0xc0000 /* a read-only slot of 64 KiB, filled with ROM_BYTE */
#define ROM_BYTES 0x10000
#define ROM_BYTE 0x5a
#define MMIO_GPA 0xd0000000 /* one page of MMIO; both holes show the same page */
#define FREE_GPA 0x200000   /* for tests */

#define SELECTOR_CODE 0x08
#define SELECTOR_DATA 0x10

#endif
