#!/usr/bin/env python3
"""Long runs, not part of make test: soak.py TRIODE [WHAT...] [--boots N] [--smp S] [--seconds N]
                                             [--time SECONDS]

With --time: boots with 1, 2 and 4 CPUs, random sequences of instructions and stress-ng in turn for
so long, and a summary with date and figures. Else WHAT is any of these; all but openssl when none
is given:
  boots        N boots in a row with two CPUs, each to power-off
  interpreter  one boot on the IR interpreter
  kernels      every kernel of tools/guests.sh all with 1, 2 and 4 CPUs, a pass of memtest86+, GNU
               Mach
  stress       stress-ng in a guest with two CPUs, what it computes verified
  openssl      OpenSSL's own tests in a guest with two CPUs (tools/guests.sh openssl)
What has not been fetched is said and passed over.
"""
import argparse
import os
import re
import statistics
import subprocess
import sys
import time

from guest import GUESTS, linux, need_guests, run

COMPLAINTS = r"BUG:|Oops|WARNING:|Call Trace|stall|segfault|general protection"
# One worker of each; the classes cpu, vm, signal, futex and fork.
SEQUENCES = 300  # a round, for each code size
STRESSORS = ["cpu", "vm", "sigq", "sigsegv", "sigfpe", "sigtrap", "sigrt", "signest", "sigabrt",
             "sigpending", "sigsuspend", "futex", "fork", "vfork", "clone"]


def fail(result):
    sys.exit(f"FAILED: status {result.returncode}\n{result.stdout[-6000:]}\n{result.stderr}")


def boot(triode, options, seconds):
    start = time.monotonic()
    result = run(triode, linux("triode.poweroff", *options), seconds=seconds)
    if result.returncode != 0 or "Triode guest ready" not in result.stdout:
        fail(result)
    return time.monotonic() - start


def boots(options):
    times = []
    for number in range(1, options.boots + 1):
        times.append(boot(options.triode, ["--smp", options.smp], 300))
        print(f"boot {number}: {times[-1]:.2f} s", flush=True)
    print(f"{options.boots} boots, median {statistics.median(times):.2f} s, "
          f"longest {max(times):.2f} s", flush=True)


def interpreter(options):
    if options.jit_off_limit:
        seconds = boot(options.triode, ["--jit=off"], options.jit_off_limit)
        print(f"on the IR interpreter: {seconds:.0f} s")


def kernels(options):
    script = os.path.join(os.path.dirname(os.path.abspath(__file__)), "kernels.py")
    if subprocess.run([script, options.triode, "--all"]).returncode not in (0, 77):
        sys.exit("FAILED: kernels")


def in_guest(options, programs, command, seconds):
    """Runs a command in a guest that has those programs; answers what it printed, None without."""
    initrd = os.path.join(GUESTS, f"initramfs-{programs}.cpio")
    if not os.path.exists(initrd):
        print(f"passed over: no {initrd}")
        return None
    command += f"; s=$?; dmesg | grep -v 'ommand line' | grep -E '{COMPLAINTS}' && s=99; exit $s"
    words = "".join("%%%02x" % ord(letter) if letter in " %\"\\" else letter for letter in command)
    result = run(options.triode, linux(f"quiet triode.run={words}", "--initrd", initrd, "--smp",
                                       options.smp, "--mem", "1G"), seconds=seconds)
    if result.returncode or "Triode guest: exit status 0" not in result.stdout:
        fail(result)
    return result.stdout


def stress(options):
    workers = " ".join(f"--{name} 1" for name in STRESSORS)
    text = in_guest(options, "stress", f"stress-ng {workers} --vm-bytes 64M --verify "
                    f"--metrics-brief -t {options.seconds}", 20 * options.seconds + 300)
    if text and "successful run completed" not in text:
        sys.exit(f"FAILED: stress-ng\n{text[-6000:]}")
    if text:
        print(f"stress-ng: {len(STRESSORS)} stressors, {options.seconds} s, clean")


def openssl(options):
    text = in_guest(options, "openssl", "/usr/lib/openssl-tests/run", 7200)
    if text:
        print(re.search(r"OpenSSL: .*", text)[0])


def sequences(options):
    """Random programs by interpreter and translator beside the host's CPU; how many there were."""
    program = os.path.join(os.path.dirname(os.path.abspath(options.triode)), "tests/isa/test_isa")
    if not os.path.exists(program):
        print(f"passed over: no {program}")
        return 0
    result = subprocess.run([program, "--sequences", str(SEQUENCES), "--seed", "random"],
                            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if result.returncode:
        sys.exit(f"FAILED: sequences\n{result.stdout[-6000:]}")
    return SEQUENCES * 3  # code of 16, 32 and 64 bits


def rounds(options):
    """One thing after the other until the time is up; the first failure ends it."""
    start = time.monotonic()
    end = start + options.time
    times, programs, stressed = {"1": [], "2": [], "4": []}, 0, 0
    for _ in range(20):
        times["4"].append(boot(options.triode, ["--smp", "4"], 300))
    while time.monotonic() < end:
        for smp in times:
            times[smp] += [boot(options.triode, ["--smp", smp], 300) for _ in range(5)]
        programs += sequences(options)
        if os.path.exists(os.path.join(GUESTS, "initramfs-stress.cpio")):
            stress(options)
            stressed += options.seconds
    print(f"soak of {time.strftime('%Y-%m-%d')}, {time.monotonic() - start:.0f} s, no failure: "
          + ", ".join(f"{len(some)} boots with --smp {smp} (median {statistics.median(some):.2f} s, "
                      f"longest {max(some):.2f} s)" for smp, some in times.items() if some)
          + f"; {programs} random sequences; {stressed} s of stress-ng")


JOBS = {job.__name__: job for job in (boots, interpreter, kernels, stress, openssl)}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("triode")
    parser.add_argument("what", nargs="*", choices=[[], *JOBS])
    parser.add_argument("--boots", type=int, default=50)
    parser.add_argument("--smp", default="2")
    parser.add_argument("--seconds", type=int, default=60, help="of stress")
    parser.add_argument("--jit-off-limit", type=int, default=3600)
    parser.add_argument("--time", type=int, help="seconds of everything in turn")
    options = parser.parse_args()
    need_guests()
    if options.time:
        rounds(options)
        return
    for name, job in JOBS.items():
        if name in options.what or (not options.what and job != openssl):
            job(options)


if __name__ == "__main__":
    main()
