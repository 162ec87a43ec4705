"""Makes a page as CamCOPS does, and looks into it: whether the words are there, and the letters that they are written with."""

import configparser
import io
import os
import shutil
import subprocess
import sys
import types

WORDS = "CamCOPS: Zoë Łukasz, 37.5 °C"

NO_FONT = "install a font (on Debian the package fonts-dejavu-core)"

# Its answer alone goes there: what is loaded may have something to say, too.
out = os.dup(1)
os.dup2(2, 1)

# Either engine crashes without any.
if shutil.which("fc-list") and not subprocess.run(["fc-list"], capture_output=True).stdout.strip():
    sys.exit(f"this machine has no font: {NO_FONT}")

parser = configparser.ConfigParser()
parser.read(os.environ["CAMCOPS_CONFIG_FILE"], encoding="utf8")
program = parser.get("site", "WKHTMLTOPDF_FILENAME", fallback="", raw=True)

from camcops_server.cc_modules.cc_pdf import pdf_from_html
from pypdf import PdfReader

request = types.SimpleNamespace(config=types.SimpleNamespace(wkhtmltopdf_filename=program or None))
# As CamCOPS's own pages begin.
page = f"<!DOCTYPE html><html><head><meta charset='utf-8'></head><body><h1>{WORDS}</h1></body></html>"
made = pdf_from_html(request, page)
if not made or made[:5] != b"%PDF-":
    sys.exit("the result is not a PDF")


def fonts(resources):
    for font in resources.get("/Font", {}).get_object().values():
        font = font.get_object()
        for one in [font] + [each.get_object() for each in font.get("/DescendantFonts", [])]:
            if "/FontDescriptor" in one:
                yield one["/FontDescriptor"].get_object()


read = PdfReader(io.BytesIO(made))
embedded = {
    str(font.get("/FontName", "")).split("+")[-1].lstrip("/")
    for each in read.pages
    for font in fonts(each["/Resources"])
    if any(f"/FontFile{kind}" in font for kind in ("", "2", "3"))
}
if not embedded:
    sys.exit(f"the page contains no font: {NO_FONT}")
text = " ".join(" ".join(each.extract_text() for each in read.pages).split())
if WORDS not in text:
    sys.exit(f"the page contains {text[:60]!r}, not {WORDS!r}: {NO_FONT}")
os.write(out, f"{len(made)} bytes with the font {min(embedded)}".encode())
# How libraries end says nothing of the page.
os._exit(0)
