"""Reads INI texts with Python's configparser in the way CamCOPS does.

One JSON string per line on standard input, one JSON object per line back:
{"sections": {name: {key: raw value}}} or {"error": name of the exception}.
"""

import codecs
import configparser
import io
import json
import sys

for line in sys.stdin.buffer:
    text = json.loads(line).encode("utf8", "surrogatepass")
    parser = configparser.ConfigParser()
    try:
        parser.read_file(codecs.getreader("utf8")(io.BytesIO(text)))
        sections = {name: dict(parser.items(name, raw=True)) for name in parser.sections()}
        sections["DEFAULT"] = dict(parser.defaults())
        answer = {"sections": sections, "read": {}}
        for name in parser.sections():
            for key in parser.options(name):
                try:
                    value = parser.get(name, key)
                except configparser.InterpolationError:
                    value = None
                answer["read"].setdefault(name, {})[key] = value
    except configparser.Error as error:
        answer = {"error": type(error).__name__}
    print(json.dumps(answer), flush=True)
