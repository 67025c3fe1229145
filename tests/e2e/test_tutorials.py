# SPDX-License-Identifier: MIT
"""The tutorials do what they say, typed from their first block to their last."""

import re
from pathlib import Path
from typing import Final

import pytest

from tests.e2e.newcomer import Newcomer, packed_secrets, sh_blocks
from tests.support import REPOSITORY, require_program

_TUTORIALS: Final = REPOSITORY / "docs" / "tutorial"
_READY: Final = """
for _ in $(seq 600); do
  [ -e ~/.config/ferrohsm/dev.toml ] && break
  sleep 0.1
done
"""
"""What a reader does when a server has been started: wait until it says so."""
_SECONDS: Final = 150.0


@pytest.fixture
def newcomer(tmp_path: Path) -> Newcomer:
    """Give somebody who has just cloned the repository."""
    require_program("bash")
    return Newcomer(tmp_path / "clone")


def text_of(name: str) -> str:
    """Return the text of a tutorial."""
    return (_TUTORIALS / f"{name}.md").read_text()


def test_newcomer(newcomer: Newcomer) -> None:
    """A development server is started, used and stopped."""
    script = "".join(sh_blocks(text_of("newcomer")))
    assert "hsm-server --dev &\n" in script

    status, told = newcomer.run(
        "set -m\n" + script.replace("--dev &\n", f"--dev &\n{_READY}"), _SECONDS
    )

    assert 0 == status, told
    assert "Valid signature" in told
    assert "exit code 6" in told
    assert "attack at dawn" in told
    assert "intact" in told
    assert not Path(newcomer.home, ".config/ferrohsm/dev.toml").exists()


def test_operator_approver_and_auditor(newcomer: Newcomer) -> None:
    """One HSM is created, governed by two people and verified by a third."""
    blocks = sh_blocks(text_of("operator"))
    (serves,) = [n for n, block in enumerate(blocks) if "hsm-server serve" in block]

    with newcomer.serving("".join(blocks[: serves + 1])):
        status, told = newcomer.run("".join(blocks[serves + 1 :]), _SECONDS)
        assert 0 == status, told
        assert "otto" in told
        assert "audit.sqlite" in told

        status, told = newcomer.run("".join(sh_blocks(text_of("approver"))), _SECONDS)
        assert 0 == status, told
        assert ["11", "11", "11", "6", "13"] == re.findall(r"exit code (\d+)", told)
        assert "retired in CHG-411" in told
        assert "Valid signature" in told

        status, told = newcomer.run("".join(sh_blocks(text_of("auditor"))), _SECONDS)
        assert 0 == status, told
        assert ["3", "7"] == re.findall(r"exit code (\d+)", told)
        assert re.search(r"DestroyKey +approval_required +ada", told)
        assert re.search(r"Approve +ok +grace", told)
        assert re.search(r"Deny +ok +grace", told)
        assert "every MAC and the hash chain" in told
        assert re.search(r"record \d+", told)
    assert [] == packed_secrets(newcomer.folder / "tutorial" / "hsm" / "data")
