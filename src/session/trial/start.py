"""Has the installed CamCOPS read a camcops.conf as its services do when they start, and tells what it says to it.

The file is the standard input. What needs the database or the network is left out. One line of JSON is the answer.
"""

import contextlib
import importlib
import json
import logging
import os
import re
import sys
from configparser import ConfigParser, InterpolationError

# These say that the release is damaged, or not as it is known here. Whatever else stops CamCOPS, its configuration does.
NO_VERDICT = (ImportError, MemoryError)
UNKNOWN_CODE = (AttributeError, NameError, TypeError)
# What is put where a parameter is missing or wrong, so that the next one is found as well.
PLAUSIBLE = {"PRIMARY_IDNUM": 1, "HL7_PORT": 1, "TASK_FORMAT": "pdf", "RIO_UPLOADING_USER": "x"}

# What Gunicorn calls what CamCOPS passes on to it.
GUNICORNS = {"workers": "GUNICORN_NUM_WORKERS", "timeout": "GUNICORN_TIMEOUT_S"}

last_read = ["", ""]
answer = {"refused": [], "warnings": []}


class Ear(logging.Handler):
    """Hears what CamCOPS warns of."""

    def emit(self, record):
        if record.levelno >= logging.WARNING:
            tell("warnings", record.getMessage(), last_read)


def tell(kind, text, place=("", "")):
    """Remembers it, with the section and the key that it may be about."""
    told = {"text": str(text), "section": place[0], "key": place[1].upper()}
    if told not in answer[kind]:
        answer[kind].append(told)


def refuse(why, place=("", "")):
    """Remembers why CamCOPS does not start."""
    if isinstance(why, InterpolationError):
        # Its words would show a part of the value.
        return tell("refused", "a % has to be written %%", (why.section, why.option))
    tell("refused", why if str(why) else type(why).__name__, place)


def remember_reads():
    """What was read last is most often what an error is about."""
    get = ConfigParser.get

    def remembering(self, section, option, **more):
        last_read[:] = section, option
        return get(self, section, option, **more)

    ConfigParser.get = remembering


def tell_all_of_recipients():
    """CamCOPS names the first thing that a recipient lacks; whoever writes one wants to know all of them."""
    module = importlib.import_module("camcops_server.cc_modules.cc_exportrecipientinfo")
    recipient = module.ExportRecipientInfo
    validate = recipient.validate_db_independent

    def validate_all(self):
        section = f"recipient:{self.recipient_name}"
        for _ in range(40):
            try:
                validate(self)
                return refuse_empty(self, section)
            except module.InvalidExportRecipient as why:
                known = len(answer["refused"])
                key = supply(self, str(why))
                refuse(why, (section, key))
                if not key or len(answer["refused"]) == known:
                    return None

    recipient.validate_db_independent = validate_all


def refuse_empty(recipient, section):
    """CamCOPS writes each recipient into its database when it starts, which refuses some that were accepted before."""
    module = importlib.import_module("camcops_server.cc_modules.cc_exportrecipient")
    for column in module.ExportRecipient.__table__.columns:
        empty = getattr(recipient, column.name, "") is None
        if empty and not column.nullable and not column.primary_key:
            key = column.name.upper()
            refuse(f"Missing parameter {key} (its database needs one)", (section, key))


def supply(recipient, text):
    """Gives a recipient what it lacks, and gives the key of that."""
    task = re.search(r"Task '(.*)' doesn't exist", text)
    if task:
        recipient.tasks = [name for name in recipient.tasks if name != task[1]]
        return "TASKS"
    text = text.split("]: ", 1)[-1]
    if "GROUPS" in text:
        recipient.group_names = ["x"]
        return "GROUPS"
    for key in re.findall(r"[A-Z][A-Z0-9]*_[A-Z0-9_]+", text):
        if hasattr(recipient, key.lower()):
            setattr(recipient, key.lower(), PLAUSIBLE.get(key, "x"))
            return key
    return ""


def read():
    """The configuration, as the services read it."""
    config = importlib.import_module("camcops_server.cc_modules.cc_config")
    config.running_under_docker = lambda: False
    remember_reads()
    tell_all_of_recipients()
    logging.getLogger().addHandler(Ear())
    try:
        return config.get_default_config_from_os_env()
    except NO_VERDICT:
        raise
    except Exception as why:
        refuse(why, last_read)
        return None
    finally:
        last_read[:] = "", ""


class NoDatabase:
    """Stands for a request while recipients are looked up in the database."""

    def get_export_recipients(self, **_):
        return []


def start_server(config, backend):
    """All that the web server does before it answers its first visitor."""
    core = importlib.import_module("camcops_server.camcops_server_core")
    core.ensure_database_is_ok = core.ensure_directories_exist = lambda _: None
    core.command_line_request_context = lambda: contextlib.nullcontext(NoDatabase())
    for key, read_files in (
        ("EXTRA_STRING_FILES", lambda: core.all_extra_strings_as_dicts(config.camcops_config_filename)),
        ("SNOMED_TASK_XML_FILENAME", config.get_task_snomed_concepts),
        ("SNOMED_ICD9_XML_FILENAME", config.get_icd9cm_snomed_concepts),
        ("SNOMED_ICD10_XML_FILENAME", config.get_icd10_snomed_concepts),
    ):
        last_read[:] = "site", key
        read_files()
    last_read[:] = "", ""
    if backend != "gunicorn":
        core.ensure_ok_for_webserver(config)
        core.make_wsgi_app_from_config(config)
        return
    base = core.BaseApplication
    base.run = lambda self: None
    # Gunicorn's own would end the process.
    base.do_load_config = lambda self: (self.load_default_config(), self.load_config())
    settings = importlib.import_module("gunicorn.config").Config
    set_one = settings.set

    def remembering(self, name, value):
        last_read[:] = "server", GUNICORNS.get(name, "")
        set_one(self, name, value)

    settings.set = remembering
    core.serve_gunicorn(config)


def start_celery(config):
    """All that the workers, the scheduler and the monitor do before they talk to the broker."""
    app = importlib.import_module("camcops_server.cc_modules.celery").celery_app
    app.finalize()
    app.connection_for_write()
    try:
        str(app.timezone)
    except (KeyError, ValueError):
        tell("refused", "there is no such time zone", ("export", "SCHEDULE_TIMEZONE"))
    limit = config.celery_export_task_rate_limit
    try:
        importlib.import_module("celery.utils.time").rate(limit)
    except (KeyError, ValueError):
        tell("refused", "it is no rate, such as 100/m", ("export", "CELERY_EXPORT_TASK_RATE_LIMIT"))
    refuse_unknown_arguments(config)


def refuse_unknown_arguments(config):
    """What is passed on to Celery's own commands, which end if they don't know it."""
    click = importlib.import_module("click")
    for name, key in (("worker", "celery_worker_extra_args"), ("beat", "celery_beat_extra_args")):
        command = getattr(importlib.import_module(f"celery.bin.{name}"), name)
        for line in getattr(config, key):
            # Others are not passed on.
            if not line.startswith("-") or " " in line:
                continue
            context = click.Context(command, info_name=name)
            try:
                values, _, _ = command.make_parser(context).parse_args([line])
                for option in command.params:
                    if option.name in values:
                        option.type_cast_value(context, values[option.name])
            except click.UsageError as why:
                tell("refused", f"{line} is not for Celery's {name}: {why.format_message()}", ("export", key))


def main():
    config = read()
    if config and not answer["refused"]:
        for start in (lambda: start_server(config, sys.argv[1]), lambda: start_celery(config)):
            last_read[:] = "", ""
            try:
                start()
            except (*NO_VERDICT, *UNKNOWN_CODE):
                raise
            except (Exception, SystemExit) as why:
                refuse(why, last_read)
    return json.dumps(answer)


if __name__ == "__main__":
    # Only the answer goes there.
    out = os.dup(1)
    os.dup2(2, 1)
    os.write(out, main().encode())
    os._exit(0)
