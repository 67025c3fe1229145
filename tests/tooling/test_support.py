# SPDX-License-Identifier: MIT
"""Tests of what the other tests rely on."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support import (
    REPOSITORY,
    require_mounts,
    require_program,
    require_service,
    vectors_folder,
)

NEEDS: dict[str, Callable[[], object]] = {
    "something": lambda: require_service("something", None),
    "no-such-program": lambda: require_program("no-such-program"),
    "some-set": lambda: vectors_folder("some-set"),
    "only root may": lambda: require_mounts("only root may"),
}
"""What is not there, by the word that names it."""


@pytest.mark.parametrize("name", NEEDS)
@pytest.mark.parametrize("vectors", ["", "/no/such/folder"])
def test_absent(monkeypatch: pytest.MonkeyPatch, name: str, vectors: str) -> None:
    """What is absent skips a test, or fails it where nothing may be, and is named."""
    monkeypatch.setenv("FERROHSM_VECTORS", vectors)
    for variable in ("FERROHSM_REQUIRE_SERVICES", "FERROHSM_REQUIRE_MOUNTS"):
        monkeypatch.delenv(variable, raising=False)
    with pytest.raises(pytest.skip.Exception, match=name):
        NEEDS[name]()
    for variable in ("FERROHSM_REQUIRE_SERVICES", "FERROHSM_REQUIRE_MOUNTS"):
        monkeypatch.setenv(variable, "1")
    with pytest.raises(pytest.fail.Exception, match=name):
        NEEDS[name]()


def test_present(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What is there is no reason to skip; vectors are a folder of the named one."""
    monkeypatch.setenv("FERROHSM_VECTORS", str(tmp_path))
    (tmp_path / "some-set").mkdir()

    require_service("something", "/a/path")
    require_mounts("")
    assert tmp_path / "some-set" == vectors_folder("some-set")


def test_programs_heed_signals_under_nohup() -> None:
    """
    What tests start does not ignore signals, though the tests were started so.
    """
    code = (
        "import subprocess, tests.conftest; "
        "subprocess.run(['grep', 'SigIgn', '/proc/self/status'])"
    )
    told = subprocess.run(
        [
            *("/bin/sh", "-c", "trap '' HUP INT QUIT; exec \"$@\"", "sh"),
            *(sys.executable, "-c", code),
        ],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=True,
    ).stdout

    # The first three are SIGHUP, SIGINT and SIGQUIT.
    assert 0 == int(told.split()[1], 16) & 0b111
