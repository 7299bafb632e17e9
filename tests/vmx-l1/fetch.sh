#!/bin/sh
# fetch.sh FOLDER [selftests]: what the hypervisors of l1.py are made of, from Debian packages,
# below FOLDER (by default build/guests/l1):
#   vmlinuz, modules/  linux-image-amd64's kernel, and modules of KVM, of Xen's dom0 and its disk
#   xen.gz, xen/       xen-hypervisor-4.17-amd64's Xen, and its tools with the libraries they need
#   selftests/         the KVM selftests of linux-source-6.1, linked statically; only when asked for
# Packages come by apt from where the machine's own configuration says, through a private state
# below build/: nothing of the system is changed, no root is needed. Quick and without network when
# all is there.
set -eu
cd "$(dirname "$0")/../.."

into=$PWD/${1:-build/guests/l1}
apt=$PWD/build/apt-l1
mkdir -p "$into"

prepare_apt() {
    [ -s "$apt/apt.conf" ] && return
    mkdir -p "$apt/state/lists/partial" "$apt/cache/archives/partial"
    : >"$apt/status"
    cat >"$apt/apt.conf.new" <<END
Dir::State "$apt/state";
Dir::State::status "$apt/status";
Dir::Cache "$apt/cache";
APT::Architecture "amd64";
APT::Architectures { "amd64"; };
APT::Sandbox::User "";
END
    APT_CONFIG=$apt/apt.conf.new apt-get update -q
    mv "$apt/apt.conf.new" "$apt/apt.conf"
}

# Unpacks packages $2... into folder $1.
unpack() {
    prepare_apt
    export APT_CONFIG="$apt/apt.conf"
    to=$1
    shift
    mkdir -p "$to" "$apt/download"
    for package; do
        rm -f "$apt/download/"*.deb
        (cd "$apt/download" && apt-get download -q "$package" && dpkg-deb -x ./*.deb "$to")
    done
}

fetch_kernel() {
    prepare_apt
    export APT_CONFIG="$apt/apt.conf"
    package=$(apt-cache depends linux-image-amd64 |
        sed -n 's/^ *Depends: \(linux-image-[0-9].*\)/\1/p' | head -n 1)
    unpack "$apt/kernel" "$package"
    mkdir -p "$into/modules"
    for module in virt/lib/irqbypass arch/x86/kvm/kvm arch/x86/kvm/kvm-intel drivers/xen/xenfs/xenfs \
        drivers/xen/xen-privcmd drivers/xen/xen-evtchn drivers/xen/xen-gntdev \
        drivers/xen/xen-gntalloc drivers/virtio/virtio drivers/virtio/virtio_ring \
        drivers/virtio/virtio_pci_legacy_dev drivers/virtio/virtio_pci_modern_dev \
        drivers/virtio/virtio_pci drivers/block/virtio_blk; do
        cp "$apt/kernel"/lib/modules/*/kernel/"$module.ko" "$into/modules/"
    done
    cp "$apt/kernel"/boot/vmlinuz-* "$into/vmlinuz.new"
    mv "$into/vmlinuz.new" "$into/vmlinuz"
}

# The tools with all packages they depend on: a root that needs nothing of the machine.
fetch_xen() {
    prepare_apt
    export APT_CONFIG="$apt/apt.conf"
    apt-get install -y -q --download-only --no-install-recommends xen-utils-4.17
    for package in "$apt"/cache/archives/*.deb; do
        case ${package##*/} in
        lib* | xen* | zlib1g*) dpkg-deb -x "$package" "$apt/xen" ;;
        esac
    done
    unpack "$apt/hypervisor" xen-hypervisor-4.17-amd64
    mkdir -p "$into/xen.new/usr/sbin" "$into/xen.new/usr/lib/xen-4.17/bin" "$into/xen.new/lib64"
    tools="$apt/xen/usr/lib/xen-4.17/bin"
    cp "$tools/xl" "$tools/xenstored" "$tools/xenconsoled" "$tools/xen-init-dom0" \
        "$into/xen.new/usr/sbin/"
    cp "$tools/xenconsole" "$tools/libxl-save-helper" "$into/xen.new/usr/lib/xen-4.17/bin/"
    libraries=$apt/xen/usr/lib/x86_64-linux-gnu:$apt/xen/lib/x86_64-linux-gnu
    loader=$apt/xen/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2
    mkdir -p "$into/xen.new/usr/lib/x86_64-linux-gnu"
    for tool in "$into"/xen.new/usr/sbin/* "$into"/xen.new/usr/lib/xen-4.17/bin/*; do
        "$loader" --library-path "$libraries" --list "$tool" | sed -n 's/.*=> \(\/[^ ]*\).*/\1/p'
    done | sort -u | xargs -I{} cp -L {} "$into/xen.new/usr/lib/x86_64-linux-gnu/"
    # Loaded by name, when a thread is cancelled.
    cp -L "$apt"/xen/*/x86_64-linux-gnu/libgcc_s.so.1 "$into/xen.new/usr/lib/x86_64-linux-gnu/"
    cp -L "$loader" "$into/xen.new/lib64/"
    cp "$apt"/hypervisor/boot/xen-4.17-amd64.gz "$into/xen.gz"
    mv "$into/xen.new" "$into/xen"
}

# The headers that the tests' ioctls are from are the source's own, not the machine's.
fetch_selftests() {
    unpack "$apt/source" linux-source-6.1
    (cd "$apt/source" && tar -xJf usr/src/linux-source-6.1.tar.xz)
    source=$apt/source/linux-source-6.1
    make -C "$source" headers ARCH=x86
    # What has no file of its own name here is a test of another architecture, or does not build.
    make -C "$source/tools/testing/selftests/kvm" -k -j"$(nproc)" ARCH=x86_64 \
        CC="gcc -DTEST_ASSERT_EQ=ASSERT_EQ" LDFLAGS="-static -pthread -no-pie" || true
    mkdir -p "$into/selftests.new"
    find "$source/tools/testing/selftests/kvm" -type f -perm -u+x ! -name '*.sh' |
        while read -r program; do
            strip -o "$into/selftests.new/$(basename "$program")" "$program"
        done
    mv "$into/selftests.new" "$into/selftests"
}

[ -s "$into/vmlinuz" ] && [ -s "$into/modules/virtio_blk.ko" ] || fetch_kernel
[ -d "$into/xen" ] || fetch_xen
[ "${2:-}" != selftests ] || [ -d "$into/selftests" ] || fetch_selftests
[ -n "${KEEP_APT:-}" ] || rm -rf "$apt"
