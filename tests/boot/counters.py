#!/usr/bin/env python3
"""A guest's Linux counts instructions, branches and cycles as they are: counters.py TRIODE PROGRAM"""
import os
import re
import sys
import tempfile

from guest import INITRD, KERNEL, cpio_entry, need_guests, run

WANTED = ["instructions: 200000 more", "branches: 100000 more", "rdpmc: 12", "samples: 20 or 21",
          "cycles: busy"]


def main():
    triode, program, *options = sys.argv[1:]
    need_guests()
    with tempfile.TemporaryDirectory() as folder:
        initrd = os.path.join(folder, "initrd")
        with open(initrd, "wb") as out, open(INITRD, "rb") as base, open(program, "rb") as init:
            out.write(base.read())
            out.write(cpio_entry(b"counters", 0o100755, init.read()))
            out.write(cpio_entry(b"TRAILER!!!", 0, b""))
        result = run(triode, ["run", "--engine", "soft", "--kernel", KERNEL, "--initrd", initrd,
                              "--append", "console=ttyS0 quiet rdinit=/counters", *options])
    seen = re.findall(r"COUNTERS (\w+: .*?)\r?\n", result.stdout)
    print(result.stdout[-2000:])
    if seen != WANTED:
        sys.exit(f"FAILED: wanted {WANTED}\n{result.stderr[-1000:]}")


main()
