#!/usr/bin/env python3
"""Boots to the shell on a terminal, works there, powers off: shell.py TRIODE [--smp S] [--mem M]"""
import argparse
import re

from guest import PROMPT, Terminal, linux, need_guests

# Of `seq 1 20000`, by coreutils.
SEQ_SHA256 = "f6351f5ead9a700e34275480b3856ea738122a7c57bdeb744a631251c069587a  -"


def megabytes(text):
    return int(text[:-1]) * {"M": 1, "G": 1024}[text[-1]]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("triode")
    parser.add_argument("--smp", default="1")
    parser.add_argument("--mem", default="512M")
    options = parser.parse_args()
    need_guests()
    cpus = int(options.smp.split(",")[0])

    vm = Terminal(options.triode, linux("quiet", "--smp", options.smp, "--mem", options.mem))
    vm.expect(r"^Linux triode 6\.1\.", 120)
    vm.expect(rf"^Welcome to the Triode guest\. CPUs: {cpus}, up", 30)
    vm.expect(re.escape(PROMPT))

    vm.check(vm.command("echo $((6 * 7))") == "42", "the shell cannot count")
    vm.check(vm.command("nproc") == str(cpus), "nproc")
    vm.check(vm.command("uname -m") == "x86_64", "uname -m")
    total = int(vm.command("awk '/MemTotal/ { print $2 }' /proc/meminfo")) / 1024
    vm.check(0.6 < total / megabytes(options.mem) <= 1, f"MemTotal {total:.0f} MB")
    vm.check(vm.command("seq 1 20000 | sha256sum") == SEQ_SHA256, "a pipe through two programs")
    time_before = float(vm.command("cut -d' ' -f1 /proc/uptime"))
    vm.command("sleep 1")
    slept = float(vm.command("cut -d' ' -f1 /proc/uptime")) - time_before
    vm.check(0.9 < slept < 20, f"sleep 1 took {slept} s of guest time")
    if cpus > 1:
        vm.command("for i in $(seq %d); do (seq 1 3000 >/dev/null) & done; wait" % (2 * cpus))
        online = vm.command("cat /sys/devices/system/cpu/online")
        vm.check(online == f"0-{cpus - 1}", f"online: {online}")
    bad = vm.command("dmesg | grep -E 'BUG:|Oops|WARNING:|invalid opcode|rcu.*stall' | head -3")
    vm.check(bad == "", f"the kernel complains: {bad}")

    vm.send("poweroff\n")
    vm.end(status=0, seconds=60)
    print("ok")

if __name__ == "__main__":
    main()
