# SPDX-License-Identifier: MIT
"""Random damage to a log in files: two readers come to one verdict."""

from __future__ import annotations

import os
import random
import shutil
from pathlib import Path

import pytest

from hsm_core.errors import AuditTamperedError
from hsm_core.factory import open_verifier
from tests.core.audit_support import KEY, draft, open_log
from tests.core.second_reader import BadLogError, read_files
from tests.support import copy_in_use

COUNT = 2000 if os.environ.get("FERROHSM_FAULTS") else 60


@pytest.fixture(scope="module", params=["closed", "killed"])
def log(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Give the folder of a log in several segments, as a close or a kill leaves it."""
    folder = tmp_path_factory.mktemp("log")
    made = open_log(folder / "log" / "audit.log", segment_bytes=8192)
    for number in range(45):
        made.append([draft(number)], durable=True).wait()
    copy_in_use(folder / "log", folder / "killed")
    made.close()
    return folder / ("log" if request.param == "closed" else "killed")


def damage(folder: Path, dice: random.Random) -> None:
    """Change one file of a log somehow."""
    files = [*sorted(folder.glob("audit.log.0*")), folder / "audit.log"]
    file = dice.choice([f for f in files if f.exists() and f.stat().st_size])
    data = file.read_bytes()
    lines = data.splitlines(keepends=True)
    at, end = dice.randrange(len(data)), dice.randrange(1, 200)
    one, two = dice.randrange(len(lines)), dice.randrange(len(lines))
    match dice.randrange(9):
        case 0:
            data = (
                data[:at] + bytes([data[at] ^ 1 << dice.randrange(8)]) + data[at + 1 :]
            )
        case 1:
            data = data[:at]
        case 2:
            data = b"".join(lines[:one] + lines[one + 1 :])
        case 3:
            data = b"".join([*lines[:two], lines[one], *lines[two:]])
        case 4:
            lines[one], lines[two] = lines[two], lines[one]
            data = b"".join(lines)
        case 5:
            data = data[:at] + data[at + end :]
        case 6:
            data = data[:at] + dice.randbytes(end % 5 + 1) + data[at:]
        case 7:
            data = b""
        case _:
            file.unlink()
            return
    file.write_bytes(data)


def first(path: Path, key: bytes | None) -> tuple[object, ...]:
    """Return the verdict of the product."""
    try:
        found = open_verifier(path, key).verify()
    except AuditTamperedError as error:
        return ("bad", error.facts["seq"])
    return ("good", found.head_seq, found.head_hash)


def second(path: Path, key: bytes | None) -> tuple[object, ...]:
    """Return the verdict of the reader that knows only the page."""
    try:
        found = read_files(path, key)
    except BadLogError as error:
        return ("bad", error.seq)
    return ("good", *found.head)


def test_random_damage(log: Path, tmp_path: Path) -> None:
    """They name the same entry with the key; without it the second is as strict."""
    dice = random.Random(2)
    for number in range(COUNT):
        copy = tmp_path / str(number)
        shutil.copytree(log, copy)
        damage(copy, dice)
        path = copy / "audit.log"

        assert first(path, KEY) == second(path, KEY), number
        # Without it, the form of members is checked by the second one alone.
        assert "bad" == second(path, None)[0] or "good" == first(path, None)[0], number
        shutil.rmtree(copy)
