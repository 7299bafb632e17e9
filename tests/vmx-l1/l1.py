#!/usr/bin/env python3
"""Hypervisors as guests of Triode: l1.py TRIODE [SCENARIO...] [-- OPTION...]

Each scenario boots Debian's amd64 kernel, or Xen, as L1 on the soft engine with an initramfs made
for it and says what came of it; the status is 0 when all went well. Without a name: all but
selftests.
  kvm          kvm-intel loads with all it can; `triode run --engine kvm` boots Debian's kernel as
               L2
  kvm-no-ept, kvm-no-vpid, kvm-no-unrestricted_guest
               the same by KVM without that feature
  l3           ... and in that L2 the same once more
  qemu         Debian's qemu-system-x86_64 -accel kvm boots Debian's kernel as L2
  conformance  Triode's conformance tests on the kvm engine in L1
  selftests    the KVM selftests of Debian's kernel source
  xen          Xen with a PV dom0 that makes a PVH guest by xl
  xen-pvh      Xen with a PVH dom0, behind an IOMMU, with a disk and a PVH guest; with 1 and 2 CPUs
What they need comes by fetch.sh. OPTIONs go to the L1's `triode run`. Output: build/l1-logs. For
selftests ONLY=PATTERN names some, and KVM_INTEL has parameters for the module.
"""
import argparse
import hashlib
import importlib.machinery
import importlib.util
import os
import re
import shutil
import stat
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.join(HERE, "../..")
GUESTS = os.environ.get("TRIODE_GUESTS", os.path.join(ROOT, "build/guests"))
L1 = os.path.join(GUESTS, "l1")
LOGS = os.path.join(ROOT, "build/l1-logs")
QEMU = "/usr/bin/qemu-system-x86_64"
QEMU_FILES = ["/usr/share/seabios/bios-256k.bin", "/usr/share/seabios/vgabios-stdvga.bin",
              "/usr/share/qemu/linuxboot_dma.bin", "/usr/share/qemu/kvmvapic.bin"]

LOAD_KVM = """
grep -q vmx /proc/cpuinfo && echo L1: vmx
insmod /m/irqbypass.ko; insmod /m/kvm.ko; insmod /m/kvm-intel.ko $KVM_INTEL
dmesg | grep -iE 'kvm|vmx|warn|call trace'
for p in ept vpid unrestricted_guest nested; do
    echo "L1: $p $(cat /sys/module/kvm_intel/parameters/$p)"
done
"""
L2_OPTIONS = "--kernel /m/vmlinuz-cloud --initrd /m/initramfs.cpio --mem 192M"
L2_APPEND = "console=ttyS0 quiet triode.poweroff"


def load_mkinitramfs():
    path = os.path.join(ROOT, "tools/mkinitramfs")
    loader = importlib.machinery.SourceFileLoader("mkinitramfs", path)
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader("mkinitramfs", loader))
    loader.exec_module(module)
    return module


class Initramfs:
    """An initramfs with busybox, whose /init runs a shell script and powers off."""

    def __init__(self):
        self.tool = load_mkinitramfs()
        self.archive = self.tool.Archive()
        self.have = set()
        busybox = os.path.join(GUESTS, "busybox")
        for directory in ("dev", "proc", "sys", "tmp", "root", "m", "run", "var", "etc"):
            self.directory(directory)
        self.directory("bin")
        self.archive.add("dev/console", stat.S_IFCHR | 0o600, device=(5, 1))
        self.file("bin/busybox", busybox)
        for name in self.tool.applets(busybox):
            self.archive.add("bin/" + name, stat.S_IFLNK | 0o777, b"busybox")

    def directory(self, name):
        if name and name not in self.have:
            self.directory(os.path.dirname(name))
            self.archive.add(name, stat.S_IFDIR | 0o755)
            self.have.add(name)

    def text(self, name, text):
        self.directory(os.path.dirname(name))
        self.archive.add(name, stat.S_IFREG | 0o755, text.encode())

    def file(self, name, source):
        if name in self.have:
            return
        self.have.add(name)
        self.directory(os.path.dirname(name))
        with open(source, "rb") as file:
            self.archive.add(name, stat.S_IFREG | 0o755, file.read())

    def program(self, name, source):
        """With the shared libraries it needs, where the machine has them."""
        self.file(name, source)
        needs = subprocess.run(["ldd", source], check=False, capture_output=True, text=True).stdout
        for library in re.findall(r"(/\S+) \(0x", needs):
            self.file(library.lstrip("/"), library)

    def tree(self, source):
        for folder, _, files in os.walk(source):
            for name in files:
                path = os.path.join(folder, name)
                self.file(os.path.relpath(path, source), path)

    def kvm(self):
        for name in ("irqbypass", "kvm", "kvm-intel"):
            self.file(f"m/{name}.ko", os.path.join(L1, "modules", name + ".ko"))
        for name in ("vmlinuz-cloud", "initramfs.cpio"):
            self.file("m/" + name, os.path.join(GUESTS, name))

    def write(self, path, script):
        self.text("init", "#!/bin/sh\nexport PATH=/bin:/usr/sbin HOME=/\n"
                  "mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev\n" + script +
                  "dmesg | grep -E 'Call Trace|BUG:|Oops|WARNING:' && echo L1: kernel complains\n"
                  "echo L1: end\npoweroff -f\n")
        self.archive.add("TRAILER!!!", 0)
        with open(path, "wb") as file:
            file.write(self.archive.data)


class Run:
    def __init__(self, triode, options):
        self.triode, self.options = triode, options
        self.failed = []

    def boot(self, name, initramfs, script, seconds=600, kernel=None, append="console=ttyS0",
             modules="", machine=()):
        os.makedirs(LOGS, exist_ok=True)
        with tempfile.TemporaryDirectory() as folder:
            initrd = os.path.join(folder, "l1.cpio")
            initramfs.write(initrd, script)
            start = time.monotonic()
            log = os.path.join(LOGS, name + ".log")
            with open(log, "wb") as file:
                try:
                    status = subprocess.run(
                        [self.triode, "run", "--engine", "soft", "--mem", "2G",
                         "--kernel", kernel or os.path.join(L1, "vmlinuz"),
                         "--initrd", modules + initrd, "--append", append, *machine,
                         *self.options],
                        stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT,
                        timeout=seconds, check=False).returncode
                except subprocess.TimeoutExpired:
                    status = "timeout"
        with open(log, encoding="utf-8", errors="replace") as file:
            text = file.read().replace("\r", "")
        print(f"{name}: {time.monotonic() - start:.0f} s, status {status}, {log}", flush=True)
        if status != 0 or "L1: end" not in text or "L1: kernel complains" in text:
            self.failed.append(name)
        return text

    def want(self, name, text, *patterns):
        for pattern in patterns:
            if not re.search(pattern, text, re.MULTILINE):
                print(f"{name}: no {pattern!r}", flush=True)
                self.failed.append(name)


def kvm(run):
    image = Initramfs()
    image.kvm()
    image.program("bin/triode", run.triode)
    text = run.boot("kvm", image, LOAD_KVM + f"""
triode run --engine kvm {L2_OPTIONS} --smp 2 --append '{L2_APPEND}' </dev/null
""")
    run.want("kvm", text, "L1: vmx", "L1: ept Y", "L1: vpid Y", "L1: unrestricted_guest Y",
             "L1: nested Y", "Triode guest ready")


def without(run, what):
    """KVM's older ways: shadow page tables, emulated real mode, flushes at every entry and exit."""
    image = Initramfs()
    image.kvm()
    image.program("bin/triode", run.triode)
    name = "kvm-no-" + what
    text = run.boot(name, image, f"KVM_INTEL={what}=0\n" + LOAD_KVM + f"""
triode run --engine kvm {L2_OPTIONS} --append '{L2_APPEND}' </dev/null
""")
    run.want(name, text, f"L1: {what} N", "Triode guest ready")


def kvm_no_ept(run):
    without(run, "ept")


def kvm_no_vpid(run):
    without(run, "vpid")


def kvm_no_unrestricted_guest(run):
    without(run, "unrestricted_guest")


def l3(run):
    inner = Initramfs()
    inner.kvm()
    inner.program("bin/triode", run.triode)
    outer = Initramfs()
    outer.kvm()
    outer.program("bin/triode", run.triode)
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "l2.cpio")
        inner.write(path, LOAD_KVM + f"triode run --engine kvm {L2_OPTIONS} "
                    f"--append '{L2_APPEND}' </dev/null\n")
        outer.file("m/l2.cpio", path)
        outer.file("m/vmlinuz", os.path.join(L1, "vmlinuz"))
        text = run.boot("l3", outer, LOAD_KVM + """
triode run --engine kvm --kernel /m/vmlinuz --initrd /m/l2.cpio --mem 768M \
    --append 'console=ttyS0 quiet' </dev/null
""", seconds=1200)
    run.want("l3", text, "Triode guest ready")


def qemu(run):
    image = Initramfs()
    image.kvm()
    image.program("usr/bin/qemu-system-x86_64", QEMU)
    for path in QEMU_FILES:
        image.file(os.path.join("rom", os.path.basename(path)), path)
    text = run.boot("qemu", image, LOAD_KVM + f"""
/usr/bin/qemu-system-x86_64 -L /rom -accel kvm -cpu host -m 192 -smp 2 -nodefaults -display none \
    -serial stdio -no-reboot -kernel /m/vmlinuz-cloud -initrd /m/initramfs.cpio \
    -append '{L2_APPEND}' </dev/null
""")
    run.want("qemu", text, "Triode guest ready")


def conformance(run):
    tests = os.path.abspath(os.path.join(os.path.dirname(os.path.realpath(run.triode)),
                                         "../../tests/conformance"))
    if not os.path.exists(tests):
        tests = os.path.join(os.path.dirname(os.path.realpath(run.triode)), "tests/conformance")
    image = Initramfs()
    image.kvm()
    for name in os.listdir(tests):
        path = os.path.join(tests, name)
        if os.path.isfile(path):
            (image.program if name == "conformance" else image.file)(path.lstrip("/"), path)
    text = run.boot("conformance", image, LOAD_KVM + f"{tests}/conformance kvm\n")
    run.want("conformance", text, r"PASSED")
    if re.search(r"FAILED", text):
        print("\n".join(line for line in text.splitlines() if "FAILED" in line))
        run.failed.append("conformance")


def selftests(run):
    image = Initramfs()
    image.kvm()
    folder = os.path.join(L1, "selftests")
    names = [name for name in sorted(os.listdir(folder))
             if not re.search("perf|stress|arch_timer|hardware_disable|max_guest_memory|svm|sev",
                              name)]
    only = os.environ.get("ONLY")
    for name in names:
        if not only or re.search(only, name):
            image.file("tests/" + name, os.path.join(folder, name))
    parameters = f"KVM_INTEL='{os.environ.get('KVM_INTEL', '')}'\n"
    text = run.boot("selftests", image, parameters + LOAD_KVM + """
cd /tests
for t in *; do
    timeout 120 ./$t >/tmp/out 2>&1
    s=$?
    [ $s = 0 ] || [ $s = 4 ] || tail -n 12 /tmp/out
    echo "selftest: $t $s"
done
""", seconds=3600)
    results = dict(re.findall(r"^selftest: (\S+) (\d+)", text, re.MULTILINE))
    skipped = [name for name, status in results.items() if status == "4"]
    failed = {name: status for name, status in results.items() if status not in ("0", "4")}
    print(f"selftests: {len(results)} run, {len(results) - len(skipped) - len(failed)} passed, "
          f"skipped: {' '.join(skipped) or 'none'}")
    for name, status in failed.items():
        print(f"selftests: {name} failed with {status}")
        run.failed.append("selftests " + name)


DISK_BYTES = 8 << 20
DISK_MODULES = ["virtio_ring", "virtio", "virtio_pci_legacy_dev", "virtio_pci_modern_dev", "virtio_pci",
                "virtio_blk"]
XEN_DISK = f"""
for m in {' '.join(DISK_MODULES)}; do insmod /m/$m.ko; done
dd if=/dev/urandom of=/dev/vda bs=1M count={DISK_BYTES >> 20} conv=fsync
echo 3 >/proc/sys/vm/drop_caches
echo "L1: disk $(md5sum </dev/vda)"
grep virtio /proc/interrupts
"""
XEN_MODULES = ["xen-privcmd", "xenfs", "xen-evtchn", "xen-gntdev", "xen-gntalloc"]
XEN_DOM0 = f"""
for m in {' '.join(XEN_MODULES)}; do insmod /m/$m.ko; done
mount -t xenfs xenfs /proc/xen
mkdir /dev/pts; mount -t devpts devpts /dev/pts
ln -s /run /var/run
mkdir -p /var/run/xen /var/lib/xenstored /var/lib/xen /var/log/xen /run/xenstored /run/lock
ln -s /run/lock /var/lock
export LD_LIBRARY_PATH=/usr/lib/x86_64-linux-gnu
cd /sys/hypervisor
echo "L1: $(cat type) $(cat version/major).$(cat version/minor) $(cat guest_type)"
cd /
xenstored --pid-file /run/xenstored.pid; sleep 1; xen-init-dom0
xenconsoled --pid-file=/run/xenconsoled.pid
xl info | grep -E 'virt_caps|xen_caps|nr_cpus'
xl list
"""
XEN_DOMU = """
cat >/tmp/domu.cfg <<'END'
name = "domu"
type = "pvh"
kernel = "/m/vmlinuz-cloud"
ramdisk = "/m/initramfs.cpio"
extra = "console=hvc0 quiet triode.poweroff"
memory = 192
vcpus = 2
on_poweroff = "destroy"
on_crash = "destroy"
END
(sleep 240; xl list; xl dmesg | tail -20; xl destroy domu) &
xl create -c /tmp/domu.cfg </dev/console
xl list
"""


def xen(run, name="xen", options="", script=XEN_DOM0 + XEN_DOMU, machine=()):
    image = Initramfs()
    image.tree(os.path.join(L1, "xen"))
    image.text("etc/xen/xl.conf", "\n")
    for module in XEN_MODULES + DISK_MODULES:
        image.file(f"m/{module}.ko", os.path.join(L1, "modules", module + ".ko"))
    for guest in ("vmlinuz-cloud", "initramfs.cpio"):
        image.file("m/" + guest, os.path.join(GUESTS, guest))
    text = run.boot(name, image, script, kernel=os.path.join(L1, "xen.gz"),
                    append="no-real-mode com1=115200,8n1 console=com1 loglvl=all noreboot "
                    "dom0_mem=1024M " + options,
                    modules=os.path.join(L1, "vmlinuz") + " console=hvc0 earlyprintk=xen,",
                    machine=machine)
    run.want(name, text, "L1: xen", "Triode guest ready")
    return text


def xen_pv(run):
    xen(run)


def xen_pvh(run):
    for cpus in "1", "2":
        name = "xen-pvh" + cpus
        with tempfile.NamedTemporaryFile() as disk:
            disk.truncate(DISK_BYTES)
            text = xen(run, name, "dom0=pvh", XEN_DOM0 + XEN_DISK + XEN_DOMU,
                       ["--iommu", "--smp", cpus, "--disk", disk.name])
            written = hashlib.md5(disk.read()).hexdigest()
        run.want(name, text, "L1: xen .* PVH", "L1: disk " + written, "Shared EPT tables enabled")
        if re.search(r"VT-D.*(fault|reason)", text):
            print(f"{name}: the IOMMU blocked something", flush=True)
            run.failed.append(name)


SCENARIOS = {"kvm": kvm, "kvm-no-ept": kvm_no_ept, "kvm-no-vpid": kvm_no_vpid,
             "kvm-no-unrestricted_guest": kvm_no_unrestricted_guest, "l3": l3, "qemu": qemu, "conformance": conformance,
             "selftests": selftests, "xen": xen_pv, "xen-pvh": xen_pvh}


def main():
    arguments = sys.argv[1:]
    options = []
    if "--" in arguments:
        options = arguments[arguments.index("--") + 1:]
        arguments = arguments[:arguments.index("--")]
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("triode")
    parser.add_argument("scenario", nargs="*", metavar="SCENARIO")
    chosen = parser.parse_args(arguments)
    scenarios = chosen.scenario or [name for name in SCENARIOS if name != "selftests"]
    for name in scenarios:
        if name not in SCENARIOS:
            parser.error(f"there is no scenario {name!r}; there are {', '.join(SCENARIOS)}")
    if "qemu" in scenarios and not shutil.which(QEMU):
        sys.exit(f"{QEMU} is not installed")
    run = Run(os.path.abspath(chosen.triode), options)
    for name in scenarios:
        SCENARIOS[name](run)
    if run.failed:
        sys.exit("FAILED: " + ", ".join(run.failed))


if __name__ == "__main__":
    main()
