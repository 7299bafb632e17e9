#!/usr/bin/env python3
"""Linux with an IOMMU (--iommu): disks and random bytes by DMA that goes through it, and interrupts
that are remapped: iommu.py TRIODE [CASE...], one boot for each, of all without names"""
import hashlib
import os
import re
import shutil
import sys
import tempfile

from board import no_complaint
from guest import GUESTS, PROMPT, SKIP, Terminal, linux, need_guests

KERNEL = os.path.join(GUESTS, "vmlinuz")
INITRD = os.path.join(GUESTS, "initramfs-disk.cpio")
MODULES = "virtio_pci virtio_blk virtio-rng ata_piix sd_mod"
SIZE = 16 << 20
# Command line, and the type of the devices' domains: unmapped at once, unmapped in batches (which
# is Debian's default), passed through, or none because Linux leaves the tables off.
CASES = {
    "strict": ("intel_iommu=on iommu.strict=1", "DMA"),
    "default": ("", "DMA-FQ"),
    "pass-through": ("intel_iommu=on iommu=pt", "identity"),
    "interrupts": ("intel_iommu=off", None),
    "off": ("intel_iommu=off intremap=off", None),
}


def start(triode, append, disks):
    vm = Terminal(triode, linux(f"quiet {append}", "--kernel", KERNEL, "--initrd", INITRD, "--iommu",
                                "--rng", "--smp", "2", "--disk", disks[0],
                                "--disk", disks[1] + ",if=ide"))
    vm.expect(re.escape(PROMPT), 120)
    vm.command("stty columns 200")
    vm.command(f"depmod; for m in {MODULES}; do modprobe $m; done; dmesg -n 1")
    vm.command("while [ ! -b /dev/vda ] || [ ! -b /dev/sda ]; do sleep 1; done")
    return vm


def use(vm, name, disk):
    """What the guest writes is in the file, and what it reads back is that."""
    vm.command(f"dd if=/dev/urandom of={name} bs=1M count={SIZE >> 20} conv=fsync 2>/dev/null")
    vm.command("echo 3 >/proc/sys/vm/drop_caches")
    shown = vm.command(f"md5sum {name}").split()[0]
    with open(disk, "rb") as file:
        vm.check(hashlib.md5(file.read()).hexdigest() == shown, f"{name} is not what its file holds")


def files(vm):
    for command in ("mke2fs -F /dev/vda >/dev/null", "modprobe crc32c_generic && modprobe ext4",
                    "mkdir -p /mnt && mount -t ext4 /dev/vda /mnt",
                    "cp /bin/busybox /mnt && umount /mnt && echo 3 >/proc/sys/vm/drop_caches",
                    "mount -t ext4 /dev/vda /mnt && cmp /mnt/busybox /bin/busybox", "umount /mnt"):
        vm.check("status 0" in vm.command(f"{command} 2>/tmp/said; echo status $?"),
                 f"{command} fails")


def boot(triode, append, domain, folder):
    disks = [os.path.join(folder, name) for name in ("virtio.img", "ide.img")]
    for disk in disks:
        with open(disk, "wb") as file:
            file.truncate(SIZE)
    vm = start(triode, append, disks)
    use(vm, "/dev/vda", disks[0])
    use(vm, "/dev/sda", disks[1])
    files(vm)
    vm.check(vm.command("dd if=/dev/hwrng bs=64 count=4 2>/dev/null | wc -c") == "256",
             "no random bytes")
    log = vm.command("dmesg")
    no_complaint(log)
    vm.check("DMAR: Host address width 46" in log, "Linux does not find the unit")
    vm.check(not re.search(r"DMAR.*fault", log), "requests were blocked")
    vm.check(("DMAR-IR: Enabled IRQ remapping in x2apic mode" in log) == ("intremap=off" not in append),
             "interrupts are remapped or not, against what was asked")
    types = vm.command("for d in 01 02 03; do cat /sys/bus/pci/devices/0000:00:$d.0/iommu_group/type;"
                       " done 2>/dev/null").split()
    vm.check(types == ([domain] * 3 if domain else []), f"domains are {types}, not {domain}")
    vm.send("exit\n")
    vm.end(status=0)


def main():
    triode = sys.argv[1]
    need_guests()
    for path in KERNEL, INITRD:
        if not os.path.exists(path):
            print(f"skipped: no {path}; tools/guests.sh test fetches it")
            sys.exit(SKIP)
    for case in sys.argv[2:] or CASES:
        print(case, flush=True)
        folder = tempfile.mkdtemp()
        try:
            boot(triode, *CASES[case], folder)
        finally:
            shutil.rmtree(folder)
    print("ok")


if __name__ == "__main__":
    main()
