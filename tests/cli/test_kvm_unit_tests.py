#!/usr/bin/env python3
"""tools/kvm-unit-tests with a tree made here: test_kvm_unit_tests.py TRIODE SOURCE-ROOT

The tree has the form of a built one; its tests are guests of a few instructions that leave by the
exit port, and a table with each thing a table can say.
"""
import os
import subprocess
import sys
import tempfile

import guests

TRIODE, ROOT = os.path.abspath(sys.argv[1]), sys.argv[2]
TOOL = os.path.join(ROOT, "tools", "kvm-unit-tests")

LEAVE = """
    mov dx, 0xf4
    mov eax, {}
    out dx, eax
1:  hlt
    jmp 1b
"""

TABLE = '''
# [commented]
[good]
file = pass.flat
smp = 2
extra_params = -cpu qemu64,+x2apic,-pcid,-invpcid,sse4.1=off,vendor=GenuineIntel -m 64 --append "a 'b c'"
[newer]
file = pass.flat
smp = $MAX_SMP
qemu_params = """-cpu max,migratable=no
    -m 1G
    -machine q35"""
test_args = "x y"
check = /proc/no/such/file=1
check = /sys/module/kvm/parameters/ignore_msrs=N
[bad]
file = fail.flat
[none]
file = skip.flat
[long]
file = loop.flat
timeout = 1s
[dead]
file = dead.flat
[other]
file = pass.flat
arch = i386
[kvm]
file = pass.flat
check = /sys/module/kvm/parameters/x=Y
[amd]
file = pass.flat
extra_params = -cpu max,+svm
[vendor]
file = pass.flat
extra_params = -cpu EPYC,vendor=AuthenticAMD
[hyperv]
file = pass.flat
extra_params = -cpu max,hv_time
[device]
file = pass.flat
extra_params = -device pc-testdev -device edu
[vmport]
file = pass.flat
extra_params = -machine vmport=on
[absent]
file = absent.flat
[shell]
file = pass.flat
extra_params = -append `id`
[named]
file = pass.flat
groups = nodefault
extra_params = -append "`date +%s`"
'''

EXPECTED = (
    "PASS    good (no counts, ",
    "PASS    newer (no counts, ",
    "FAIL    bad (1 tests, 1 failures, ",
    "SKIP    none (no counts, ",
    "TIMEOUT long (after 1 s, ",
    "FAIL    dead (no counts, ",
    "SKIP    other (only for i386)",
    "SKIP    kvm (needs KVM's x=Y)",
    'SKIP    amd (triode: no CPU feature "svm")',
    "SKIP    vendor (needs a CPU of AuthenticAMD)",
    "SKIP    hyperv (needs -cpu hv_time)",
    "SKIP    device (needs the device edu)",
    "SKIP    vmport (needs -machine vmport=on)",
    "SKIP    absent (x86/absent.flat was not built)",
    "SKIP    shell (its parameters are a shell's)",
    "SKIP    named (not run unless it is named)",
    "16 entries: 2 passed, 2 failed, 1 took too long, 11 passed over",
)


def need(condition, why):
    if not condition:
        sys.exit(f"FAILED: {why}")


def tool(*arguments):
    return subprocess.run([TOOL, "--triode", TRIODE, *arguments], capture_output=True, timeout=120,
                          encoding="utf-8")


def refused(tree, words, *more):
    result = tool(tree, *more)
    need(result.returncode == 1 and words in result.stderr and result.stderr.count("\n") == 1,
         f"not refused with '{words}': {result.stdout}{result.stderr}")


def main(folder):
    refused(folder, "is no tree of kvm-unit-tests")
    os.mkdir(os.path.join(folder, "x86"))
    with open(os.path.join(folder, "x86", "unittests.cfg"), "w", encoding="utf-8") as file:
        file.write(TABLE)
    refused(folder, "is not built")
    failed = "".join(guests.SAY.format(letter) for letter in ("F", "A", "I", "L", ":", "\\n"))
    for name, text in (("pass", LEAVE.format(0)), ("fail", failed + LEAVE.format(1)),
                       ("skip", LEAVE.format(77 >> 1)), ("loop", guests.ENDLESS_LOOP),
                       ("dead", guests.TRIPLE_FAULT)):
        with open(os.path.join(folder, "x86", name + ".flat"), "wb") as file:
            file.write(guests.bzimage(guests.assemble(text)))
    refused(folder, "has no nonsense", "nonsense")

    logs = os.path.join(folder, "logs")
    result = tool("--logs", logs, folder)
    lines = result.stdout.splitlines()
    need(result.returncode == 1 and len(lines) == len(EXPECTED), result.stdout + result.stderr)
    for line, expected in zip(lines, EXPECTED):
        need(line.startswith(expected), f"'{expected}' expected, not '{line}'")
    for name, words in (("good", "--cpu=max,x2apic=on,pcid=off,invpcid=off,sse4_1=off --mem=64M "
                                 "'--append=a '\"'\"'b c'\"'\"'' --smp=2"),
                        ("newer", "--cpu=max --mem=1G '--append=x y' --smp=4")):
        with open(os.path.join(logs, name + ".log"), encoding="utf-8") as file:
            line = file.readline().strip()
        need(line.endswith(words), f"not '{words}': {line}")

    result = tool("--logs", logs, "--jobs", "2", folder, "good", "named")
    need(result.returncode == 0 and "2 entries: 2 passed" in result.stdout, result.stdout)
    with open(os.path.join(folder, "config.mak"), "w", encoding="utf-8") as file:
        file.write("ARCH=i386\n")
    result = tool("--logs", logs, folder, "other")
    need(result.returncode == 0 and "PASS    other" in result.stdout, result.stdout)
    with open(os.path.join(folder, "config.mak"), "w", encoding="utf-8") as file:
        file.write("ARCH=s390x\n")
    refused(folder, "configured for s390x")
    print("1 passed, 0 failed")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="triode-kut-") as made:
        main(made)
