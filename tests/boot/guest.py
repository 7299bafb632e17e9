"""Runs Triode on a pseudo-terminal, as a person at a terminal would see it."""
import os
import pty
import re
import select
import signal
import subprocess
import sys
import termios
import time

GUESTS = os.environ.get("TRIODE_GUESTS", os.path.join(os.path.dirname(__file__), "../../build/guests"))
KERNEL = os.path.join(GUESTS, "vmlinuz-cloud")
INITRD = os.path.join(GUESTS, "initramfs.cpio")
PROMPT = "triode# "
SKIP = 77

# Whoever runs a test in the background may ignore these, and what is ignored stays so in children.
for number in (signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGTERM):
    signal.signal(number, signal.SIG_DFL)

# docs and triode(1): "Exit status".
STATUS_USAGE = 2
STATUS_TRIPLE_FAULT = 3


def need_guests():
    if not os.path.exists(KERNEL) or not os.path.exists(INITRD):
        print(f"skipped: no guests in {GUESTS}; make guests fetches them")
        sys.exit(SKIP)


def linux(append, *more):
    """Options that boot the cloud kernel on the soft engine with `append` on its command line."""
    return ["run", "--engine", "soft", "--kernel", KERNEL, "--initrd", INITRD,
            "--append", f"console=ttyS0 {append}", *more]


class Terminal:
    """One run of Triode on a pseudo-terminal."""

    def __init__(self, triode, arguments):
        self.master, self.slave = pty.openpty()
        self.settings = termios.tcgetattr(self.slave)
        self.text = ""
        self.seen = 0  # how much of text expect() is through with
        self.child = subprocess.Popen([triode, *arguments], stdin=self.slave, stdout=self.slave,
                                      stderr=self.slave, start_new_session=True)

    def fail(self, why):
        self.child.kill()
        print(f"FAILED: {why}\n--- terminal:\n{self.text[-6000:]}")
        sys.exit(1)

    def pump(self, seconds):
        """Reads what is there, waiting at most so long; False when the run has ended."""
        ready, _, _ = select.select([self.master], [], [], seconds)
        if ready:
            self.text += os.read(self.master, 65536).decode(errors="replace")
            return True
        return self.child.poll() is None

    def expect(self, pattern, seconds=60):
        """Waits for the regular expression after what was matched before; answers the match."""
        end = time.monotonic() + seconds
        while True:
            match = re.compile(pattern, re.MULTILINE).search(self.text, self.seen)
            if match:
                self.seen = match.end()
                return match
            if time.monotonic() > end:
                self.fail(f"no {pattern!r} within {seconds} s")
            if not self.pump(0.2):
                self.fail(f"ended with {self.child.returncode} before {pattern!r}")

    def send(self, text):
        os.write(self.master, text.encode())

    def command(self, text, seconds=60):
        """Types a command at the guest's prompt, answers its output without the echo."""
        self.send(text + "\n")
        self.expect(re.escape(text) + r"\s*?\n", seconds)
        start = self.seen
        self.expect(r"(?:^|\n)" + re.escape(PROMPT), seconds)
        return self.text[start:self.seen - len(PROMPT)].replace("\r", "").strip()

    def signal(self, number):
        self.child.send_signal(number)

    def end(self, status=None, seconds=30):
        """Waits for the end; checks its status (any if None) and that the terminal is as it was."""
        limit = time.monotonic() + seconds
        while self.child.poll() is None:
            if time.monotonic() > limit:
                self.fail(f"did not end within {seconds} s")
            self.pump(0.1)
        while select.select([self.master], [], [], 0.05)[0]:
            self.text += os.read(self.master, 65536).decode(errors="replace")
        if status is not None and self.child.returncode != status:
            self.fail(f"exit status {self.child.returncode} instead of {status}")
        if termios.tcgetattr(self.slave) != self.settings:
            self.fail("the terminal is not as it was before")
        os.close(self.master)
        os.close(self.slave)
        return self.child.returncode

    def check(self, condition, why):
        if not condition:
            self.fail(why)


def run(triode, arguments, seconds=120, stdin=subprocess.DEVNULL, **more):
    """Runs Triode without a terminal; answers the finished process with its output as text."""
    try:
        return subprocess.run([triode, *arguments], stdin=stdin, stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, timeout=seconds, encoding="utf-8",
                              errors="replace", **more)
    except subprocess.TimeoutExpired as late:
        print(f"FAILED: {' '.join(arguments)}: no end within {seconds} s\n"
              f"{(late.stdout or b'')[-4000:]}\n{(late.stderr or b'')[-4000:]}")
        sys.exit(1)


def cpio_entry(name, mode, data):
    """One file of a cpio archive in the new ASCII format."""
    fields = [0, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name) + 1, 0]
    head = b"070701" + b"".join(b"%08x" % field for field in fields) + name + b"\0"
    return head + b"\0" * (-len(head) % 4) + data + b"\0" * (-len(data) % 4)


def initrd_with(program, folder):
    """The default initramfs and the program in it as /program; answers the path, in `folder`."""
    initrd = os.path.join(folder, "initrd")
    with open(initrd, "wb") as out, open(INITRD, "rb") as base, open(program, "rb") as init:
        out.write(base.read())
        out.write(cpio_entry(b"program", 0o100755, init.read()))
        out.write(cpio_entry(b"TRAILER!!!", 0, b""))
    return initrd


signal.signal(signal.SIGPIPE, signal.SIG_DFL)
