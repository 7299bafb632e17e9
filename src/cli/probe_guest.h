/* What the probe's guest and its host agree on; read by the assembler too. */
#ifndef TRIODE_PROBE_GUEST_H
#define TRIODE_PROBE_GUEST_H

#define PROBE_PORT 0x5f0       /* out: PROBE_* steps done */
#define PROBE_PORT_ECHO 0x5f4  /* in: PROBE_MAGIC */
#define PROBE_PORT_COUNT 0x5f8 /* in: rounds of the counting loop, 0 for "enough" */

#define PROBE_MAGIC 0x1e5c0de5
#define PROBE_UNMAPPED 0x140000000
#define PROBE_MMIO 0xd0000000
#define PROBE_CODE_SELECTOR 8
#define PROBE_TIMER_VECTOR 0x40
#define PROBE_LOOP_INSNS 8

/* The steps, in the guest's order. */
#define PROBE_COUNTED 1
#define PROBE_CPUID 2
#define PROBE_PAGE_FAULT 3
#define PROBE_SYSCALL 4
#define PROBE_SSE 5
#define PROBE_MMIO_DONE 6
#define PROBE_TIMER 7
#define PROBE_END 8
#define PROBE_FAIL 9

#endif
