# SPDX-License-Identifier: MIT
"""The tutorial does what it says, typed into two terminals."""

import os
import re
import signal
from pathlib import Path

import pytest

from tests.e2e.newcomer import READY_SECONDS, Newcomer, packed_secrets
from tests.support import REPOSITORY, require_program

TUTORIAL = REPOSITORY / "docs" / "tutorial" / "first-release.md"
BLOCK = re.compile(r"^```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.fixture
def newcomer(tmp_path: Path) -> Newcomer:
    """Give somebody who has just cloned the repository."""
    require_program("openssl")
    require_program("bash")
    return Newcomer(tmp_path / "clone")


def test_first_release(newcomer: Newcomer) -> None:
    """A release is signed after somebody agreed, and a forged trail is found out."""
    first, *rest = BLOCK.findall(TUTORIAL.read_text())

    with newcomer.start(first) as server:
        try:
            newcomer.wait_until_it_listens(server)
            status, told = newcomer.run("".join(rest))
        finally:
            os.killpg(server.pid, signal.SIGTERM)
            server.communicate(timeout=READY_SECONDS)

    assert 0 == status, told
    assert "exit code 11" in told
    assert "built from tag 1.0" in told
    assert "Valid signature: " in told
    assert "exit code 6" in told
    assert [
        ("Sign", "ada"),
        ("Approve", "grace"),
        ("Approve", "grace"),
        ("Sign", "ada"),
    ] == re.findall(r"^\d+ .*? (\w+) +\w+ +(ada|grace) ", told, re.MULTILINE)
    assert "intact" in told
    assert re.search(r"record \d+", told)
    assert told.rstrip().endswith("exit code 7")
    assert (newcomer.folder / "release" / "data" / "keys").is_dir()
    assert [] == packed_secrets(newcomer.folder / "release" / "data")
