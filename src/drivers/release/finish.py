"""Makes a release that was built under one path ready for another: python finish.py BUILT FINAL."""

import base64
import compileall
import csv
import hashlib
import io
import os
import re
import stat
import sys

built, final = sys.argv[1:]


def replace(path, content, mode):
    # A new file: the old one may share its content with a cache.
    os.unlink(path)
    with open(path, "wb") as file:
        file.write(content)
    os.chmod(path, mode)


def move_programs():
    """Programs name their interpreter by its path."""
    programs = os.path.join(built, "bin")
    paths = [os.path.join(programs, name) for name in os.listdir(programs)]
    paths.append(os.path.join(built, "pyvenv.cfg"))
    changed = {}
    for path in paths:
        if os.path.islink(path) or not os.path.isfile(path):
            continue
        with open(path, "rb") as file:
            content = file.read()
        if b"\0" in content or built.encode() not in content:
            continue
        content = content.replace(built.encode(), final.encode())
        replace(path, content, stat.S_IMODE(os.stat(path).st_mode))
        digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest())
        changed[path] = ["sha256=" + digest.rstrip(b"=").decode(), str(len(content))]
    return changed


def mend_records(packages, changed):
    """What a package says of its own programs stays true."""
    for name in os.listdir(packages):
        path = os.path.join(packages, name, "RECORD")
        if not name.endswith(".dist-info") or not os.path.exists(path):
            continue
        with open(path, newline="") as file:
            rows = list(csv.reader(file))
        mended = False
        for row in rows:
            target = os.path.normpath(os.path.join(packages, row[0]))
            if target in changed:
                row[1:] = changed[target]
                mended = True
        if mended:
            text = io.StringIO(newline="")
            csv.writer(text, lineterminator="\n").writerows(rows)
            replace(path, text.getvalue().encode(), 0o644)


def open_to_all():
    """Everybody may read a release, and only root may change it."""
    for directory, directories, files in os.walk(built):
        for name in directories + files:
            path = os.path.join(directory, name)
            status = os.lstat(path)
            if stat.S_ISLNK(status.st_mode):
                continue
            mode = stat.S_IMODE(status.st_mode)
            runs = stat.S_ISDIR(status.st_mode) or mode & 0o100
            wanted = 0o755 if runs else 0o644
            if mode != wanted:
                os.chmod(path, wanted)


version = "python%d.%d" % sys.version_info[:2]
packages = os.path.join(built, "lib", version, "site-packages")
mend_records(packages, move_programs())
# Some packages carry files for other Pythons: that these don't compile is no defect. A fifth of all is tests, which
# nobody imports.
compileall.compile_dir(
    packages,
    quiet=2,
    maxlevels=100,
    rx=re.compile(r"/tests/"),
    stripdir=built,
    prependdir=final,
    workers=0,
)
open_to_all()
