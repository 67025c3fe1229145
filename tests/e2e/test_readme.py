# SPDX-License-Identifier: MIT
"""The first screen of the README does what it says, typed line by line."""

import re
from pathlib import Path

from tests.e2e.newcomer import Newcomer, sh_blocks
from tests.support import REPOSITORY, require_program


def test_first_screen(tmp_path: Path) -> None:
    """
    A development server starts, four commands find it, and each prints what it says.
    """
    require_program("bash")
    _, serve, use, _ = sh_blocks((REPOSITORY / "README.md").read_text())
    newcomer = Newcomer(tmp_path / "clone")
    profile = Path(newcomer.home, ".config/ferrohsm/dev.toml")

    # A script ends with its last line; the shell of a reader does not.
    with newcomer.serving(f"{serve}wait\n"):
        assert profile.exists()
        status, told = newcomer.run(f"export PATH=$PWD/.venv/bin:$PATH\n{use}")

    assert 0 == status, told
    for promised in re.findall(r"  # (.+)$", use, re.MULTILINE):
        assert promised in told
    assert not profile.exists()
