#!/usr/bin/env python3
"""Faults of the host: faults.py TEST TRIODE [FAILALLOC IMAGE]

allocations  every allocation of start-up and translation fails once, and then all from it on
cache        Linux boots with 1 MiB of room for code
mappings     no mapping is ever writable and executable
full         a trace to a full disk
killed       SIGKILL leaves no file behind
"""
import concurrent.futures
import os
import random
import signal
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../boot"))
from guest import linux, need_guests, run  # noqa: E402

SURVIVED = 33
# A failed allocation may end the run with: failure, usage (the kernel was not read), the engine's end.
REFUSALS = {1, 2, 4}


def fail(text):
    print(f"FAILED: {text}")
    sys.exit(1)


def with_failure(triode, library, image, environment):
    return subprocess.run(
        [triode, "run", "--engine", "soft", "--kernel", image, "--append", "page-ends 1", "--mem", "32M",
         "--code-cache", "1M", "--test-devices", "--serial", "none"],
        env={**os.environ, "LD_PRELOAD": library, **environment}, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=120)


def allocations(triode, library, image):
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "count")
        result = with_failure(triode, library, image, {"FAIL_COUNT": path})
        if result.returncode != SURVIVED:
            fail(f"without a failure: status {result.returncode}\n{result.stderr.decode()}")
        with open(path, encoding="ascii") as file:
            count = int(file.read())
    numbers = list(range(1, min(count, 220) + 1))
    if count > 220:  # then the later ones, which are all alike, by sample
        numbers += sorted(random.Random(1).sample(range(221, count + 1), min(40, count - 220)))
    ends = {}

    def one(job):
        number, everything = job
        result = with_failure(triode, library, image, {"FAIL_AT": str(number), **everything})
        return number, everything, result

    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        jobs = [(n, e) for n in numbers for e in ({}, {"FAIL_ALL": "1"})]
        for number, everything, result in pool.map(one, jobs):
            text = result.stderr.decode(errors="replace")
            ends[result.returncode] = ends.get(result.returncode, 0) + 1
            if result.returncode not in REFUSALS | {SURVIVED}:
                fail(f"allocation {number} {everything}: status {result.returncode}\n{text}")
            if result.returncode != SURVIVED and "triode: " not in text and not everything:
                fail(f"allocation {number} {everything}: status {result.returncode}, no sentence")
    print(f"{len(numbers)} of {count} allocations failed alone and with all after them: {ends}")


def cache(triode):
    result = run(triode, linux("quiet triode.poweroff", "--code-cache", "1M", "--smp", "2", "--stats"),
                 seconds=240)
    text = result.stdout + result.stderr
    flushes = [int(line.split()[-1]) for line in text.splitlines() if "code_cache_flushes" in line]
    if result.returncode or "Triode guest ready" not in text:
        fail(f"status {result.returncode}\n{text[-4000:]}")
    if not flushes or not max(flushes):
        fail("the cache was never full")
    print(f"booted with {max(flushes)} flushes of the code cache")


def mappings(triode):
    child = subprocess.Popen([triode, *linux("quiet triode.poweroff", "--smp", "2")],
                             stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
    looks, kinds = 0, set()
    while child.poll() is None:
        try:
            with open(f"/proc/{child.pid}/maps", encoding="utf-8", errors="replace") as lines:
                for line in lines:
                    rights = line.split()[1]
                    if "w" in rights and "x" in rights:
                        child.kill()
                        fail(f"writable and executable: {line}")
                    if "triode-code" in line:
                        kinds.add(rights)
        except OSError:
            continue
        looks += 1
        time.sleep(0.01)
    if b"Triode guest ready" not in child.stdout.read() or child.returncode:
        fail(f"no boot: status {child.returncode}")
    if kinds != {"rw-s", "r-xs"} or looks < 20:
        fail(f"{looks} looks saw the code as {kinds}")
    print(f"{looks} looks at the mappings, none writable and executable; code is mapped {sorted(kinds)}")


def full(triode):
    result = run(triode, linux("quiet triode.poweroff", "--trace", "exits:/dev/full"), seconds=240)
    if result.returncode not in (0, 1):
        fail(f"status {result.returncode}\n{result.stderr[-2000:]}")
    if result.returncode == 0 and "Triode guest ready" not in result.stdout:
        fail("no boot")
    if "trace" not in result.stderr or "No space left" not in result.stderr:
        fail(f"nobody says that the trace is lost:\n{result.stderr[-2000:]}")
    print(f"status {result.returncode}: {result.stderr.splitlines()[-1]}")


def opened(pid):
    """Files on disk that the process has open for writing."""
    found = set()
    for number in os.listdir(f"/proc/{pid}/fd"):
        try:
            path = os.readlink(f"/proc/{pid}/fd/{number}")
            with open(f"/proc/{pid}/fdinfo/{number}", encoding="ascii") as lines:
                flags = int(lines.read().split("flags:")[1].split()[0], 8)
        except OSError:
            continue
        if flags & 3 and path.startswith("/") and not path.startswith(("/dev/", "/memfd:")):
            found.add(path)
    return found


def killed(triode):
    rng = random.Random()
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(12):
            child = subprocess.Popen([triode, *linux("quiet", "--smp", "2")], cwd=folder,
                                     env={**os.environ, "TMPDIR": folder}, stdin=subprocess.DEVNULL,
                                     stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            time.sleep(0.05 + rng.random() * 1.5)
            files = opened(child.pid)
            with open(f"/proc/{child.pid}/task/{child.pid}/children", encoding="ascii") as file:
                children = file.read()
            child.send_signal(signal.SIGKILL)
            child.wait()
            if children.strip() or files or os.listdir(folder):
                fail(f"left behind: {files} {os.listdir(folder)}, processes {children}")
    print("12 times killed, nothing left")


def main():
    test, triode = sys.argv[1:3]
    if test == "allocations":
        allocations(triode, *sys.argv[3:5])
        return
    need_guests()
    {"cache": cache, "mappings": mappings, "full": full, "killed": killed}[test](
        os.path.abspath(triode))


if __name__ == "__main__":
    main()
