"""Uploads that fail in the middle, to CamCOPS's own web application with a database of SQLite."""

import datetime
import io
import json
import logging
import os
import sqlite3
import subprocess
import sys
import urllib.parse

HOME = os.environ["HOME"]

bin = os.path.dirname(sys.executable)
demo = subprocess.run([f"{bin}/camcops_server", "demo_camcops_config"], capture_output=True, text=True, check=True)
# What names files is left out: there are none.
lines = [line for line in demo.stdout.splitlines() if not line.startswith(("DB_URL", "SSL_", "EXTRA_STRING", "EXPORT_LOCK"))]
lines = [line for line in lines if "extra_strings" not in line]
lines.insert(lines.index("[site]") + 1, f"DB_URL = sqlite:///{HOME}/camcops.sqlite")
lines.insert(lines.index("[export]") + 1, f"EXPORT_LOCKDIR = {HOME}")
with open(os.environ["CAMCOPS_CONFIG_FILE"], "w") as file:
    file.write("\n".join(lines))

told = []
logging.getLogger("camcops_provision").handle = lambda record: told.append(record.getMessage())

import sitecustomize
from camcops_server.camcops_server_core import make_wsgi_app
from camcops_server.cc_modules import cc_client_api_core, cc_request, client_api
import camcops_server.cc_modules.cc_all_models
from camcops_server.cc_modules.cc_config import get_default_config_from_os_env
from camcops_server.cc_modules.cc_sqlalchemy import Base
from pendulum import DateTime
from sqlalchemy import event, text
from sqlalchemy.exc import OperationalError

# The hook knows this version of CamCOPS.
assert not told, told
config = get_default_config_from_os_env()
engine = config.get_sqla_engine()
event.listen(engine, "connect", lambda connection, _: connection.execute("PRAGMA synchronous = OFF"))
Base.metadata.create_all(engine)
# bcrypt, four rounds: of "Blue-heron-73-upload".
HASH = "$2a$04$WVUtU0Z3Q1VtRUpHVkFHV.ToMzogXfNpcANfxSfsHL4.lilBXOSpO"
with engine.begin() as connection:
    for statement in [
        "INSERT INTO _idnum_definitions (which_idnum, description, short_description) VALUES (1, 'Number', 'No')",
        "INSERT INTO _security_groups (id, name) VALUES (1, 'tablets')",
        "INSERT INTO _security_users (id, username, hashedpw, superuser, must_change_password, upload_group_id,"
        f" auto_generated, mfa_method, hotp_counter) VALUES (1, 'tablet', '{HASH}', 0, 0, 1, 0, 'no_mfa', 0)",
        "INSERT INTO _security_user_group (user_id, group_id, groupadmin, may_upload, may_register_devices,"
        " may_use_webviewer, view_all_patients_when_unfiltered, may_dump_data, may_run_reports, may_add_notes,"
        " may_manage_patients, may_email_patients) VALUES (1, 1, 0, 1, 1, 0, 0, 0, 0, 0, 0, 0)",
    ]:
        connection.execute(text(statement))

# The driver of CamCOPS's own databases takes such a moment as it is.
sqlite3.register_adapter(DateTime, lambda moment: moment.strftime("%Y-%m-%d %H:%M:%S.%f"))
# All that comes in one second has one era.
moment = DateTime(2026, 5, 4, 3, 2, 1, tzinfo=datetime.timezone.utc)
cc_request.CamcopsRequest.now = property(lambda self: moment)
published = []
cc_request.CamcopsRequest._process_pending_export_push_requests = lambda self: published.extend(
    self._pending_export_push_requests)
application = make_wsgi_app(show_requests=False, show_response=False, show_timing=False)
session = {}


def ask(operation, password="Blue-heron-73-upload", **more):
    form = {"operation": operation, "camcops_version": "2.4.24", "device": "tablet-1", "user": "tablet",
            "password": password, **session, **more}
    body = urllib.parse.urlencode(form).encode()
    environ = {
        "REQUEST_METHOD": "POST", "PATH_INFO": "/api", "SCRIPT_NAME": "", "QUERY_STRING": "", "SERVER_NAME": "localhost",
        "SERVER_PORT": "443", "SERVER_PROTOCOL": "HTTP/1.1", "REMOTE_ADDR": "127.0.0.1", "wsgi.url_scheme": "https",
        "wsgi.input": io.BytesIO(body), "wsgi.errors": sys.stderr, "wsgi.version": (1, 0), "wsgi.multithread": False,
        "wsgi.multiprocess": True, "wsgi.run_once": False, "CONTENT_TYPE": "application/x-www-form-urlencoded",
        "CONTENT_LENGTH": str(len(body))}
    answer = b"".join(application(environ, lambda status, headers, info=None: None)).decode()
    reply = dict(line.split(":", 1) for line in answer.splitlines())
    session.update(session_id=reply["session_id"], session_token=reply["session_token"])
    return reply


def asked(statement):
    with engine.connect() as connection:
        return [tuple(row) for row in connection.execute(text(statement))]


def is_known():
    """Whether the session of the last answer is there, with its user."""
    known = asked("SELECT id, token, user_id FROM _security_webviewer_sessions")
    return (int(session["session_id"]), session["session_token"], 1) in known


def quoted(value):
    return "NULL" if value is None else f"'{value}'" if isinstance(value, str) else str(value)


WHEN = {"id": 1, "when_last_modified": "2026-05-04T03:02:01.000+00:00", "_move_off_tablet": 0}


def patient(name, number, kind=1):
    """All tables of a tablet with one patient. SQLite takes no text for a date: no birthday."""
    rows = {
        "patient": {**WHEN, "forename": name, "surname": "Upload", "sex": "F"},
        "patient_idnum": {**WHEN, "patient_id": 1, "which_idnum": kind, "idnum_value": number},
        "progressnote": {**WHEN, "patient_id": 1, "note": name, "when_created": WHEN["when_last_modified"],
                         "when_firstexit": WHEN["when_last_modified"], "firstexit_is_finish": 1, "firstexit_is_abort": 0,
                         "editing_time_s": 1.5, "location": None},
    }
    return {table: {field: quoted(value) for field, value in row.items()} for table, row in rows.items()}


def send_at_once(rows):
    return ask("upload_entire_database", finalizing=1, pknameinfo=json.dumps({table: "id" for table in rows}),
               dbdata=json.dumps({table: [row] for table, row in rows.items()}))


def send_table(table, *rows):
    lines = {f"record{index}": ",".join(row.values()) for index, row in enumerate(rows)}
    return ask("upload_table", table=table, pkname="id", fields=",".join(rows[0]), nrecords=len(rows), **lines)


def send_in_steps(rows):
    ask("start_upload")
    ask("start_preservation")
    for table, row in rows.items():
        assert send_table(table, row)["success"] == "1", table
    return ask("end_upload")


def everything():
    """What uploads change, but for sessions."""
    return {table: asked(f"SELECT * FROM {table}") for table in [
        "patient", "patient_idnum", "progressnote", "_idnum_index", "_task_index", "_dirty_tables", "_security_devices",
        "_security_audit"]}


def names():
    return sorted(asked("SELECT forename FROM patient WHERE _current AND _era <> 'NOW'"))


assert ask("register", devicefriendlyname="Tablet")["success"] == "1"
assert is_known()
assert send_at_once(patient("Ada", 1))["success"] == "1" and names() == [("Ada",)]

# A second one within a second is what CamCOPS fails at: the patient is stored by then. The tablet sends it again.
before = everything()
again = send_at_once(patient("Bea", 2))
assert again["success"] == "0" and "IntegrityError" in again["error"], again
assert everything() == before, names()
# That needs no second login.
assert is_known() and len(asked("SELECT id FROM _security_webviewer_sessions")) == 1
moment = moment.add(seconds=1)
assert send_at_once(patient("Bea", 2))["success"] == "1" and names() == [("Ada",), ("Bea",)]

# The same in steps: until the last one it all waits, and after it, too.
again = send_in_steps(patient("Cid", 3))
assert again["success"] == "0" and "IntegrityError" in again["error"], again
assert names() == [("Ada",), ("Bea",)]
assert asked("SELECT forename, _current, _addition_pending, _era FROM patient WHERE forename = 'Cid'") == [("Cid", 0, 1, "NOW")]
moment = moment.add(seconds=1)
assert send_in_steps(patient("Cid", 3))["success"] == "1" and names() == [("Ada",), ("Bea",), ("Cid",)]
assert len(asked("SELECT DISTINCT patient_pk FROM _task_index")) == 3

# What is wrong with an upload is found when a part of it is stored.
moment = moment.add(seconds=1)
before = everything()
for _ in range(2):
    again = send_at_once(patient("Dan", 4, kind=7))
    assert "No such ID number type" in again["error"], again
    assert everything() == before, names()
assert send_at_once(patient("Dan", 4))["success"] == "1"
ask("start_upload")
before = everything()
second = {**patient("Eve", 5)["patient"], "id": "2", "when_last_modified": "nonsense"}
again = send_table("patient", patient("Eve", 5)["patient"], dict(list(second.items())[:-1]))
assert "Number of fields" in again["error"], again
assert everything() == before


# Of whatever kind the failure is, nothing of it is stored or exported, and the login stays.
def fail_with(why):
    def operation(req):
        req.dbsession.execute(text("UPDATE _security_devices SET friendly_name = 'changed'"))
        req.add_export_push_request("archive", "progressnote", 1)
        raise why

    client_api.OPERATIONS_UPLOAD["end_upload"] = operation


published.clear()
for kind in [cc_client_api_core.UserErrorException, cc_client_api_core.ServerErrorException, ValueError]:
    session.clear()
    fail_with(kind("no"))
    assert ask("end_upload")["success"] == "0" and is_known(), kind
    assert everything() == before and not published, kind
fail_with(OperationalError("UPDATE", {}, Exception("(1205, 'Lock wait timeout exceeded')")))
assert "1205" in ask("end_upload")["error"] and everything() == before and is_known()
# So ends gunicorn what takes too long.
fail_with(SystemExit(1))
try:
    ask("end_upload")
    raise AssertionError("SystemExit was kept back")
except SystemExit:
    assert everything() == before and not published
# What does not fail is stored and exported.
client_api.OPERATIONS_UPLOAD["end_upload"] = lambda req: req.add_export_push_request("archive", "progressnote", 1)
assert ask("end_upload")["success"] == "1" and len(published) == 1

# Who may not upload is told so as ever.
session.clear()
assert "Invalid username/password" in ask("start_upload", password="other")["error"] and not is_known()
assert asked(f"SELECT user_id FROM _security_webviewer_sessions WHERE id = {session['session_id']}") == [(None,)]


# A database that is away has undone it.
class Away:
    _pending_export_push_requests, closed = [], False

    def rollback(self):
        raise OSError("gone away")

    def invalidate(self):
        self.closed = True


away = Away()
sitecustomize._undo(away, away)
assert away.closed and "gone away" in told.pop(), told


# A CamCOPS that answers in another way goes on as it is, and says so.
class Module:
    main_client_api = 1
    client_api = staticmethod(lambda req: work(req))


for module in [Module, object]:
    sitecustomize._store_all_or_nothing(module)
    assert "has no main_client_api" in told.pop(), told
assert Module.main_client_api == 1
print("as expected")
