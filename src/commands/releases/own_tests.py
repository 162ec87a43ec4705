"""Runs CamCOPS's own tests in the release whose Python this is, and says on standard output what becomes of them: one JSON
object a line. Standard input says where: JSON with the address of an empty database, or null for one in memory."""

import json
import os
import sys

order = json.load(sys.stdin)
said = os.fdopen(os.dup(1), "w", buffering=1)
# What tests print is of no use, and would stand between the lines.
os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
home = os.environ["TMPDIR"]
os.environ["CAMCOPS_CONFIG_FILE"] = os.path.join(home, "demo.conf")

import camcops_server  # noqa: E402
import pytest  # noqa: E402
import sqlalchemy  # noqa: E402
from camcops_server.cc_modules.cc_config import get_demo_config  # noqa: E402
from camcops_server.cc_modules.cc_sqlalchemy import Base  # noqa: E402

LONGEST = 2000

with open(os.environ["CAMCOPS_CONFIG_FILE"], "w") as file:
    file.write(get_demo_config())


def tell(**what):
    print(json.dumps(what), file=said)


class Listener:
    def pytest_collection_finish(self, session):
        tell(found=len(session.items))

    def pytest_collectreport(self, report):
        if report.failed:
            tell(test=report.nodeid, outcome="failed", why=str(report.longrepr)[-LONGEST:])

    def pytest_runtest_logreport(self, report):
        if report.failed:
            crash = getattr(report.longrepr, "reprcrash", None)
            why = crash.message if crash else str(report.longrepr)
            tell(test=report.nodeid, outcome="failed", why=why[:LONGEST])
        elif report.skipped:
            tell(test=report.nodeid, outcome="skipped")
        elif report.when == "call":
            tell(test=report.nodeid, outcome="passed")


def count_from_afar(metadata, connection, tables=(), **_):
    """The tests give numbers to some rows themselves, and let the database number others. A server goes on after the highest,
    also when the transaction did not last: the next number that a test gives would be taken."""
    if connection.dialect.name != "mysql":
        # One test makes databases of its own.
        return
    for table in tables or ():
        if table.autoincrement_column is not None:
            name = connection.dialect.identifier_preparer.quote(table.name)
            connection.execute(sqlalchemy.text(f"ALTER TABLE {name} AUTO_INCREMENT = 1000000"))


if order["database"]:
    sqlalchemy.event.listen(Base.metadata, "after_create", count_from_afar)
os.chdir(os.path.dirname(camcops_server.__file__))
options = ["-p", "no:cacheprovider", "--override-ini=log_cli=false", "--quiet", "-W", "ignore", "--show-capture=no"]
if order["database"]:
    options += ["--mysql", "--create-db", "--db-url", order["database"]]
else:
    options += ["--database-in-memory"]
code = pytest.main(options, plugins=[Listener()])
tell(ended=int(code))
