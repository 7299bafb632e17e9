/* Multiboot 1: from 32-bit protected mode to a 64-bit main with 4 GiB mapped one to one. */
    .section .multiboot, "a"
    .balign 4
    .long 0x1badb002, 3, -(0x1badb002 + 3)

    .text
    .code32
    .globl _start
_start:
    cli
    mov $stack_end, %esp
    /* Four page directories of 2-MiB pages. */
    mov $directories, %edi
    mov $0x83, %eax
    xor %ecx, %ecx
1:  mov %eax, (%edi, %ecx, 8)
    movl $0, 4(%edi, %ecx, 8)
    add $0x200000, %eax
    inc %ecx
    cmp $2048, %ecx
    jne 1b
    mov $directories + 3, %eax
    mov $pointers, %edi
    mov $4, %ecx
2:  mov %eax, (%edi)
    add $4096, %eax
    add $8, %edi
    loop 2b
    movl $pointers + 3, root
    mov $root, %eax
    mov %eax, %cr3
    mov %cr4, %eax
    or $0x620, %eax
    mov %eax, %cr4
    mov $0xc0000080, %ecx
    rdmsr
    or $0x900, %eax
    wrmsr
    mov %cr0, %eax
    and $~4, %eax
    or $0x80000022, %eax
    mov %eax, %cr0
    lgdt table
    ljmp $8, $3f
    .code64
3:  mov $16, %eax
    mov %eax, %ds
    mov %eax, %es
    mov %eax, %ss
    xor %eax, %eax
    mov %eax, %fs
    mov %eax, %gs
    lea tss(%rip), %rax
    mov %ax, gdt + 26
    shr $16, %eax
    mov %al, gdt + 28
    mov %ah, gdt + 31
    mov $24, %eax
    ltr %ax
    call guest_main
4:  hlt
    jmp 4b

/* Enters the guest: VMLAUNCH, or VMRESUME if edi is not 0. 0: it has come back by a VM exit;
 * 1: VMfailInvalid, 2: VMfailValid. The guest's rax to rbp are kept. */
    .globl enter_guest
enter_guest:
    push %rbx
    push %rbp
    push %r12
    push %r13
    push %r14
    push %r15
    mov $0x6c14, %eax /* host RSP, host RIP */
    vmwrite %rsp, %rax
    mov $0x6c16, %eax
    lea 6f(%rip), %rdx
    vmwrite %rdx, %rax
    test %edi, %edi
    jnz 5f
    call load_guest_registers
    vmlaunch
    jmp 7f
5:  call load_guest_registers
    vmresume
7:  mov $1, %eax
    jc 8f
    mov $2, %eax
    jmp 8f
6:  mov %rax, guest_rax(%rip)
    mov %rbx, guest_rbx(%rip)
    mov %rcx, guest_rcx(%rip)
    mov %rdx, guest_rdx(%rip)
    mov %rsi, guest_rsi(%rip)
    mov %rdi, guest_rdi(%rip)
    mov %rbp, guest_rbp(%rip)
    xor %eax, %eax
8:  pop %r15
    pop %r14
    pop %r13
    pop %r12
    pop %rbp
    pop %rbx
    ret

load_guest_registers:
    mov guest_rax(%rip), %rax
    mov guest_rbx(%rip), %rbx
    mov guest_rcx(%rip), %rcx
    mov guest_rdx(%rip), %rdx
    mov guest_rsi(%rip), %rsi
    mov guest_rdi(%rip), %rdi
    mov guest_rbp(%rip), %rbp
    ret

/* The second CPU begins here, copied to 8000h, and comes to second_main. */
    .globl second_start, second_end
    .weak second_main
    .code16
second_start:
    cli
    xor %eax, %eax
    mov %ax, %ds
    lgdtl 0x8000 + 8f - second_start
    mov %cr0, %eax
    or $1, %eax
    mov %eax, %cr0
    ljmpl $40, $second_protected
8:  .word table - gdt - 1
    .long gdt
second_end:
    .code32
second_protected:
    mov $16, %eax
    mov %eax, %ds
    mov %eax, %es
    mov %eax, %ss
    mov $root, %eax
    mov %eax, %cr3
    mov $0x620, %eax
    mov %eax, %cr4
    mov $0xc0000080, %ecx
    rdmsr
    or $0x900, %eax
    wrmsr
    mov $0x80000033, %eax
    mov %eax, %cr0
    ljmp $8, $1f
    .code64
1:  lea second_stack_end(%rip), %rsp
    call second_main
2:  hlt
    jmp 2b

/* Ends blocking by NMI. */
    .globl unblock_nmis
unblock_nmis:
    mov %rsp, %rax
    pushq $16
    push %rax
    pushf
    pushq $8
    lea 9f(%rip), %rax
    push %rax
    iretq
9:  ret

    .data
    .balign 4096 /* not on a page with code, where stores are slow */
    .globl gdt, table, tss
gdt:
    .quad 0, 0x00af9b000000ffff, 0x00cf93000000ffff
    .quad 0x0000890000000067, 0
    .quad 0x00cf9b000000ffff
table:
    .word table - gdt - 1
    .quad gdt
    .balign 16
tss:
    .fill 104
    .globl guest_rax, guest_rbx, guest_rcx, guest_rdx, guest_rsi, guest_rdi
guest_rax:
    .quad 0
guest_rbx:
    .quad 0
guest_rcx:
    .quad 0
guest_rdx:
    .quad 0
guest_rsi:
    .quad 0
guest_rdi:
    .quad 0
guest_rbp:
    .quad 0

    .bss
    .balign 4096
    .globl root
root:
    .fill 4096
pointers:
    .fill 4096
directories:
    .fill 4 * 4096
    .fill 16384
stack_end:
    .fill 8192
second_stack_end:
