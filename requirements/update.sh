#!/bin/sh
# Writes the locks anew with uv. Pins already in a lock stay, unless --upgrade is given.
set -eu
cd "$(dirname "$0")/.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

lock() {
    name=$1 python=$2 how=$3
    shift 3
    output=requirements/$name.txt
    uv pip compile "$@" --python-version "$python" --python-platform linux \
        --generate-hashes --no-annotate --no-header --quiet --output-file "$output" >/dev/null
    {
        echo "# Written by requirements/update.sh [--upgrade], which needs uv. Do not edit."
        echo "# $how"
        cat "$output"
    } >"$output.new"
    mv "$output.new" "$output"
}

pinned="Install with --no-deps --require-hashes"
lock uv 3.10 "$pinned; only if uv is not on the machine already." requirements/uv.in "$@"
lock build 3.10 "$pinned, before the lock of the Python version." requirements/build.in "$@"
for python in 3.10 3.11 3.12; do
    lock "python$python" "$python" "$pinned --no-build-isolation, after build.txt: its sdists build with that setuptools." \
        requirements/camcops.in --overrides requirements/overrides.txt \
        --build-constraints requirements/build.txt "$@"
done

# Of an older version, only what it has otherwise than the locks; that is the same for every Python.
for version in 2.4.23; do
    for python in 3.10 3.11 3.12; do
        base=requirements/python$python.txt
        sed "s/^camcops-server==.*/camcops-server==$version/" requirements/camcops.in >"$work/in"
        cp "$base" "$work/all"
        uv pip compile "$work/in" --overrides requirements/overrides.txt --build-constraints requirements/build.txt \
            --python-version "$python" --python-platform linux --generate-hashes --no-annotate --no-header --quiet \
            --output-file "$work/all" >/dev/null
        {
            echo "# Written by requirements/update.sh [--upgrade], which needs uv. Do not edit."
            echo "# What CamCOPS $version has in place of the packages of the same names in the locks of the Python versions."
            awk '/^[^ #]/ { other = !(FNR != NR && $1 in known) } FNR == NR { known[$1]; next } other && !/^#/' "$base" "$work/all"
        } >"$work/$python"
        cmp "$work/$python" "$work/3.10"
    done
    mv "$work/3.10" "requirements/$version.txt"
done
