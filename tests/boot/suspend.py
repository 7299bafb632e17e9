#!/usr/bin/env python3
"""Linux sleeps in memory (ACPI's S3) and goes on: suspend.py TRIODE virtio|ide CPUS

The clock's alarm wakes it. Twice; then all CPUs are back, time has gone on, and a disk is what it was,
also below Linux' cache of it.
"""
import os
import re
import sys
import tempfile

import disks
from guest import SKIP, need_guests

SECONDS = 2
COMPLAINTS = r"BUG:|Oops|WARNING:|Call Trace|stall|soft lockup|I/O error|failed to resume"


def number(vm, command):
    return float(vm.command(command).split()[0])


def sleep(vm):
    before = number(vm, "cat /proc/uptime"), number(vm, "date +%s")
    vm.command(f"echo +{SECONDS} >/sys/class/rtc/rtc0/wakealarm")
    said = vm.command("echo mem >/sys/power/state; echo status $?", 90)
    vm.check("status 0" in said, f"the kernel did not sleep: {said}")
    after = number(vm, "cat /proc/uptime"), number(vm, "date +%s")
    for old, new in zip(before, after):
        vm.check(SECONDS - 1 <= new - old < 60, f"a clock went from {old} to {new}")


def main():
    triode, interface, cpus = sys.argv[1:]
    need_guests()
    if not os.path.exists(disks.KERNEL) or not os.path.exists(disks.INITRD):
        print("skipped: tools/guests.sh test fetches the kernel with disk drivers")
        sys.exit(SKIP)
    name = disks.NAMES[interface]
    with tempfile.NamedTemporaryFile() as disk:
        disk.write(os.urandom(disks.SIZE))
        disk.flush()
        vm = disks.start(triode, disk.name, interface, cpus=cpus)
        vm.command("dd if=/dev/urandom of=/tmp/data bs=64k count=16")
        vm.command(f"dd if=/tmp/data of={name} bs=64k conv=fsync")
        whole = vm.command(f"md5sum <{name}")
        for _ in range(2):
            sleep(vm)
            vm.command("echo 3 >/proc/sys/vm/drop_caches")
            vm.check(vm.command(f"md5sum <{name}") == whole, "the disk has changed")
        vm.check(vm.command("nproc").strip() == cpus, "a CPU has not come back")
        vm.command(f"dd if=/tmp/data of={name} bs=64k seek=32 conv=fsync")
        said = vm.command("dmesg")
        vm.check(len(re.findall("PM: suspend exit", said)) == 2, said)
        vm.check(not re.search(COMPLAINTS, said), said)
        vm.send("exit\n")
        vm.end(status=0, seconds=60)
    print("ok")


if __name__ == "__main__":
    main()
