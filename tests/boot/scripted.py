#!/usr/bin/env python3
"""Boots without a terminal and in every form a kernel and an initrd may have: scripted.py TRIODE"""
import gzip
import json
import os
import sys
import tempfile

import images
from guest import GUESTS, INITRD, KERNEL, linux, need_guests, run


def check(result, status, *texts):
    missing = [text for text in texts if text not in result.stdout]
    if result.returncode != status or missing:
        print(f"FAILED: status {result.returncode} (expected {status}), missing {missing}\n"
              f"{result.stdout[-4000:]}\n{result.stderr[-4000:]}")
        sys.exit(1)


def main():
    triode = sys.argv[1]
    need_guests()

    print("power-off at once, standard input closed")
    check(run(triode, linux("quiet triode.poweroff"), stdin=None, close_fds=True,
              preexec_fn=lambda: os.close(0)), 0, "Triode guest ready")

    print("a command's output and status reach us")
    check(run(triode, linux("quiet triode.run=cat%20/proc/version;exit%207")), 0,
          "Linux version 6.1.", "Triode guest: exit status 7")

    print("the kernel's own messages come without quiet")
    check(run(triode, linux("triode.poweroff")), 0, "Command line: ", "reboot: Power down")

    print("the bzImage unpacks itself")
    check(run(triode, linux("quiet triode.poweroff", "--unpack", "off")), 0, "Triode guest ready")

    print("the bzImage is entered in 32-bit and in real mode")
    for entry in "32", "16":
        check(run(triode, linux("triode.poweroff", "--entry", entry, "--mem", "5G")), 0,
              "[mem 0x0000000100000000-0x000000017fffffff] usable", "Triode guest ready")

    print("compressed initrd, kernel as ELF by PVH")
    with tempfile.TemporaryDirectory() as folder:
        packed = os.path.join(folder, "initramfs.cpio.gz")
        with open(INITRD, "rb") as source, gzip.open(packed, "wb") as target:
            target.write(source.read())
        check(run(triode, linux("quiet triode.poweroff", "--initrd", packed)), 0,
              "Triode guest ready")
        vmlinux = os.path.join(folder, "vmlinux")
        images.extract_vmlinux(KERNEL, vmlinux)
        check(run(triode, linux("quiet triode.poweroff", "--kernel", vmlinux)), 0,
              "Triode guest ready")

    print("the default guest, a trace and statistics")
    with tempfile.TemporaryDirectory() as folder:
        trace = os.path.join(folder, "trace.jsonl")
        result = run(triode, ["run", "--engine", "soft", "--append",
                              "console=ttyS0 quiet triode.poweroff", "--stats",
                              "--trace", f"exits,irq,msr:{trace}"])
        check(result, 0, "Triode guest ready")
        with open(trace, encoding="utf-8") as lines:
            seen = {json.loads(line)["event"] for line in lines}
        if not {"exits", "msr"} <= seen <= {"exits", "irq", "msr"}:
            sys.exit(f"FAILED: the trace has {seen}")

    generic = os.path.join(GUESTS, "vmlinuz")
    if os.path.exists(generic):
        print("Debian's generic kernel")
        check(run(triode, linux("quiet triode.poweroff", "--kernel", generic)), 0,
              "Triode guest ready")
    print("ok")


if __name__ == "__main__":
    main()
