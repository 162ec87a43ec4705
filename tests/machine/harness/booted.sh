# Stays until the one who started it closes its standard input, however that ends; then all of the machine goes with its
# namespaces. Arguments: the layers of its disk (the topmost first), a directory of its own, the program, a name, and
# what is to be seen as /srv/wheelhouse.
layers=$1 home=$2 tool=$3 name=$4 wheelhouse=$5
export SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=1
mkdir "$home/upper" "$home/work" "$home/root"
# Machines in one group would stop each other's services: these have the same names.
groups=/sys/fs/cgroup
[ ! -d "$groups/unified" ] || groups=$groups/unified
mkdir "$groups/$name"
echo $$ > "$groups/$name/cgroup.procs"
unshare --mount --propagation private --pid --mount-proc --fork --kill-child bash -euc '
    layers=$1 home=$2 tool=$3 name=$4 root=$2/root
    bind=${5:+--bind-ro=$5:/srv/wheelhouse}
    # Directories can be renamed, as on any disk.
    mount -t overlay machine -o "redirect_dir=on,lowerdir=$layers,upperdir=$home/upper,workdir=$home/work" "$root"
    # A machine on which it is installed has it already.
    [ -e "$root/usr/bin/camcops-provision" ] || cp "$tool" "$root/usr/bin/camcops-provision"
    # A terminal of its own, or the first process of the machine would not write its messages. It ends so when the
    # machine wants to boot again.
    while :; do
        code=0
        setsid script -qafec "systemd-nspawn --quiet --register=no --keep-unit --private-network --timezone=off --resolv-conf=off --machine=$name $bind -b -D $root" "$home/console" > /dev/null 2>&1 < /dev/null || code=$?
        [ "$code" = 133 ] || break
    done &
    while read -r _; do :; done
    # There are no others in here.
    pkill -KILL systemd-nspawn || true
    wait || true
' keeper "$layers" "$home" "$tool" "$name" "$wheelhouse"
echo $$ > "$groups/cgroup.procs"
find "$groups/$name" -depth -type d -exec rmdir {} +
[ ! -e "$home/keep" ] || mv "$home/upper" "$(cat "$home/keep")"
rm -rf "$home"
