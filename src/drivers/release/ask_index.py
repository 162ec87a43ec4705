"""Asks a package index which versions of a project there are, and prints them, one a line, without those that were withdrawn
or are not for everybody yet. Where the index is and how to get there is read from standard input, as JSON."""

import base64
import html.parser
import json
import os
import re
import ssl
import sys
import urllib.error
import urllib.parse
import urllib.request

PROJECT = "camcops-server"
BOTH = "application/vnd.pypi.simple.v1+json, text/html;q=0.1"
MOST = 16 << 20

way = json.load(sys.stdin)
parts = urllib.parse.urlsplit(way["index"].rstrip("/") + "/" + PROJECT + "/")
place = parts.netloc.rpartition("@")
request = urllib.request.Request(parts._replace(netloc=place[2]).geturl(), headers={"Accept": BOTH})
if place[0]:
    login = urllib.parse.unquote(place[0]).encode()
    request.add_unredirected_header("Authorization", "Basic " + base64.b64encode(login).decode())


class Links(html.parser.HTMLParser):
    """The links of a page of files, as in the JSON of one."""

    def __init__(self):
        super().__init__()
        self.files = []

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        if tag == "a" and attributes.get("href"):
            name = urllib.parse.unquote(urllib.parse.urlsplit(attributes["href"]).path.rpartition("/")[2])
            self.files.append({"filename": name, "yanked": "data-yanked" in attributes})


os.environ["no_proxy"] = way["direct"]
context = ssl.create_default_context(cadata=way["authorities"])
opener = urllib.request.build_opener(
    urllib.request.ProxyHandler(way["proxies"]), urllib.request.HTTPSHandler(context=context)
)
try:
    with opener.open(request, timeout=way["seconds"]) as answer:
        kind = answer.headers.get_content_type()
        text = answer.read(MOST).decode()
    if kind.endswith("json"):
        files = json.loads(text)["files"]
    else:
        links = Links()
        links.feed(text)
        files = links.files
except urllib.error.HTTPError as why:
    sys.exit(f"{parts.hostname} answers {why.code} {why.reason}")
except Exception as why:
    why = getattr(why, "reason", None) or why
    sys.exit(str(why) if isinstance(why, OSError) else f"{type(why).__name__}: {why}")
versions = set()
for file in files:
    name = file["filename"].replace("_", "-").lower()
    version = re.fullmatch(re.escape(PROJECT) + r"-([0-9]+(?:\.[0-9]+)*)(?:-.*\.whl|\.tar\.gz|\.zip)", name)
    if version and not file.get("yanked"):
        versions.add(version[1])
print("\n".join(sorted(versions, key=lambda version: [int(number) for number in version.split(".")])))
