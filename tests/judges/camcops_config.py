"""Makes CamCOPS's own reader read a camcops.conf and fails on any complaint.

Usage: camcops_config.py FILE...   Prints one JSON line per file: the complaints
and some of the values that CamCOPS arrived at. Exits 1 if there are complaints.
"""

import configparser
import json
import logging
import os
import sys
import warnings

warnings.simplefilter("ignore")

from camcops_server.cc_modules import cc_config, cc_constants  # noqa: E402
from camcops_server.cc_modules import cc_exportrecipientinfo as cc_recipient  # noqa: E402

KNOWN = {
    "site": cc_constants.ConfigParamSite,
    "server": cc_constants.ConfigParamServer,
    "export": cc_constants.ConfigParamExportGeneral,
    "recipient": cc_constants.ConfigParamExportRecipient,
}
SHOWN = [
    "db_url",
    "extra_string_files",
    "mfa_methods",
    "session_cookie_secret",
    "user_download_dir",
    "host",
    "port",
    "unix_domain_socket",
    "trusted_proxy_headers",
    "proxy_script_name",
    "external_url_scheme",
    "external_server_name",
    "external_server_port",
    "external_script_name",
    "gunicorn_num_workers",
    "gunicorn_timeout_s",
    "celery_beat_extra_args",
    "celery_beat_schedule_database",
    "celery_broker_url",
    "celery_worker_extra_args",
    "export_lockdir",
    "export_recipient_names",
    "schedule_timezone",
]
complaints = []


class Ear(logging.Handler):
    def emit(self, record):
        if record.levelno >= logging.WARNING:
            complaints.append(f"{record.levelname}: {record.getMessage()}")


def listen(module):
    """CamCOPS says only at debug level that it ignored a value; make that heard."""

    def wrap(name):
        reader = getattr(module, name, None)
        if reader is None:
            return

        def louder(parser, section, param, *rest, **named):
            raw = parser.get(section, param, fallback=None)
            if raw is None and not section.startswith("recipient:"):
                complaints.append(f"[{section}] {param} is missing")
            level = logging.WARNING if raw else logging.DEBUG
            return reader(parser, section, param, *rest, **named, loglevel=level)

        setattr(module, name, louder)

    wrap("get_config_parameter")
    wrap("get_config_parameter_boolean")
    wrap("get_config_parameter_multiline")
    wrap("get_config_parameter_loglevel")


def unknown_keys(path):
    parser = configparser.ConfigParser(interpolation=None)
    parser.read(path, "utf8")
    for header in parser.sections():
        section = header.split(":")[0]
        if section == "sms_backend":
            continue
        if section not in KNOWN:
            yield f"[{header}] is no section of CamCOPS"
            continue
        names = {v for k, v in vars(KNOWN[section]).items() if not k.startswith("_")}
        for key in parser[header]:
            if key.upper() not in names:
                yield f"[{header}] {key.upper()} is no key of CamCOPS"


def judge(path):
    complaints.clear()
    values = {}
    try:
        config = cc_config.CamcopsConfig(path)
        values = {name: getattr(config, name) for name in SHOWN}
        engine = config.get_sqla_engine()
        arguments = engine.dialect.create_connect_args(engine.url)[1]
        values["connect"] = {k: v for k, v in arguments.items() if k != "client_flag"}
        complaints.extend(unknown_keys(path))
    except Exception as error:
        complaints.append(f"{type(error).__name__}: {error}")
    if "%" in values.get("db_url", ""):
        complaints.append("DB_URL holds a %, which upgrade_db can't take")
    print(json.dumps({"file": path, "complaints": complaints} | values), flush=True)
    return not complaints


def main():
    # What the host looks like from inside a container is not what is judged.
    cc_config.running_under_docker = lambda: False
    logging.getLogger().addHandler(Ear())
    for module in (cc_config, cc_recipient):
        listen(module)
    # Every file is judged, so no short circuit.
    return 0 if all([judge(path) for path in sys.argv[1:]]) else 1


if __name__ == "__main__":
    os._exit(main())
