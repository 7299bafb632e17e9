#!/usr/bin/env python3
"""Every way in which Linux reboots a PC resets the machine: reboot.py TRIODE"""
import os
import re
import sys
import tempfile

import images
from guest import STATUS_TRIPLE_FAULT, Terminal, linux, need_guests, run

# The kernel's reboot= and the accesses that must be the last ones to a port of this kind; it tries
# other ways when one did not work, and then these are not.
WAYS = {
    "a": [("0xcf9", "0x6")],                     # reset register of the ACPI tables
    "k": [("0x64", "0xfe")],                     # keyboard controller
    "p": [("0xcf9", "0x2"), ("0xcf9", "0xe")],   # chipset
    "b": [("0xcf9", "0x2"), ("0xcf9", "0x6")],   # real mode, to where firmware starts
    "t": [],                                     # triple fault
    "e": [("0xcf9", "0x2"), ("0xcf9", "0x6")],   # no EFI here: as b
}
RESETTING = ("0x64", "0x92", "0xcf9")


def resets(trace):
    """Writes to ports that can reset, without the trace's second line for each."""
    with open(trace, encoding="utf-8") as lines:
        found = re.findall(r"op=out port=(0x\w+) size=1 value=(0x\w+)", lines.read())
    writes = [write for write in found if write[0] in RESETTING]
    return [write for i, write in enumerate(writes) if not i or write != writes[i - 1]]


def ways(triode, folder):
    for way, expected in WAYS.items():
        trace = os.path.join(folder, way)
        result = run(triode, linux(f"quiet reboot={way} triode.run=reboot%20-f", "--reboot", "off",
                                   "--triple-fault", "reset", "--smp", "2", "--trace",
                                   f"pio:{trace}"))
        last = resets(trace)[-len(expected):] if expected else resets(trace)[-1:]
        good = last == expected or (not expected and not last[:1] == [("0xcf9", "0x6")])
        print(f"  reboot={way}: {last}", flush=True)
        if result.returncode or "Restarting system" not in result.stdout or not good:
            sys.exit(f"FAILED: status {result.returncode}\n{result.stdout[-2000:]}\n"
                     f"{result.stderr[-2000:]}")


def triple_fault(triode):
    """Unless told otherwise a triple fault is an end that says why."""
    result = run(triode, linux("quiet reboot=t triode.run=reboot%20-f"))
    if result.returncode != STATUS_TRIPLE_FAULT or "triple fault" not in result.stderr:
        sys.exit(f"FAILED: status {result.returncode}\n{result.stderr[-2000:]}")


def again_and_again(triode, folder):
    """Each reset starts the machine as power-on did."""
    kernel = os.path.join(folder, "fault.elf")
    images.pvh_elf(kernel, b"\xba\xf8\x03\x00\x00\xb0\x52\xee" + images.TRIPLE_FAULT)  # prints R
    vm = Terminal(triode, ["run", "--engine", "soft", "--kernel", kernel, "--triple-fault",
                           "reset"])
    vm.expect("R{20}", 60)
    vm.send("\x01x")
    vm.end(status=0, seconds=10)


def main():
    triode = sys.argv[1]
    need_guests()
    with tempfile.TemporaryDirectory() as folder:
        print("again and again", flush=True)
        again_and_again(triode, folder)
        print("triple fault", flush=True)
        triple_fault(triode)
        ways(triode, folder)
    print("ok")


if __name__ == "__main__":
    main()
