"""Uploads with CamCOPS's own code whose broker refuses, or takes connections and says nothing: uploads.py PORT."""

import logging
import os
import subprocess
import sys
import time

HOME = os.environ["HOME"]
SILENT = int(sys.argv[1])
UNSENT = os.path.join(HOME, "unsent")
NAME = "_process_pending_export_push_requests"

bin = os.path.dirname(sys.executable)
demo = subprocess.run([f"{bin}/camcops_server", "demo_camcops_config"], capture_output=True, text=True, check=True)
# What names files is left out: there are none.
lines = [line for line in demo.stdout.splitlines() if not line.startswith(("CELERY_BROKER_URL", "SSL_", "EXTRA_STRING"))]
lines = [line for line in lines if "extra_strings" not in line]
lines.insert(lines.index("[export]") + 1, f"CELERY_BROKER_URL = amqp://u:p@127.0.0.1:{SILENT}/v")
with open(os.environ["CAMCOPS_CONFIG_FILE"], "w") as file:
    file.write("\n".join(lines))

told = []
logging.getLogger("camcops_provision").handle = lambda record: told.append(record.getMessage())

sys.argv[1:] = ["serve_gunicorn"]
import sitecustomize
from camcops_server.cc_modules import celery, cc_request

# The name that the hook takes is there in this version of CamCOPS, and nothing was told of one that is missing.
publish = cc_request.CamcopsRequest.__dict__[NAME]
assert publish.__name__ == "publish_or_note", publish
assert not told, told
assert celery.celery_app.conf.broker_transport_options == {"confirm_publish": True}


class Request:
    def __init__(self, *jobs):
        self._pending_export_push_requests = list(jobs)


def unsent():
    with open(UNSENT) as file:
        return file.read()


# Silent: it is waited for, but not for ever.
start = time.monotonic()
publish(Request(("archive", "phq9", 1), ("other", "photo", 2)))
assert 1 < time.monotonic() - start < 30, time.monotonic() - start
assert unsent() == "archive\tphq9\t1\nother\tphoto\t2\n", unsent()
assert os.stat(UNSENT).st_mode & 0o777 == 0o600
assert len(told) == 1 and "2 exports are sent later" in told[0], told

# Left alone for a while, and no longer: no upload waits for what is known to be away.
start, rest = time.monotonic(), sitecustomize._rested
publish(Request(("archive", "phq9", 3)))
assert time.monotonic() - start < 1 and sitecustomize._rested == rest
assert unsent().endswith("archive\tphq9\t3\n")

# It may not even be noted: that is no failure of the upload either.
os.rename(UNSENT, UNSENT + ".kept")
os.symlink("/etc/passwd", UNSENT)
publish(Request(("archive", "phq9", 4)))
assert "left to the next scheduled export" in told[-1], told
os.unlink(UNSENT)
os.rename(UNSENT + ".kept", UNSENT)

# It comes back.
sitecustomize._rested = 0
sent = []
celery.export_task_backend.delay = lambda **job: sent.append(tuple(job.values()))
publish(Request(("archive", "phq9", 5)))
assert sent == [("archive", "phq9", 5)] and unsent().count("\n") == 3

# What was noted is sent later, each once and what fails again; what is noted meanwhile waits for the next time.
with open(UNSENT, "a") as file:
    file.write("archive\tphq9\t1\nnonsense\n")
import camcops_unsent


def fails_at_the_third(**job):
    if len(sent) == 3:
        sitecustomize._note_unsent([("archive", "late", 9)])
        raise OSError("away again")
    sent.append(tuple(job.values()))


celery.export_task_backend.delay = fails_at_the_third
assert camcops_unsent.main() == 75
assert sent[1:] == [("archive", "phq9", 1), ("other", "photo", 2)], sent
celery.export_task_backend.delay = lambda **job: sent.append(tuple(job.values()))
assert camcops_unsent.main() == 0
assert sent[3:] == [("archive", "phq9", 3), ("archive", "late", 9)], sent
assert sorted(name for name in os.listdir(HOME) if "unsent" in name and "py" not in name) == []

# A CamCOPS without that name goes on as it is, and says so.
class Module:
    CamcopsRequest = type("CamcopsRequest", (), {})


sitecustomize._publish_after_all(Module)
assert f"has no {NAME}" in told[-1], told
print("as expected")
