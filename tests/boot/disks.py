#!/usr/bin/env python3
"""Disks that fail, shrink, are full or shared, as drivers see them: disks.py TRIODE virtio|ide"""
import hashlib
import os
import re
import resource
import shutil
import signal
import sys
import tempfile

from guest import GUESTS, PROMPT, SKIP, STATUS_USAGE, Terminal, linux, need_guests, run

KERNEL = os.path.join(GUESTS, "vmlinuz")
INITRD = os.path.join(GUESTS, "initramfs-disk.cpio")
MODULES = {"virtio": "virtio_pci virtio_blk", "ide": "ata_piix sd_mod"}
NAMES = {"virtio": "/dev/vda", "ide": "/dev/sda"}
SIZE = 8 << 20


def options(disk, interface, *more):
    return linux("quiet", "--kernel", KERNEL, "--initrd", INITRD, "--disk",
                 ",".join([disk, *more, f"if={interface}"]))


def start(triode, disk, interface, *more, cpus="1"):
    """A guest at its prompt with the disk there."""
    vm = Terminal(triode, [*options(disk, interface, *more), "--smp", cpus])
    vm.expect(re.escape(PROMPT), 120)
    vm.command("stty columns 200")  # the shell's echo wraps no command
    vm.command(f"depmod; for m in {MODULES[interface]}; do modprobe $m; done; dmesg -n 1")
    vm.command(f"while [ ! -b {NAMES[interface]} ]; do sleep 1; done")
    return vm


def status(vm, command):
    """The command's exit status; its output is checked by whoever needs it."""
    return int(vm.command(f"{command} 2>/tmp/said; echo status $?").split("status ")[1])


def refused_twice(triode, disk, interface):
    """Another process may not have the disk meanwhile, to write or to read."""
    for more in (), ("ro",):
        result = run(triode, options(disk, interface, *more), seconds=20)
        if result.returncode != STATUS_USAGE or "in use already, by another machine" not in result.stderr:
            sys.exit(f"FAILED: a second machine got the disk: status {result.returncode}\n"
                     f"{result.stderr}")


def full(vm, name):
    """The host takes no more beyond 4 MiB: an I/O error there, and all else goes on."""
    resource.prlimit(vm.child.pid, resource.RLIMIT_FSIZE, (SIZE // 2, resource.RLIM_INFINITY))
    vm.check(status(vm, f"dd if=/dev/zero of={name} bs=64k seek=100 count=4 conv=fsync") != 0,
             "a write that the host refused is said to be done")
    vm.check(status(vm, f"dd if=/dev/zero of={name} bs=64k seek=1 count=4 conv=fsync") == 0,
             "a write below the limit fails")
    resource.prlimit(vm.child.pid, resource.RLIMIT_FSIZE,
                     (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    vm.check(status(vm, f"dd if=/dev/zero of={name} bs=64k seek=100 count=4 conv=fsync") == 0,
             "writes fail for ever")


def shrinks(vm, disk, name):
    os.truncate(disk, SIZE // 2)
    vm.command("echo 3 >/proc/sys/vm/drop_caches")
    vm.check(status(vm, f"dd if={name} of=/dev/null bs=4k count=1 skip=1500") != 0,
             "what is gone can be read")
    vm.check(status(vm, f"dd if={name} of=/dev/null bs=4k count=100") == 0,
             "what is left cannot be read")
    os.truncate(disk, SIZE)


def files(vm, name):
    """A file system, mounted twice."""
    for command in (f"mke2fs -F {name} >/dev/null", "modprobe crc32c_generic && modprobe ext4",
                    f"mkdir -p /mnt && mount -t ext4 {name} /mnt",
                    "cp -r /bin/busybox /etc /mnt && md5sum /mnt/busybox >/tmp/before",
                    "umount /mnt", "echo 3 >/proc/sys/vm/drop_caches",
                    f"mount -t ext4 {name} /mnt", "md5sum -c /tmp/before >/dev/null",
                    "cmp /mnt/etc/shell.rc /etc/shell.rc", "umount /mnt"):
        vm.check(status(vm, command) == 0, f"{command} fails")


def killed(vm, disk, name):
    """What a flush said is on the disk is there when Triode is shot."""
    vm.check(status(vm, f"dd if=/dev/urandom of={name} bs=64k count=128 conv=fsync") == 0,
             "random bytes cannot be written")
    shown = vm.command(f"md5sum {name}").split()[0]
    vm.signal(signal.SIGKILL)
    vm.child.wait()
    with open(disk, "rb") as file:
        if hashlib.md5(file.read()).hexdigest() != shown:
            sys.exit("FAILED: flushed data is not on the disk")


def read_only(triode, disk, interface):
    name = NAMES[interface]
    with open(disk, "rb") as file:
        before = file.read()
    vm = start(triode, disk, interface, "ro")
    vm.check(vm.command(f"cat /sys/block/{name[5:]}/ro") == "1" or interface == "ide",
             "the disk is not read-only to the guest")
    vm.check(status(vm, f"dd if=/dev/zero of={name} bs=4k count=1 conv=fsync") != 0,
             "a read-only disk takes writes")
    vm.check(status(vm, f"dd if={name} of=/dev/null bs=4k") == 0, "it cannot be read")
    vm.send("exit\n")
    vm.end(status=0)
    with open(disk, "rb") as file:
        if file.read() != before:
            sys.exit("FAILED: a read-only disk has changed")


def main():
    triode, interface = sys.argv[1:]
    need_guests()
    for path in KERNEL, INITRD:
        if not os.path.exists(path):
            print(f"skipped: no {path}; tools/guests.sh test fetches it")
            sys.exit(SKIP)
    folder = tempfile.mkdtemp()
    try:
        disk = os.path.join(folder, "disk.img")
        with open(disk, "wb") as file:
            file.truncate(SIZE)
        vm = start(triode, disk, interface)
        for name, test in {"refused twice": lambda: refused_twice(triode, disk, interface),
                           "full": lambda: full(vm, NAMES[interface]),
                           "shrinks": lambda: shrinks(vm, disk, NAMES[interface]),
                           "files": lambda: files(vm, NAMES[interface]),
                           "killed": lambda: killed(vm, disk, NAMES[interface]),
                           "read only": lambda: read_only(triode, disk, interface)}.items():
            print(name, flush=True)
            test()
    finally:
        shutil.rmtree(folder)
    print("ok")


if __name__ == "__main__":
    main()
