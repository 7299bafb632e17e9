"""Small kernels for the tests of the command line, assembled with binutils."""
import os
import struct
import subprocess
import tempfile


def assemble(text):
    """64-bit machine code of an assembly text, Intel syntax; runs where it is loaded, 16 MiB."""
    with tempfile.TemporaryDirectory() as folder:
        base = os.path.join(folder, "guest")
        with open(base + ".s", "w", encoding="ascii") as file:
            file.write(".intel_syntax noprefix\n.code64\n.globl _start\n_start:\n" + text + "\n")
        subprocess.run(["as", "--64", base + ".s", "-o", base + ".o"], check=True)
        subprocess.run(["ld", "-m", "elf_x86_64", "-Ttext=0x1000200", "-o", base + ".elf",
                        base + ".o"], check=True)
        subprocess.run(["objcopy", "-O", "binary", "-j", ".text", base + ".elf", base], check=True)
        with open(base, "rb") as file:
            return file.read()


def bzimage(code, **changes):
    """A bzImage whose 64-bit entry is `code` (Linux, Documentation/arch/x86/boot.rst). Header
    fields can be changed by name."""
    kernel = bytes(0x200) + code
    kernel += bytes(-len(kernel) % 16)
    fields = {"setup_sects": 1, "syssize": len(kernel) // 16, "boot_flag": 0xaa55,
              "header": 0x53726448, "version": 0x20f, "loadflags": 1, "initrd_addr_max": 0x7fffffff,
              "kernel_alignment": 0x200000, "relocatable": 0, "xloadflags": 1, "cmdline_size": 2047,
              "pref_address": 0x1000000, "init_size": 0x100000, **changes}
    places = {"setup_sects": (0x1f1, "B"), "syssize": (0x1f4, "I"), "boot_flag": (0x1fe, "H"),
              "header": (0x202, "I"), "version": (0x206, "H"), "loadflags": (0x211, "B"),
              "initrd_addr_max": (0x22c, "I"), "kernel_alignment": (0x230, "I"),
              "relocatable": (0x234, "B"), "xloadflags": (0x236, "H"), "cmdline_size": (0x238, "I"),
              "pref_address": (0x258, "Q"), "init_size": (0x260, "I")}
    setup = bytearray(1024)
    for name, value in fields.items():
        offset, kind = places[name]
        struct.pack_into("<" + kind, setup, offset, value)
    return bytes(setup) + kernel


# Power-off through the ACPI PM1a control register.
POWER_OFF = """
    mov dx, 0x604
    mov ax, 0x2000
    out dx, ax
1:  hlt
    jmp 1b
"""

# Reads back the address port of PCI's configuration space, in a device, and the 8259's mask, inside
# of the engine.
READ_PORTS = """
    mov dx, 0xcf8
    mov eax, 0x80001234
    out dx, eax
    in eax, dx
    mov al, 0xa5
    out 0x21, al
    in al, 0x21
"""

# Writes and reads a comparator of the HPET, a device, and the local APIC's initial count, inside of the
# engine.
READ_REGISTERS = """
    mov ecx, 0xfed00108
    mov eax, 0x12345678
    mov [rcx], rax
    mov eax, [rcx]
    mov ecx, 0xfee00380
    mov dword ptr [rcx], 0
    mov eax, [rcx]
"""

SAY = """
    mov dx, 0x3f8
    mov al, '{}'
    out dx, al
"""

ENDLESS_LOOP = "1: jmp 1b\n"

# No interrupt table: the first fault becomes three. A register tells whose dump it is.
TRIPLE_FAULT = """
    mov r13, 0x1badb002
    lidt [rip + 1f]
    ud2
1:  .quad 0, 0
"""

RESET = "mov dx, 0xcf9\n mov al, 6\n out dx, al\n" + ENDLESS_LOOP

# Counts boots in a byte of CMOS memory, says the number, and after the third powers off.
THREE_BOOTS = """
    mov al, 0x40
    out 0x70, al
    in al, 0x71
    inc al
    out 0x71, al
    mov bl, al
    add al, '0'
    mov dx, 0x3f8
    out dx, al
    cmp bl, 3
    je 2f
    mov al, 0xfe
    out 0x64, al
1:  jmp 1b
2:
""" + POWER_OFF

# Sets the clock's alarm to each second, lets it end sleep, sleeps: 16-bit code at {} shall run
# then, or none for 0. The FACS is where its name is.
SLEEP = """
    mov edi, 0xe0000
1:  add edi, 64
    cmp dword ptr [rdi], 0x53434146
    jne 1b
    mov dword ptr [rdi + 12], {}
    mov ecx, 5
2:  mov al, cl
    out 0x70, al
    mov al, 0xc0
    out 0x71, al
    sub ecx, 2
    jns 2b
    mov al, 0x0b
    out 0x70, al
    mov al, 0x22
    out 0x71, al
    mov dx, 0x602
    mov ax, 0x400
    out dx, ax
    mov dx, 0x604
    mov ax, 0x2400
    out dx, ax
3:  mov dx, 0x3f8
    mov al, '!'
    out dx, al
    jmp 3b
"""

# Pulses an interrupt line of --test-devices and says whether its vector, both given, was taken; all
# other gates are absent.
VECTOR = """
    mov rdi, 0x5000
    lea rax, [rip + 9f]
    mov [rdi + {1} * 16], ax
    mov word ptr [rdi + {1} * 16 + 2], cs
    mov word ptr [rdi + {1} * 16 + 4], 0x8e00
    shr rax, 16
    mov [rdi + {1} * 16 + 6], ax
    lidt [rip + 8f]
    mov rsp, 0x9000
    mov dx, 0x2000 + {0}
    mov eax, 1
    out dx, eax
    mov eax, 0
    out dx, eax
    sti
    hlt
8:  .word 0xfff
    .quad 0x5000
9:
""" + SAY.format("v") + POWER_OFF

# Puts 16-bit code for SLEEP to 0x1000: it looks at where it runs and what woke it, says two letters
# that stand in memory, and powers off.
WAKE = """
    mov word ptr [0x2000], 0x4b4f
    mov edi, 0x1000
    lea rsi, [rip + 8f]
    mov ecx, 9f - 8f
    rep movsb
    jmp 9f
    .code16
8:  mov ax, cs
    cmp ax, 0x100
    jne 7f
    mov dx, 0x600
    in ax, dx
    and ax, 0x8400
    cmp ax, 0x8400
    jne 7f
    mov dx, 0x3f8
    mov al, ds:[0x2000]
    out dx, al
    mov al, ds:[0x2001]
    out dx, al
7:  mov dx, 0x604
    mov ax, 0x2000
    out dx, ax
    hlt
    .code64
9:
"""

# Says what it hears, in capitals, until a full stop.
ECHO = """
    mov dx, 0x3fc
    mov al, 3
    out dx, al
    mov dx, 0x3f8
    mov al, '>'
    out dx, al
1:  mov dx, 0x3fd
    in al, dx
    test al, 1
    jz 1b
    mov dx, 0x3f8
    in al, dx
    cmp al, '.'
    je 2f
    and al, 0xdf
    out dx, al
    jmp 1b
2:
""" + POWER_OFF
