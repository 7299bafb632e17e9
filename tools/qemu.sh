#!/bin/sh
# qemu.sh: fetches the newest QEMU of Debian's backports, with all libraries and firmware that it
# needs, into build/qemu, for bench/guest --qemu backports; prints the command that runs it. Nothing
# of the system is changed, no root is needed.
set -eu
cd "$(dirname "$0")/.."

apt=$PWD/build/apt-qemu
command=build/qemu/qemu-system-x86_64
. tools/apt.sh

if [ ! -x "$command" ]; then
    prepare_apt '"amd64";' "deb @-backports"
    from=$(debian)
    root=$(unpack_with_libraries qemu-system-x86 -t "${from#* }-backports")
    rm -rf build/qemu
    mkdir -p build/qemu
    mv "$root" build/qemu/root
    cat >"$command" <<'END'
#!/bin/sh
root=$(dirname "$(readlink -f "$0")")/root
libraries=$root/lib/x86_64-linux-gnu:$root/usr/lib/x86_64-linux-gnu
QEMU_MODULE_DIR=$root/usr/lib/x86_64-linux-gnu/qemu
export QEMU_MODULE_DIR
exec "$root/lib64/ld-linux-x86-64.so.2" --library-path "$libraries" \
    "$root/usr/bin/qemu-system-x86_64" -L "$root/usr/share/qemu" -L "$root/usr/share/seabios" "$@"
END
    chmod +x "$command"
    rm -rf "$apt"
fi
"$command" --version | head -n 1 >&2
echo "$PWD/$command"
