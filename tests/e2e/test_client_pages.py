# SPDX-License-Identifier: MIT
"""What the pages about `hsm_client` show is what programs print."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.processes import ServerProcess, program
from tests.support import REPOSITORY

PAGES = ("packages/hsm-client/README.md", "docs/how-to/use-an-hsm-from-python.md")
BLOCK = re.compile(r"(-->\n)?```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PRINTED = re.compile(r"^ *print\(.*\)  # (.+)$", re.MULTILINE)


def read(page: str) -> str:
    """Return the text of a page."""
    return (REPOSITORY / page).read_text()


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Give the folder of a user who has started a development server."""
    home = tmp_path_factory.mktemp("home")
    kept = {k: v for k, v in os.environ.items() if not k.startswith("FERROHSM_")}
    kept |= {"XDG_CONFIG_HOME": str(home / "config"), "TMPDIR": str(home)}
    command = [*program("hsm-server"), "--dev"]
    with ServerProcess(command, kept, home / "server.log") as server:
        server.wait_ready()
        yield home
        server.stop()


@pytest.mark.parametrize("page", PAGES)
def test_page(
    page: str,
    home: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Every program of a page runs after the ones before it, as it says."""
    for name in [name for name in os.environ if name.startswith("FERROHSM_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(home / "config"))
    programs = [source for why, source in BLOCK.findall(read(page)) if not why]
    assert programs
    for source in programs:
        expected = PRINTED.findall(source)
        assert expected
        exec(compile(source, page, "exec"), {"__name__": "__main__"})  # noqa: S102
        assert expected == capsys.readouterr().out.splitlines(), source
