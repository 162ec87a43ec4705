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

tool uv "; only if uv is not on the machine already." "$@"
tool build ", before the lock of the Python version." "$@"
for version in 2.4.23 2.4.24; do
    sed "s/^camcops-server==.*/camcops-server==$version/" camcops.in >"$work/in"
    for python in 3.10 3.11 3.12; do
        list=releases/$version/python$python.txt full=$work/$version-$python
        # An older version has of each package what the newest has, where it may.
        case $version in 2.4.23) cp "releases/2.4.24/python$python.txt" "$full" ;; *) cp "$list" "$full" ;; esac
        lock "$full" "$python" "$work/in" --overrides overrides.txt --build-constraints build.txt "$@"
        {
            # Also these lines are part of what the names of releases are made of.
            [ "$version" = 2.4.23 ] || printf '%s\n' "$written" \
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
