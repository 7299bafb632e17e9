#!/usr/bin/env python3
"""Single steps and breakpoints in a guest's Linux are as the host's: stepping.py TRIODE PROGRAM"""
import re
import subprocess
import sys
import tempfile

from guest import KERNEL, SKIP, initrd_with, need_guests, run


def main():
    triode, program = sys.argv[1:]
    need_guests()
    native = subprocess.run([program], stdout=subprocess.PIPE, text=True, timeout=60, check=False)
    expected = re.findall(r"^STEPPING .*", native.stdout, re.MULTILINE)
    if len(expected) != 3 or "refused 0" not in expected[1]:
        print(f"skipped: the host does not let a program be traced:\n{native.stdout}")
        sys.exit(SKIP)
    with tempfile.TemporaryDirectory() as folder:
        initrd = initrd_with(program, folder)
        result = run(triode, ["run", "--engine", "soft", "--kernel", KERNEL, "--initrd", initrd,
                              "--append", "console=ttyS0 quiet rdinit=/program"])
    seen = re.findall(r"STEPPING .*(?<!\r)", result.stdout.replace("\r", ""))
    blocks = re.search(r"BLOCKS (\d+) of (\d+)", result.stdout)
    print("\n".join(seen), blocks and blocks.group(), sep="\n")
    # The host may step every instruction where it is asked for branches.
    if seen != expected or not blocks or not 50 <= int(blocks[1]) < int(blocks[2]) - 80:
        sys.exit(f"FAILED: the host has\n{native.stdout}\nthe guest\n{result.stdout[-3000:]}"
                 f"{result.stderr[-1000:]}")


main()
