# SPDX-License-Identifier: MIT
"""``eval "$(./dev shell)"`` puts the commands on PATH, in each shell."""

import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from tests.support import REPOSITORY, require_program

SHELLS: Final = {
    "dash": 'eval "$(./dev shell)"',
    "bash": 'eval "$(./dev shell)"',
    "zsh": 'eval "$(./dev shell)"',
    "fish": 'eval "$(./dev shell)"',
    "fish, from a pipe": "./dev shell | source",
}
SYSTEM: Final = "/usr/local/bin:/usr/bin:/bin"
TOOLS: Final = next(
    line.partition("=")[2].strip("'")
    for line in (REPOSITORY / "dev").read_text().splitlines()
    if line.startswith("tools=")
)


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """Give a clone, in a folder with an awkward name, that is installed already."""
    folder = tmp_path / "ada's clone"
    programs = folder / ".venv" / "bin"
    programs.mkdir(parents=True)
    (folder / "dev").symlink_to(REPOSITORY / "dev")
    (folder / ".venv" / ".tools").write_text(TOOLS + "\n")
    (folder / ".venv" / ".installed").touch()
    # An environment can be installed in no less than ten seconds. This one has pip.
    for name, text in (
        ("python", f'case $* in "-m pip"*) ;; *) exec {sys.executable} "$@" ;; esac'),
        ("hsm-cli", 'echo "hsm-cli of the clone, with $1"'),
    ):
        (programs / name).write_text(f"#!/bin/sh\n{text}\n")
        (programs / name).chmod(0o755)
    return folder


def typed(shell: str, text: str, clone: Path, path: str = SYSTEM) -> str:
    """Type lines into a shell in the clone, and return what it prints."""
    program = require_program(shell.partition(",")[0])
    done = subprocess.run(
        [program, "-c", text],
        cwd=clone,
        env={"PATH": path, "HOME": str(clone)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return f"{done.returncode}\n{done.stdout}{done.stderr}"


@pytest.mark.parametrize("shell", SHELLS)
def test_commands_are_found(shell: str, clone: Path) -> None:
    """After the line, a command of the clone runs by its name, and others still do."""
    lines = f"{SHELLS[shell]}\nhsm-cli words\nls dev"

    assert "0\nhsm-cli of the clone, with words\ndev\n" == typed(shell, lines, clone)


@pytest.mark.parametrize("shell", SHELLS)
def test_path_grows_once(shell: str, clone: Path) -> None:
    """A line that is typed twice changes PATH once."""
    lines = f'{SHELLS[shell]}\n{SHELLS[shell]}\necho "$PATH"'

    assert f"0\n{clone}/.venv/bin:{SYSTEM}\n" == typed(shell, lines, clone)


@pytest.mark.parametrize("shell", ["dash", "bash", "zsh", "fish"])
def test_failure_is_passed_on(shell: str, clone: Path) -> None:
    """If it can't install, it says so on stderr, and the line fails in the shell."""
    (clone / ".venv" / "bin" / "python").unlink()
    (clone / "bin").mkdir()
    for name in ("dirname", "rm", "sed", "sh"):
        (clone / "bin" / name).symlink_to(require_program(name))

    told = typed(shell, SHELLS[shell], clone, path=str(clone / "bin"))

    assert told.startswith("1\n")
    assert "no Python 3.11 or newer found" in told
