/* What C cannot say: from Multiboot's 32-bit mode to 64-bit, in and out of the guest, the guest. */
    .section .multiboot, "a"
    .balign 4
    .long 0x1badb002, 3, -(0x1badb002 + 3)

    .text
    .code32
    .globl _start
_start:
    cli
    mov $stack_end, %esp
    mov $directories, %edi          /* 4 GiB in pages of 2 MiB */
    mov $0x83, %eax
    mov $2048, %ecx
1:  mov %eax, (%edi)
    add $0x200000, %eax
    add $8, %edi
    loop 1b
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
    or $0x20, %eax                  /* PAE */
    mov %eax, %cr4
    mov $0xc0000080, %ecx
    rdmsr
    or $0x100, %eax                 /* EFER.LME */
    wrmsr
    mov %cr0, %eax
    or $0x80000020, %eax            /* PG and NE, which VMX wants */
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
    mov $tss, %eax
    mov %ax, gdt + 26
    shr $16, %eax
    mov %al, gdt + 28
    mov $24, %eax
    ltr %ax
    call tinyvisor
    mov $0xf4, %edx                 /* test devices: ends the run with status 2 * eax + 1 */
    outl %eax, %dx
4:  hlt
    jmp 4b

/* u64 vm_enter(struct registers *guest, bool launched): the host's own registers wait on its stack,
 * whose pointer the VMCS keeps for the VM exit. */
    .globl vm_enter
vm_enter:
    push %rbx
    push %rbp
    push %r12
    push %r13
    push %r14
    push %r15
    push %rdi
    mov $0x6c14, %eax               /* host RSP */
    vmwrite %rsp, %rax
    mov $0x6c16, %eax               /* host RIP */
    lea 6f(%rip), %rdx
    vmwrite %rdx, %rax
    cmp $1, %sil
    mov (%rdi), %rax
    mov 8(%rdi), %rbx
    mov 16(%rdi), %rcx
    mov 24(%rdi), %rdx
    mov 32(%rdi), %rsi
    mov 48(%rdi), %rbp
    mov 40(%rdi), %rdi
    je 5f
    vmlaunch
    jmp 7f
5:  vmresume
7:  mov $1, %eax                    /* VMfailInvalid: carry */
    jc 8f
    mov $2, %eax
8:  add $8, %rsp
    jmp 9f
6:  push %rdi                       /* the VM exit comes here */
    mov 8(%rsp), %rdi
    mov %rax, (%rdi)
    mov %rbx, 8(%rdi)
    mov %rcx, 16(%rdi)
    mov %rdx, 24(%rdi)
    mov %rsi, 32(%rdi)
    mov %rbp, 48(%rdi)
    pop %rax
    mov %rax, 40(%rdi)
    xor %eax, %eax
    add $8, %rsp
9:  pop %r15
    pop %r14
    pop %r13
    pop %r12
    pop %rbp
    pop %rbx
    ret

/* The guest. */
    .globl tiny_guest
tiny_guest:
    mov $1, %eax
1:  out %al, $0xe9
    inc %eax
    cmp $4, %eax
    jne 1b
    xor %eax, %eax
    cpuid
    hlt

    .data
    .balign 16
    .globl gdt, tss
gdt:
    .quad 0, 0x00af9b000000ffff, 0x00cf93000000ffff
    .quad 0x0000890000000067, 0
table:
    .word table - gdt - 1
    .quad gdt
    .balign 16
tss:
    .fill 104

    .bss
    .balign 4096
root:
    .fill 4096
pointers:
    .fill 4096
directories:
    .fill 4 * 4096
    .fill 16384
stack_end:
