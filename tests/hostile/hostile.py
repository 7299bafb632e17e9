#!/usr/bin/env python3
"""Guests that do their worst: hostile.py TRIODE IMAGE SCENARIO [SEEDS]

Runs the scenario for seeds 1 to SEEDS. It passes when Triode ends with a status that the scenario
may have; a signal, a sanitizer's report, or no end after SIGTERM fails it.
"""
import os
import signal
import subprocess
import sys

LIMIT = int(os.environ.get("HOSTILE_LIMIT", 120))  # seconds; a sanitizer of threads wants more
SURVIVED = 33  # the guest came through and said so
UNEXPECTED = 35  # it met a trap of its own making
RESET, TRIPLE_FAULT, ENGINE, PANIC = 0, 3, 4, 5
# Scenarios with other ends. "SIGTERM": it may have to be stopped, after two seconds.
ENDS = {
    "execute-rom": {SURVIVED, RESET},  # where the reset vector points, there is a reset
    "execute-mmio": {ENGINE},
    "execute-nothing": {ENGINE},
    "bytes-kernel": {SURVIVED, UNEXPECTED, RESET, TRIPLE_FAULT, ENGINE, PANIC, "SIGTERM"},
}


def run(triode, image, scenario, seed):
    child = subprocess.Popen(
        [triode, "run", "--engine", "soft", "--kernel", image, "--append", f"{scenario} {seed}",
         "--smp", "4" if scenario.endswith("4") else "2", "--mem", "64M", "--reboot", "off",
         "--test-devices", "--debugcon", "stderr"],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        env={**os.environ, "UBSAN_OPTIONS": "halt_on_error=1:print_stacktrace=1"})
    allowed = ENDS.get(scenario, {SURVIVED})
    may_stop = "SIGTERM" in allowed
    status = None
    try:
        text = child.communicate(timeout=2 if may_stop else LIMIT)[0]
    except subprocess.TimeoutExpired:
        if may_stop:
            child.send_signal(signal.SIGTERM)
            status = 128 + signal.SIGTERM
        try:
            text = child.communicate(timeout=20 if may_stop else 0.1)[0]
        except subprocess.TimeoutExpired:
            child.kill()
            sys.exit(f"FAILED: {scenario} {seed}: no end")
    text = text.decode(errors="replace")
    good = child.returncode == status if status else child.returncode in allowed
    if scenario == "bytes-kernel" and not status:  # it may write to the port that ends the run
        good |= child.returncode & 1 == 1 and text.count("triode: ") == 1
    if not good or "runtime error" in text or "Sanitizer" in text:
        sys.exit(f"FAILED: {scenario} {seed}: status {child.returncode}\n{text[-6000:]}")
    return child.returncode


def main():
    triode, image, scenario = sys.argv[1:4]
    ends = {}
    for seed in range(1, (int(sys.argv[4]) if len(sys.argv) > 4 else 1) + 1):
        end = run(triode, image, scenario, seed)
        ends[end] = ends.get(end, 0) + 1
    print(f"{scenario}: " + ", ".join(f"status {end} {n} times" for end, n in sorted(ends.items())))


if __name__ == "__main__":
    main()
