"""Runs a command of camcops_server on an empty database, with one ALTER TABLE where its migrations have many.

Each change of a table is made durable by the server before the next one, and the migrations change some tables a
hundred times in a row, a column at a time. In one statement the same changes are made durable once. Only what can't
depend on each other is put together: changes of different columns that keep their names and places, and new indexes.
"""

import os
import re
import sys

from sqlalchemy import event
from sqlalchemy.engine import Engine

NAME = r"(`(?:[^`]|``)+`|\w+)"
COLUMN = re.compile(rf"ALTER TABLE {NAME} (MODIFY {NAME} .+|CHANGE {NAME} \4 .+)", re.DOTALL)
INDEX = re.compile(rf"CREATE (UNIQUE )?INDEX {NAME} ON {NAME} (\(.+\))", re.DOTALL)
PLACED = re.compile(r"\s(FIRST|AFTER\s+\S+)\s*$", re.IGNORECASE)
LONGEST = 200_000
SUPERUSER = "CAMCOPS_FIRST_SUPERUSER"


class Waiting:
    """Changes of one table that are still to be made."""

    def __init__(self):
        self.table = self.kind = self.parameters = None
        self.names = set()
        self.changes = []

    def takes(self, kind, table, name, change, parameters):
        """Puts one more change to those that wait; false where it does not belong to them."""
        fits = not self.changes or (
            (self.kind, self.table) == (kind, table)
            and name.lower() not in self.names
            and sum(map(len, self.changes)) < LONGEST
        )
        if fits:
            self.kind, self.table, self.parameters = kind, table, parameters
            self.names.add(name.lower())
            self.changes.append(change)
        return fits

    def make(self, cursor):
        """Makes them."""
        if self.changes:
            statement = f"ALTER TABLE {self.table} {', '.join(self.changes)}"
            parameters = self.parameters
            self.__init__()
            cursor.execute(statement, parameters)


waiting = Waiting()


def understood(statement):
    """Kind, table, name and change of a statement that may wait; nothing for any other."""
    text = statement.strip()
    column = COLUMN.fullmatch(text)
    if column and not PLACED.search(text):
        return "column", column[1], (column[3] or column[4]), column[2]
    index = INDEX.fullmatch(text)
    if index:
        unique, name, table, columns = index.groups()
        return "index", table, name, f"ADD {unique or ''}INDEX {name} {columns}"
    return None


@event.listens_for(Engine, "before_cursor_execute", retval=True)
def before(connection, cursor, statement, parameters, context, executemany):
    """Holds back what may wait; makes what waits before anything else."""
    change = None if executemany or parameters else understood(statement)
    if change is None:
        waiting.make(cursor)
        return statement, parameters
    if not waiting.takes(*change, parameters):
        waiting.make(cursor)
        waiting.takes(*change, parameters)
    return "DO 0", parameters


@event.listens_for(Engine, "commit")
def commit(connection):
    """Nothing waits longer than a transaction."""
    if waiting.changes:
        waiting.make(connection.connection.cursor())


def run():
    """Makes the tables, and then the superuser if one is named: CamCOPS is loaded by then."""
    from camcops_server.camcops_server import main

    superuser = os.environ.pop(SUPERUSER, None)
    sys.argv[0] = "camcops_server"
    try:
        main()
    except SystemExit as end:
        if end.code:
            raise
    finally:
        if waiting.changes:
            sys.exit(f"changes of {waiting.table} were never made")
    if superuser is None:
        return
    sys.argv[1:] = ["make_superuser", f"--username={superuser}"]
    try:
        main()
    except BaseException as why:
        # The tables are there. Who wants the superuser tries once more, and tells why there can't be one.
        print(f"no superuser yet: {why!r}", file=sys.stderr)
        sys.exit(0)


if __name__ == "__main__":
    run()
