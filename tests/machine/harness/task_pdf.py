"""A person who logs in and looks at a task as a PDF document: task_pdf.py URL USER TABLE FILE, the password on standard input."""

import html
import http.cookiejar
import re
import ssl
import sys
import urllib.parse
import urllib.request

url, user, table, file = sys.argv[1:]
password = sys.stdin.read().strip()
unverified = ssl.create_default_context()
unverified.check_hostname = False
unverified.verify_mode = ssl.CERT_NONE
visitor = urllib.request.build_opener(
    urllib.request.HTTPSHandler(context=unverified),
    urllib.request.HTTPCookieProcessor(http.cookiejar.CookieJar()),
)


def attribute(tag, name):
    found = re.search(rf'\b{name}="([^"]*)"', tag)
    return html.unescape(found[1]) if found else ""


def send(page, at, **more):
    """The form of a page, with what is entered, by its first button."""
    fields = [(attribute(tag, "name"), attribute(tag, "value")) for tag in re.findall(r"<input\b[^>]*>", page)]
    button = re.search(r'<button\b[^>]*type="submit"[^>]*>', page, re.S)[0]
    fields = [(name, more.get(name, value)) for name, value in fields if name]
    fields.append((attribute(button, "name"), attribute(button, "value")))
    with visitor.open(at, urllib.parse.urlencode(fields).encode(), 120) as answer:
        return answer.read().decode(), answer.url


with visitor.open(f"{url}login", timeout=120) as answer:
    page = answer.read().decode()
page, at = send(page, f"{url}login", username=user, password=password)
if "I agree to these terms" in page:
    page, at = send(page, at)
assert "Main menu" in page, page
query = urllib.parse.urlencode({"table_name": table, "server_pk": 1, "viewtype": "pdf"})
with visitor.open(f"{url}task?{query}", timeout=120) as answer:
    assert answer.headers["Content-Type"] == "application/pdf", answer.headers
    made = answer.read()
with open(file, "wb") as out:
    out.write(made)
