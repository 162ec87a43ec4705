"""Reads a value back out of a text, by the program that the text is for.

Usage: read_back.py READER   One text as a JSON string per line of standard input, one JSON object per line back:
{"values": [...]} or {"error": what the reader said}.
"""

import ast
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import xml.etree.ElementTree
from pathlib import Path

PLACE = Path(tempfile.mkdtemp())


def said_by(*words):
    done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True)
    text = (done.stdout + done.stderr).decode("utf8", "surrogateescape")
    return done.returncode, text


def apache(text):
    """`Define`, which Apache shows again."""
    file = PLACE / "apache.conf"
    modules = "/usr/lib/apache2/modules/mod_"
    file.write_text(
        f"LoadModule mpm_event_module {modules}mpm_event.so\n"
        "Listen 127.0.0.1:80\nServerName x\nPidFile /tmp/x.pid\nErrorLog /dev/null\n" + text
    )
    code, told = said_by("apache2", "-f", str(file), "-t", "-D", "DUMP_RUN_CFG")
    if code:
        raise ValueError(told)
    return re.findall(r"^Define: V(?:=(.*))?\n", told, re.MULTILINE)


def systemd(text):
    """An assignment and a path that systemd does not like, and says so, as it understood them."""
    file = PLACE / "x.service"
    file.write_text("[Service]\nExecStart=/bin/true\n" + text)
    _, told = said_by("systemd-analyze", "verify", str(file))
    return re.findall(r"ignoring: [01]=(.*)\n", told)


def tmpfiles(text):
    """A directory that it makes."""
    root = PLACE / "root"
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir()
    (PLACE / "x.conf").write_text(text)
    code, told = said_by("systemd-tmpfiles", "--create", f"--root={root}", str(PLACE / "x.conf"))
    if code:
        raise ValueError(told)
    return [path.name for path in (root / "t").iterdir()]


def supervisor(text):
    from supervisor.options import ServerOptions

    file = PLACE / "supervisord.conf"
    file.write_text("[supervisord]\n" + text)
    options = ServerOptions()
    options.stdout = options.stderr = open(os.devnull, "w")
    options.exit = stop
    options.realize(["-c", str(file)])
    program = options.process_group_configs[0].process_configs[0]
    return [program.environment["V"], shlex.split(program.command)[1]]


def stop(code):
    raise ValueError(f"supervisor refuses it: {code}")


def mariadb(text):
    file = PLACE / "my.cnf"
    file.write_text(text)
    code, told = said_by("my_print_defaults", f"--defaults-file={file}", "client")
    if code:
        raise ValueError(told)
    return re.findall(r"^--user=(.*)\n", told, re.MULTILINE)


def pymysql(text):
    """The password as it would send it."""
    import pymysql.connections

    file = PLACE / "my.cnf"
    file.write_text(text)
    link = pymysql.connections.Connection(defer_connect=True, read_default_file=str(file))
    return [link.password.decode("utf8")]


def python(text):
    return [ast.literal_eval(text)]


def dash(text):
    return [said_by("dash", "-c", text)[1]]


def bash(text):
    return [said_by("bash", "-c", text)[1]]


def xml_reader(text):
    element = xml.etree.ElementTree.fromstring(text)
    return [element.text or "", element.get("a")]


def main(reader):
    for line in sys.stdin:
        try:
            answer = {"values": reader(json.loads(line))}
        except Exception as why:
            answer = {"error": f"{type(why).__name__}: {why}"}
        print(json.dumps(answer), flush=True)
    shutil.rmtree(PLACE)


if __name__ == "__main__":
    main({"xml": xml_reader}.get(sys.argv[1]) or globals()[sys.argv[1]])
