/*
 * The guest of `triode probe`: 64-bit code that runs wherever it is copied to, with an identity map
 * of the first 4 GiB. It asks the engine for one thing after the other and reports each on
 * PROBE_PORT; the host (probe.c) looks at what comes. The counting loop is also called natively,
 * for comparison.
 */
#include "cli/probe_guest.h"

    .intel_syntax noprefix
    .section .rodata.probe_guest, "a", @progbits
    .balign 16

    .macro report value
    mov     edx, PROBE_PORT
    mov     eax, \value
    out     dx, eax
    .endm

    /* rdi = count, at least 1; PROBE_LOOP_INSNS instructions a round. What the mix is decides
     * little; that the CPU runs the same code here and there does. No branch depends on data, so
     * that the comparison is not one of branch predictors. */
    .macro  count_loop
    xor     eax, eax
    xor     ecx, ecx
7:  add     rax, rdi
    rol     rcx, 5
    xor     rcx, rax
    lea     rax, [rax + rcx*2 + 1]
    sub     rcx, rdi
    test    rax, rax
    dec     rdi
    jnz     7b
    ret
    .endm

    .globl  probe_guest, probe_guest_layout
probe_guest:
    /* Port I/O: what comes in goes out, complemented. */
    mov     edx, PROBE_PORT_ECHO
    in      eax, dx
    not     eax
    mov     edx, PROBE_PORT
    out     dx, eax

    /* The host names counts until it has seen enough. */
5:  mov     edx, PROBE_PORT_COUNT
    in      eax, dx
    test    eax, eax
    jz      6f
    mov     edi, eax
    call    probe_count
    report  PROBE_COUNTED
    jmp     5b
6:
    /* CPUID: leaf 0 names at least leaf 1. */
    xor     eax, eax
    cpuid
    test    eax, eax
    jz      fail
    report  PROBE_CPUID

    /* A page fault whose handler comes back with CR2 in r8 and the error code in r9. */
    mov     rsi, PROBE_UNMAPPED
    lea     rbx, [rip + 1f]
    mov     eax, [rsi]
1:  cmp     r8, rsi
    jne     fail
    test    r9, r9
    jnz     fail
    report  PROBE_PAGE_FAULT

    /* SYSCALL leads to its entry point at LSTAR (the next label) and leaves the return address. */
    mov     ecx, 0xc0000080
    rdmsr
    or      eax, 1
    wrmsr
    mov     ecx, 0xc0000081
    xor     eax, eax
    mov     edx, PROBE_CODE_SELECTOR
    wrmsr
    lea     rax, [rip + 3f]
    mov     rdx, rax
    shr     rdx, 32
    mov     ecx, 0xc0000082
    wrmsr
    lea     rbx, [rip + 2f]
    syscall
2:  jmp     fail
3:  cmp     rcx, rbx
    jne     fail
    report  PROBE_SYSCALL

    /* SSE: the CPU's own 128-bit registers. */
    mov     rax, cr0
    and     eax, ~4
    or      eax, 2
    mov     cr0, rax
    mov     rax, cr4
    or      eax, 0x600
    mov     cr4, rax
    mov     rax, 0x0123456789abcdef
    movq    xmm0, rax
    paddd   xmm0, xmm0
    movq    rcx, xmm0
    mov     rbx, 0x02468ace13579bde
    cmp     rcx, rbx
    jne     fail
    report  PROBE_SSE

    /* MMIO: read, add, write back. */
    mov     esi, PROBE_MMIO
    mov     eax, [rsi]
    inc     eax
    mov     [rsi + 4], eax
    report  PROBE_MMIO_DONE

    /* The local APIC's timer wakes HLT; its handler counts in r10. */
    mov     esi, 0xfee00000
    mov     dword ptr [rsi + 0xf0], 0x1ff       /* spurious vector, software enable */
    mov     dword ptr [rsi + 0x3e0], 0xb        /* divide by 1 */
    mov     dword ptr [rsi + 0x320], PROBE_TIMER_VECTOR
    xor     r10d, r10d
    mov     dword ptr [rsi + 0x380], 100000
4:  sti
    hlt
    cli
    test    r10d, r10d
    jz      4b
    report  PROBE_TIMER

    report  PROBE_END
fail:
    report  PROBE_FAIL
    hlt
    jmp     fail

probe_guest_page_fault:
    mov     r8, cr2
    pop     r9
    mov     [rsp], rbx
    iretq

probe_guest_timer:
    inc     r10d
    mov     dword ptr [rsi + 0xb0], 0
    iretq

probe_count:
    count_loop
probe_guest_end:

    .balign 4
probe_guest_layout:
    .long   probe_guest_end - probe_guest
    .long   probe_guest_page_fault - probe_guest
    .long   probe_guest_timer - probe_guest

    .text
    .globl  probe_count_native
    .type   probe_count_native, @function
probe_count_native:
    count_loop
    .size   probe_count_native, . - probe_count_native

    .section .note.GNU-stack, "", @progbits
