/*
 * The hypervisor of vmx.c: 64-bit code that runs at CODE, with rcx VMCS fields to write from LIST
 * and rdx entries to make. After each VM exit it takes one more field from the list, which ends
 * with ~0, skips the instruction that caused the exit, and enters again.
 */
#define VMXON_PAGE 0x4000
#define VMCS_PAGE 0x5000
#define LIST 0x6000
#define PORT_END 0xf4

#define REASON 0x4402
#define LENGTH 0x440c
#define GUEST_RIP 0x681e

        .section .rodata
        .globl vmx_guest, vmx_guest_end, vmx_guest_handler
vmx_guest:
        mov     %rcx, %r14
        mov     %rdx, %r15
        mov     $0x3a, %ecx
        mov     $5, %eax
        xor     %edx, %edx
        wrmsr
        mov     $0x480, %ecx
        rdmsr
        mov     %eax, VMXON_PAGE
        mov     %eax, VMCS_PAGE
        push    $VMXON_PAGE
        vmxon   (%rsp)
        jbe     9f
        movq    $VMCS_PAGE, (%rsp)
        vmclear (%rsp)
        vmptrld (%rsp)
        jbe     9f
        mov     $LIST, %rsi
1:      mov     (%rsi), %rax
        mov     8(%rsi), %rbx
        vmwrite %rbx, %rax
        add     $16, %rsi
        dec     %r14
        jnz     1b
        mov     %rsi, %r13
        vmlaunch
        jmp     9f

vmx_guest_handler:
        dec     %r15
        jz      9f
        mov     (%r13), %rax
        cmp     $-1, %rax
        je      2f
        mov     8(%r13), %rbx
        vmwrite %rbx, %rax
        add     $16, %r13
2:      mov     $REASON, %eax
        vmread  %rax, %rbx
        mov     $LENGTH, %eax
        vmread  %rax, %rcx
        mov     $GUEST_RIP, %eax
        vmread  %rax, %rbx
        add     %rcx, %rbx
        vmwrite %rbx, %rax
        vmresume
9:      out     %al, $PORT_END
        jmp     9b
vmx_guest_end:
        .section .note.GNU-stack, "", @progbits
