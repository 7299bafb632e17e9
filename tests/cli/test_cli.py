#!/usr/bin/env python3
"""The command line: help, bad input, exit statuses, the terminal: test_cli.py TRIODE SOURCE-ROOT

Guests are a few instructions each, made here; they run on the soft engine. Prints one line a test
and "N passed, N failed" at the end.
"""
import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import tempfile
import termios
import time

import guests

TRIODE, ROOT = os.path.abspath(sys.argv[1]), sys.argv[2]
FOLDER = tempfile.mkdtemp(prefix="triode-cli-")
TESTS = []


def test(function):
    TESTS.append(function)
    return function


def need(condition, why):
    if not condition:
        raise AssertionError(why)


def path(name):
    return os.path.join(FOLDER, name)


def kernel(name, assembly, **changes):
    with open(path(name), "wb") as file:
        file.write(guests.bzimage(guests.assemble(assembly), **changes))
    return path(name)


def triode(*arguments, seconds=30, text=None, **more):
    return subprocess.run([TRIODE, *arguments], input=text, capture_output=True, timeout=seconds,
                          encoding="utf-8", errors="replace",
                          **({} if text is not None else {"stdin": subprocess.DEVNULL}), **more)


def run(image, *arguments, **more):
    return triode("run", "--engine", "soft", "--kernel", image, *arguments, **more)


def refused(result, *words, status=2):
    """One sentence after at most the line about the engine."""
    lines = [line for line in result.stderr.splitlines() if not line.startswith("triode: engine ")]
    need(result.returncode == status, f"status {result.returncode}: {result.stderr}")
    need(len(lines) == 1 and lines[0].startswith("triode: "), f"not one sentence: {result.stderr}")
    for word in words:
        need(word in lines[0], f"'{word}' is not in: {lines[0]}")


def rows(name, pattern):
    with open(os.path.join(ROOT, "src", "cli", name), encoding="utf-8") as file:
        return re.findall(pattern, file.read(), re.MULTILINE)


class Terminal:
    """A run on a pseudo-terminal that is its controlling one, as under a shell."""

    def __init__(self, image, *arguments):
        self.master, self.slave = pty.openpty()
        self.before = termios.tcgetattr(self.slave)
        self.text = b""
        def control():
            os.setsid()
            import fcntl
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)
        self.child = subprocess.Popen(
            [TRIODE, "run", "--engine", "soft", "--kernel", image, *arguments], stdin=self.slave,
            stdout=self.slave, stderr=self.slave, preexec_fn=control)

    def is_raw(self):
        return not termios.tcgetattr(self.slave)[3] & (termios.ICANON | termios.ECHO | termios.ISIG)

    def wait(self, condition, what, seconds=20):
        end = time.monotonic() + seconds
        while not condition():
            need(time.monotonic() < end, f"not {what} within {seconds} s: {self.text!r}")
            if select.select([self.master], [], [], 0.02)[0]:
                self.text += os.read(self.master, 4096)

    def expect(self, text):
        self.wait(lambda: text in self.text, f"seen {text!r}")

    def end(self):
        self.wait(lambda: self.child.poll() is not None, "ended")
        need(termios.tcgetattr(self.slave) == self.before, "the terminal is not as it was")
        os.close(self.master)
        os.close(self.slave)
        return self.child.returncode


# ---- Help ----------------------------------------------------------------------------------------

@test
def help_names_all_commands_and_statuses():
    result = triode("--help")
    need(result.returncode == 0 and not result.stderr, result.stderr)
    for name in rows("commands.def", r'^X\(\w+, "(\w+)"'):
        need(f"triode {name}" in result.stdout, name)
    for number, meaning in rows("exit_status.def", r'^X\(\w+, (\d+), "(.*)"\)'):
        need(re.search(rf"^  {number} +{re.escape(meaning)}$", result.stdout, re.MULTILINE), meaning)


@test
def run_help_and_manual_name_all_options():
    text = triode("run", "--help").stdout
    manual = triode("man").stdout
    names = rows("options.def", r'^X\(\w+, "([\w-]+)"')
    need(len(names) > 10, "no options found")
    for name in names:
        need(re.search(rf"^  --{name}( |$)", text, re.MULTILINE), f"--{name} is not in --help")
        need(f".B \\-\\-{name}" in manual, f"--{name} is not in the manual page")
    need(all(len(line) <= 100 for line in text.splitlines()), "a line is too long")


@test
def user_help_and_manual_name_all_options():
    text, manual = triode("user", "--help").stdout, triode("man").stdout
    options = manual.partition(".SH OPTIONS OF USER")[2]
    for name in rows("user_options.def", r'^X\(\w+, "([\w-]+)"'):
        need(re.search(rf"^  --{name}( |$)", text, re.MULTILINE), f"--{name} is not in --help")
        need(f".B \\-\\-{name}" in options, f"--{name} is not in the manual page")
    need(all(len(line) <= 100 for line in text.splitlines()), "a line is too long")


@test
def every_command_has_help():
    for name in rows("commands.def", r'^X\(\w+, "(\w+)"'):
        result = triode(name, "--help")
        need(result.returncode == 0 and result.stdout.startswith(f"Usage: triode {name}") and
             not result.stderr, f"{name}: {result}")
        need(triode("help", name).stdout == result.stdout, f"help {name}")
    for name in "probe", "man":
        refused(triode(name, "extra"), name, "extra")


@test
def output_that_cannot_be_written():
    for words in (["--help"], ["--version"], ["run", "--help"], ["man"], ["probe"]):
        with open("/dev/full", "wb") as full:
            result = subprocess.run([TRIODE, *words], stdout=full, stderr=subprocess.PIPE,
                                    encoding="utf-8", timeout=60, check=False)
        refused(result, "standard output", "No space", status=1)


@test
def version():
    need(re.fullmatch(r"triode \d+\.\d+\.\d+\n", triode("--version").stdout), "no version")


@test
def usage_errors():
    need(triode().returncode == 2, "no command")
    refused(triode("fly"), "fly")
    refused(triode("run", "--fly"), "--fly")
    refused(triode("run", "fly"), "fly")
    refused(triode("run", "--kernel"), "--kernel")
    refused(triode("run", "--stats=yes"), "--stats")
    image = kernel("off", guests.POWER_OFF)
    for option, value in (("--jit", "maybe"), ("--unpack", "1"), ("--reboot", ""), ("--engine", "x"),
                          ("--serial", "x"), ("--serial", "file:"), ("--debugcon", "x"),
                          ("--dump", "x"), ("--dump", "host:zz"), ("--dump", "host:5-3"),
                          ("--trace", "x"), ("--cpu", "no-such-cpu")):
        result = triode("run", "--kernel", image, "--engine", "soft", option, value)
        refused(result, value if value else option)
    for size in ("0", "1023K", "2G", "x"):
        refused(run(image, "--code-cache", size), "--code-cache", size)
    for option in ("--kernel", "--initrd", "--firmware", "--cpu"):
        refused(triode("run", "--engine", "soft", option, ""), option)
    for where in ("", "x", "70000", "tcp:", "udp:1234", "1.2.3.4", "unix:", "unix:/none/socket"):
        refused(run(image, "--gdb", where), "--gdb")
    refused(run(image, "--gdb-wait"), "--gdb")
    for words in (["--jit", "off"], ["--dump", "host"], ["--code-cache", "2M"], ["--cpu", "max"]):
        refused(triode("run", "--kernel", image, "--engine", "kvm", *words), "kvm", words[0])
        result = triode("run", "--kernel", image, *words)
        need(f"engine soft: {words[0]}" in result.stderr, result.stderr)
    refused(run(image, "--cpu", "x86-64-v2,lm=off"), image, "64-bit", "lm")
    with open(path("mine"), "wb") as file:
        file.write(b"precious")
    refused(run(image, "--gdb", "unix:" + path("mine")), "--gdb", path("mine"))
    need(os.path.getsize(path("mine")) == 8, "a file where a socket is to be was removed")


# ---- Bad input -----------------------------------------------------------------------------------

@test
def memory_and_topology():
    image = kernel("off", guests.POWER_OFF)
    for mem in ("1M", "0", "-1", "x", "", "5Q", "1.5G", "99999999999T", "2000G"):
        refused(run(image, "--mem", mem), "--mem")
    for smp in ("0", "65", "-1", "x", "", "1,", "2,cores=0", "2,dies=1"):
        refused(run(image, "--smp", smp), "--smp")
    refused(run(image, "--mem", "1"), "1 MiB", "8 MiB")
    refused(run(image, "--mem", "999T"), "999 TiB", "1 TiB")
    refused(run(image, "--smp", "5,cores=2"), "2 sockets x 2 cores x 1 thread = 4, not 5 vCPUs")
    for mem in ("8192K", "8M", "16"):
        need(run(image, "--mem", mem).returncode == 2, "a kernel above the end of memory")
    for mem in ("32M", "0032M", "1G", "1g"):
        need(run(image, "--mem", mem).returncode == 0, mem)


@test
def kernels_that_are_none():
    good = guests.bzimage(guests.assemble(guests.POWER_OFF))
    refused(run(path("missing")), path("missing"), "No such file")
    refused(run(FOLDER), FOLDER, "directory")
    refused(run("/dev/null"), "/dev/null", "not a plain file")
    for name, data, word in (("empty", b"", "empty"), ("cut", good[:-17], "truncated"),
                             ("head", good[:800], "truncated"), ("text", b"hello\n" * 999, "neither"),
                             ("arm64", bytes(56) + b"ARM\x64" + bytes(999), "arm64"),
                             ("elf32", b"\x7fELF\1\1\1" + bytes(999), "another CPU"),
                             ("elf-arm", b"\x7fELF\2\1\1" + bytes(9) + b"\2\0\xb7\0" + bytes(99),
                              "another CPU")):
        with open(path(name), "wb") as file:
            file.write(data)
        refused(run(path(name)), path(name), word)
    off = guests.POWER_OFF
    refused(run(kernel("bits32", off, xloadflags=0), "--entry", "64"), "no 64-bit entry")
    refused(run(kernel("old", off, version=0x201)), "2.01")
    refused(run(kernel("zimage", off, loadflags=0)), "zImage")
    refused(run(kernel("large", off, init_size=0x70000000)), "--mem")


@test
def pipes_where_files_are_meant():
    """No waiting for someone to write into them."""
    os.mkfifo(path("pipe"))
    image = kernel("off", guests.POWER_OFF)
    refused(run(path("pipe")), path("pipe"), "not a plain file")
    refused(run(image, "--initrd", path("pipe")), path("pipe"), "not a plain file")
    refused(triode("run", "--engine", "soft", "--firmware", path("pipe")), path("pipe"))


@test
def a_program_is_no_kernel():
    refused(run("/bin/true"), "/bin/true", "type 3")


@test
def no_memory_on_the_host():
    image = kernel("off", guests.POWER_OFF)
    result = subprocess.run(["sh", "-c", 'ulimit -v 3000000; exec "$0" run --engine soft --kernel '
                             '"$1" --mem 8G', TRIODE, image], capture_output=True, timeout=30,
                            encoding="utf-8", check=False)
    refused(result, "8192 MiB", "Cannot allocate memory", status=1)


@test
def unreadable_kernel():
    image = kernel("secret", guests.POWER_OFF)
    os.chmod(image, 0)
    if os.access(image, os.R_OK):
        return "skipped: this user may read everything"
    refused(run(image), image, "Permission denied")
    return None


@test
def initrds():
    image = kernel("off", guests.POWER_OFF)
    with open(path("large"), "wb") as file:
        file.truncate(100 << 20)
    refused(run(image, "--initrd", path("large"), "--mem", "64M"), path("large"), "--mem")
    refused(run(image, "--initrd", path("missing")), path("missing"))
    need(run(image, "--initrd", path("large"), "--mem", "256M").returncode == 0, "it fits here")


@test
def command_line_too_long():
    refused(run(kernel("off", guests.POWER_OFF), "--append", "x" * 2048), "2048", "2047")


@test
def files_that_cannot_be_written():
    image = kernel("off", guests.POWER_OFF)
    nowhere = path("no/such/folder/file")
    refused(run(image, "--trace", "exits:" + nowhere), nowhere)
    refused(run(image, "--serial", "file:" + nowhere), nowhere)
    refused(run(image, "--debugcon", "file:" + nowhere), nowhere)


@test
def no_default_guest():
    result = triode("run", "--engine", "soft", env={**os.environ, "TRIODE_GUESTS": path("nothing")})
    refused(result, "make run", path("nothing"))


@test
def kvm_without_permission():
    if not os.path.exists("/dev/kvm"):
        refused(triode("run", "--engine", "kvm", "--kernel", kernel("off", guests.POWER_OFF)),
                "/dev/kvm", status=4)
        return "as missing: this host has no /dev/kvm"
    if os.stat("/dev/kvm").st_mode & 0o006 == 0o006:
        return "skipped: everybody may use /dev/kvm"
    image = kernel("off", guests.POWER_OFF)
    if os.getuid() == 0:
        os.chmod(FOLDER, 0o755)
        try:
            result = triode("run", "--engine", "kvm", "--kernel", image, user=65534, group=65534,
                            extra_groups=[], cwd="/")
        except PermissionError:
            return "skipped: another user may not run this build"
    elif not os.access("/dev/kvm", os.R_OK | os.W_OK):
        result = triode("run", "--engine", "kvm", "--kernel", image)
    else:
        return "skipped: this user may use /dev/kvm"
    refused(result, "permission", "/dev/kvm", status=4)
    return None


# ---- Ends ----------------------------------------------------------------------------------------

@test
def power_off():
    for more in ((), ("--smp", "3"), ("--jit", "off"), ("--serial", "none"), ("--unpack", "off")):
        result = run(kernel("off", guests.POWER_OFF), *more)
        need(result.returncode == 0, f"{more}: {result.returncode} {result.stderr}")


@test
def reset():
    result = run(kernel("boots", guests.THREE_BOOTS))
    need(result.returncode == 0 and result.stdout == "123", result.stdout + result.stderr)
    result = run(kernel("boots", guests.THREE_BOOTS), "--reboot", "off")
    need(result.returncode == 0 and result.stdout == "1", result.stdout + result.stderr)
    need(run(kernel("reset", guests.RESET), "--reboot", "off").returncode == 0, "port 0xCF9")


@test
def sleep():
    """Memory is what it was, all else is new; one without a waking vector starts anew."""
    result = run(kernel("wake", guests.WAKE + guests.SAY.format("s") + guests.SLEEP.format(0x1000)))
    need(result.returncode == 0 and result.stdout.endswith("sOK"), result.stdout + result.stderr)
    count = guests.SAY.format("b") + """
        mov al, 0x40
        out 0x70, al
        in al, 0x71
        inc al
        mov bl, al
        mov al, 0x40
        out 0x70, al
        mov al, bl
        out 0x71, al
        cmp bl, 2
        je 7f
    """
    for vector in 0, 0x100000:
        result = run(kernel("none", count + guests.SLEEP.format(vector) + "7:" + guests.POWER_OFF))
        need(result.returncode == 0 and result.stdout.endswith("bb"), result.stdout + result.stderr)

@test
def interrupt_vectors_of_a_bios():
    for line, vector in ((6, 0x0e), (11, 0x73)):
        result = run(kernel("vector", guests.VECTOR.format(line, vector)), "--test-devices")
        need(result.returncode == 0 and result.stdout.endswith("v"), result.stdout + result.stderr)


@test
def triple_fault():
    for jit in ("on", "off"):
        result = run(kernel("fault", guests.TRIPLE_FAULT), "--jit", jit)
        need(result.returncode == 3, f"status {result.returncode}: {result.stderr}")
        for word in ("triple fault", "R13 000000001badb002", "RIP 000000000100020e", "> ", "ud2",
                     "CR3 000000000000e000", "64-bit code"):
            need(word in result.stderr, f"no '{word}' in:\n{result.stderr}")


@test
def output_of_a_run_that_ends_at_once_is_complete():
    text = "The quick brown fox"
    image = kernel("say", "".join(guests.SAY.format(c) for c in text) + guests.POWER_OFF)
    for _ in range(5):
        need(run(image).stdout == text, "output is missing")


@test
def statistics():
    result = run(kernel("off", guests.POWER_OFF), "--stats")
    need(re.search(r"^  io +1$", result.stderr, re.MULTILINE), result.stderr)
    need("wall clock" in result.stderr and "peak resident" in result.stderr, result.stderr)


@test
def trace():
    result = run(kernel("off", guests.POWER_OFF), "--trace", "pio:" + path("trace.jsonl"))
    with open(path("trace.jsonl"), encoding="utf-8") as file:
        text = file.read()
    need(result.returncode == 0 and "604" in text, text)


def trace_tells(event, place, code, accesses):
    """Of each access to ports or memory: what, where, how many bytes, which value."""
    result = run(kernel(event, code + guests.POWER_OFF), "--trace", f"{event}:{path(event)}.jsonl")
    with open(path(event) + ".jsonl", encoding="utf-8") as file:
        told = [json.loads(line) for line in file]
    need(result.returncode == 0 and
         [(line["op"], line[place], line["size"], line["value"]) for line in told] == accesses, told)


@test
def trace_of_ports():
    trace_tells("pio", "port", guests.READ_PORTS, [
        ("out", "0xcf8", 4, "0x80001234"), ("in", "0xcf8", 4, "0x80001234"),
        ("out", "0x21", 1, "0xa5"), ("in", "0x21", 1, "0xa5"), ("out", "0x604", 2, "0x2000")])


@test
def trace_of_memory_that_is_none():
    trace_tells("mmio", "gpa", guests.READ_REGISTERS, [
        ("write", "0xfed00108", 8, "0x12345678"), ("read", "0xfed00108", 4, "0x12345678"),
        ("write", "0xfee00380", 4, "0"), ("read", "0xfee00380", 4, "0")])


# ---- Serial ports --------------------------------------------------------------------------------

@test
def input_from_a_pipe():
    result = run(kernel("echo", guests.ECHO), text="hello, pipe.more")
    need(result.returncode == 0 and result.stdout == ">HELLO\x0c\x00PIPE", repr(result.stdout))


@test
def end_of_input_is_no_end():
    child = subprocess.Popen([TRIODE, "run", "--engine", "soft", "--kernel",
                              kernel("loop", guests.SAY.format("x") + guests.ENDLESS_LOOP)],
                             stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                             stderr=subprocess.DEVNULL)
    need(child.stdout.read(1) == b"x", "no start")
    time.sleep(0.3)
    need(child.poll() is None, "it ended with its input")
    child.terminate()
    need(child.wait(20) == 128 + signal.SIGTERM, "status")


@test
def closed_descriptors():
    image = kernel("off", guests.SAY.format("x") + guests.POWER_OFF)
    for closing in ("<&-", "<&- >&-", "<&- >&- 2>&-", ">/dev/null <&-"):
        result = subprocess.run(["sh", "-c", f'"$0" run --engine soft --kernel "$1" {closing}',
                                 TRIODE, image], timeout=30, stderr=subprocess.DEVNULL,
                                stdout=subprocess.PIPE)
        need(result.returncode == 0, f"{closing}: {result.returncode}")


@test
def reader_that_goes_away():
    image = kernel("say", guests.SAY.format("x") * 300 + guests.POWER_OFF)
    result = subprocess.run(["sh", "-c", '{ "$0" run --engine soft --kernel "$1"; echo $? >"$2"; } | '
                             'true', TRIODE, image, path("status")], timeout=30,
                            stderr=subprocess.DEVNULL)
    with open(path("status"), encoding="ascii") as file:
        need(file.read() == "0\n" and result.returncode == 0, "the guest did not end")


@test
def serial_to_a_file():
    image = kernel("say", guests.SAY.format("f") + guests.POWER_OFF)
    need(run(image, "--serial", "file:" + path("out")).stdout == "", "output on the terminal")
    with open(path("out"), encoding="ascii") as file:
        need(file.read() == "f", "the file's text")


@test
def debug_console():
    code = "mov al, 'd'\n out 0xe9, al\n mov dx, 0x402\n out dx, al\n" + guests.POWER_OFF
    run(kernel("debug", code), "--debugcon", "file:" + path("debug.out"))
    with open(path("debug.out"), encoding="ascii") as file:
        need(file.read() == "dd", "the file's text")


@test
def serial_on_a_pty():
    child = subprocess.Popen([TRIODE, "run", "--engine", "soft", "--serial", "pty", "--kernel",
                              kernel("echo", guests.ECHO)], stdin=subprocess.DEVNULL,
                             stderr=subprocess.PIPE, encoding="ascii")
    line = ""
    while "serial port on" not in line:
        line = child.stderr.readline()
        need(line, "no line names the pty")
    fd = os.open(line.split()[-1], os.O_RDWR | os.O_NOCTTY)
    need(os.read(fd, 1) == b">", "no prompt")
    os.write(fd, b"a")
    need(os.read(fd, 1) == b"A", "no echo")
    os.write(fd, b".")
    need(child.wait(20) == 0, "status")
    os.close(fd)


# ---- The terminal --------------------------------------------------------------------------------

@test
def keys_reach_the_guest_unchanged():
    vm = Terminal(kernel("echo", guests.ECHO))
    vm.expect(b">")
    need(vm.is_raw(), "not raw")
    os.write(vm.master, b"abc\x03\x1a\x04\x01\x01d.")
    need(vm.end() == 0, "status")
    need(b">ABC\x03\x1a\x04\x01D" in vm.text, repr(vm.text))


@test
def escape_keys():
    vm = Terminal(kernel("loop", guests.SAY.format(">") + guests.ENDLESS_LOOP))
    vm.expect(b">")
    os.write(vm.master, b"\x01h")
    vm.expect(b"Ctrl-A X")
    os.write(vm.master, b"\x01b\x01")
    os.write(vm.master, b"x")
    need(vm.end() == 0, "status")


@test
def signals_restore_the_terminal():
    image = kernel("loop", guests.SAY.format(">") + guests.ENDLESS_LOOP)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
        for smp in ("1", "3"):
            vm = Terminal(image, "--smp", smp)
            vm.expect(b">")
            vm.wait(vm.is_raw, "raw")
            vm.child.send_signal(number)
            status = vm.end()
            need(status == 128 + number, f"{number}: status {status}")


@test
def signals_at_any_time():
    image = kernel("loop", guests.ENDLESS_LOOP)
    for delay in range(0, 60, 6):
        vm = Terminal(image)
        time.sleep(delay / 1000)
        vm.child.send_signal(signal.SIGTERM)
        status = vm.end()
        need(status in (128 + signal.SIGTERM, -signal.SIGTERM), f"after {delay} ms: {status}")


@test
def crashes_restore_the_terminal():
    image = kernel("loop", guests.SAY.format(">") + guests.ENDLESS_LOOP)
    for number in (signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS):
        vm = Terminal(image)
        vm.expect(b">")
        vm.wait(vm.is_raw, "raw")
        vm.child.send_signal(number)
        need(vm.end() == -number, f"{number}: it did not die of it")


@test
def suspending_and_going_on():
    vm = Terminal(kernel("echo", guests.ECHO))
    vm.expect(b">")
    vm.wait(vm.is_raw, "raw")
    # An orphaned process group does not stop on SIGTSTP, so what is seen is only the round trip.
    vm.child.send_signal(signal.SIGTSTP)
    time.sleep(0.3)
    vm.child.send_signal(signal.SIGCONT)
    vm.wait(vm.is_raw, "raw again")
    os.write(vm.master, b"k.")
    need(vm.end() == 0, "status")
    need(b"K" in vm.text, repr(vm.text))


def under_a_shell(shell, script, image, steps):
    """Runs a script on a terminal of its own: waits for texts, types, calls functions."""
    master, slave = pty.openpty()
    before = termios.tcgetattr(slave)

    def control():
        os.setsid()
        import fcntl
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)

    child = subprocess.Popen([shell, "-c", script, TRIODE, image], stdin=slave, stdout=slave,
                             stderr=slave, preexec_fn=control)
    text = b""
    for kind, what in steps:
        if kind == "call":
            what(child)
        elif kind == "type":
            os.write(master, what)
        end = time.monotonic() + 20
        while kind == "expect" and what not in text:
            if time.monotonic() > end:
                child.kill()
                need(False, f"no {what!r} in {text!r}")
            if select.select([master], [], [], 0.05)[0]:
                text += os.read(master, 4096)
        if kind == "expect":
            text = text[text.index(what) + len(what):]
    child.wait(20)
    need(termios.tcgetattr(slave) == before, "the terminal is not as it was")
    os.close(master)
    os.close(slave)


@test
def job_control():
    """Ctrl-Z by signal stops, the terminal is the shell's, fg goes on."""
    def suspend(shell):
        time.sleep(0.1)
        with open(f"/proc/{shell.pid}/task/{shell.pid}/children", encoding="ascii") as file:
            pids = file.read().split()
        os.kill(int(pids[0]), signal.SIGTSTP)

    under_a_shell("sh", 'set -m; "$0" run --engine soft --kernel "$1"; echo "stopped $?"; stty -a; fg; '
                  'echo "ended $?"', kernel("echo", guests.ECHO),
                  (("expect", b">"), ("call", suspend), ("expect", b"stopped 148"),
                   ("expect", b" icanon"), ("call", lambda shell: time.sleep(0.3)), ("type", b"q."),
                   ("expect", b"Q"), ("expect", b"ended 0")))


@test
def from_background_to_foreground():
    """bash sends no SIGCONT to a job that runs already; keys go to the guest all the same."""
    under_a_shell("bash", 'set -m; "$0" run --engine soft --kernel "$1" & sleep 1; echo now; fg; '
                  'echo "ended $?"', kernel("echo", guests.ECHO),
                  (("expect", b">"), ("expect", b"now"), ("type", b"q."), ("expect", b"Q"),
                   ("expect", b"ended 0")))


def main():
    # Who runs this in the background may ignore these, and what is ignored stays so in children.
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
    passed = failed = 0
    only = sys.argv[3:]
    for function in TESTS:
        if only and function.__name__ not in only:
            continue
        start = time.monotonic()
        try:
            remark = function()
            passed += 1
            print(f"ok      {function.__name__} ({time.monotonic() - start:.1f} s)"
                  f"{': ' + remark if remark else ''}", flush=True)
        except (AssertionError, subprocess.TimeoutExpired, OSError) as problem:
            failed += 1
            print(f"FAILED  {function.__name__}: {problem}", flush=True)
    subprocess.run(["rm", "-rf", FOLDER], check=False)
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
