"""Makes a package index of the files in a directory, with a CamCOPS besides that nobody knows: the newest by another number."""

import hashlib
import os
import re
import sys
import zipfile

wheels, index, new = sys.argv[1:]
os.makedirs(index, exist_ok=True)
files = [os.path.join(wheels, name) for name in os.listdir(wheels)]
own = next(f for f in files if os.path.basename(f).startswith("camcops_server-2.4.24"))
fake = os.path.join(index, os.path.basename(own).replace("2.4.24", new))
with zipfile.ZipFile(own) as old, zipfile.ZipFile(fake, "w", zipfile.ZIP_STORED) as to:
    for one in old.infolist():
        data = old.read(one)
        name = one.filename.replace("2.4.24", new)
        if name.endswith(("METADATA", "RECORD", "cc_version_string.py")):
            data = data.replace(b"2.4.24", new.encode())
        to.writestr(name, data)
for file in files + [fake]:
    name = os.path.basename(file)
    project = re.sub(r"[-_.]+", "-", re.split(r"-[0-9]", name)[0]).lower()
    home = os.path.join(index, "simple", project)
    os.makedirs(home, exist_ok=True)
    if not os.path.lexists(os.path.join(home, name)):
        os.symlink(file, os.path.join(home, name))
    with open(file, "rb") as data:
        digest = hashlib.file_digest(data, "sha256").hexdigest()
    with open(os.path.join(home, "index.html"), "a") as page:
        page.write(f'<a href="{name}#sha256={digest}">{name}</a>\n')
