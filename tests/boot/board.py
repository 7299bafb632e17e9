#!/usr/bin/env python3
"""The board's devices as Linux finds and uses them: board.py TRIODE"""
import os
import re
import sys
import tempfile

from guest import GUESTS, KERNEL, linux, need_guests, run

GENERIC = os.path.join(GUESTS, "vmlinuz")
# With these words in a line the kernel complains; the exceptions say that nothing is wrong.
COMPLAINTS = re.compile(r"error|warn|fail|invalid(?!ation)|bug\b|spurious|unable|timed out|not responding",
                        re.IGNORECASE)
HARMLESS = re.compile(r"not a bug|trace event string verifier|checksum verification disabled|"
                      r"if necessary, use \"pci=nocrs\" and report a bug|Command line|command line|"
                      r"ignored, not CPU addressable|PNP: No PS/2 controller found")


def ask(triode, command, append="", *options):
    """Runs `command` in the guest; answers what it printed."""
    kernel = GENERIC if os.path.exists(GENERIC) else KERNEL
    result = run(triode, linux(f"quiet {append} triode.run={command.replace(' ', '%20')}",
                               "--kernel", kernel, *options))
    if result.returncode or "exit status 0" not in result.stdout:
        sys.exit(f"FAILED: {command}: status {result.returncode}\n{result.stdout[-5000:]}\n"
                 f"{result.stderr[-2000:]}")
    return result.stdout


def expect(text, *patterns):
    for pattern in patterns:
        if not re.search(pattern, text):
            sys.exit(f"FAILED: no {pattern!r} in\n{text[-6000:]}")


def no_complaint(text):
    bad = [line for line in text.splitlines()
           if re.match(r"\[ *\d", line) and COMPLAINTS.search(line) and not HARMLESS.search(line)]
    if bad:
        sys.exit("FAILED: the kernel complains:\n" + "\n".join(bad))


def quiet_boot(triode):
    """No message of a boot is a complaint, with every device there is; the keyboard controller
    is probed though the ACPI tables say that there is no keyboard."""
    with tempfile.NamedTemporaryFile() as first, tempfile.NamedTemporaryFile() as second:
        first.truncate(1 << 20)
        second.truncate(1 << 20)
        text = ask(triode, "dmesg;ls /sys/bus/acpi/devices", "i8042.nopnp", "--rng", "--smp", "2",
                   "--disk", first.name, "--disk", f"{second.name},if=ide")
    no_complaint(text)
    expect(text, r"hpet0: 3 comparators, 64-bit 100\.000000 MHz counter", r"DMI: Triode PC, BIOS",
           r"serio: i8042 KBD port", r"ACPI0007:01")


def hpet(triode):
    """Linux keeps time by the HPET and takes its interrupts when nothing better is there."""
    text = ask(triode, "cat /sys/devices/system/clocksource/clocksource0/current_clocksource;"
               "cat /proc/timer_list;grep timer /proc/interrupts;sleep 1;grep timer /proc/interrupts",
               "no-kvmclock tsc=unstable nolapic")
    expect(text, r"(?m)^hpet\s*$", r"Clock Event Device: hpet")
    ticks = [int(n) for n in re.findall(r"(?m)^ *0: +(\d+).*timer", text)]
    if len(ticks) != 2 or ticks[1] <= ticks[0]:
        sys.exit(f"FAILED: the HPET's interrupts: {ticks}\n{text[-2000:]}")


def clock(triode):
    """The alarm comes by ACPI, and without the HPET, which has line 8, by that."""
    for append, line in ("", "acpi"), ("hpet=disable", "rtc0"):
        text = ask(triode, f"grep {line} /proc/interrupts;echo +2 >/sys/class/rtc/rtc0/wakealarm;"
                   f"cat /sys/class/rtc/rtc0/wakealarm;sleep 4;echo after;"
                   f"cat /sys/class/rtc/rtc0/wakealarm;grep {line} /proc/interrupts", append)
        expect(text, r"\d{10}\s+after\s")
        counts = [int(n) for n in re.findall(rf"(?m)^ *\d+: +(\d+).*{line}", text)]
        if re.search(r"after\s+\d{10}", text) or len(counts) != 2 or counts[1] <= counts[0]:
            sys.exit(f"FAILED: the alarm did not come ({append}): {counts}\n{text[-2000:]}")


def main():
    triode = sys.argv[1]
    need_guests()
    for test in quiet_boot, hpet, clock:
        print(test.__name__, flush=True)
        test(triode)
    print("ok")


if __name__ == "__main__":
    main()
