#!/bin/sh
# packages.sh SECTION...: installs what those sections of packages.txt list and the machine lacks.
# Quick, and without network, when nothing is missing. Needs root or sudo only if something is.
set -eu
cd "$(dirname "$0")/.."

wanted=$(awk -v sections="$*" '
    BEGIN { count = split(sections, list, " "); for (i = 1; i <= count; i++) take["[" list[i] "]"] = 1 }
    { sub(/#.*/, "") }
    /^\[/ { on = $1 in take; next }
    on { print $1 }' packages.txt)
# Unknown names are no error here: dpkg-query still prints the others.
# shellcheck disable=SC2086
installed=$(dpkg-query -W -f '${db:Status-Abbrev}${Package}\n' $wanted 2>/dev/null |
    sed -n 's/^.i.//p') || true
missing=
for package in $wanted; do
    printf '%s\n' "$installed" | grep -qx "$package" || missing="$missing $package"
done
[ -n "$missing" ] || exit 0

echo "Installing:$missing"
if [ "$(id -u)" = 0 ]; then
    sudo=
elif command -v sudo >/dev/null; then
    sudo=sudo
else
    echo "These Debian packages are missing, and only root can install them:$missing" >&2
    exit 1
fi
install() {
    # shellcheck disable=SC2086
    $sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends $missing
}
# Package lists as old as the machine may name packages that are gone: then once more with new ones.
install || {
    $sudo apt-get update -q
    install
}
