#!/usr/bin/env python3
"""Every end of a run leaves the terminal as it was and has its own status: endings.py TRIODE"""
import os
import re
import signal
import sys
import tempfile
import time

import images
from guest import (PROMPT, STATUS_TRIPLE_FAULT, Terminal, linux, need_guests, run)

SHELL = re.escape(PROMPT)


def at_the_shell(triode):
    vm = Terminal(triode, linux("quiet"))
    vm.expect(SHELL, 120)
    return vm


def escape_keys(triode):
    vm = at_the_shell(triode)
    vm.send("\x01h")
    vm.expect(r"(?i)ctrl-a x|C-a x", 10)
    vm.send("\x01\x01")  # one Ctrl-A for the guest
    vm.send("\x01x")
    vm.end(status=0, seconds=10)


def control_c_is_the_guests(triode):
    vm = at_the_shell(triode)
    vm.send("sleep 1000\n")
    time.sleep(1)
    vm.send("\x03")
    vm.expect(SHELL, 20)
    vm.send("exit\n")
    vm.end(status=0)


def signals(triode):
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        for delay in (0.0, 0.05, 0.4, None):
            vm = at_the_shell(triode) if delay is None else Terminal(triode, linux(""))
            time.sleep(delay or 0)
            vm.signal(number)
            status = vm.end(seconds=10)
            print(f"    {number.name} after {delay} s: status {status}")
            if status == 0:
                vm.fail(f"{number.name} gave status 0")


def endless_loop(triode, folder):
    kernel = os.path.join(folder, "loop.elf")
    images.pvh_elf(kernel, images.ENDLESS_LOOP)
    vm = Terminal(triode, ["run", "--engine", "soft", "--kernel", kernel])
    time.sleep(0.5)
    vm.send("\x01x")
    vm.end(status=0, seconds=10)


def triple_fault(triode, folder):
    kernel = os.path.join(folder, "fault.elf")
    images.pvh_elf(kernel, images.TRIPLE_FAULT)
    result = run(triode, ["run", "--engine", "soft", "--kernel", kernel], seconds=20)
    for text in ("triple fault", "rip", "cr3", "ud2"):
        if text not in result.stderr.lower():
            sys.exit(f"FAILED: no '{text}' in the report of a triple fault:\n{result.stderr}")
    if result.returncode != STATUS_TRIPLE_FAULT:
        sys.exit(f"FAILED: status {result.returncode} instead of {STATUS_TRIPLE_FAULT}")


def reboot(triode):
    vm = at_the_shell(triode)
    vm.send("reboot\n")
    vm.expect("Welcome to the Triode guest", 120)
    vm.expect(SHELL)
    vm.send("exit\n")
    vm.end(status=0)


def main():
    triode = sys.argv[1]
    need_guests()
    with tempfile.TemporaryDirectory() as folder:
        for name, test in {
                "triple fault": lambda: triple_fault(triode, folder),
                "endless loop, Ctrl-A X": lambda: endless_loop(triode, folder),
                "escape keys": lambda: escape_keys(triode),
                "Ctrl-C": lambda: control_c_is_the_guests(triode),
                "signals": lambda: signals(triode),
                "reboot": lambda: reboot(triode)}.items():
            print(name, flush=True)
            test()
    print("ok")


if __name__ == "__main__":
    main()
