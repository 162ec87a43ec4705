#!/bin/sh
# A throw-away machine: the tree ROOT with a layer in memory above it, in name spaces of its own. It prints its process
# id and lives until its standard input ends. The tests enter it with nsenter; it needs no cleaning up.
set -eu
root=$1 judges=$2
mount -t tmpfs -o mode=0755 tmpfs /mnt
mkdir /mnt/upper /mnt/work /mnt/root
mount -t overlay -o "lowerdir=$root,upperdir=/mnt/upper,workdir=/mnt/work" overlay /mnt/root
mount -t proc proc /mnt/root/proc
mount --rbind /dev /mnt/root/dev
mount -t tmpfs -o mode=0755 tmpfs /mnt/root/run
mkdir /mnt/root/run/lock /mnt/root/run/judges
mount --bind "$judges" /mnt/root/run/judges
ip link set lo up
# The parent of this command, as the outside numbers it.
cut -d' ' -f4 /proc/self/stat
cat >/dev/null
