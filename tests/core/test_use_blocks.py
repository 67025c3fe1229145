# SPDX-License-Identifier: MIT
"""No use of a material is counted twice, whatever is killed or put back."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from hsm_core import errors
from hsm_core import operations as ops
from hsm_core.testing import caller
from tests.core.changed_stores import DATA, Data, session_on
from tests.core.use_blocks_child import LIMIT, opened
from tests.support import REPOSITORY

KILLS = 54 if os.environ.get("FERROHSM_FAULTS") == "1" else 6
RESTORES = 3


def kill(data: Data, first: int, last: int) -> None:
    """Let the HSM be killed so many times while a key is used."""
    names = data.folder, data.kind.value, first, last
    subprocess.run(
        [sys.executable, "-m", "tests.core.use_blocks_child", *map(str, names)],
        cwd=REPOSITORY,
        check=True,
    )


def restore(data: Data, name: str) -> None:
    """Put an older copy of the store back, counters too, and accept it."""
    data.keep(name)
    with opened(data) as gateway:
        session_on(gateway).rotate("other")
        session_on(gateway).encrypt("key", b"m")
    data.restore_store(name)

    with opened(data) as gateway:
        session = session_on(gateway)
        assert "locked" == session.status().state
        gateway.act_as(caller()).execute(ops.RecoverStore(reason="restored"))
        with pytest.raises(errors.KeyTamperedError, match="rotate"):
            session.encrypt("key", b"m")
        session.rotate("key")
        assert "operational" == session.status().state


@pytest.mark.parametrize("kind", DATA, ids=lambda kind: kind.kind.value)
def test_kills_and_restores(kind: type[Data], tmp_path: Path) -> None:
    """Each use has its own number, and the limit is reached exactly."""
    data = kind(tmp_path / "data")
    data.folder.mkdir(mode=0o700)
    with opened(data) as gateway:
        for name in ("key", "other"):
            session_on(gateway).create_key("aes", name=name)
    step = KILLS // RESTORES
    for number in range(RESTORES):
        kill(data, number * step, (number + 1) * step)
        restore(data, f"copy-{number}")
    kill(data, KILLS, KILLS + step)

    used = (tmp_path / "used").read_text().splitlines()
    assert len(used) == len(set(used))
    assert RESTORES + 1 == len({line.split()[0] for line in used})

    with opened(data) as gateway:
        session = session_on(gateway)
        shown = session.describe("key").use
        assert shown is not None
        last = max(int(line.split()[1]) for line in used[-1:])
        assert last <= shown.uses
        for _ in range(LIMIT - shown.uses):
            session.encrypt("key", b"m")
        with pytest.raises(errors.UseLimitError):
            session.encrypt("key", b"m")
        shown = session.describe("key").use
        assert shown is not None
        assert LIMIT == shown.uses
    with opened(data) as gateway, pytest.raises(errors.UseLimitError):
        session_on(gateway).encrypt("key", b"m")
