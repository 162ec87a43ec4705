"""Checks a release; the pins are read from standard input, and the packages that may be other than asked for are the
arguments. Prints each problem on a line of its own."""

import contextlib
import importlib
import re
import sys
from importlib import metadata

from packaging.requirements import Requirement


def plain(name):
    return re.sub(r"[-_.]+", "-", name).lower()


NEEDED = [
    "camcops_server.cc_modules.cc_config",
    "celery",
    "cherrypy",
    "cryptography.hazmat.primitives",
    "flower",
    "gunicorn",
    "lxml.etree",
    "matplotlib",
    "numpy",
    "pandas",
    "pymysql",
    "scipy",
    "wand.image",
]

problems = []
allowed = {plain(name) for name in sys.argv[1:]}
pins = dict(line.split("==") for line in sys.stdin.read().split())
if "weasyprint" in pins:
    NEEDED.append("weasyprint")
    if "pdfkit" not in pins:
        # CamCOPS would use no other engine while that is there.
        allowed.add("pdfkit")
installed = {plain(each.metadata["Name"]): each for each in metadata.distributions()}
for name in sorted(set(pins) | set(installed)):
    found = installed[name].version if name in installed else "not there"
    if pins.get(name, "not wanted") != found:
        problems.append(f"{name} is {found}, and should be {pins.get(name, 'absent')}")
for name, distribution in sorted(installed.items()):
    for text in distribution.requires or []:
        need = Requirement(text)
        other = plain(need.name)
        if other in allowed or (need.marker and not need.marker.evaluate({"extra": ""})):
            continue
        if other not in installed:
            problems.append(f"{name} needs {need}, which is not there")
        elif not need.specifier.contains(installed[other].version, prereleases=True):
            problems.append(f"{name} needs {need}, and there is {installed[other].version}")
for name in NEEDED:
    try:
        with contextlib.redirect_stdout(sys.stderr):
            # WeasyPrint is loaded when something of it is used.
            getattr(importlib.import_module(name), "HTML", None)
    except BaseException as why:  # An import may even exit.
        first = (str(why).strip().splitlines() or [type(why).__name__])[0]
        problems.append(f"{name} can't be loaded: {first}")
constants = sys.modules.get("camcops_server.cc_modules.cc_constants")
# A version that knows WeasyPrint alone may not name it.
if "weasyprint" in pins and getattr(constants, "PDF_ENGINE", "weasyprint") != "weasyprint":
    problems.append("CamCOPS does not make PDF documents by weasyprint")
print("\n".join(problems))
sys.exit(bool(problems))
