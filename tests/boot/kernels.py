#!/usr/bin/env python3
"""Boots other kernels than the default guest's: kernels.py TRIODE [--all] [--smp N,...]

Of what tools/guests.sh has fetched (test or all; what is not there is skipped): Linux with
real-time scheduling, from backports, and for 32 bits, each to power-off; memtest86+ through its
first test; GNU Mach until it has seen its devices; iPXE until it runs a command.
"""
import argparse
import os
import re
import sys
import tempfile
import time

from guest import GUESTS, SKIP, Terminal, run

COMPLAINTS = re.compile(r"BUG:|Oops|WARNING:|Call Trace|stall|invalid opcode|Kernel panic")
RELEASES = {"vmlinuz": r"[\d.-]+-amd64", "vmlinuz-rt": r"[\d.-]+-rt-amd64",
            "vmlinuz-backports": r"[\d.]+\+deb\d+-amd64", "vmlinuz-686-pae": r"[\d.-]+-686-pae",
            "vmlinuz-686": r"[\d.-]+-686"}
MACH_SEEN = (r"GNU Mach 1\.8", r"Probing PCI hardware", r"hd0: Triode disk, 8MB", r"ide0 at 0x1f0",
             r"RTC time is 20\d\d-", r"bootstrap_create: No bootstrap code loaded")


def guest(name):
    return os.path.join(GUESTS, name)


def fail(why, *texts):
    sys.exit("\n".join([f"FAILED: {why}", *(text[-5000:] for text in texts)]))


def linux(triode, kernel, cpus):
    initrd = "initramfs-i386.cpio" if "686" in kernel else "initramfs.cpio"
    start = time.monotonic()
    result = run(triode, ["run", "--engine", "soft", "--kernel", guest(kernel), "--initrd",
                          guest(initrd), "--smp", cpus, "--append",
                          "console=ttyS0 triode.poweroff"], seconds=150)
    ready = re.search(r"Triode guest ready: Linux (\S+), CPUs: (\d+), up", result.stdout)
    if result.returncode or not ready or COMPLAINTS.search(result.stdout):
        fail(f"{kernel}, status {result.returncode}", result.stdout, result.stderr)
    if not re.fullmatch(RELEASES[kernel], ready[1]) or ready[2] != cpus:
        fail(f"{kernel} says {ready[0]}")
    print(f"{kernel}, {cpus} CPUs: {ready[1]}, {time.monotonic() - start:.1f} s", flush=True)


def memtest(triode, image, passes, seconds):
    """Until so many passes are through; 0: until it tests on both CPUs."""
    start = time.monotonic()
    vm = Terminal(triode, ["run", "--engine", "soft", "--kernel", guest(image), "--smp", "2",
                           "--mem", "128M", "--append", "console=ttyS0,115200"])
    vm.expect(r"Memtest86\+ v\d", 30)
    if passes:
        while "Errors: 0 " in vm.expect(r"Pass:\s+(\d+)\s+Errors: *\d+ ", seconds)[0]:
            if int(re.findall(r"Pass:\s+(\d+)\s+Errors:", vm.text)[-1]) >= passes:
                break
        else:
            vm.fail("memtest86+ found errors")
    else:
        vm.expect(r"Using: All Cores.*?Errors: 0 ", seconds)
    vm.send("\x01x")
    vm.end(status=0, seconds=20)
    print(f"{image}: {passes} passes, {time.monotonic() - start:.0f} s", flush=True)


def mach(triode):
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        disk = os.path.join(folder, "disk.img")
        with open(disk, "wb") as file:
            file.truncate(8 << 20)
        vm = Terminal(triode, ["run", "--engine", "soft", "--kernel", guest("gnumach.gz"), "--mem",
                               "128M", "--append", "console=com0", "--disk", disk + ",if=ide"])
        for text in MACH_SEEN:
            vm.expect(text, 60)
        vm.send("\x01x")
        vm.end(status=0, seconds=20)
    print(f"gnumach.gz: devices seen, {time.monotonic() - start:.1f} s", flush=True)


def ipxe(triode):
    """In real mode, by the 16-bit entry: its header is older than the other ones."""
    start = time.monotonic()
    vm = Terminal(triode, ["run", "--engine", "soft", "--kernel", guest("ipxe.lkrn"), "--append",
                           "echo runs  its commands && prompt"])
    vm.expect(r"initialising devices\.\.\.ok", 30)
    vm.expect(r"runs its commands", 30)
    vm.send("\x01x")
    vm.end(status=0, seconds=20)
    print(f"ipxe.lkrn: a command, {time.monotonic() - start:.1f} s", flush=True)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("triode")
    parser.add_argument("--smp", default="2")
    parser.add_argument("--all", action="store_true",
                        help="each kernel with 1, 2 and 4 CPUs, one pass of memtest86+")
    options = parser.parse_args()
    counts = ["1", "2", "4"] if options.all else options.smp.split(",")
    seen = 0
    for kernel in RELEASES:
        if os.path.exists(guest(kernel)) and (options.all or kernel != "vmlinuz"):
            seen += 1
            for cpus in counts:
                linux(options.triode, kernel, cpus)
    for image in "memtest86+x64.bin", "memtest86+ia32.bin":
        if os.path.exists(guest(image)):
            seen += 1
            memtest(options.triode, image, 1 if options.all else 0, 3600 if options.all else 60)
    if os.path.exists(guest("gnumach.gz")):
        seen += 1
        mach(options.triode)
    if os.path.exists(guest("ipxe.lkrn")):
        seen += 1
        ipxe(options.triode)
    if not seen:
        print(f"skipped: none of these guests in {GUESTS}; tools/guests.sh test fetches them")
        sys.exit(SKIP)
    print("ok")


if __name__ == "__main__":
    main()
