#!/bin/sh
# guests.sh [all|openssl]: fetches Debian's kernels and programs for guests into build/guests.
#   nothing   what `make run` and the tests need at least:
#               vmlinuz-cloud    linux-image-cloud-amd64's kernel
#               vmlinuz          linux-image-amd64's
#               busybox, initramfs.cpio   busybox-static, and the default guest made of it
#   all       what docs/guests.md lists, besides:
#               vmlinuz-rt, vmlinuz-backports, vmlinuz-686, vmlinuz-686-pae
#               busybox-i386, initramfs-i386.cpio   the default guest for 32-bit kernels
#               initramfs-stress.cpio               with stress-ng
#               memtest86+x64.bin, memtest86+ia32.bin, gnumach.gz
#   openssl   initramfs-openssl.cpio: OpenSSL's own tests, built from Debian's source (minutes)
# Quick and without network when all is there. Packages come by apt from where the machine's own
# configuration says, through a private state below build/: nothing of the system is changed, no
# root is needed.
set -eu
cd "$(dirname "$0")/.."

guests=build/guests
apt=$PWD/build/apt
what=${1:-}
mkdir -p "$guests"

case $what in
'' | all | openssl) ;;
*)
    echo "usage: guests.sh [all|openssl]" >&2
    exit 2
    ;;
esac

# Where the machine has its Debian from: "SITE CODENAME".
debian() {
    apt-get indextargets --format "\$(SITE) \$(CODENAME) \$(COMPONENT) \$(CREATED_BY)" |
        awk '$2 !~ /-/ && $3 == "main" && $4 == "Packages" { print $1, $2; exit }'
}

# All that apt writes is private; sources, keys and proxies are the machine's. $1: architectures, as
# apt's configuration lists them; $2: more types of a source from the same site, "deb SUITE" or
# "deb-src SUITE", where @ is the machine's own suite.
prepare_apt() {
    mkdir -p "$apt/state/lists/partial" "$apt/cache/archives/partial"
    : >"$apt/status"
    sources=/etc/apt/sources.list
    if [ -n "${2:-}" ]; then
        from=$(debian)
        [ ! -f "$sources" ] || cat "$sources" >"$apt/sources.list"
        keyring=/usr/share/keyrings/debian-archive-keyring.gpg
        echo "${2% *} [signed-by=$keyring] ${from% *} $(echo "${2#* }" | sed "s/@/${from#* }/") main" \
            >>"$apt/sources.list"
        sources=$apt/sources.list
    fi
    cat >"$apt/apt.conf" <<END
Dir::State "$apt/state";
Dir::State::status "$apt/status";
Dir::Cache "$apt/cache";
Dir::Etc::sourcelist "$sources";
APT::Architecture "amd64";
APT::Architectures { $1 };
APT::Sandbox::User "";
END
    export APT_CONFIG="$apt/apt.conf"
    # One list that is missing need not be one that matters: what is not found says so itself.
    apt-get update -q || apt-get update -q || echo "guests: going on with the lists that came" >&2
}

# The kernel package that meta package $1 stands for, of those versions that contain $2.
newest() {
    version=$(apt-cache madison "$1" | awk -F ' *[|] *' -v part="${2:-}" \
        'part == "" || index($0, part) { print $2; exit }')
    apt-cache show "$1=$version" |
        sed -n 's/^Depends:.*\(linux-image-[0-9][^ ,]*\).*/\1/p' | head -n 1
}

# Unpacks the files of package $1 that match the other arguments into a new folder, prints its name.
unpack() {
    package=$1
    shift
    into=$apt/unpacked/$package
    rm -rf "$into"
    mkdir -p "$into"
    (
        cd "$into"
        apt-get download -q "$package" >&2
        dpkg-deb --fsys-tarfile ./*.deb | tar -x --wildcards "$@"
        rm -f ./*.deb
    )
    echo "$into"
}

fetch_kernel() { # file, meta package, architecture suffix, part of the version
    [ ! -s "$guests/$1" ] || return 0
    package=$(newest "$2$3" "${4:-}")
    if [ -z "$package" ]; then
        echo "guests: apt knows no package $2$3" >&2
        exit 1
    fi
    from=$(unpack "$package$3" './boot/vmlinuz-*')
    cp "$from"/boot/vmlinuz-* "$guests/$1.new"
    mv "$guests/$1.new" "$guests/$1"
    rm -rf "$from"
}

fetch_file() { # file, package, its path there
    [ ! -s "$guests/$1" ] || return 0
    from=$(unpack "$2" "$3")
    # shellcheck disable=SC2086
    cp "$from"/$3 "$guests/$1.new"
    mv "$guests/$1.new" "$guests/$1"
    rm -rf "$from"
}

# Package $1 and all it depends on, unpacked into a new folder, whose name is printed.
unpack_with_libraries() {
    into=$apt/root-$1
    rm -rf "$into"
    mkdir -p "$into"
    apt-get install -y -q --no-install-recommends --download-only "$1" >&2
    for package in "$apt"/cache/archives/*.deb; do
        dpkg-deb -x "$package" "$into"
    done
    rm -f "$apt"/cache/archives/*.deb
    echo "$into"
}

missing() {
    for file in "$@"; do
        [ -s "$guests/$file" ] || return 0
    done
    return 1
}

# Is file $1 there, and newer than the others?
made_after() {
    [ -s "$1" ] && [ -z "$(find "$@" -newer "$1")" ]
}

make_initramfs() { # busybox, output
    made_after "$guests/$2" "$guests/$1" guests/linux/* tools/mkinitramfs ||
        tools/mkinitramfs "$guests/$1" guests/linux "$guests/$2"
}

# initramfs-$1.cpio, the default guest with the programs of $1.cpio.
join_initramfs() {
    made_after "$guests/initramfs-$1.cpio" "$guests/initramfs.cpio" "$guests/$1.cpio" ||
        cat "$guests/initramfs.cpio" "$guests/$1.cpio" >"$guests/initramfs-$1.cpio"
}

fetch_default() {
    if missing vmlinuz-cloud vmlinuz busybox; then
        prepare_apt '"amd64";'
        fetch_kernel vmlinuz-cloud linux-image-cloud-amd64 ""
        fetch_kernel vmlinuz linux-image-amd64 ""
        fetch_file busybox busybox-static ./bin/busybox
        rm -rf "$apt"
    fi
    make_initramfs busybox initramfs.cpio
}

fetch_all() {
    if missing vmlinuz-rt vmlinuz-backports vmlinuz-686 vmlinuz-686-pae busybox-i386 \
        stress.cpio memtest86+x64.bin memtest86+ia32.bin gnumach.gz; then
        prepare_apt '"amd64"; "i386";' "deb @-backports"
        fetch_kernel vmlinuz-rt linux-image-rt-amd64 "" 6.1.
        fetch_kernel vmlinuz-backports linux-image-amd64 "" backports
        fetch_kernel vmlinuz-686 linux-image-686 :i386 6.1.
        fetch_kernel vmlinuz-686-pae linux-image-686-pae :i386 6.1.
        fetch_file busybox-i386 busybox-static:i386 ./bin/busybox
        fetch_file memtest86+x64.bin memtest86+ ./boot/memtest86+x64.bin
        fetch_file memtest86+ia32.bin memtest86+ ./boot/memtest86+ia32.bin
        fetch_file gnumach.gz gnumach-image-1.8-486:i386 './boot/gnumach-*.gz'
        if missing stress.cpio; then
            root=$(unpack_with_libraries stress-ng)
            tools/mkinitramfs --programs "$root" "$guests/stress.cpio" usr/bin/stress-ng
        fi
        rm -rf "$apt"
    fi
    make_initramfs busybox-i386 initramfs-i386.cpio
    join_initramfs stress
}

fetch_default
[ "$what" != all ] || fetch_all
