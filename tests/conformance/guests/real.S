/*
 * Real mode: segments and their limits, addresses beyond 1 MiB, interrupts through the vector
 * table, faults, string instructions, BCD, far transfers, port I/O and MMIO, and the way to
 * protected mode and back.
 */
#include "../protocol.h"

    .code16
    .section .start, "ax", @progbits

    /* Linked to 0: labels are offsets from LOAD_GPA, where CS, DS and ES point. */

    /* CHECK(value) compares with EAX: tells the host. Keeps all registers. */
    .set    checks, 0
    .macro  check line
    pushal
    mov     %eax, %ebx
    mov     $PORT_EXPECT, %dx
    mov     $\line, %eax
    outl    %eax, %dx
    mov     %ebx, %eax
    outl    %eax, %dx
    xor     %eax, %eax
    outl    %eax, %dx
    mov     $wanted, %eax
    outl    %eax, %dx
    xor     %eax, %eax
    outl    %eax, %dx
    popal
    .set    checks, checks + 1
    .endm
#define CHECK(want) .set wanted, want; check __LINE__

    .globl  _start
_start:
    /* Wrap-around: 16-bit offsets. */
    movl    $0x11223344, 0x8000
    mov     $0xf000, %bx
    mov     $0x9000, %si
    movl    (%bx,%si), %eax                 /* 0x18000 mod 0x10000 */
    CHECK(0x11223344)

    /* ffff:0010 is 1 MiB: A20 is open. */
    mov     $0xffff, %ax
    mov     %ax, %fs
    movl    $0xcafe0001, %fs:0x0010
    movl    %fs:0x0010, %eax
    CHECK(0xcafe0001)
    movl    $0, %fs:0x14
    movl    %fs:0x14, %eax
    CHECK(0)

    /* A segment register is a paragraph number. */
    mov     $LOAD_GPA >> 4, %ax
    add     $0x800, %ax
    mov     %ax, %gs
    movl    %gs:0, %eax
    CHECK(0x11223344)
    xor     %eax, %eax
    mov     %gs, %ax
    CHECK((LOAD_GPA >> 4) + 0x800)

    /* INT n through the table at 0: pushes FLAGS, CS, IP; clears IF. */
    xor     %ax, %ax
    mov     %ax, %fs
    movw    $int_handler, %fs:0x60*4
    movw    $LOAD_GPA >> 4, %fs:0x60*4+2
    stc
    sti
    mov     %sp, %bp
    xor     %eax, %eax
    int     $0x60
    cli
    CHECK(0x60)
    xor     %eax, %eax
    mov     %bp, %ax
    sub     %sp, %ax
    CHECK(0)

    /* #DE: the saved IP is the instruction's. */
    movw    $skip2_handler, %fs:0
    movw    $LOAD_GPA >> 4, %fs:2
    xor     %ecx, %ecx
    mov     $5, %ax
    div     %cl                             /* 2 bytes */
    mov     %ecx, %eax
    CHECK(0xde)

    /* So does #GP: a word that reaches over the segment's end. */
    movw    $skip2_handler, %fs:13*4
    movw    $LOAD_GPA >> 4, %fs:13*4+2
    xor     %ecx, %ecx
    mov     $0xffff, %bx
    mov     (%bx), %ax                      /* 2 bytes */
    mov     %ecx, %eax
    CHECK(0xde)

    /* INTO, AAM, AAD, XLAT, LES; DAA below */
    movw    $int_handler, %fs:4*4
    movw    $LOAD_GPA >> 4, %fs:4*4+2
    xor     %eax, %eax
    mov     $0x7f, %cl
    inc     %cl                             /* OF */
    into
    CHECK(0x60)
    mov     $57, %eax
    aam
    CHECK(0x0507)
    aad
    CHECK(57)
    mov     $table, %bx
    mov     $3, %eax
    xlat
    CHECK(0xd3)
    mov     %ds, %cx
    les     table, %di
    xor     %eax, %eax
    mov     %di, %ax
    CHECK(0xd1d0)
    mov     %es, %ax
    CHECK(0xd3d2)
    mov     %cx, %es

    /* Strings: 16-bit SI, DI wrap. */
    cld
    mov     $0xfffe, %di
    mov     $0x4142, %ax
    stosw
    xor     %eax, %eax
    mov     %di, %ax
    CHECK(0)
    mov     $table, %si
    mov     $0x8010, %di
    mov     $4, %cx
    rep movsb
    movl    0x8010, %eax
    CHECK(0xd3d2d1d0)
    mov     $table, %si
    mov     $0x8010, %di
    movb    $0, 0x8012
    mov     $4, %ecx
    repe cmpsb
    mov     %ecx, %eax
    CHECK(1)
    mov     $0x8010, %di
    mov     $4, %ecx
    mov     $0xd3, %al
    repne scasb
    mov     %ecx, %eax
    CHECK(0)

    /* Far call and return, far jump. */
    xor     %eax, %eax
    lcall   $LOAD_GPA >> 4, $far_function
    CHECK(0xfa)
    ljmp    $(LOAD_GPA >> 4) + 1, $1f - 16
1:  xor     %eax, %eax
    mov     %cs, %ax
    CHECK((LOAD_GPA >> 4) + 1)
    ljmp    $LOAD_GPA >> 4, $1f
1:
    /* PUSH SP pushes the value before; ENTER and LEAVE. */
    mov     %sp, %bp
    push    %sp
    pop     %ax
    sub     %bp, %ax
    movzx   %ax, %eax
    CHECK(0)
    mov     %sp, %cx
    enter   $16, $0
    mov     %cx, %ax
    sub     %sp, %ax
    movzx   %ax, %eax
    CHECK(18)
    leave
    /* Loops count in CX. */
    xor     %eax, %eax
    mov     $0x10005, %ecx
2:  inc     %eax
    loop    2b
    CHECK(5)
    jcxz    3f
    mov     $0xbad, %eax
3:  CHECK(5)

    /* MMIO in the hole below 1 MiB. */
    mov     $LOW_HOLE_GPA >> 4, %ax
    mov     %ax, %gs
    xor     %eax, %eax
    movw    %gs:0x10, %ax
    CHECK(0xb4b5)
    movb    $0x77, %gs:0x21
    movb    %gs:0x21, %al
    movzx   %al, %eax
    CHECK(0x77)

    /* String I/O. */
    mov     $PORT_STREAM_RESET, %dx
    xor     %eax, %eax
    outl    %eax, %dx
    mov     $PORT_STREAM, %dx
    mov     $0x8020, %di
    mov     $4, %cx
    rep insb
    movl    0x8020, %eax
    CHECK(0x04030201)
    mov     $0x8021, %si
    outsw
    mov     $PORT_STREAM_POP, %dx
    inl     %dx, %eax
    CHECK(2)
    inl     %dx, %eax
    CHECK(3)

    /* HLT ended by an interrupt of the 8254 by way of the PIC's power-on vector, set to 8. */
    movw    $timer_handler, %fs:8*4
    movw    $LOAD_GPA >> 4, %fs:8*4+2
    mov     $0x11, %al
    out     %al, $0x20
    mov     $8, %al
    out     %al, $0x21
    mov     $4, %al
    out     %al, $0x21
    mov     $1, %al
    out     %al, $0x21
    mov     $0xfe, %al
    out     %al, $0x21
    mov     $0x34, %al
    out     %al, $0x43
    mov     $0x9c, %al
    out     %al, $0x40
    mov     $0x2e, %al
    out     %al, $0x40
    sti
    hlt
    out     %al, $0x80
    cli
    mov     $0xff, %al
    out     %al, $0x21
    movzwl  ticks, %eax
    cmp     $1, %eax
    jb      4f
    mov     $1, %eax
4:  CHECK(1)

    /* To 32-bit protected mode and back, with the segment limits that stay behind. */
    lgdtl   gdtr
    mov     %cr0, %eax
    or      $1, %al
    mov     %eax, %cr0
    ljmpl   $0x08, $protected + LOAD_GPA
back16:
    mov     %cr0, %eax
    and     $~1, %al
    mov     %eax, %cr0
    ljmp    $LOAD_GPA >> 4, $real_again
real_again:
    mov     $LOAD_GPA >> 4, %ax
    mov     %ax, %ds
    mov     %ax, %es
    mov     $0x8000, %ax
    mov     %ax, %ss
    movzwl  seen_cs, %eax
    CHECK(8)
    mov     %cr0, %eax
    and     $1, %eax
    CHECK(0)
    /* "Unreal" mode: GS was loaded with a limit of 4 GiB and keeps it. */
    mov     $FREE_GPA, %ebx
    movl    %gs:(%ebx), %eax
    CHECK(0x600df00d)
    /* CR0, MSW */
    smsw    %eax
    and     $1, %eax
    CHECK(0)
    sidtl   idtr
    movzwl  idtr, %eax
    CHECK(0xffff)
    pushfl
    popl    %eax
    and     $2, %eax
    CHECK(2)

    mov     $0x38, %eax
    add     $0x45, %al
    daa
    and     $0xff, %eax
    CHECK(0x83)
    /* #UD goes through the table too. */
    xor     %ax, %ax
    mov     %ax, %fs
    movw    $skip2_handler, %fs:6*4
    movw    $LOAD_GPA >> 4, %fs:6*4+2
    xor     %ecx, %ecx
    ud2
    mov     %ecx, %eax
    CHECK(0xde)

    mov     $PORT_DONE, %dx
    mov     $checks, %eax
    outl    %eax, %dx
    hlt

int_handler:
    push    %bp
    mov     %sp, %bp
    movzwl  6(%bp), %eax                    /* FLAGS */
    pushfw
    pop     %dx
    and     $0x200, %dx                     /* IF is clear here */
    jnz     1f
    mov     $0x60, %eax
1:  pop     %bp
    iret

skip2_handler:
    push    %bp
    mov     %sp, %bp
    addw    $2, 2(%bp)
    mov     $0xde, %ecx
    pop     %bp
    iret

timer_handler:
    push    %ax
    incw    %cs:ticks
    mov     $0x20, %al
    out     %al, $0x20
    pop     %ax
    iret

far_function:
    mov     $0xfa, %eax
    lret

    .code32
protected:
    mov     $0x10, %eax
    mov     %eax, %ds
    mov     %eax, %gs
    mov     %cs, %eax
    mov     %ax, seen_cs + LOAD_GPA
    movl    $0x600df00d, FREE_GPA
    ljmp    $0x18, $back16
    .code16

    .balign 8
gdt:
    .quad   0
    .quad   0x00cf9b000000ffff
    .quad   0x00cf93000000ffff
    .quad   0x00009b010000ffff              /* 0x18: 16-bit code at LOAD_GPA */
gdtr:
    .word   31
    .long   gdt + LOAD_GPA
idtr:
    .word   0
    .long   0
seen_cs:
    .word   0
ticks:
    .word   0
table:
    .byte   0xd0, 0xd1, 0xd2, 0xd3
    .section .note.GNU-stack, "", @progbits
