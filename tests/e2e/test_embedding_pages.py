# SPDX-License-Identifier: MIT
"""What the pages about an HSM inside a program show is what programs print."""

from __future__ import annotations

import inspect
import os
import re
import shlex
from pathlib import Path

import pytest

from hsm_cli.main import run
from hsm_core.pytest_plugin import clock, hsm
from tests.support import REPOSITORY

__all__ = ["clock", "hsm"]  # older editable installations lack the entry point

PAGES = ("packages/hsm-core/README.md", "docs/tutorial/embed-the-hsm.md")
BLOCK = re.compile(r"```(python|sh)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PRINTED = re.compile(r"^.*(?:print|run)\(.*\)  # (.+)$", re.MULTILINE)


@pytest.mark.parametrize("page", PAGES)
def test_page(
    page: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    request: pytest.FixtureRequest,
) -> None:
    """Every program of a page runs after the ones before it, as it says."""
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("FERROHSM_")]:
        monkeypatch.delenv(name)

    for language, source in BLOCK.findall((REPOSITORY / page).read_text()):
        if language == "sh":
            assert run(shlex.split(source)[1:]) == 0
            assert "intact" in capsys.readouterr().out
            continue
        names: dict[str, object] = {"__name__": "__main__"}
        exec(compile(source, page, "exec"), names)  # noqa: S102 (our own page)
        shown = capsys.readouterr().out.splitlines()
        tests = [test for name, test in names.items() if name.startswith("test_")]
        for test in tests:
            run_test(test, request)
        assert PRINTED.findall(source) == shown, source
        assert shown or tests


def run_test(test: object, request: pytest.FixtureRequest) -> None:
    """Run a test of a page with the fixtures that it names."""
    assert callable(test)
    fixtures = inspect.signature(test).parameters
    test(**{name: request.getfixturevalue(name) for name in fixtures})
