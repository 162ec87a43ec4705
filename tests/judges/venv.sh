#!/bin/sh
# Makes the CamCOPS that judges our configuration, where the tests look for it.
set -eu
here=$(cd "$(dirname "$0")/../.." && pwd)
venv=${CAMCOPS_TEST_VENV:-/var/cache/camcops-provision-tests/venv-newest}
lock=$here/requirements
if [ ! -e "$venv/complete" ]; then
    mkdir -p "$(dirname "$venv")"
    python3.11 -m venv --clear "$venv"
    "$venv/bin/pip" install --quiet --no-deps --require-hashes -r "$lock/build.txt"
    "$lock/lock" newest 3.11 > "$venv/camcops.txt"
    "$venv/bin/pip" install --quiet --no-deps --require-hashes --no-build-isolation -r "$venv/camcops.txt"
    touch "$venv/complete"
fi
