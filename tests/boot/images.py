"""Kernel images for tests: small ones made here, and the ELF file inside a bzImage."""
import struct


def lz4_length(data, at, length):
    """A length of four bits, of which 15 means that bytes follow; answers it and where they end."""
    if length == 15:
        while data[at] == 255:
            length += 255
            at += 1
        length += data[at]
        at += 1
    return length, at


def lz4_block(data):
    """Decompresses one LZ4 block (lz4_Block_format.md)."""
    out = bytearray()
    at = 0
    while at < len(data):
        token = data[at]
        at += 1
        length, at = lz4_length(data, at, token >> 4)
        out += data[at:at + length]
        at += length
        if at >= len(data):
            break
        back = data[at] | data[at + 1] << 8
        at += 2
        length, at = lz4_length(data, at, token & 15)
        length += 4
        start = len(out) - back
        if back >= length:
            out += out[start:start + length]
        else:  # the copy reads what it writes: a pattern of `back` bytes
            pattern = bytes(out[start:])
            out += (pattern * (length // back + 1))[:length]
    return bytes(out)


def lz4_legacy(data):
    """Decompresses LZ4's legacy frame, of the kernel's build; stops at the payload's end."""
    assert data[:4] == b"\x02\x21\x4c\x18", "not an LZ4 legacy frame"
    out, at = bytearray(), 4
    while at + 4 <= len(data):
        size = struct.unpack_from("<I", data, at)[0]
        if size == 0 or at + 4 + size > len(data):
            break  # the kernel's build appends the uncompressed size
        out += lz4_block(data[at + 4:at + 4 + size])
        at += 4 + size
    return bytes(out)


def extract_vmlinux(bzimage, path):
    """Writes the ELF kernel inside a bzImage (Linux Documentation/arch/x86/boot.rst: setup_sects,
    payload_offset, payload_length) to `path`."""
    with open(bzimage, "rb") as file:
        image = file.read()
    setup_sectors = image[0x1f1] or 4
    offset, length = struct.unpack_from("<II", image, 0x248)
    start = (setup_sectors + 1) * 512 + offset
    elf = lz4_legacy(image[start:start + length])
    assert elf[:4] == b"\x7fELF", "no ELF file inside"
    with open(path, "wb") as file:
        file.write(elf)


def pvh_elf(path, code, address=0x100000, memory_size=None):
    """A 64-bit ELF file with a PVH entry note (Xen's public elfnote.h, XEN_ELFNOTE_PHYS32_ENTRY)
    whose 32-bit code is loaded and entered at `address`."""
    note = struct.pack("<III4sII", 4, 8, 18, b"Xen\0", address, 0)
    headers = 64 + 2 * 56
    code_at = headers + len(note)
    header = b"\x7fELF" + bytes([2, 1, 1]) + bytes(9)
    header += struct.pack("<HHIQQQIHHHHHH", 2, 62, 1, address, 64, 0, 0, 64, 56, 2, 0, 0, 0)
    load = struct.pack("<IIQQQQQQ", 1, 7, code_at, address, address, len(code),
                       memory_size or len(code), 16)
    notes = struct.pack("<IIQQQQQQ", 4, 4, headers, 0, 0, len(note), len(note), 4)
    with open(path, "wb") as file:
        file.write(header + load + notes + note + code)


# lidt of an empty table, then ud2: no handler can be reached, the CPU shuts down.
TRIPLE_FAULT = bytes.fromhex("0f011d0a001000" "0f0b" "90" "000000000000")
ENDLESS_LOOP = bytes.fromhex("ebfe")
