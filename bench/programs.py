"""What the benchmarks of programs share: the small programs, how they are compiled, a run, tables of
ratios."""
import math
import os
import shutil
import statistics
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
PROGRAMS = ["integer", "core", "sha256", "interpreter", "recursion", "virtual", "sort", "strings",
            "matmul", "nbody", "syscalls", "faults", "forkexec", "pingpong", "rewrite"]


def compiler(machine):
    """The command that makes static programs for `machine`, or None."""
    if machine == "x86_64":
        return ["gcc"]
    if shutil.which("riscv64-linux-gnu-gcc"):
        return ["riscv64-linux-gnu-gcc"]
    toolchain = "/usr/lib/gcc-cross/riscv64-linux-gnu/12"
    if shutil.which("clang") and os.path.isdir(toolchain):
        return ["clang", "--target=riscv64-linux-gnu", "-march=rv64gc", "-B" + toolchain,
                "-L" + toolchain, "-L/usr/riscv64-linux-gnu/lib",
                "-isystem", "/usr/riscv64-linux-gnu/include"]
    return None


def build(folder, names, machine="x86_64"):
    command = compiler(machine)
    if not command:
        raise SystemExit(f"no compiler for {machine}: see docs/dependencies.md")
    for name in names:
        subprocess.run([*command, "-O2", "-static", "-o", os.path.join(folder, name),
                        os.path.join(HERE, "programs", name + ".c"), "-lm"], check=True)


def once(command, measure, environment=None):
    """Seconds that a command took, by the wall or of CPU time with all its children, and its output."""
    begin = time.monotonic()
    child = subprocess.Popen(command, stdout=subprocess.PIPE, env=environment)
    output = child.stdout.read()
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        sys.exit(f"{' '.join(command)}: exit status {child.returncode}")
    if measure == "cpu":
        return usage.ru_utime + usage.ru_stime, output
    return time.monotonic() - begin, output


def geometric_mean(numbers):
    return math.exp(statistics.fmean(map(math.log, numbers)))


def table(names, columns, base, title="ms"):
    """Prints medians in milliseconds of columns {contender: {name: [seconds]}}, their ratios to
    `base` and the ratios' geometric means."""
    others = [who for who in columns if who != base]
    medians = {who: {name: statistics.median(rows[name]) for name in names if rows.get(name)}
               for who, rows in columns.items()}
    print(f"{'program':12}" + "".join(f"{who + ' ' + title:>18}" for who in columns) +
          "".join(f"{who + '/' + base:>20}" for who in others))
    ratios = {who: [] for who in others}
    for name in names:
        line = f"{name:12}"
        for who in columns:
            line += f"{medians[who][name] * 1e3:18.1f}" if name in medians[who] else f"{'-':>18}"
        for who in others:
            if name in medians[who] and name in medians[base]:
                ratios[who].append(medians[who][name] / medians[base][name])
                line += f"{ratios[who][-1]:20.2f}"
            else:
                line += f"{'-':>20}"
        print(line)
    print(f"{'geometric mean':12}" + " " * (18 * len(columns) - 2) +
          "".join(f"{geometric_mean(ratios[who]) if ratios[who] else 0:20.2f}" for who in others))
