#!/bin/sh
# Fetches Debian's kernels and busybox into build/guests and makes the default guest's initramfs:
#   vmlinuz-cloud    linux-image-cloud-amd64's kernel      vmlinuz    linux-image-amd64's
#   busybox          busybox-static's                      initramfs.cpio
# Quick and without network when all is there. Packages come by apt from where the machine's own
# configuration says, through a private state below build/: nothing of the system is changed, no
# root is needed.
set -eu
cd "$(dirname "$0")/.."

guests=build/guests
apt=$PWD/build/apt
mkdir -p "$guests"

# All that apt writes is private; sources, keys and proxies are the machine's.
prepare_apt() {
    mkdir -p "$apt/state/lists/partial" "$apt/cache/archives/partial"
    : >"$apt/status"
    cat >"$apt/apt.conf" <<END
Dir::State "$apt/state";
Dir::State::status "$apt/status";
Dir::Cache "$apt/cache";
APT::Architecture "amd64";
APT::Architectures { "amd64"; };
APT::Sandbox::User "";
END
    export APT_CONFIG="$apt/apt.conf"
    apt-get update -q
}

# The package that meta package $1 stands for today.
newest() {
    apt-cache depends "$1" | sed -n 's/^ *Depends: \(linux-image-[0-9].*\)/\1/p' | head -n 1
}

# Unpacks package $1 into a new folder and prints its name.
unpack() {
    into=$apt/unpacked/$1
    rm -rf "$into"
    mkdir -p "$into"
    (cd "$into" && apt-get download -q "$1" >&2 && dpkg-deb -x ./*.deb . && rm -f ./*.deb)
    echo "$into"
}

fetch_kernel() { # meta package, file
    package=$(newest "$1")
    if [ -z "$package" ]; then
        echo "guests: apt knows no package $1" >&2
        exit 1
    fi
    from=$(unpack "$package")
    cp "$from"/boot/vmlinuz-* "$guests/$2.new"
    mv "$guests/$2.new" "$guests/$2"
}

if [ ! -s "$guests/vmlinuz-cloud" ] || [ ! -s "$guests/vmlinuz" ] || [ ! -x "$guests/busybox" ]; then
    prepare_apt
    [ -s "$guests/vmlinuz-cloud" ] || fetch_kernel linux-image-cloud-amd64 vmlinuz-cloud
    [ -s "$guests/vmlinuz" ] || fetch_kernel linux-image-amd64 vmlinuz
    if [ ! -x "$guests/busybox" ]; then
        from=$(unpack busybox-static)
        cp "$from/bin/busybox" "$guests/busybox"
    fi
    rm -rf "$apt"
fi

for source in "$guests/busybox" guests/linux/* tools/mkinitramfs; do
    if [ ! -s "$guests/initramfs.cpio" ] || [ "$source" -nt "$guests/initramfs.cpio" ]; then
        tools/mkinitramfs "$guests/busybox" guests/linux "$guests/initramfs.cpio"
        break
    fi
done
