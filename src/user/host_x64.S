/*
 * System calls that a signal cannot slip past: between the look at the word and the syscall
 * instruction a handler may come; it then moves the thread to user_host_cancelled.
 */
        .text
        .globl user_host_syscall, user_host_begin, user_host_end, user_host_cancelled
        .globl user_host_restorer
        .type user_host_syscall, @function
user_host_syscall:                      /* rdi: word, rsi: number, rdx: six arguments */
        push    %rbx
        mov     %rdi, %rbx
        mov     %rsi, %rax
        mov     (%rdx), %rdi
        mov     8(%rdx), %rsi
        mov     24(%rdx), %r10
        mov     32(%rdx), %r8
        mov     40(%rdx), %r9
        mov     16(%rdx), %rdx
user_host_begin:
        cmpl    $0, (%rbx)
        jne     user_host_cancelled
        syscall
user_host_end:
        pop     %rbx
        ret
user_host_cancelled:
        mov     $-512, %rax
        pop     %rbx
        ret
        .size user_host_syscall, . - user_host_syscall

        .type user_host_restorer, @function
        nop                             /* unwinders look at the byte before */
user_host_restorer:
        mov     $15, %eax               /* rt_sigreturn */
        syscall
        .size user_host_restorer, . - user_host_restorer
        .section .note.GNU-stack, "", @progbits
