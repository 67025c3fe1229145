# SPDX-License-Identifier: MIT
"""Tests of what the other tests rely on."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import (
    REPOSITORY,
    require_mounts,
    require_program,
    require_service,
    vectors_folder,
)


class TestRequireService:
    def test_present(self) -> None:
        """
        Nothing happens when the thing is there.
        """
        require_service("something", "/a/path")

    def test_absent_skips(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """
        An absent thing skips the test and says which thing it is.
        """
        monkeypatch.delenv("FERROHSM_REQUIRE_SERVICES", raising=False)

        with pytest.raises(pytest.skip.Exception, match="something is not available"):
            require_service("something", None)

    def test_absent_but_required(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """
        Where services are required, an absent one fails the test.
        """
        monkeypatch.setenv("FERROHSM_REQUIRE_SERVICES", "1")

        with pytest.raises(pytest.fail.Exception, match="something is not available"):
            require_service("something", None)

    def test_absent_program(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """
        A program that is not on the PATH is named.
        """
        monkeypatch.delenv("FERROHSM_REQUIRE_SERVICES", raising=False)

        with pytest.raises(pytest.skip.Exception, match="no-such-program"):
            require_program("no-such-program")


class TestVectorsFolder:
    def test_present(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        """
        A set is a folder below the one that the environment names.
        """
        monkeypatch.setenv("FERROHSM_VECTORS", str(tmp_path))
        (tmp_path / "some-set").mkdir()

        assert tmp_path / "some-set" == vectors_folder("some-set")

    @pytest.mark.parametrize("value", [None, "", "/no/such/folder"])
    def test_absent(self, monkeypatch: pytest.MonkeyPatch, value: str | None) -> None:
        """
        Without the folder the test is skipped, whatever the variable says.
        """
        monkeypatch.delenv("FERROHSM_REQUIRE_SERVICES", raising=False)
        if value is None:
            monkeypatch.delenv("FERROHSM_VECTORS", raising=False)
        else:
            monkeypatch.setenv("FERROHSM_VECTORS", value)

        with pytest.raises(pytest.skip.Exception, match="some-set"):
            vectors_folder("some-set")


class TestRequireMounts:
    def test_possible(self) -> None:
        """Where nothing speaks against it, the test goes on."""
        require_mounts("")

    def test_impossible_skips(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Where the kernel forbids it, the test is skipped with the reason."""
        monkeypatch.delenv("FERROHSM_REQUIRE_MOUNTS", raising=False)

        with pytest.raises(pytest.skip.Exception, match="only root may"):
            require_mounts("only root may")

    def test_impossible_but_required(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Where it was found to work, a test can't pass by skipping."""
        monkeypatch.setenv("FERROHSM_REQUIRE_MOUNTS", "1")

        with pytest.raises(pytest.fail.Exception, match="only root may"):
            require_mounts("only root may")


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
