"""Compares our table of keys with those that the installed CamCOPS knows.

Reads the table as JSON from standard input: a list of {section, name, kind,
default, required, secret}. With --print it writes CamCOPS's own list instead.
Exits 1 and says what differs, if anything does.
"""

import configparser
import json
import logging
import os
import sys

logging.disable(logging.CRITICAL)

from camcops_server.cc_modules import cc_config, cc_constants  # noqa: E402
from camcops_server.cc_modules import cc_exportrecipientinfo as cc_recipient  # noqa: E402
from camcops_server.cc_modules import cc_sms  # noqa: E402

CLASSES = {
    "site": cc_constants.ConfigParamSite,
    "server": cc_constants.ConfigParamServer,
    "export": cc_constants.ConfigParamExportGeneral,
    "recipient": cc_constants.ConfigParamExportRecipient,
}
SMS = {
    "kapow": cc_sms.KapowSmsBackend,
    "twilio": cc_sms.TwilioSmsBackend,
}
# Our kinds, and the way in which CamCOPS reads them.
READ_AS = {
    "Text": "str",
    "Path": "str",
    "Url": "str",
    "Int": "int",
    "Bool": "bool",
    "Lines": "lines",
    "Level": "level",
    "Unread": None,
}
DEMANDED = {
    "site": {
        "DB_URL": "mysql+pymysql:///x",
        "SESSION_COOKIE_SECRET": "x",
        "PATIENT_SPEC": "x",
        "TASK_FILENAME_SPEC": "x",
        "TRACKER_FILENAME_SPEC": "x",
        "CTV_FILENAME_SPEC": "x",
        "MFA_METHODS": "no_mfa",
    },
    "server": {},
    "export": {"CELERY_BEAT_SCHEDULE_DATABASE": "/x", "EXPORT_LOCKDIR": "/x"},
}
RECIPIENTS = [
    {"TRANSMISSION_METHOD": "database"},
    {"TRANSMISSION_METHOD": "email"},
    {"TRANSMISSION_METHOD": "fhir"},
    {"TRANSMISSION_METHOD": "redcap"},
    {"TRANSMISSION_METHOD": "file", "FILE_EXPORT_RIO_METADATA": "true"},
    {"TRANSMISSION_METHOD": "hl7", "HL7_DEBUG_DIVERT_TO_FILE": "true"},
]


def listen(module, read):
    """Makes the module's readers record what they are asked for."""

    def wrap(name, kind):
        reader = getattr(module, name, None)
        if reader is None:
            return

        def recorder(config, section, param, *rest, **named):
            seen = kind or rest[0].__name__
            read.setdefault((section.split(":")[0], param), set()).add(seen)
            return reader(config, section, param, *rest, **named)

        setattr(module, name, recorder)

    wrap("get_config_parameter", None)
    wrap("get_config_parameter_boolean", "bool")
    wrap("get_config_parameter_multiline", "lines")
    wrap("get_config_parameter_loglevel", "level")


def text_of(sections):
    return "".join(
        f"[{section}]\n" + "".join(f"{k} = {v}\n" for k, v in keys.items())
        for section, keys in sections.items()
    )


def accepted(sections):
    try:
        return cc_config.CamcopsConfig("", config_text=text_of(sections))
    except Exception:
        return None


def as_text(value):
    if isinstance(value, (list, tuple)):
        return "\n".join(str(x) for x in value)
    return str(value)


def default_of(section, name):
    holder = cc_constants.ConfigDefaults
    if section == "recipient" and name == "FHIR_CONCURRENT":
        return "False"
    value = getattr(holder, f"{name}_TEXTFORMAT", getattr(holder, name, ""))
    text = as_text(value)
    # Only a specimen file uses these, or they depend on the machine.
    computed = {
        "CELERY_BEAT_SCHEDULE_DATABASE",
        "EXPORT_LOCKDIR",
        "EXTRA_STRING_FILES",
        "EXTERNAL_SERVER_NAME",
        "GUNICORN_NUM_WORKERS",
        "USER_DOWNLOAD_DIR",
    }
    return "" if name in computed or text.startswith("/") and len(text) > 1 else text


def installed():
    read = {}
    listen(cc_config, read)
    listen(cc_recipient, read)
    config = accepted(DEMANDED)
    assert config, "CamCOPS refuses the smallest configuration"
    parser = configparser.ConfigParser()
    parser.read_string(
        text_of(DEMANDED | {f"recipient:r{n}": r for n, r in enumerate(RECIPIENTS)})
    )
    for n in range(len(RECIPIENTS)):
        try:
            cc_recipient.ExportRecipientInfo.read_from_config(config, parser, f"r{n}")
        except cc_recipient.InvalidExportRecipient:
            pass
    read[("site", "DB_URL")] = {"str"}

    table = {}
    for section, holder in CLASSES.items():
        for attribute, name in vars(holder).items():
            if attribute.startswith("_") or attribute.endswith("_PREFIX"):
                continue
            kinds = read.get((section, name), {None})
            assert len(kinds) == 1, (section, name, kinds)
            demanded = DEMANDED.get(section, {})
            less = {k: v for k, v in demanded.items() if k != name}
            required = name in demanded and not accepted(DEMANDED | {section: less})
            table[(section, name)] = {
                "kind": kinds.pop(),
                "default": default_of(section, name),
                "required": required or name == "TRANSMISSION_METHOD",
            }
    for backend, holder in SMS.items():
        for attribute, name in vars(holder).items():
            if attribute.startswith("PARAM_"):
                table[(f"sms_backend:{backend}", name.upper())] = {
                    "kind": "str",
                    "default": "",
                    "required": True,
                }
    return table


def main():
    theirs = installed()
    if "--print" in sys.argv[1:]:
        for (section, name), key in theirs.items():
            print(json.dumps({"section": section, "name": name} | key))
        return 0
    ours = {(key["section"], key["name"]): key for key in json.load(sys.stdin)}
    differences = [f"missing from our table: {k}" for k in theirs.keys() - ours.keys()]
    differences += [f"unknown to CamCOPS: {k}" for k in ours.keys() - theirs.keys()]
    for key in theirs.keys() & ours.keys():
        mine, real = ours[key], theirs[key]
        if READ_AS[mine["kind"]] != real["kind"]:
            differences.append(f"{key}: kind {mine['kind']}, CamCOPS reads {real['kind']}")
        for field in ("default", "required"):
            if mine[field] != real[field]:
                differences.append(f"{key}: {field} {mine[field]!r}, CamCOPS {real[field]!r}")
        looks_secret = key[1].endswith(("PASSWORD", "SECRET", "TOKEN", "API_KEY"))
        if looks_secret and not mine["secret"]:
            differences.append(f"{key}: not marked as a secret")
    print("\n".join(sorted(differences)) or f"{len(theirs)} keys agree", flush=True)
    return 1 if differences else 0


if __name__ == "__main__":
    os._exit(main())
