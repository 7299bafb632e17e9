/*
 * For guests of tests: 256 interrupt entries, at the addresses of entry_table, that push a vector,
 * and an error code of 0 where the CPU pushes none (SDM volume 3, table 6-1).
 */
#ifdef __x86_64__
#define WORD .quad
#else
#define WORD .long
#endif
        .text
        .altmacro
        .macro  entry vector
entry_\vector:
        .if     ((\vector) == 8) || (((\vector) >= 10) && ((\vector) <= 14)) || ((\vector) == 17) || ((\vector) == 21)
        .else
        push    $0
        .endif
        push    $\vector
        jmp     common_entry
        .endm
        .macro  address vector
        WORD    entry_\vector
        .endm

        .set    i, 0
        .rept   256
        entry   %i
        .set    i, i + 1
        .endr

        .data
        .balign 8
        .globl  entry_table
entry_table:
        .set    i, 0
        .rept   256
        address %i
        .set    i, i + 1
        .endr
        .text

#ifdef __x86_64__
/* Saves the general registers as a struct below the vector and calls @handler with its address. */
        .macro  common_entry_calls handler
common_entry:
        push    %rax
        push    %rbx
        push    %rcx
        push    %rdx
        push    %rsi
        push    %rdi
        push    %rbp
        push    %r8
        push    %r9
        push    %r10
        push    %r11
        push    %r12
        push    %r13
        push    %r14
        push    %r15
        cld
        mov     %rsp, %rdi
        mov     %rsp, %rbp
        and     $-16, %rsp
        call    \handler
        mov     %rbp, %rsp
        pop     %r15
        pop     %r14
        pop     %r13
        pop     %r12
        pop     %r11
        pop     %r10
        pop     %r9
        pop     %r8
        pop     %rbp
        pop     %rdi
        pop     %rsi
        pop     %rdx
        pop     %rcx
        pop     %rbx
        pop     %rax
        add     $16, %rsp
        iretq
        .endm
#endif
