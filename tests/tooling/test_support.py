# SPDX-License-Identifier: MIT
"""Tests of what the other tests rely on."""

from pathlib import Path

import pytest

from tests.support import (
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
