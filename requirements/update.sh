#!/bin/sh
# Writes the locks anew with uv. Pins already in a lock stay, unless --upgrade is given.
set -eu
cd "$(dirname "$0")/.."

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
