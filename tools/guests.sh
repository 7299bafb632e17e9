#!/bin/sh
# guests.sh [test|all|openssl]: fetches Debian's kernels and programs for guests into build/guests.
#   nothing   what `make run` needs:
#               vmlinuz-cloud    linux-image-cloud-amd64's kernel
#               vmlinuz          linux-image-amd64's
#               busybox, initramfs.cpio   busybox-static, and the default guest made of it
#   test      what `make test` boots besides: $test_files,
#               initramfs-i386.cpio, the default guest for 32-bit kernels, and initramfs-disk.cpio,
#               the default guest with modules for vmlinuz: disks and ext4
#   all       what docs/guests.md lists besides: $more_files, and initramfs-stress.cpio
#   openssl   initramfs-openssl.cpio: OpenSSL's own tests, made from Debian's source (a minute or
#             two)
# Quick and without network when all is there. Packages come by apt from where the machine's own
# configuration says, through a private state below build/: nothing of the system is changed, no
# root is needed.
set -eu
cd "$(dirname "$0")/.."

guests=build/guests
apt=$PWD/build/apt
what=${1:-}
test_files="vmlinuz-rt vmlinuz-686-pae busybox-i386 gnumach.gz memtest86+x64.bin memtest86+ia32.bin
    ipxe.lkrn disk.cpio"
more_files="vmlinuz-backports vmlinuz-686 stress.cpio"
mkdir -p "$guests"

case $what in
'' | test | all | openssl) ;;
*)
    echo "usage: guests.sh [test|all|openssl]" >&2
    exit 2
    ;;
esac

. tools/apt.sh

# The kernel package that meta package $1 stands for, in the machine's own suite or in $2.
newest() {
    version=$(apt-cache madison "$1" | awk -F ' *[|] *' -v suite="${2:-}" \
        'suite == "" ? !/backports/ : index($0, suite) { print $2; exit }')
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

fetch_kernel() { # file, meta package, architecture suffix, suite
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

# Modules of the very kernel that vmlinuz is.
fetch_modules() { # file
    [ ! -s "$guests/$1" ] || return 0
    version=$(grep -ao -m 1 '[0-9.]*-[0-9]*-amd64' "$guests/vmlinuz" | head -n 1)
    from=$(
        set --
        for module in block/t10-pi 'crypto/crc*' 'lib/crc*' 'drivers/ata/*' drivers/block/virtio_blk \
            drivers/char/hw_random/virtio-rng 'drivers/virtio/*' 'drivers/scsi/scsi_*' \
            drivers/scsi/sd_mod fs/ext4/ext4 fs/jbd2/jbd2 fs/mbcache; do
            set -- "$@" "./lib/modules/$version/kernel/$module.ko"
        done
        unpack "linux-image-$version" "$@"
    )
    # shellcheck disable=SC2046
    tools/mkinitramfs --files "$from" "$guests/$1" $(cd "$from" && find lib -type f | sort)
    rm -rf "$from"
}

fetch() { # file
    case $1 in
    vmlinuz-cloud) fetch_kernel "$1" linux-image-cloud-amd64 "" ;;
    vmlinuz) fetch_kernel "$1" linux-image-amd64 "" ;;
    vmlinuz-rt) fetch_kernel "$1" linux-image-rt-amd64 "" ;;
    vmlinuz-backports) fetch_kernel "$1" linux-image-amd64 "" backports ;;
    vmlinuz-686*) fetch_kernel "$1" "linux-image-${1#vmlinuz-}" :i386 ;;
    busybox) fetch_file "$1" busybox-static ./bin/busybox ;;
    busybox-i386) fetch_file "$1" busybox-static:i386 ./bin/busybox ;;
    memtest86+*) fetch_file "$1" memtest86+ "./boot/$1" ;;
    disk.cpio) fetch_modules "$1" ;;
    ipxe.lkrn) fetch_file "$1" ipxe ./boot/ipxe.lkrn ;;
    gnumach.gz) fetch_file "$1" gnumach-image-1.8-486:i386 './boot/gnumach-*.gz' ;;
    stress.cpio)
        [ ! -s "$guests/$1" ] || return 0
        root=$(unpack_with_libraries stress-ng)
        tools/mkinitramfs --programs "$root" "$guests/$1" usr/bin/stress-ng
        ;;
    esac
}

# By architecture, because apt takes all lists of a suite or none.
fetch_files() { # files...
    amd64=
    i386=
    for file in "$@"; do
        case $file in
        *86 | *-686* | gnumach*) i386="$i386 $file" ;;
        *) amd64="$amd64 $file" ;;
        esac
    done
    # shellcheck disable=SC2086
    if missing $amd64; then
        case $amd64 in
        *backports*) prepare_apt '"amd64";' "deb @-backports" ;;
        *) prepare_apt '"amd64";' ;;
        esac
        for file in $amd64; do
            fetch "$file"
        done
        rm -rf "$apt"
    fi
    # shellcheck disable=SC2086
    if missing $i386; then
        prepare_apt '"amd64"; "i386";'
        for file in $i386; do
            fetch "$file"
        done
        rm -rf "$apt"
    fi
}

# OpenSSL's test programs, compiled from Debian's source and linked with Debian's library, into
# folder $1. Tests of its inside need symbols that libcrypto.so.3 hides: these are linked with a
# library made of libcrypto.a.
build_openssl_tests() {
    (
        cd "$apt"
        apt-get source -q --download-only openssl
        mkdir -p source root built
        tar -xf openssl_*.orig.tar.gz -C source --strip-components=1
        version=$(sed -n 's/^Version: //p' openssl_*.dsc | head -n 1)
        apt-get download -q "libssl-dev=$version" "libssl3=$version"
        for package in libssl*.deb; do
            dpkg-deb -x "$package" root
        done
        cd built
        # As Debian configures it, for headers that fit its library.
        ../source/Configure linux-x86_64 --prefix=/usr --openssldir=/usr/lib/ssl \
            no-idea no-mdc2 no-rc5 no-zlib no-ssl3 no-ssl3-method no-capieng no-rdrand \
            enable-unit-test enable-rfc3779 enable-cms enable-ec_nistp_64_gcc_128 >/dev/null
        make -s build_generated
        libraries=../root/usr/lib/x86_64-linux-gnu
        cp -a "$libraries"/*.so* .
        gcc -shared -Wl,-Bsymbolic,-soname,libcrypto-all.so -o libcrypto-all.so \
            -Wl,--whole-archive "$libraries/libcrypto.a" "$libraries/libssl.a" -Wl,--no-whole-archive
        echo 'INPUT(libcrypto-all.so)' | tee libcrypto.a >libssl.a
        # shellcheck disable=SC2046
        make -s -j"$(nproc)" -o libcrypto.a -o libssl.a -o libcrypto.so -o libssl.so \
            $(sed 's/ .*//; s,^,test/,' "$OLDPWD/../../guests/openssl/list" | sort -u)
        mkdir -p "$1/lib" "$1/modules" "$1/test/apps" "$1/test/recipes"
        for program in test/*; do
            [ ! -f "$program" ] || [ ! -x "$program" ] || strip -o "$1/${program##*/}" "$program"
        done
        strip -o "$1/lib/libcrypto-all.so" libcrypto-all.so
        cp libcrypto.so.3 libssl.so.3 "$1/lib"
        cp "$libraries"/ossl-modules/*.so "$1/modules"
        cd ../source/test
        cp -r ./*.cnf ./*.pem ./*.in certs ct ssl-tests d2i-tests "$1/test"
        cp -r recipes/*_data "$1/test/recipes"
        cp ../apps/server.pem "$1/test/apps"
    ) >&2
    cp guests/openssl/* "$1"
}

fetch_openssl() {
    if ! made_after "$guests/openssl.cpio" guests/openssl/*; then
        prepare_apt '"amd64";' "deb-src @"
        root=$(unpack_with_libraries libc6)
        build_openssl_tests "$root/usr/lib/openssl-tests"
        tools/mkinitramfs --programs "$root" "$guests/openssl.cpio" usr/lib/openssl-tests
        rm -rf "$apt"
    fi
}

set -- vmlinuz-cloud vmlinuz busybox
# shellcheck disable=SC2086
[ "$what" != test ] || set -- "$@" $test_files
# shellcheck disable=SC2086
[ "$what" != all ] || set -- "$@" $test_files $more_files
[ ! -s "$guests/vmlinuz" ] || made_after "$guests/disk.cpio" "$guests/vmlinuz" || rm -f "$guests/disk.cpio"
fetch_files "$@"
make_initramfs busybox initramfs.cpio
[ ! -s "$guests/busybox-i386" ] || make_initramfs busybox-i386 initramfs-i386.cpio
[ "$what" != openssl ] || fetch_openssl
for programs in disk stress openssl; do
    [ ! -s "$guests/$programs.cpio" ] || join_initramfs $programs
done
