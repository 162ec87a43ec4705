"""Prints what the installed release declares about each column of its tables, as JSON: table, column, kind.

The kinds are `identifying`, `plain`, `code`, `exempt`, `blob` and `text`; what this does not know is `text`.
"""

import json
import sys

import camcops_server.cc_modules.cc_all_models  # noqa: F401
from camcops_server.cc_modules import cc_sqla_coltypes as declared
from camcops_server.cc_modules.cc_sqlalchemy import Base
from sqlalchemy import types

# A code of a classification is no longer than this.
SHORT = 10
PLAIN = (types.Integer, types.Numeric, types.Boolean, types.Date, types.DateTime, types.Time)
MOMENTS = ("PendulumDateTimeAsIsoTextColType", "PendulumDurationAsIsoTextColType", "SemanticVersionColType", "IntListType")


def kind(column):
    info, of = column.info, column.type
    if info.get(declared.COLATTR_IDENTIFIES_PATIENT):
        return "identifying"
    if column.name.endswith("_blobid"):
        return "blob"
    if isinstance(of, PLAIN) or type(of).__name__ in MOMENTS or column.name == "_era":
        return "plain"
    if info.get(declared.COLATTR_PERMITTED_VALUE_CHECKER):
        return "code"
    if isinstance(of, types.String) and of.length is not None and of.length <= SHORT:
        return "code"
    if info.get(declared.COLATTR_EXEMPT_FROM_ANONYMISATION):
        return "exempt"
    return "text"


tables = Base.metadata.tables.values()
json.dump({table.name: {column.name: kind(column) for column in table.columns} for table in tables}, sys.stdout)
