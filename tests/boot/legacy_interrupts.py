#!/usr/bin/env python3
"""A PCI disk whose interrupts come by the 8259 pair: legacy_interrupts.py TRIODE

With neither APIC, Linux finds the line by the ACPI tables' routes, or without those in the device's
register, and nothing else wakes whoever waits for the disk.
"""
import os
import re
import sys
import tempfile

import disks
from guest import SKIP, linux, need_guests, run

WAYS = ("nolapic noapic", "nolapic acpi=off pci=nomsi")
# It ends by a reset, for without ACPI it cannot power off.
COMMANDS = ("depmod; modprobe virtio_pci; modprobe virtio_blk; sleep 1; "
            "dd if=/dev/vda of=/dev/null bs=4k count=64 && cat /proc/interrupts; reboot -f")


def main():
    triode = sys.argv[1]
    need_guests()
    if not os.path.exists(disks.KERNEL) or not os.path.exists(disks.INITRD):
        print("skipped: tools/guests.sh test fetches the kernel with disk drivers")
        sys.exit(SKIP)
    with tempfile.NamedTemporaryFile() as disk:
        disk.truncate(disks.SIZE)
        for way in WAYS:
            command = COMMANDS.replace(" ", "%20")
            result = run(triode, [*linux(f"quiet {way} triode.run={command}"),
                                  "--kernel", disks.KERNEL, "--initrd", disks.INITRD,
                                  "--disk", disk.name, "--reboot", "off"])
            if not re.search(r"11: +[1-9]\d* +XT-PIC +virtio0", result.stdout):
                sys.exit(f"FAILED: {way}: no interrupt of the disk\n{result.stdout[-4000:]}")
    print("ok")


if __name__ == "__main__":
    main()
