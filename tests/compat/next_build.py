# SPDX-License-Identifier: MIT
"""
The next build of hsm_core: this one with a migration and a member of records more.

It is a copy of the sources with a few edits, and so a program of its own: its level is
2, it migrates databases to schema version 2, and once the level of a cluster is 2 it
writes records of format 3, with a member ``zone``, which also is a new column.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Final, NamedTuple

import hsm_core

ZONE: Final = "north"
VERSION: Final = hsm_core.__version__ + "+next"

MIGRATION: Final = """\
ALTER TABLE records ADD COLUMN zone text;
ALTER TABLE nodes ADD COLUMN zone text NOT NULL DEFAULT '';
CREATE TABLE zones (name text COLLATE "C" PRIMARY KEY);
CREATE INDEX zones_nodes ON nodes (zone);
"""


class Edit(NamedTuple):
    """A text of a module that stands there once, and what takes its place."""

    module: str
    old: str
    new: str


_AUDIT: Final = "_internal/audit/"
_STORES: Final = "_internal/stores/postgresql/"
_MEMBERSHIP: Final = "_internal/cluster/membership.py"

EDITS: Final = (
    Edit("__about__.py", hsm_core.__version__, VERSION),
    Edit(_MEMBERSHIP, "LEVEL: Final = 1\n", "LEVEL: Final = 2\n"),
    # It writes the new format only where the cluster's level says so.
    Edit(
        _MEMBERSHIP,
        "        self.rows, self.cluster_level = beating.rows, beating.level\n",
        "        self.rows, self.cluster_level = beating.rows, beating.level\n"
        "        from hsm_core._internal.audit import record\n"
        "        record.LEVEL = beating.level\n",
    ),
    Edit(
        _AUDIT + "record.py",
        'START: Final = b\'{"format":2,"seq":"\'\n',
        "LEVEL = 0\nSTART: Final = b'{\"format\":'\n",
    ),
    Edit(
        _AUDIT + "record.py",
        r"""rb'\{"format":2,"seq":"[0-9a-f]""",
        r"""rb'\{"format":[23],"seq":"[0-9a-f]""",
    ),
    Edit(
        _AUDIT + "record.py",
        '    detail: AuditDetail | None = None\n    mac: str = ""\n',
        "    detail: AuditDetail | None = None\n"
        '    zone: str = ""\n    mac: str = ""\n',
    ),
    Edit(
        _AUDIT + "record.py",
        "        entry = body + _BEFORE_MAC + hexlify(self._mac_of(body))",
        "        if LEVEL >= 2:\n"
        "            body = START + b'3' + body[len(START) + 1 :]\n"
        f'            body += b\',"zone":"{ZONE}"\'\n'
        "        entry = body + _BEFORE_MAC + hexlify(self._mac_of(body))",
    ),
    Edit(
        _AUDIT + "uses.py",
        r"""rb'\{"format":2,"seq":""",
        r"""rb'\{"format":[23],"seq":""",
    ),
    Edit(
        _AUDIT + "uses.py",
        r"""    rb',"mac":"(.{64})"\}'""",
        r"""    rb'(?>,"zone":"%(text)b")?+,"mac":"(.{64})"\}'""",
    ),
    Edit(
        _STORES + "audit_rows.py",
        '"INSERT INTO records SELECT $1, $2::bigint + n - 1, line "',
        '"INSERT INTO records SELECT $1, $2::bigint + n - 1, line, "\n'
        "    \"CASE WHEN substring(line FROM 11 FOR 1) = '3' THEN 'north' END \"",
    ),
)


def make_next_build(folder: Path) -> Path:
    """
    Make the next build, and return the folder that leads to it on ``PYTHONPATH``.

    Args:
        folder: Where to make it; empty.

    Raises:
        AssertionError: An edit does not fit the sources any more.
    """
    package = folder / "hsm_core"
    sources = Path(hsm_core.__file__).parent
    shutil.copytree(sources, package, ignore=shutil.ignore_patterns("__pycache__"))
    for edit in EDITS:
        path = package / edit.module
        text = path.read_text("utf-8")
        assert text.count(edit.old) == 1, edit
        path.write_text(text.replace(edit.old, edit.new), "utf-8")
    migrations = sorted((package / _STORES / "migrations").glob("*.sql"))
    number = f"{len(migrations) + 1:04}.sql"
    (package / _STORES / "migrations" / number).write_text(MIGRATION, "utf-8")
    return folder
