#!/usr/bin/env python3
"""test_user.py TRIODE FOLDER: `triode user` beside the host.

FOLDER holds the programs of programs/: for the host, with the prefix portable- without what is for
x86-64 only, and with the prefix riscv64- where there is a compiler for it.
"""
import os
import shutil
import signal
import subprocess
import sys
import tempfile

TRIODE, FOLDER = sys.argv[1], sys.argv[2]
PROGRAMS = ["faults", "files", "floats", "jumps", "memory", "processes", "rewriting", "signals",
            "smc", "threads"]
BUSYBOX = "/bin/busybox"
APPLETS = {
    "ls": ["ls", "-la", "/usr/share/doc/busybox-static", "/etc"],
    "sha256sum": ["sha256sum", BUSYBOX],
    "md5sum": ["md5sum", BUSYBOX],
    "sort": ["sh", "-c", "od -An -tx2 -w2 /etc/passwd | sort | uniq -c | sort -rn"],
    "awk": ["awk", "-F:", "{ n[$7]++; s += $3 } END { for (k in n) t += n[k]; print s, t, 7 / 3 }",
            "/etc/passwd"],
    "gzip": ["sh", "-c", "gzip -c /etc/services | gunzip -c | wc; gzip -c /etc/services | sha1sum"],
    "loop": ["sh", "-c", "i=0; while [ $i -lt 30 ]; do i=$((i + 1)); echo $(echo $i); done"],
    "pipes": ["sh", "-c", "seq 1000 | grep 7 | tail -n 5; exit 9"],
    "find": ["find", "/etc/default", "-type", "f"],
    "signal": ["sh", "-c", "trap 'echo caught' TERM; kill -TERM $$; echo after; kill -9 $$"],
    "tar": ["sh", "-c", "tar cf - -C /etc passwd group | tar tvf -"],
    "bc": ["dc", "-e", "2 200 ^ p"],
}

failures = 0


def run(command, **more):
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=120,
                          stdin=subprocess.DEVNULL, **more)
    return done.returncode, done.stdout.decode(errors="replace")


def check(name, good, why=""):
    global failures
    print(f"{'ok' if good else 'FAIL'}: {name}")
    if not good:
        failures += 1
        print(why)


def same(name, native, guest):
    expected, got = run(native), run(guest)
    # A program's own name and process numbers differ, and so may what has a time in it.
    check(name, expected == got, f"expected {expected[0]}:\n{expected[1]}\ngot {got[0]}:\n{got[1]}")


def native_programs():
    for name in PROGRAMS:
        path = os.path.join(FOLDER, name)
        if not os.path.exists(path):
            continue
        same(name, [path], [TRIODE, "user", path])
    for name in "smc", "rewriting":
        same(name + ", interpreted", [os.path.join(FOLDER, name)],
             [TRIODE, "user", "--jit", "off", os.path.join(FOLDER, name)])


def riscv_programs():
    """The same source for riscv64: what it prints must not depend on the CPU."""
    if not os.path.exists(os.path.join(FOLDER, "riscv64-floats")):
        print("skip: no compiler for riscv64")
        return
    with tempfile.TemporaryDirectory() as folder:
        for name in PROGRAMS:
            results = []
            for prefix, runner in (("portable-", []), ("riscv64-", [TRIODE, "user"])):
                path = os.path.join(folder, name)  # programs print their own name
                shutil.copy(os.path.join(FOLDER, prefix + name), path)
                results.append(run(runner + [path]))
            expected, got = results
            check("riscv64 " + name, expected == got,
                  f"expected {expected[0]}:\n{expected[1]}\ngot {got[0]}:\n{got[1]}")


def busybox():
    if not os.path.exists(BUSYBOX):
        print("skip: no busybox")
        return
    for name, arguments in APPLETS.items():
        same("busybox " + name, [BUSYBOX] + arguments, [TRIODE, "user", BUSYBOX] + arguments)


def dynamic():
    for command in (["/bin/ls", "/etc"], ["/bin/sh", "-c", "echo $((6 * 7)); ls / | sort"],
                    ["/usr/bin/env", "-i", "A=b", "/usr/bin/env"]):
        same("dynamic " + command[0], command, [TRIODE, "user"] + command)


def statuses():
    smc = os.path.join(FOLDER, "smc")
    with tempfile.TemporaryDirectory() as folder:
        def written(name, data, mode=0o755):
            path = os.path.join(folder, name)
            with open(path, "wb") as out:
                out.write(data)
            os.chmod(path, mode)
            return path

        with open(smc, "rb") as source:
            elf = source.read()
        wrong_machine = elf[:18] + b"\x15\x00" + elf[20:]
        script = written("script", f"#!{BUSYBOX} sh\necho $0 $1 $#\nexit 3\n".encode())
        pipe = os.path.join(folder, "pipe")
        os.mkfifo(pipe)
        cases = [
            ("no program", [], 2, "no program given"),
            ("unknown option", ["--nonsense", smc], 2, "no option --nonsense"),
            ("missing file", [os.path.join(folder, "none")], 127, "No such file"),
            ("a folder", [folder], 126, "not a regular file"),
            ("not ELF", [written("text", b"hello\n")], 126, "not an ELF file"),
            ("empty", [written("empty", b"")], 126, "not an ELF file"),
            ("cut head", [written("head", elf[:40])], 126, "truncated"),
            ("cut program headers", [written("headers", elf[:80])], 126, "truncated"),
            ("cut segment", [written("cut", elf[:len(elf) // 3])], 126, "truncated"),
            ("another CPU", [written("ppc", wrong_machine)], 126, "ELF machine 21"),
            ("32 bits", [written("class", elf[:4] + b"\x01" + elf[5:])], 126, "64-bit"),
            ("bad --jit", ["--jit", "maybe", smc], 2, "--jit"),
            ("a pipe", [pipe], 126, "not a regular file"),
            ("a word without a path", ["no-such-program"], 127, "a path is meant"),
            ("missing sysroot", ["--sysroot", os.path.join(folder, "none"), smc], 2, "--sysroot"),
            ("script", [script, "x"], 3, "script x 1"),
        ]
        for name, arguments, status, text in cases:
            got = run([TRIODE, "user"] + arguments)
            one_line = status == 3 or got[1].count("\n") == 1
            check(name, got[0] == status and text in got[1] and one_line, f"got {got}")
    got = run(["sh", "-c", 'ulimit -v 300000; exec "$0" user "$1"', TRIODE, smc])
    check("too little memory", got[0] == 126 and "Cannot allocate memory" in got[1] and
          "jit" not in got[1], f"got {got}")
    got = run([TRIODE, "user", BUSYBOX, "sh", "-c", "kill -SEGV $$"])
    check("killed by the guest's signal", got[0] == -signal.SIGSEGV, f"got {got}")
    got = run([TRIODE, "user", "--argv0", "echo", BUSYBOX, "as", "echo"])
    check("--argv0", got == (0, "as echo\n"), f"got {got}")
    got = run([TRIODE, "user", "--trace", "syscall", BUSYBOX, "echo", "x"])
    check("--trace syscall", "write(1, " in got[1] and "exit_group" in got[1], f"got {got}")


native_programs()
riscv_programs()
busybox()
dynamic()
statuses()
print(f"{failures} failed")
sys.exit(1 if failures else 0)
