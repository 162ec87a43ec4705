"""Tablets that upload to a site for as long as they are let, as CamCOPS's own do, and a comparison of all they were
promised with what the database has.

    tablet.py prepare
    tablet.py DIRECTORY TABLETS LARGE

Runs as root on the machine of the site. Each tablet registers, makes patients with notes and photos, and uploads them:
in steps or in one, copied or moved off the tablet. It believes what real ones believe: whatever is not answered with
success is still on the tablet, and is uploaded again. DIRECTORY/ready appears when each has had an upload accepted;
when DIRECTORY/stop appears, each goes on until its last upload is accepted, and DIRECTORY/report.json tells the rest. The
first upload of the first tablet has LARGE records.
"""

import base64
import binascii
import collections
import datetime
import hashlib
import http.client
import json
import os
import random
import ssl
import subprocess
import sys
import threading
import time
import urllib.parse
import zlib

USER, PASSWORD = "tablet", "Blue-heron-73-upload"
# bcrypt, four rounds: the tests are not about the time that a login takes.
HASH = "$2a$04$WVUtU0Z3Q1VtRUpHVkFHV.ToMzogXfNpcANfxSfsHL4.lilBXOSpO"
VERSION = "2.4.24"
# Tells the records of one run from those of another: letters that no other part of a mark has.
RUN = "".join(chr(ord("k") + int(digit)) for digit in str(int(time.time()) % 1_000_000))
FIRST_NUMBER = int(time.time()) % 1_000_000 * 100_000_000
# How long a tablet waits for an answer, and how long the last upload may be tried.
PATIENCE, LAST_TRIES = 150, 300
# How many seconds a tablet rests between two uploads, at most, to leave the processors to others.
REST = float(os.environ.get("REST", "1"))
# Whether each upload fails at first, and none waits for the next second.
CLUMSY = "CLUMSY" in os.environ

KEY = "id"
TIMES = {"when_created", "when_last_modified", "when_firstexit"}
# The column that tells which record of which tablet a row is.
MARKS = {
    "patient": "other",
    "patient_idnum": "idnum_value",
    "progressnote": "location",
    "photo": "clinician_post",
    "blobs": "filename",
}
RECORDWISE = "blobs"
TEXTS = [
    "plain",
    "it's a 'quoted' word, with a comma",
    "two\nlines\r\nand a \\backslash\\n",
    "Zürich, naïve, Ελλάδα, 北京, \U0001f600",
    "100% of {these} <b>are</b> & $text;",
    "NULL",
    "64'dGV4dA=='",
]


def sql(statement):
    command = ["mariadb", "--default-character-set=utf8mb4", "--batch", "--skip-column-names", "camcops"]
    done = subprocess.run(command, input=statement, capture_output=True, text=True, encoding="utf-8")
    if done.returncode:
        raise RuntimeError(done.stderr)
    return [line.split("\t") for line in done.stdout.splitlines()]


def prepare():
    """A group whose patients need a number, and a user who may register and upload, as an administrator makes them."""
    sql(f"""
        INSERT IGNORE INTO _idnum_definitions (which_idnum, description, short_description) VALUES (1, 'Number', 'No');
        INSERT INTO _security_groups (name, description, upload_policy, finalize_policy)
            SELECT 'tablets', 'tablets', 'sex AND anyidnum', 'forename AND surname AND dob AND sex AND idnum1' FROM DUAL
            WHERE NOT EXISTS (SELECT 1 FROM _security_groups WHERE name = 'tablets');
        INSERT INTO _security_users
            (username, hashedpw, superuser, must_change_password, when_agreed_terms_of_use, upload_group_id,
             auto_generated, mfa_method, hotp_counter)
            SELECT '{USER}', '{HASH}', 0, 0, '2026-01-01T00:00:00.000000+00:00', id, 0, 'no_mfa', 0
            FROM _security_groups WHERE name = 'tablets'
            AND NOT EXISTS (SELECT 1 FROM _security_users WHERE username = '{USER}');
        INSERT INTO _security_user_group (user_id, group_id, groupadmin, may_upload, may_register_devices,
             may_use_webviewer, view_all_patients_when_unfiltered, may_dump_data, may_run_reports, may_add_notes,
             may_manage_patients, may_email_patients)
            SELECT u.id, g.id, 0, 1, 1, 0, 0, 0, 0, 0, 0, 0 FROM _security_users u, _security_groups g
            WHERE u.username = '{USER}' AND g.name = 'tablets'
            AND NOT EXISTS (SELECT 1 FROM _security_user_group m WHERE m.user_id = u.id);
    """)


def literal(value):
    """A value as the tablet writes it into a line of values."""
    if value is None:
        return "NULL"
    if isinstance(value, (int, float)):
        return str(value)
    if isinstance(value, bytes):
        return "64'" + base64.b64encode(value).decode() + "'"
    text = value.replace("\\", "\\\\").replace("\n", "\\n").replace("\r", "\\r")
    return "'" + text.replace("'", "''") + "'"


def now():
    moment = datetime.datetime.now(datetime.timezone.utc)
    return moment.isoformat(timespec="milliseconds")


def picture(chance, size):
    """A photograph that every viewer can show: grey noise."""
    def chunk(kind, data):
        return len(data).to_bytes(4, "big") + kind + data + binascii.crc32(kind + data).to_bytes(4, "big")
    header = size.to_bytes(4, "big") * 2 + bytes([8, 0, 0, 0, 0])
    rows = b"".join(b"\0" + chance.randbytes(size) for _ in range(size))
    pieces = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows, 1)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + pieces


class Failed(Exception):
    """The answer was none, or not success."""


class Tablet(threading.Thread):
    def __init__(self, number, large, stop):
        super().__init__(daemon=True)
        self.number, self.large, self.stop = number, large, stop
        self.device = f"tablet-{number}"
        self.chance = random.Random(number)
        self.session = {}
        self.tables, self.round, self.next_key = {}, 0, collections.Counter()
        # What the site has promised to have, and to have no more; what it may have, as the answer was none.
        self.promised, self.withdrawn, self.open = {}, set(), False
        self.failures, self.accepted, self.records = [], collections.Counter(), 0
        self.unsent, self.broken = 0, None

    def ask(self, operation, **more):
        form = {"operation": operation, "camcops_version": VERSION, "device": self.device}
        form.update(user=USER, password=PASSWORD, **self.session, **more)
        body = urllib.parse.urlencode(form).encode()
        start = time.time()
        try:
            site = http.client.HTTPSConnection(
                "127.0.0.1", 443, context=ssl._create_unverified_context(), timeout=PATIENCE)
            site.request("POST", "/api", body, {
                "Host": "machine", "Content-Type": "application/x-www-form-urlencoded"})
            answer = site.getresponse()
            status, text = answer.status, answer.read().decode("utf-8", "replace")
            site.close()
        except (OSError, http.client.HTTPException) as why:
            raise self.failed(operation, start, type(why).__name__) from None
        reply = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
        if status != 200:
            raise self.failed(operation, start, f"{status}")
        if reply.get("success") != "1":
            raise self.failed(operation, start, reply.get("error", "no answer of CamCOPS")[:120])
        self.session = {name: reply[name] for name in ["session_id", "session_token"]}
        return reply

    def failed(self, operation, start, reason):
        self.failures.append({
            "tablet": self.number, "upload": self.mark(), "operation": operation, "reason": reason,
            "began": start, "at": time.time()})
        self.session = {}
        return Failed(operation)

    def mark(self):
        return f"{RUN}T{self.number}R{self.round}"

    def add(self, table, mark, **fields):
        self.next_key[table] += 1
        record = {KEY: self.next_key[table], "when_last_modified": now(), "_move_off_tablet": 0, **fields}
        record[MARKS[table]] = mark
        self.tables.setdefault(table, {})[record[KEY]] = record
        return record

    def make(self):
        """A patient, and what was done with them."""
        chance, mark = self.chance, self.mark()
        self.patient = self.add(
            "patient", mark, forename="Ada'" + mark, surname="Łovelace", dob=f"19{chance.randint(10, 99)}-02-03",
            sex=chance.choice("MFX"), address=chance.choice(TEXTS), email=None, gp=None)
        self.number_of_patient = FIRST_NUMBER + self.number * 100_000 + self.round
        self.add("patient_idnum", self.number_of_patient, patient_id=self.patient[KEY], which_idnum=1)
        notes = self.large if self.number == 0 and self.round == 1 else chance.randint(2, 6)
        for index in range(notes):
            self.note(index)
        if self.round % 2:
            self.photo()

    def task(self):
        return dict(
            patient_id=self.patient[KEY], when_created=now(), when_firstexit=now(), firstexit_is_finish=1,
            firstexit_is_abort=0, editing_time_s=12.5)

    def note(self, index):
        text = f"{self.chance.choice(TEXTS)} {self.chance.random()}"
        self.add("progressnote", f"{self.mark()}N{index}", note=text, **self.task())

    def photo(self):
        photo = self.add(
            "photo", self.mark() + "F", description=self.chance.choice(TEXTS), photo_blobid=None, rotation=None,
            clinician_specialty=None, clinician_name="Dr O'Neill", clinician_professional_registration=None,
            clinician_service=None, clinician_contact_details=None, **self.task())
        blob = self.add(
            "blobs", self.mark() + "B.png", tablename="photo", tablepk=photo[KEY], fieldname="photo_blobid",
            mimetype="image/png", image_rotation_deg_cw=90, theblob=picture(self.chance, self.chance.choice([60, 200, 500])))
        photo["photo_blobid"] = blob[KEY]

    def change(self):
        """After a copy the records are still here: one is corrected, one deleted, one added."""
        notes = self.tables["progressnote"]
        first, *_, last = list(notes)
        notes[first].update(note="corrected " + str(self.chance.random()), when_last_modified=now())
        del notes[last]
        self.note("A")

    def upload(self, move, one_step):
        about = {
            "forename": self.patient["forename"], "surname": self.patient["surname"], "sex": self.patient["sex"],
            "dob": self.patient["dob"], "idnum1": self.number_of_patient, "finalizing": move}
        self.ask("check_device_registered")
        self.ask("check_upload_user_and_device")
        self.ask("get_id_info")
        self.ask("validate_patients", patient_info=json.dumps([about]))
        allowed = self.ask("get_allowed_tables")
        names = [allowed[f"record{n}"].split(",")[0].strip("'") for n in range(int(allowed["nrecords"]))]
        # From here on the site may have it although it does not say so.
        self.open = True
        if one_step:
            rows = {name: [{field: literal(value) for field, value in row.items()}
                           for row in self.tables.get(name, {}).values()] for name in names}
            self.ask(
                "upload_entire_database", finalizing=int(move), dbdata=json.dumps(rows),
                pknameinfo=json.dumps({name: KEY for name in names}))
        else:
            self.in_steps(names, move)
        self.open = False
        for key in [key for key in self.promised if not self.promised[key][1]]:
            # It was on the tablet at the last upload.
            self.withdrawn.add(key)
        for table, rows in self.tables.items():
            for row in rows.values():
                key = (table, str(row[MARKS[table]]))
                self.withdrawn.discard(key)
                fields = dict(row)
                if "theblob" in fields:
                    fields["theblob"] = hashlib.sha256(fields["theblob"]).hexdigest()
                self.promised[key] = (fields, move)
                self.records += 1
        for key in self.withdrawn:
            self.promised.pop(key, None)
        self.accepted["moved" if move else "copied"] += 1
        self.accepted["in one step" if one_step else "in steps"] += 1

    def in_steps(self, names, move):
        self.ask("start_upload")
        if move:
            self.ask("start_preservation")
        self.ask("upload_empty_tables", tables=",".join(name for name in names if not self.tables.get(name)))
        for table, rows in self.tables.items():
            if table == RECORDWISE or not rows:
                continue
            fields = list(next(iter(rows.values())))
            lines = {f"record{n}": ",".join(literal(row[field]) for field in fields)
                     for n, row in enumerate(rows.values())}
            self.ask("upload_table", table=table, pkname=KEY, fields=",".join(fields), nrecords=len(rows), **lines)
        rows = self.tables.get(RECORDWISE)
        if rows:
            keys = ",".join(map(str, rows))
            self.ask("delete_where_key_not", table=RECORDWISE, pkname=KEY, pkvalues=keys)
            wanted = self.ask(
                "which_keys_to_send", table=RECORDWISE, pkname=KEY, pkvalues=keys,
                datevalues=",".join(literal(row["when_last_modified"]) for row in rows.values()),
                move_off_tablet_values=",".join("0" for _ in rows))["result"]
            for key in filter(None, wanted.split(",")):
                row = rows[int(key)]
                self.ask("upload_record", table=RECORDWISE, pkname=KEY, fields=",".join(row),
                         values=",".join(map(literal, row.values())))
        self.ask("end_upload")

    def fail(self, one_step):
        """A try with a value that the database refuses, after others that it has taken."""
        note = list(self.tables["progressnote"].values())[-1]
        time_taken, note["editing_time_s"] = note["editing_time_s"], "nonsense"
        try:
            self.upload(True, one_step)
        except Failed:
            pass
        note["editing_time_s"] = time_taken

    def until_accepted(self, what):
        """What a user does: tries again. Only while they are let; for the last upload somewhat longer."""
        given_up = None
        while True:
            try:
                what()
                return True
            except Failed:
                if self.stop.is_set() and given_up is None:
                    given_up = time.time() + LAST_TRIES
                if given_up and time.time() > given_up:
                    return False
                time.sleep(self.chance.uniform(0.5, 2))

    def run(self):
        try:
            self.until_accepted(lambda: self.ask("register", devicefriendlyname=self.device))
            while not self.stop.is_set():
                self.round += 1
                self.make()
                one_step = self.chance.random() < 0.4
                if self.chance.random() < 0.4:
                    if not self.until_accepted(lambda: self.upload(False, one_step)):
                        break
                    self.change()
                if CLUMSY:
                    self.fail(one_step)
                if not self.until_accepted(lambda: self.upload(True, one_step)):
                    break
                # It was moved off the tablet.
                self.tables, self.next_key = {}, collections.Counter()
                # What was moved is told apart by the second in which that was; a person is never as fast.
                if not CLUMSY:
                    time.sleep(1.01 - time.time() % 1)
                self.stop.wait(self.chance.uniform(0, REST))
            self.unsent = sum(map(len, self.tables.values()))
        except Exception as why:
            self.broken = repr(why)


def rows_of(table, fields):
    """What the database has of a table's fields, by mark; of each row also whether it is current, and moved off."""
    mark = MARKS[table]
    def column(field):
        if field == "theblob":
            return "SHA2(t.theblob, 256)"
        return f"IFNULL(HEX(CAST(t.`{field}` AS CHAR)), '-')"
    found = collections.defaultdict(list)
    asked = ", ".join(column(field) for field in fields)
    for key, current, era, *values in sql(f"""
            SELECT t.`{mark}`, t._current, t._era, {asked} FROM `{table}` t
            JOIN _security_devices d ON d.id = t._device_id WHERE d.name LIKE 'tablet-%' ORDER BY t._pk"""):
        plain = [value if field == "theblob" else None if value == "-" else bytes.fromhex(value).decode()
                 for field, value in zip(fields, values)]
        found[key].append((current == "1", era != "NOW", dict(zip(fields, plain))))
    return found


def same(field, promised, stored):
    if promised is None or stored is None:
        return promised is None and stored is None
    if field in TIMES:
        moments = [datetime.datetime.fromisoformat(text) for text in [promised, stored]]
        return moments[0] == moments[1]
    return str(promised) == stored


def compare(tablets):
    missing, different, returned = [], [], []
    doubled = collections.defaultdict(lambda: {"rows": 0, "failed": []})
    doubled_rows = collections.Counter()
    for table in MARKS:
        promised = {key[1]: what for t in tablets for key, what in t.promised.items() if key[0] == table}
        withdrawn = {key[1] for t in tablets for key in t.withdrawn if key[0] == table}
        # The last upload may have arrived without an answer.
        unsure = {str(row[MARKS[table]]) for t in tablets if t.open for row in t.tables.get(table, {}).values()}
        known = set(promised) | withdrawn | unsure
        fields = next((list(what[0]) for what in promised.values()), None)
        if fields is None:
            continue
        stored = rows_of(table, fields)
        for mark, (wanted, moved) in promised.items():
            current = [row for row in stored.get(mark, []) if row[0]]
            if not current:
                missing.append(f"{table} {mark}")
                continue
            if mark in unsure:
                continue
            wrong = [field for field in fields if field != "_move_off_tablet"
                     and not same(field, wanted[field], current[-1][2][field])]
            if wrong or current[-1][1] != moved:
                different.append(f"{table} {mark}: {wrong or 'era'}")
        for mark, rows in stored.items():
            current = sum(row[0] for row in rows)
            if mark in withdrawn and current and mark not in unsure:
                returned.append(f"{table} {mark}")
            if current > 1 and mark in known:
                doubled_rows[table] += current - 1
                if table != "patient_idnum":
                    upload = mark.rstrip("Bpng.").split("N")[0].rstrip("FB")
                    doubled[upload]["rows"] += current - 1
    for tablet in tablets:
        for failure in tablet.failures:
            if failure["upload"] in doubled:
                doubled[failure["upload"]]["failed"].append(failure)
    return {
        "missing": missing[:50], "missing_count": len(missing),
        "different": different[:50], "returned": returned[:50],
        "doubled": doubled, "doubled_rows": sum(doubled_rows.values()), "doubled_by_table": doubled_rows,
    }


def main():
    if sys.argv[1:] == ["prepare"]:
        return prepare()
    directory, count, large = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    stop = threading.Event()
    tablets = [Tablet(number, large, stop) for number in range(count)]
    for tablet in tablets:
        tablet.start()
    ready = False
    while not os.path.exists(f"{directory}/stop"):
        if not ready and all(tablet.accepted or tablet.broken for tablet in tablets):
            ready = True
            open(f"{directory}/ready", "w").close()
        time.sleep(0.1)
    stop.set()
    for tablet in tablets:
        tablet.join()
    failed = collections.defaultdict(collections.Counter)
    for tablet in tablets:
        for failure in tablet.failures:
            failed[failure["operation"]][failure["reason"]] += 1
    report = {
        "accepted": sum((tablet.accepted for tablet in tablets), collections.Counter()),
        "records": sum(tablet.records for tablet in tablets),
        "unsent": sum(tablet.unsent for tablet in tablets),
        "broken": [tablet.broken for tablet in tablets if tablet.broken],
        "failed": failed,
        "failures": [failure for tablet in tablets for failure in tablet.failures][:20_000],
        **compare(tablets),
    }
    with open(f"{directory}/report.new", "w") as file:
        json.dump(report, file)
    os.rename(f"{directory}/report.new", f"{directory}/report.json")


if __name__ == "__main__":
    main()
