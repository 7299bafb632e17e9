#!/usr/bin/env python3
"""Debian's GDB looks at a booting Debian kernel: gdb.py TRIODE"""
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time

from guest import SKIP, linux, need_guests

SETTINGS = ["set pagination off", "set confirm off", "set width 0", "set tcp connect-timeout 30",
            "set architecture i386:x86-64"]


class Session:
    """Triode with a GDB server, and GDBs that run scripts."""

    def __init__(self, triode, folder, append, *options, engine="soft"):
        self.path = os.path.join(folder, "gdb")
        arguments = linux(append, "--gdb", f"unix:{self.path}", *options)
        arguments[arguments.index("--engine") + 1] = engine
        self.output = open(os.path.join(folder, "output"), "w+", encoding="utf-8")
        self.child = subprocess.Popen([triode, *arguments], stdin=subprocess.DEVNULL,
                                      stdout=self.output, stderr=subprocess.STDOUT)
        end = time.monotonic() + 20
        while not os.path.exists(self.path):
            if self.child.poll() is not None or time.monotonic() > end:
                self.fail("no socket for the debugger")
            time.sleep(0.02)

    def fail(self, why, text=""):
        self.child.kill()
        self.output.seek(0)
        print(f"FAILED: {why}\n{text}\n--- triode:\n{self.output.read()[-3000:]}")
        sys.exit(1)

    def gdb(self, *commands, seconds=100):
        """What GDB prints for the commands."""
        arguments = ["gdb", "-nx", "-batch"]
        for command in (*SETTINGS, f"target remote {self.path}", *commands):
            arguments += ["-ex", command]
        try:
            done = subprocess.run(arguments, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                  stderr=subprocess.STDOUT, timeout=seconds, encoding="utf-8",
                                  errors="replace")
        except subprocess.TimeoutExpired as late:
            self.fail(f"gdb takes more than {seconds} s", str(late.stdout)[-3000:])
        return done.stdout

    def check(self, text, *patterns):
        """The patterns occur in this order."""
        at = 0
        for pattern in patterns:
            found = re.compile(pattern, re.MULTILINE).search(text, at)
            if not found:
                self.fail(f"gdb does not say {pattern!r} there", text)
            at = found.end()

    def end(self, status=0, seconds=90):
        try:
            got = self.child.wait(seconds)
        except subprocess.TimeoutExpired:
            self.fail("the guest does not go on")
        self.output.seek(0)
        text = self.output.read()
        if got != status:
            self.fail(f"exit status {got} instead of {status}")
        return text


def number(text, name):
    return int(re.search(rf"^{name} = (\d+)$", text, re.MULTILINE).group(1))


def first_instructions(triode, folder):
    session = Session(triode, folder, "quiet triode.poweroff", "--gdb-wait", "--smp", "2")
    text = session.gdb(
        "info threads", "info registers", "x/2i $rip", 'printf "entry = %lu\\n", $rip', "stepi",
        'printf "second = %lu\\n", $rip', "stepi", 'printf "third = %lu\\n", $rip',
        "set $r15 = 0x123456789abcdef0", "p/x $r15", "set $xmm3.v2_int64[1] = 77",
        "p $xmm3.v2_int64", "p $st0", "p $fctrl", "p $mxcsr", "p/x $efer", "thread 2", "p $cr0 & 1",
        "monitor help", "monitor info registers", "monitor nonsense", "detach")
    session.check(text, r'^\* 1 +Thread 1 "vCPU 0" \(running\)', r'Thread 2 "vCPU 1" \(waits for SIPI\)',
                  r"^rax +0x0", r"^cr3 +0x[1-9a-f]", r"^=> 0x[0-9a-f]+:\s+lea", r"= 0x123456789abcdef0$",
                  r"= \{0, 77\}$", r"= 895$", r"= \[ IM DM ZM OM UM PM \]$", r"= 0x500$", r"= 0$",
                  r"^physical", r"^vCPU 1, APIC id 1, 16-bit code", r'no command "nonsense"',
                  r"detached")
    steps = [number(text, name) for name in ("entry", "second", "third")]
    if [b - a for a, b in zip(steps, steps[1:])] != [7, 7]:
        session.fail(f"the steps are at {steps}", text)
    if "Triode guest ready" not in session.end():
        session.fail("the guest did not boot after detach")


def find_symbols(triode, folder):
    """Addresses in a kernel without KASLR, from the guest itself."""
    session = Session(triode, folder, "quiet nokaslr triode.run=cat%20/proc/kallsyms")
    text = session.end()
    wanted = ("start_kernel", "kernel_init", "jiffies", "linux_banner", "run_init_process")
    return {name: int(address, 16) for address, name in
            re.findall(r"^([0-9a-f]{16}) \w (\w+)\r?$", text, re.MULTILINE) if name in wanted}


def breakpoints(triode, folder, symbols):
    session = Session(triode, folder, "quiet nokaslr triode.poweroff", "--gdb-wait", "--smp", "2")
    at = {name: f"0x{address:x}" for name, address in symbols.items()}
    text = session.gdb(
        f"hbreak *{at['start_kernel']}", "continue", f"x/s {at['linux_banner']}", "delete",
        f"break *{at['kernel_init']}", "continue", "info threads", "stepi", "delete",
        f"watch *(long*){at['jiffies']}", "continue", "continue", "delete",
        f"rwatch *(long*){at['jiffies']}", "continue", "delete",
        f"break *{at['run_init_process']}", "continue", "x/2xb $rip", "thread 2", "p $cr0 & 1",
        "monitor physical on", f"x/s {symbols['linux_banner'] - 0xffffffff80000000:#x}",
        "monitor physical off", "detach")
    session.check(text, rf"hit Breakpoint 1, {at['start_kernel']} in", r'"Linux version 6\.',
                  rf"hit Breakpoint 2, {at['kernel_init']} in", r'Thread 2 "vCPU 1"',
                  r"^Old value = (\d+)$", r"^Old value = (\d+)$", r"hit Hardware read watchpoint 4",
                  rf"hit Breakpoint 5, {at['run_init_process']} in", r":\s+0x(?!cc)\w\w\s", r"= 1$",
                  r'"Linux version 6\.', r"detached")
    values = [int(value) for value in re.findall(r"^(?:Old|New) value = (\d+)$", text, re.MULTILINE)]
    if values != [values[0], values[0] + 1, values[0] + 1, values[0] + 2]:
        session.fail(f"jiffies went {values}", text)
    if "Triode guest ready" not in session.end():
        session.fail("the guest did not boot after detach")


def interruptions(triode, folder):
    """Ctrl-C, debuggers that vanish at any moment, and the end."""
    session = Session(triode, folder, "quiet triode.run=while%20:;do%20:;done", "--smp", "2")
    time.sleep(1)
    for junk in (b"", b"$g#67", b"\x03\x03", b"$vCont;c#a8", b"$vCont;c#a8\x03$g", b"$m0,ffffffff#00",
                 b"+" * 70000, b"$" + b"x" * 70000, b"$Z0,ffffffff81000000,1#00$c#63", os.urandom(9000)):
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(session.path)
            client.settimeout(0.2)
            try:
                client.sendall(junk)
                client.recv(100)
            except OSError:
                pass
        time.sleep(0.05)
    gdb = subprocess.Popen(["gdb", "-nx", "-q"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                           stderr=subprocess.STDOUT, encoding="utf-8")
    for line in (*SETTINGS, f"target remote {session.path}", "continue"):
        gdb.stdin.write(line + "\n")
    gdb.stdin.flush()
    time.sleep(3)
    gdb.send_signal(2)
    text, _ = gdb.communicate("info threads\nmonitor quit\n", timeout=60)
    session.check(text, r"received signal SIGINT", r'Thread 1 "vCPU 0"', r'Thread 2 "vCPU 1"')
    session.end()


def main():
    triode = sys.argv[1]
    need_guests()
    if not shutil.which("gdb"):
        print("skipped: there is no gdb")
        sys.exit(SKIP)
    with tempfile.TemporaryDirectory() as folder:
        print("from the first instruction, step by step")
        first_instructions(triode, folder)
        symbols = find_symbols(triode, folder)
        print("breakpoints and watchpoints in a booting kernel")
        breakpoints(triode, folder, symbols)
        print("Ctrl-C and debuggers that vanish")
        interruptions(triode, folder)
    print("ok")


if __name__ == "__main__":
    main()
