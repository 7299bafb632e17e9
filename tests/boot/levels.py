#!/usr/bin/env python3
"""Five levels of page tables: levels.py TRIODE

Linux uses them where the CPU has them, whether it is unpacked by the host or unpacks itself, unless
its command line says otherwise; and says so in /proc/cpuinfo.
"""
import sys

from guest import Terminal, linux, need_guests


def boot(triode, levels, append, *more):
    vm = Terminal(triode, linux("quiet " + append, "--smp", "2", *more))
    vm.expect("triode# ", 90)
    has = vm.command("grep -c '^flags.* la57' /proc/cpuinfo").split()
    bits = set(vm.command("sed -n 's/^address sizes.*, //p' /proc/cpuinfo").split("\n")) - {""}
    if has != ["2" if levels == 5 else "0"]:
        vm.fail(f"{levels} levels were to be expected, of 2 CPUs these say la57: {has}")
    if levels == 5 and {line.strip() for line in bits} != {"57 bits virtual"}:
        vm.fail(f"with 5 levels the kernel speaks of {bits}")
    vm.send("poweroff\n")
    vm.end(status=0, seconds=30)


def main():
    need_guests()
    triode = sys.argv[1]
    boot(triode, 4, "")
    boot(triode, 5, "", "--cpu", "x86-64-v2,la57=on")
    boot(triode, 5, "", "--cpu", "max", "--unpack", "off")
    boot(triode, 4, "no5lvl", "--cpu", "max")


main()
