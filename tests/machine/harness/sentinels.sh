# Things of root's of many kinds, which nobody else has anything to do with; prints them as they are.
home=/srv/sentinels
if [ ! -e "$home" ]; then
    mkdir -m 0755 "$home"
    cp --preserve=mode,ownership /etc/shadow "$home/shadow"
    install -m 0644 /etc/passwd "$home/passwd"
    install -m 0440 /etc/passwd "$home/sudoers"
    install -m 0755 /bin/true "$home/program"
    install -m 4755 /bin/true "$home/setuid"
    install -m 0640 -g adm /etc/group "$home/log"
    install -m 0000 /dev/null "$home/closed"
    install -m 0600 /etc/group "$home/key"
    ln "$home/key" "$home/key-too"
    mkdir -m 0700 "$home/private"
    echo private > "$home/private/file"
    mkdir -m 0755 "$home/public"
    echo public > "$home/public/file"
    mkfifo -m 0600 "$home/pipe"
    python3 -c 'import socket, sys; socket.socket(socket.AF_UNIX).bind(sys.argv[1])' "$home/socket"
    chmod 0600 "$home/socket"
fi
find "$home" -printf '%p %y %m %U:%G %n %s %T@\n' | sort
find "$home" -type f -exec sha256sum {} + | sort
