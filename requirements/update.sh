#!/bin/sh
# Writes the locks anew with uv. Pins already in a lock stay, unless --upgrade is given.
set -eu
cd "$(dirname "$0")/.."

lock() {
    input=$1 output=$2
    shift 2
    uv pip compile "$input" "$@" --python-version 3.11 --python-platform linux \
        --generate-hashes --no-annotate --no-header --quiet --output-file "$output" >/dev/null
    {
        echo "# Written by requirements/update.sh [--upgrade], which needs uv. Do not edit."
        echo "# Install in this order, both with --no-deps --require-hashes: build.txt, then"
        echo "# python3.11.txt with --no-build-isolation too (its sdists build with that setuptools)."
        cat "$output"
    } >"$output.new"
    mv "$output.new" "$output"
}

lock requirements/build.in requirements/build.txt "$@"
lock requirements/camcops.in requirements/python3.11.txt \
    --overrides requirements/overrides.txt --build-constraints requirements/build.txt "$@"
