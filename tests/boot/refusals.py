#!/usr/bin/env python3
"""Bad input gets one sentence on standard error and a status of its own: refusals.py TRIODE"""
import os
import sys
import tempfile

import images
from guest import INITRD, KERNEL, STATUS_USAGE, need_guests, run

failures = 0


def refused(triode, arguments, *texts, statuses=(STATUS_USAGE,), **more):
    """The run must end with one of the statuses, and its last line say one of each text's words."""
    global failures
    result = run(triode, ["run", "--engine", "soft", *arguments], seconds=20, **more)
    lines = [line for line in result.stderr.splitlines() if line.strip()]
    sentence = lines[-1] if lines else ""
    problems = [f"'{text}' is not in it" for text in texts if text.lower() not in sentence.lower()]
    if result.returncode not in statuses:
        problems.append(f"status {result.returncode}, expected {statuses}")
    if not sentence.startswith("triode: "):
        problems.append("no sentence that starts with 'triode: '")
    if len(lines) > 2:
        problems.append(f"{len(lines)} lines instead of one sentence")
    print(f"{'FAILED' if problems else 'ok'}: {' '.join(arguments)[-70:]}: {sentence}")
    for problem in problems:
        print(f"    {problem}")
    failures += bool(problems)


def write(path, data):
    with open(path, "wb") as file:
        file.write(data)
    return path


def kernels(triode, folder):
    with open(KERNEL, "rb") as file:
        good = file.read()
    refused(triode, ["--kernel", "/nonexistent/vmlinuz"], "/nonexistent/vmlinuz", "no such file")
    refused(triode, ["--kernel", folder], folder)
    for name, data in {
            "empty": b"", "short": good[:100], "header": good[:1000], "half": good[:len(good) // 2],
            "text": b"#!/bin/sh\necho hello\n" * 1000, "zeros": bytes(1 << 20),
            "arm64.elf": b"\x7fELF\x02\x01\x01" + bytes(9) + b"\x02\0\xb7\0" + bytes(4000),
            "cut.elf": b"\x7fELF\x02\x01\x01" + bytes(9) + b"\x02\0\x3e\0"}.items():
        path = write(os.path.join(folder, name), data)
        refused(triode, ["--kernel", path], path)
    path = os.path.join(folder, "huge.elf")
    images.pvh_elf(path, images.ENDLESS_LOOP, memory_size=1 << 40)
    refused(triode, ["--kernel", path, "--mem", "128M"], path)
    images.pvh_elf(path, images.ENDLESS_LOOP, address=0xfff00000)
    refused(triode, ["--kernel", path, "--mem", "128M"], path)


def initrds(triode, folder):
    refused(triode, ["--kernel", KERNEL, "--initrd", "/nonexistent/initrd"], "/nonexistent/initrd")
    path = os.path.join(folder, "big")
    with open(path, "wb") as file:
        file.truncate(300 << 20)
    refused(triode, ["--kernel", KERNEL, "--initrd", path, "--mem", "128M"], path)


def disks(triode, folder):
    guest = ["--kernel", KERNEL, "--initrd", INITRD]
    refused(triode, [*guest, "--disk", "/nonexistent/disk"], "/nonexistent/disk", "no such file")
    refused(triode, [*guest, "--disk", folder], folder, "directory")
    refused(triode, [*guest, "--disk", folder + ",ro"], folder, "directory")
    path = write(os.path.join(folder, "empty.img"), b"")
    refused(triode, [*guest, "--disk", path], path, "empty")
    path = write(os.path.join(folder, "one.img"), bytes(4096))
    refused(triode, [*guest, "--disk", path, "--disk", path], path, "in use")
    refused(triode, [*guest, "--disk", path + ",ro", "--disk", path], path, "in use")
    refused(triode, [*guest, "--disk", ",ro"], "disk")
    refused(triode, [*guest, *["--disk", path] * 9], "8")


def firmware(triode, folder):
    for name, size in {"odd.bin": 1000, "uneven.bin": (64 << 10) + 512, "large.bin": 9 << 20}.items():
        path = write(os.path.join(folder, name), bytes(size))
        refused(triode, ["--firmware", path], path, "4 KiB", "8 MiB")
    path = write(os.path.join(folder, "none.bin"), b"")
    refused(triode, ["--firmware", path], path, "empty")
    refused(triode, ["--firmware", "/nonexistent/bios"], "/nonexistent/bios")
    refused(triode, ["--firmware", folder], folder, "directory")
    refused(triode, ["--firmware", path, "--kernel", KERNEL], "kernel")


def options(triode):
    guest = ["--kernel", KERNEL, "--initrd", INITRD]
    for mem in ("0", "1M", "1", "-5M", "12Q", "M", "", "99999999T", "0x"):
        refused(triode, [*guest, "--mem", mem], "mem")
    for smp in ("0", "65", "-1", "x", "", "2,", "2,cores", "2,cores=0", "2,dies=2", "99999999999"):
        refused(triode, [*guest, "--smp", smp], "smp")
    refused(triode, [*guest, "--smp", "5,cores=2"], "5", "2")
    refused(triode, [*guest, "--smp", "4,sockets=2,cores=2,threads=2"], "4", "8")
    refused(triode, [*guest, "--trace", "exits:/nonexistent/dir/file"], "/nonexistent/dir/file")
    refused(triode, [*guest, "--trace", "nothing"], "nothing")
    refused(triode, [*guest, "--cpu", "z80"], "z80")
    refused(triode, [*guest, "--engine", "steam"], "steam")
    refused(triode, [*guest, "--serial", "file:/nonexistent/dir/file"], "/nonexistent/dir/file")
    refused(triode, [*guest, "--serial", "carrier-pigeon"], "carrier-pigeon")
    refused(triode, [*guest, "--entry", "8"], "--entry", "8")
    refused(triode, [*guest, "--triple-fault", "panic"], "--triple-fault", "panic")
    refused(triode, [*guest, "--frobnicate"], "--frobnicate")
    refused(triode, [*guest, "--kernel"], "--kernel")
    refused(triode, [*guest, "stray"], "stray")


def kvm(triode):
    """What is said depends on the host, but not that it is one sentence that names the device."""
    global failures
    as_nobody = {"user": 65534, "group": 65534, "extra_groups": []} if os.getuid() == 0 else {}
    if os.path.exists("/dev/kvm") and os.access("/dev/kvm", os.W_OK) and not as_nobody:
        print("skipped: this user may use /dev/kvm")
        return
    try:
        result = run(triode, ["run", "--engine", "kvm", "--kernel", KERNEL], seconds=20, cwd="/",
                     **as_nobody)
    except PermissionError:
        print("skipped: another user may not run this build")
        return
    if os.path.exists("/dev/kvm") and os.stat("/dev/kvm").st_mode & 0o006 == 0o006:
        print("skipped: everybody may use /dev/kvm")
        return
    good = result.returncode != 0 and "/dev/kvm" in result.stderr
    print(f"{'ok' if good else 'FAILED'}: --engine kvm: {result.returncode}, {result.stderr.strip()}")
    failures += not good


def main():
    triode = os.path.abspath(sys.argv[1])
    need_guests()
    with tempfile.TemporaryDirectory() as folder:
        kernels(triode, folder)
        initrds(triode, folder)
        disks(triode, folder)
        firmware(triode, folder)
    options(triode)
    kvm(triode)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
