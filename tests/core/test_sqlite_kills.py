# SPDX-License-Identifier: MIT
"""A process killed before any change of a file leaves a whole store, old or new."""

from __future__ import annotations

import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from hsm_core._internal.stores.sqlite.keys import SqliteKeyStore
from tests.core.filesystem_support import SCENARIOS, seen
from tests.core.key_support import operation_of
from tests.core.sqlite_support import copy_of, keys_template
from tests.core.sqlite_sweep import CALLS, LAST
from tests.support import REPOSITORY, require_program


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_kill_before_every_call(tmp_path: Path, scenario: str) -> None:
    """
    SIGKILL before each call that changes a file: old or new, whole, and it goes on.
    """
    template = keys_template(tmp_path / "template" / "keys.sqlite")
    strace = [require_program("strace"), "-f", "-qq", "-o", "/dev/null"]
    rule = f"inject={','.join(CALLS)}:signal=SIGKILL:when={LAST}"
    program = [sys.executable, "-m", "tests.core.sqlite_sweep"]
    answer = subprocess.run(
        [*strace, "-e", rule, *program, str(template), str(tmp_path), scenario],
        cwd=REPOSITORY,
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    with closing(SqliteKeyStore(copy_of(template, tmp_path / "whole"))) as store:
        old = seen(store)
        SCENARIOS[scenario](store)
        new = seen(store)
    for line in answer.stdout.splitlines():
        call, killed = line.split()
        kept = []
        for number in range(1, int(killed) + 1):
            path = tmp_path / f"{call}-{number}" / "keys.sqlite"
            with closing(SqliteKeyStore(path)) as store:
                store.database.verify()
                made = store.find_operation(operation_of(90)) is not None
                assert (new if made else old) == seen(store)
                if not made:
                    SCENARIOS[scenario](store)
                    assert new == seen(store)
            kept.append(made)

        assert sorted(kept) == kept
        assert kept[-1], call
        assert call in {"ftruncate", "unlink"} or not kept[0]
        assert len(kept) < LAST - 1
