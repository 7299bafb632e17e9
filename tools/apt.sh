# shellcheck shell=sh
# apt.sh: Debian's packages by apt from where the machine's own configuration says, through a
# private state in the folder $apt, which the script that reads this file sets.

: "${apt:?}"

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
    apt-get update -q || apt-get update -q || echo "apt: going on with the lists that came" >&2
}

# Package $1 and all it depends on, unpacked into a new folder, whose name is printed. More
# arguments are for apt-get.
unpack_with_libraries() {
    into=$apt/root-$1
    rm -rf "$into"
    mkdir -p "$into"
    apt-get install -y -q --no-install-recommends --download-only "$@" >&2
    for package in "$apt"/cache/archives/*.deb; do
        dpkg-deb -x "$package" "$into"
    done
    rm -f "$apt"/cache/archives/*.deb
    echo "$into"
}
