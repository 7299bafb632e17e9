#!/usr/bin/env python3
"""Long runs, not part of make test: soak.py TRIODE [--boots N] [--jit-off-limit SECONDS]

N boots in a row with two CPUs, each to power-off, then one boot on the IR interpreter.
"""
import argparse
import statistics
import sys
import time

from guest import linux, need_guests, run


def boot(triode, options, seconds):
    start = time.monotonic()
    result = run(triode, linux("triode.poweroff", *options), seconds=seconds)
    if result.returncode != 0 or "Triode guest ready" not in result.stdout:
        sys.exit(f"FAILED: status {result.returncode}\n{result.stdout[-6000:]}\n{result.stderr}")
    return time.monotonic() - start


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("triode")
    parser.add_argument("--boots", type=int, default=20)
    parser.add_argument("--smp", default="2")
    parser.add_argument("--jit-off-limit", type=int, default=3600)
    options = parser.parse_args()
    need_guests()

    times = []
    for number in range(1, options.boots + 1):
        times.append(boot(options.triode, ["--smp", options.smp], 300))
        print(f"boot {number}: {times[-1]:.2f} s", flush=True)
    print(f"{options.boots} boots, median {statistics.median(times):.2f} s, "
          f"longest {max(times):.2f} s", flush=True)
    if options.jit_off_limit:
        seconds = boot(options.triode, ["--jit=off"], options.jit_off_limit)
        print(f"on the IR interpreter: {seconds:.0f} s")


if __name__ == "__main__":
    main()
