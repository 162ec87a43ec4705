# What somebody types at a terminal while a program of another account runs, and whether that program reads it.
import os, pty, select

CHILD = (
    "printf 'reading\\n'; printf 'reading\\n' >&2; "
    "for n in 0 1 2; do timeout --foreground 1 head -n 1 <&$n | tr a-z A-Z; done; "
    "timeout --foreground 1 sh -c 'head -n 1 < /dev/tty' 2> /dev/null | tr a-z A-Z; exit 4"
)


def typed(redirected):
    pid, master = pty.fork()
    if pid == 0:
        os.environ["CHILD"] = CHILD
        command = f'camcops-provision exec -- sh -c "$CHILD" {redirected}'
        os.execvp("sh", ["sh", "-c", command])
    said, is_typed = b"", False
    while True:
        if select.select([master], [], [], 30)[0]:
            try:
                said += os.read(master, 65536)
            except OSError:
                break
        if not is_typed and b"reading" in said:
            is_typed = bool(os.write(master, b"hush\n" * 5))
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    written = open("/root/written").read() if "/root/written" in redirected else ""
    print(code, "HUSH" in said.decode() + written, redirected)


typed("")
typed("< /dev/null")
typed("< /dev/null > /root/written")
typed("< /dev/null 2> /root/written")
typed("< /dev/null 3<> /dev/tty")
typed("> /root/written")
