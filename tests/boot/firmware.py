#!/usr/bin/env python3
"""SeaBIOS starts at the reset vector and boots Debian's GRUB and kernel from a disk:
firmware.py TRIODE [OPTION]..."""
import os
import shutil
import struct
import subprocess
import sys
import tempfile

from guest import INITRD, KERNEL, SKIP, need_guests, run

FIRMWARE = "/usr/share/seabios/bios-256k.bin"
GRUB = "/usr/lib/grub/i386-pc"
SECTOR = 512
FIRST = 2048  # sector of the partition
SECTORS = 64 * 2048

MENU = """serial --unit=0 --speed=115200
terminal_input serial
terminal_output serial
linux /vmlinuz console=ttyS0 quiet 'triode.run=cat%20/proc/cmdline;dmesg%20|%20grep%20-e%20BIOS-e820%20-e%20SMBIOS%20-e%20RSDP%20-e%20Brought'
initrd /initrd
boot
"""
EARLY = "search --file --set=root /grub.cfg\nconfigfile /grub.cfg\n"
MODULES = ("biosdisk part_msdos fat normal linux serial configfile search search_fs_file terminal "
           "minicmd").split()


def need(*tools):
    for tool in tools:
        if not (shutil.which(tool) or os.path.exists(tool)):
            print(f"skipped: {tool} is not installed")
            sys.exit(SKIP)


def make_disk(folder):
    """A disk with GRUB between its first sector and a FAT partition with the default guest."""
    def path(name):
        return os.path.join(folder, name)

    def write(name, text):
        with open(path(name), "w", encoding="ascii") as file:
            file.write(text)

    write("grub.cfg", MENU)
    write("early.cfg", EARLY)
    subprocess.run(["grub-mkimage", "-O", "i386-pc", "-o", path("core.img"), "-p", "/", "-c",
                    path("early.cfg"), *MODULES], check=True)
    disk = path("disk.img")
    with open(disk, "wb") as file:
        file.truncate(SECTORS * SECTOR)
    partition = f"{disk}@@{FIRST * SECTOR}"
    subprocess.run(["mformat", "-i", partition, "-F", "-T", str(SECTORS - FIRST), "-h", "16", "-s",
                    "63", "::"], check=True)
    for source, name in (path("grub.cfg"), "grub.cfg"), (KERNEL, "vmlinuz"), (INITRD, "initrd"):
        subprocess.run(["mcopy", "-i", partition, source, f"::/{name}"], check=True)
    with open(os.path.join(GRUB, "boot.img"), "rb") as file:
        boot = bytearray(file.read())
    with open(path("core.img"), "rb") as file:
        core = bytearray(file.read())
    sectors = (len(core) + SECTOR - 1) // SECTOR
    # What grub-bios-setup writes (GRUB, include/grub/i386/pc/boot.h): where the core image is, any
    # boot drive, and in the core's first sector where the rest of it is.
    struct.pack_into("<Q", boot, 0x5c, 1)
    boot[0x64] = 0xff
    struct.pack_into("<QHH", core, 0x1f4, 2, sectors - 1, 0x820)
    boot[0x1be:0x1fe] = bytes(64)  # on floppy disks code goes on here
    struct.pack_into("<B3sB3sII", boot, 0x1be, 0x80, bytes(3), 0x0c, bytes(3), FIRST,
                     SECTORS - FIRST)
    boot[510:512] = b"\x55\xaa"
    with open(disk, "r+b") as file:
        file.write(boot)
        file.write(core)
    return disk


def main():
    triode, *options = sys.argv[1:]
    need_guests()
    need(FIRMWARE, GRUB, "grub-mkimage", "mformat", "mcopy")
    with tempfile.TemporaryDirectory() as folder:
        disk = make_disk(folder)
        suffix = ""
        if options and options[0].startswith(","):
            suffix = options.pop(0)
        log = os.path.join(folder, "debug.log")
        result = run(triode, ["run", "--engine", "soft", "--firmware", FIRMWARE, "--disk",
                              disk + suffix, "--debugcon", f"file:{log}", *options], seconds=100)
        with open(log, encoding="utf-8", errors="replace") as file:
            debug = file.read()
    for text, where in (("SeaBIOS (version", debug), ("BOOT_IMAGE=/vmlinuz", result.stdout),
                        ("exit status 0", result.stdout), ("RSDP", result.stdout),
                        ("BIOS-e820", result.stdout), ("SMBIOS 3.4", result.stdout)):
        if text not in where:
            sys.exit(f"FAILED: no {text!r}\n--- debug console:\n{debug[-3000:]}\n--- serial:\n"
                     f"{result.stdout[-3000:]}\n{result.stderr[-2000:]}")
    if result.returncode:
        sys.exit(f"FAILED: status {result.returncode}\n{result.stderr}")
    print(result.stdout[-1500:])
    print("ok")


if __name__ == "__main__":
    main()
