# SPDX-License-Identifier: MIT
"""The first screen of the README does what it says, also pasted at once."""

import re
from pathlib import Path

from tests.e2e.newcomer import Newcomer, sh_blocks
from tests.support import REPOSITORY, require_program


def test_first_screen(tmp_path: Path) -> None:
    """
    A server starts, four commands wait for it, and each prints what it says.
    """
    require_program("bash")
    _, serve, use, _ = sh_blocks((REPOSITORY / "README.md").read_text())
    newcomer = Newcomer(tmp_path / "clone")
    profile = Path(newcomer.home, ".config/ferrohsm/dev.toml")
    end = f"test -e {profile}\nkill $!\nwait $!\n"

    status, told = newcomer.run(serve + use + end)

    assert 0 == status, told
    for promised in re.findall(r"  # (.+)$", use, re.MULTILINE):
        assert promised in told
    assert not profile.exists()
