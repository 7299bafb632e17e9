/*
 * A Multiboot kernel's way to 64-bit code: 4 GiB mapped one to one with 2-MiB pages, interrupt
 * entries that build a struct frame, and the other CPUs' way from their SIPI.
 */
        .section .start, "ax", @progbits
        .code32
        .globl  _start
        .balign 4
header: .long   0x1badb002, 0x10002, -(0x1badb002 + 0x10002)
        .long   header, _start_of_image, _end_of_data, _end_of_bss, _start
_start:
        mov     %ebx, %esi
        mov     $stack_top, %esp
        call    build_tables
        mov     $1, %ebp
        jmp     to_long

/* PML4, PDPT, four page directories at tables. */
build_tables:
        mov     $tables + 0x1007, %eax
        mov     %eax, tables
        mov     $4, %ecx
        mov     $tables + 0x1000, %edi
        mov     $tables + 0x2007, %eax
1:      mov     %eax, (%edi)
        add     $0x1000, %eax
        add     $8, %edi
        loop    1b
        mov     $2048, %ecx
        mov     $tables + 0x2000, %edi
        mov     $0x83, %eax
2:      mov     %eax, (%edi)
        add     $0x200000, %eax
        add     $8, %edi
        loop    2b
        ret

to_long:
        mov     $tables, %eax
        mov     %eax, %cr3
        mov     $0x620, %eax            /* PAE, OSFXSR, OSXMMEXCPT */
        mov     %eax, %cr4
        mov     $0xc0000080, %ecx
        rdmsr
        or      $0x901, %eax            /* NXE, LME, SCE */
        wrmsr
        mov     $0x80000033, %eax
        mov     %eax, %cr0
        lgdt    gdtr
        ljmp    $0x08, $1f
        .code64
1:      mov     $0x10, %eax
        mov     %eax, %ds
        mov     %eax, %es
        mov     %eax, %ss
        xor     %eax, %eax
        mov     %eax, %fs
        mov     %eax, %gs
        test    %ebp, %ebp
        jz      2f
        mov     %esi, %edi
        call    first_cpu
3:      cli
        hlt
        jmp     3b
2:      mov     $1, %edi                /* the CPU's number */
        lock xadd %edi, ap_count
        inc     %edi
        mov     %edi, %eax
        shl     $13, %eax
        lea     ap_stacks(%rax), %rsp
        call    other_cpu
        jmp     3b

/* Copied to 0x8000: real mode to 32-bit code. */
        .code16
        .globl  trampoline, trampoline_end
trampoline:
        cli
        xor     %ax, %ax
        mov     %ax, %ds
        lgdtl   0x8000 + trampoline_gdtr - trampoline
        mov     $0x33, %eax
        mov     %eax, %cr0
        ljmpl   $0x18, $ap_32
        .balign 4
trampoline_gdtr:
        .word   0x3f
        .long   gdt
trampoline_end:
        .code32
ap_32:  mov     $0x10, %eax
        mov     %eax, %ds
        mov     %eax, %es
        mov     %eax, %ss
        xor     %ebp, %ebp
        jmp     to_long

        .code64
#include "../guests/entries.S"
        common_entry_calls trap

/* int attempt(u64 cs, u64 rip, u64 ss, u64 rsp, u64 flags, u64 regs[16]): jumps there with these
 * registers; attempt_end, to which the trap handler goes, comes back. */
        .globl  attempt, attempt_end
attempt:
        push    %rbx
        push    %rbp
        push    %r12
        push    %r13
        push    %r14
        push    %r15
        mov     %rsp, attempt_sp
        push    %rdx
        push    %rcx
        push    %r8
        push    %rdi
        push    %rsi
        mov     %r9, %rsp
        pop     %rax
        pop     %rbx
        pop     %rcx
        pop     %rdx
        pop     %rsi
        pop     %rdi
        pop     %rbp
        pop     %r8
        pop     %r9
        pop     %r10
        pop     %r11
        pop     %r12
        pop     %r13
        pop     %r14
        pop     %r15
        mov     attempt_sp, %rsp
        sub     $40, %rsp
        iretq
attempt_end:
        mov     attempt_sp, %rsp
        pop     %r15
        pop     %r14
        pop     %r13
        pop     %r12
        pop     %rbp
        pop     %rbx
        ret

        .data
        .balign 16
        .globl  gdt, gdtr
gdt:    .quad   0, 0x00af9b000000ffff, 0x00cf93000000ffff, 0x00cf9b000000ffff
        .quad   0x00cff3000000ffff, 0x00affb000000ffff, 0, 0 /* user data 20, code 28, TSS 30 */
gdtr:   .word   0x3f
        .quad   gdt
        .bss
        .balign 4096
        .globl  tables, attempt_sp, trap_stack_top
tables: .skip   6 * 4096
        .skip   16384
stack_top:
ap_stacks: .skip 3 * 8192
        .skip   16384
trap_stack_top:
attempt_sp: .skip 8
ap_count: .skip 4
        .section .note.GNU-stack, "", @progbits
