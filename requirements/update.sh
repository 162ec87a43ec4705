#!/bin/sh
# Writes the lists of packages anew with uv. Pins already in a list stay, unless --upgrade is given.
set -eu
cd "$(dirname "$0")"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
written="# Written by requirements/update.sh [--upgrade], which needs uv. Do not edit."
pinned="Install with --no-deps --require-hashes"

# lock OUTPUT PYTHON ARGUMENTS: a lock with hashes; the pins of what is in OUTPUT are kept.
lock() {
    output=$1 python=$2
    shift 2
    uv pip compile "$@" --python-version "$python" --python-platform linux \
        --generate-hashes --no-annotate --no-header --quiet --output-file "$output" >/dev/null
}

# tool NAME HOW: what is installed before CamCOPS, one short lock of its own.
tool() {
    name=$1 how=$2
    shift 2
    cp "$name.txt" "$work/tool"
    lock "$work/tool" 3.10 "$name.in" "$@"
    { echo "$written"; echo "# $pinned$how"; cat "$work/tool"; } >"$name.txt.new"
    mv "$name.txt.new" "$name.txt"
}

# hardening WHAT PYTHON: the overrides for a Python, over those without which CamCOPS can't be installed, or the additions.
hardening() {
    python3 -c '
import re, sys, tomllib

what, python = sys.argv[1], [int(number) for number in sys.argv[2].split(".")]

def is_for(condition):
    operator, version = re.fullmatch("(==|>=|<)(.*)", condition).groups()
    other = [int(number) for number in version.split(".")]
    return {"==": python == other, ">=": python >= other, "<": python < other}[operator]

pins = {}
if what == "override":
    for line in open("overrides.txt"):
        pin, _, marker = line.strip().partition("; python_version ")
        if pin and not pin.startswith("#") and (not marker or is_for(re.sub("[ \"]", "", marker))):
            pins[pin.split("==")[0]] = pin
for row in tomllib.load(open("hardening.toml", "rb"))[what]:
    if is_for(row.get("python", ">=3")):
        pins[row["package"]] = row["package"] + "==" + row["version"]
print(*pins.values(), sep="\n")' "$1" "$2"
}

tool uv "; only if uv is not on the machine already." "$@"
tool build ", before the lock of the Python version." "$@"
hardened=$(sed -n 's/^release = "\(.*\)"$/\1/p' hardening.toml)
mkdir -p "releases/$hardened"
for release in 2.4.23 2.4.24 "$hardened"; do
    sed "s/^camcops-server==.*/camcops-server==${release%+*}/" camcops.in >"$work/in"
    pythons="3.10 3.11 3.12"
    [ "$release" != "$hardened" ] || pythons="$pythons 3.13 3.14"
    for python in $pythons; do
        list=releases/$release/python$python.txt full=$work/$release-$python
        # An older version has of each package what the newest has, where it may.
        case $release in 2.4.23) cp "releases/2.4.24/python$python.txt" "$full" ;; *) [ ! -e "$list" ] || cp "$list" "$full" ;; esac
        cp "$work/in" "$work/in-$python"
        cp overrides.txt "$work/overrides"
        if [ "$release" = "$hardened" ]; then
            hardening addition "$python" >>"$work/in-$python"
            hardening override "$python" >"$work/overrides"
        fi
        lock "$full" "$python" "$work/in-$python" --overrides "$work/overrides" --build-constraints build.txt "$@"
        {
            # Also these lines are part of what the names of releases are made of.
            [ "$release" = 2.4.23 ] || printf '%s\n' "$written" \
                "# $pinned --no-build-isolation, after build.txt: its sdists build with that setuptools."
            awk '/^[^ #]/ { print $1 }' "$full"
        } >"$list.new"
        mv "$list.new" "$list"
    done
done
{
    echo "$written"
    echo "# Each version of each package that a release has, with the hashes of its files."
    awk '/^#/ { next } /^[^ ]/ && NR > 1 { print "" } { printf "%s\001", $0 } END { print "" }' "$work"/2.* |
        LC_ALL=C sort -u | tr '\001' '\n' | sed '/^$/d'
} >packages.txt.new
mv packages.txt.new packages.txt
