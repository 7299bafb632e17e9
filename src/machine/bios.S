/*
 * A small BIOS for Linux' real-mode setup program: what it asks before it enters protected mode,
 * and no more. It lies at offset 0 of a segment; linux_bios.c fills the table of vectors, the
 * memory sizes and the map in before it is put into memory. Every service that is not here answers
 * as a BIOS does that lacks it: carry flag set, AH 0x86.
 */
#define COM1 0x3f8
#define SMAP 0x534d4150
#define MAP_BYTES 20

    .section .rodata
    .code16
    .globl boot_bios
boot_bios:

/* struct image of linux_bios.c: sizes and offsets from here, then pairs of vector and offset, to a
 * vector of 0xffff; vectors that are not here get the first one's. */
    .word bios_end - boot_bios
    .word fields - boot_bios
    .word 0x00, ignore - boot_bios
    .word 0x10, video - boot_bios
    .word 0x11, equipment - boot_bios
    .word 0x12, memory_size - boot_bios
    .word 0x13, unsupported - boot_bios
    .word 0x14, unsupported - boot_bios
    .word 0x15, system - boot_bios
    .word 0x16, keyboard - boot_bios
    .word 0x17, unsupported - boot_bios
    .word 0x1a, unsupported - boot_bios
    .word 0xffff

/* struct fields of linux_bios.c */
    .balign 4
fields:
low_kib:    .word 0
mid_kib:    .word 0 /* from 1 MiB to 16 MiB, in KiB */
high_64k:   .word 0 /* from 16 MiB, in 64 KiB */
map_bytes:  .word 0
map:        .space 16 * MAP_BYTES

/* Interrupts that nobody asked for; the real-mode program waits for none. */
ignore:
    push %ax
    mov $0x20, %al
    out %al, $0xa0
    out %al, $0x20
    pop %ax
    iret

/* ---- INT 10h: output goes to COM1; mode 3, 80 columns, CGA ---------------------------------- */
video:
    cmp $0x0e, %ah
    je teletype
    cmp $0x0f, %ah
    je video_mode
    cmp $0x03, %ah
    jne 1f
    mov $0x0607, %cx
    xor %dx, %dx
1:  iret

teletype:
    push %ax
    push %dx
    mov %al, %ah
    mov $COM1 + 5, %dx
1:  in %dx, %al
    test $0x20, %al
    jz 1b
    mov $COM1, %dx
    mov %ah, %al
    out %al, %dx
    pop %dx
    pop %ax
    iret

video_mode:
    mov $0x5003, %ax
    xor %bh, %bh
    iret

/* ---- INT 11h, 12h --------------------------------------------------------------------------- */
equipment:
    mov $0x0020, %ax /* 80 columns in colour, no drive */
    iret

memory_size:
    mov %cs:low_kib - boot_bios, %ax
    iret

/* ---- INT 16h: there is no keyboard; who waits for a key gets Enter --------------------------- */
keyboard:
    push %bp
    mov %sp, %bp
    test $0xef, %ah /* functions 0 and 0x10 read */
    jnz 1f
    mov $0x1c0d, %ax
1:  orw $0x40, 6(%bp) /* zero flag: no key waits */
    pop %bp
    iret

/* ---- INT 15h --------------------------------------------------------------------------------- */
system:
    cmp $0xe820, %ax
    je memory_map
    cmp $0xe801, %ax
    je memory_sizes
    cmp $0x88, %ah
    je extended_memory
    cmp $0x2401, %ax /* A20 on: it always is */
    je a20_on

unsupported:
    mov $0x86, %ah
    push %bp
    mov %sp, %bp
    orw $1, 6(%bp)
    pop %bp
    iret

a20_on:
    xor %ah, %ah
succeeded:
    push %bp
    mov %sp, %bp
    andw $~1, 6(%bp)
    pop %bp
    iret

memory_sizes:
    mov %cs:mid_kib - boot_bios, %ax
    mov %cs:high_64k - boot_bios, %bx
    mov %ax, %cx
    mov %bx, %dx
    jmp succeeded

extended_memory:
    mov %cs:mid_kib - boot_bios, %ax
    jmp succeeded

/* EBX: offset in the map; ES:DI: to where; ECX: bytes there (ACPI 15.1). */
memory_map:
    cmp $SMAP, %edx
    jne unsupported
    cmp $MAP_BYTES, %ecx
    jb unsupported
    cmp %cs:map_bytes - boot_bios, %bx
    jae unsupported
    push %si
    push %di
    lea map - boot_bios(%bx), %si
    mov $MAP_BYTES, %cx
    cld
    rep movsb %cs:(%si), %es:(%di)
    pop %di
    pop %si
    mov $SMAP, %eax
    mov $MAP_BYTES, %ecx
    add $MAP_BYTES, %bx
    cmp %cs:map_bytes - boot_bios, %bx
    jb succeeded
    xor %ebx, %ebx
    jmp succeeded
bios_end:

    .section .note.GNU-stack, "", @progbits
