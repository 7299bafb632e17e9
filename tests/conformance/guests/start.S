/* Entry of the 32- and 64-bit guests, their interrupt entries, and the way to user mode and
 * back. */
#include "../protocol.h"

#ifdef __x86_64__
#define SP %rsp
#else
#define SP %esp
#endif

    .section .start, "ax", @progbits
    .globl  _start
_start:
    mov     $STACK_TOP, SP
    call    runtime_main
1:  hlt
    jmp     1b

#include "../../guests/entries.S"

#ifdef __x86_64__
    common_entry_calls runtime_trap

    /* void user_enter(u64 cs, u64 rip, u64 rsp, u64 rflags): comes back by user_return */
    .globl  user_enter, user_return
user_enter:
    push    %rbx
    push    %rbp
    push    %r12
    push    %r13
    push    %r14
    push    %r15
    mov     %rsp, user_saved_sp
    push    $0x23
    push    %rdx
    push    %rcx
    push    %rdi
    push    %rsi
    iretq
user_return:
    mov     user_saved_sp, %rsp
    pop     %r15
    pop     %r14
    pop     %r13
    pop     %r12
    pop     %rbp
    pop     %rbx
    ret
#else
common_entry:
    pusha
    push    %ds
    push    %es
    mov     $SELECTOR_DATA, %ax
    mov     %ax, %ds
    mov     %ax, %es
    cld
    push    SP
    call    runtime_trap
    add     $4, SP
    pop     %es
    pop     %ds
    popa
    add     $8, SP
    iret

    /* void user_enter(u32 cs, u32 eip, u32 esp, u32 eflags) */
    .globl  user_enter, user_return
user_enter:
    mov     SP, %edx
    push    %ebx
    push    %ebp
    push    %esi
    push    %edi
    mov     SP, user_saved_sp
    push    $0x23
    push    12(%edx)
    push    16(%edx)
    push    4(%edx)
    push    8(%edx)
    mov     $0x23, %eax
    mov     %eax, %ds
    mov     %eax, %es
    iret
user_return:
    mov     user_saved_sp, SP
    mov     $SELECTOR_DATA, %eax
    mov     %eax, %ds
    mov     %eax, %es
    pop     %edi
    pop     %esi
    pop     %ebp
    pop     %ebx
    ret
#endif

    .data
    .balign 8
user_saved_sp:
    WORD    0
    .section .note.GNU-stack, "", @progbits
