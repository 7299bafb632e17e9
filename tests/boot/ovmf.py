#!/usr/bin/env python3
"""UEFI firmware (Debian's OVMF) comes to its shell, and boots Linux from a disk: ovmf.py TRIODE"""
import os
import subprocess
import sys
import tempfile

from firmware import need
from guest import INITRD, KERNEL, Terminal, need_guests, run

FIRMWARE = "/usr/share/ovmf/OVMF.fd"
STARTUP = "fs0:\r\nvmlinuz.efi initrd=\\initrd console=ttyS0 quiet triode.run=dmesg\r\n"


def shell(triode):
    vm = Terminal(triode, ["run", "--engine", "soft", "--firmware", FIRMWARE])
    vm.expect("UEFI v", 90)
    vm.expect("Press", 60)
    vm.send("\x1b")
    vm.expect("Shell>", 30)
    vm.send("reset -s\r")
    vm.end(status=0, seconds=30)


def disk(triode):
    with tempfile.TemporaryDirectory() as folder:
        image = os.path.join(folder, "disk.img")
        startup = os.path.join(folder, "startup.nsh")
        with open(image, "wb") as file:
            file.truncate(64 << 20)
        with open(startup, "w", encoding="ascii", newline="") as file:
            file.write(STARTUP)
        subprocess.run(["mformat", "-i", image, "-F", "::"], check=True)
        for source, name in (startup, "startup.nsh"), (KERNEL, "vmlinuz.efi"), (INITRD, "initrd"):
            subprocess.run(["mcopy", "-i", image, source, f"::/{name}"], check=True)
        result = run(triode, ["run", "--engine", "soft", "--firmware", FIRMWARE, "--disk", image,
                              "--smp", "2"], seconds=140)
    for text in ("efi: EFI v2", "ACPI: FACP", "ACPI: Interpreter enabled", "SMBIOS 3.4",
                 "DMI: Triode PC", "Brought up 1 node, 2 CPUs", "Triode guest: exit status 0"):
        if text not in result.stdout:
            sys.exit(f"FAILED: no {text!r}\n{result.stdout[-6000:]}\n{result.stderr[-2000:]}")
    if result.returncode or "ACPI Error" in result.stdout or "ACPI Warning" in result.stdout:
        sys.exit(f"FAILED: status {result.returncode}\n{result.stdout[-6000:]}")


def main():
    need_guests()
    need(FIRMWARE, "mformat", "mcopy")
    for test in shell, disk:
        print(test.__name__, flush=True)
        test(sys.argv[1])
    print("ok")


if __name__ == "__main__":
    main()
