#!/bin/sh
# Makes, if it is not there yet, the Debian 12 tree whose programs judge what we write, and prints where it is.
# The name tells what is in it, so another list of packages is another tree.
set -eu
packages=apache2,logrotate,mariadb-server,python3,rabbitmq-server,supervisor,systemd
cache=${CAMCOPS_TEST_CACHE:-/var/cache/camcops-provision-tests}
root=$cache/judges-bookworm-$(printf %s "$packages" | sha256sum | cut -c1-12)
mkdir -p "$cache"
exec 9>"$root.lock"
flock 9
if [ ! -e "$root" ]; then
    rm -rf "$root.part"
    nice mmdebstrap --quiet --variant=minbase --include="$packages" bookworm "$root.part" >&2
    mv "$root.part" "$root"
fi
echo "$root"
