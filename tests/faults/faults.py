#!/usr/bin/env python3
"""Faults of the host: faults.py TEST TRIODE [FAILALLOC IMAGE]

allocations  every allocation of start-up and translation fails once, and then all from it on
program      every allocation of a run in user mode fails once
cache        Linux boots with 1 MiB of room for code
mappings     no mapping is ever writable and executable
full         a trace to a full disk
storm        signals without end, to a virtual machine and to a program
killed       SIGKILL, to the process or to a vCPU's thread, leaves nothing that hinders the next run
"""
import concurrent.futures
import ctypes
import os
import random
import signal
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../boot"))
from guest import GUESTS, linux, need_guests, run  # noqa: E402

SURVIVED = 33
# A failed allocation may end the run with: failure, usage (the kernel was not read), the engine's
# end.
REFUSALS = {1, 2, 4}
# Of a program: it was not started; no memory for its code was left. Or the program itself was told
# so.
PROGRAM_ENDS = {1, 2, 126, 127, -signal.SIGKILL}
BUSYBOX = os.path.join(GUESTS, "busybox")


def fail(text):
    print(f"FAILED: {text}")
    sys.exit(1)


def with_failure(command, library, environment):
    return subprocess.run(command, env={**os.environ, "LD_PRELOAD": library, **environment},
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          timeout=120)


def allocations(triode, library, image):
    fail_each([triode, "run", "--engine", "soft", "--kernel", image, "--append", "page-ends 1", "--mem",
               "32M", "--code-cache", "1M", "--test-devices", "--serial", "none"],
              library, SURVIVED, REFUSALS)


def program(triode, library):
    fail_each([triode, "user", BUSYBOX, "sh", "-c", "exit 33"], library, SURVIVED, PROGRAM_ENDS)


def fail_each(command, library, good, refusals):
    """Each allocation of the command fails in turn, alone and with all that come after."""
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "count")
        result = with_failure(command, library, {"FAIL_COUNT": path})
        if result.returncode != good:
            fail(f"without a failure: status {result.returncode}\n{result.stderr.decode()}")
        with open(path, encoding="ascii") as file:
            count = int(file.read())
    numbers = list(range(1, min(count, 220) + 1))
    if count > 220:  # then the later ones, which are all alike, by sample
        numbers += sorted(random.Random(1).sample(range(221, count + 1), min(40, count - 220)))
    ends = {}

    def one(job):
        number, everything = job
        result = with_failure(command, library, {"FAIL_AT": str(number), **everything})
        return number, everything, result

    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        jobs = [(n, e) for n in numbers for e in ({}, {"FAIL_ALL": "1"})]
        for number, everything, result in pool.map(one, jobs):
            text = result.stderr.decode(errors="replace")
            ends[result.returncode] = ends.get(result.returncode, 0) + 1
            if result.returncode not in refusals | {good}:
                fail(f"allocation {number} {everything}: status {result.returncode}\n{text}")
            if result.returncode in refusals and "triode: " not in text and not everything:
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


def storm(triode):
    """Signals that mean nothing to Triode, as fast as they go, while Linux boots; those that a
    program counts; then the one that ends the run, many times."""
    child = subprocess.Popen([triode, *linux("quiet triode.poweroff", "--smp", "2")],
                             stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    sent = 0
    time.sleep(0.2)  # handlers are in place
    while child.poll() is None:
        for number in (signal.SIGWINCH, signal.SIGCHLD, signal.SIGURG, signal.SIGCONT, signal.SIGPIPE):
            child.send_signal(number)
        if sent % 100 == 0:
            child.send_signal(signal.SIGSTOP)
            child.send_signal(signal.SIGCONT)
        sent += 5
        time.sleep(0.0005)
    text = child.stdout.read()
    if child.returncode or b"Triode guest ready" not in text or sent < 1000:
        fail(f"status {child.returncode} after {sent} signals: {child.stderr.read()[-2000:]}")

    script = "n=0; trap 'n=$((n+1))' USR1 USR2; echo ready; while [ $n -lt 300 ]; do :; done; echo $n"
    child = subprocess.Popen([triode, "user", BUSYBOX, "sh", "-c", script], stdout=subprocess.PIPE)
    if child.stdout.readline() != b"ready\n":
        fail("the program did not start")
    end = time.monotonic() + 60
    while child.poll() is None and time.monotonic() < end:
        child.send_signal(random.choice((signal.SIGUSR1, signal.SIGUSR2)))
        time.sleep(0.0002)
    if child.poll() is None or child.returncode or int(child.stdout.read()) < 300:
        child.kill()
        fail(f"a program under a storm of signals ended with {child.returncode}")

    child = subprocess.Popen([triode, *linux("quiet", "--smp", "2")], stdin=subprocess.DEVNULL,
                             stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    time.sleep(0.5)
    while child.poll() is None:
        child.send_signal(signal.SIGTERM)
    if child.returncode not in (128 + signal.SIGTERM, -signal.SIGTERM):
        fail(f"status {child.returncode} after SIGTERM")
    print(f"booted under {sent} signals; a program counted its own; SIGTERM many times: "
          f"status {child.returncode}")


def vcpu_thread(pid, rng):
    """The thread of some vCPU, or None before there is one."""
    threads = []
    for tid in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{tid}/comm", encoding="ascii") as file:
            if file.read().startswith("triode-cpu"):
                threads.append(int(tid))
    return rng.choice(threads) if threads else None


def killed(triode):
    rng = random.Random()
    libc = ctypes.CDLL(None, use_errno=True)
    threads = 0
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as own:
        disk, gdb = os.path.join(own, "disk"), os.path.join(own, "gdb")
        with open(disk, "wb") as file:
            file.truncate(1 << 20)
        options = ["--smp", "2", "--disk", disk, "--gdb", f"unix:{gdb}"]
        for _ in range(12):
            child = subprocess.Popen([triode, *linux("quiet", *options)], cwd=folder,
                                     env={**os.environ, "TMPDIR": folder}, stdin=subprocess.DEVNULL,
                                     stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            time.sleep(0.05 + rng.random() * 1.5)
            files = opened(child.pid) - {disk}
            with open(f"/proc/{child.pid}/task/{child.pid}/children", encoding="ascii") as file:
                children = file.read()
            thread = vcpu_thread(child.pid, rng) if rng.random() < 0.5 else None
            if thread:
                threads += 1
                libc.syscall(234, child.pid, thread, signal.SIGKILL)  # tgkill
            else:
                child.send_signal(signal.SIGKILL)
            if child.wait() != -signal.SIGKILL:
                fail(f"status {child.returncode} instead of SIGKILL")
            if children.strip() or files or os.listdir(folder):
                fail(f"left behind: {files} {os.listdir(folder)}, processes {children}")
        # The image's lock and the debugger's socket are free again.
        result = run(triode, linux("quiet triode.poweroff", *options), seconds=120)
        if result.returncode or "Triode guest ready" not in result.stdout:
            fail(f"after the last one: status {result.returncode}\n{result.stderr[-2000:]}")
    print(f"12 times killed, {threads} of them by a vCPU's thread; nothing left, and the next one boots")


def main():
    test, triode = sys.argv[1:3]
    if test == "allocations":
        allocations(triode, *sys.argv[3:5])
        return
    need_guests()
    if test == "program":
        program(triode, sys.argv[3])
        return
    {"cache": cache, "mappings": mappings, "full": full, "storm": storm, "killed": killed}[test](
        os.path.abspath(triode))


if __name__ == "__main__":
    main()
