#!/usr/bin/env python3
"""A guest's Linux counts instructions, branches, cycles as they are: counters.py TRIODE PROGRAM"""
import re
import sys
import tempfile

from guest import KERNEL, initrd_with, need_guests, run

WANTED = ["instructions: 200000 more", "branches: 100000 more", "rdpmc: 12", "samples: 20 or 21",
          "cycles: busy"]


def main():
    triode, program, *options = sys.argv[1:]
    need_guests()
    with tempfile.TemporaryDirectory() as folder:
        initrd = initrd_with(program, folder)
        result = run(triode, ["run", "--engine", "soft", "--kernel", KERNEL, "--initrd", initrd,
                              "--append", "console=ttyS0 quiet rdinit=/program", *options])
    seen = re.findall(r"COUNTERS (\w+: .*?)\r?\n", result.stdout)
    print(result.stdout[-2000:])
    if seen != WANTED:
        sys.exit(f"FAILED: wanted {WANTED}\n{result.stderr[-1000:]}")


main()
