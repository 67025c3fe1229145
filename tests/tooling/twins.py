# SPDX-License-Identifier: MIT
"""
Writes the blocking objects of ``hsm_core.users`` from ``hsm_core.async_users``.

Run ``python -m tests.tooling.twins`` after a change of the asynchronous ones.
"""

from __future__ import annotations

import re
import subprocess
import sys
from typing import Final

from tests.support import REPOSITORY

_FOLDER: Final = REPOSITORY / "packages/hsm-core/src/hsm_core"
SOURCE: Final = _FOLDER / "async_users.py"
TWIN: Final = _FOLDER / "users.py"

_HEAD: Final = re.compile(r'"""\n.*?\n"""\n', re.DOTALL)
_TWIN_HEAD: Final = '''"""
Keys as objects: `User` and `Key`.

Generated from ``hsm_core.async_users``: change that, then run ``python -m
tests.tooling.twins``.
"""
'''


def blocking(source: str) -> str:
    """Return the blocking twin of the source of asynchronous objects."""
    text = _HEAD.sub(_TWIN_HEAD, source, count=1)
    text = re.sub(r"\(await (\w[\w.]*\([^()]*(?:\([^()]*\)[^()]*)*\))\)", r"\1", text)
    text = re.sub(r"\b(?:async|await) ", "", text)
    text = re.sub(r"for (\w+) in (.+):\n\s+yield \1\n", r"yield from \2\n", text)
    return _ruff(
        re.sub(r"\bAsync(?=[A-Z])", "", text),
        ["check", "--fix", "--quiet", "--exit-zero", "--select=I,RUF022"],
        ["format", "--quiet"],
    )


def _ruff(text: str, *commands: list[str]) -> str:
    for command in commands:
        program = [sys.executable, "-m", "ruff", *command, f"--stdin-filename={TWIN}"]
        done = subprocess.run(
            [*program, "-"], input=text, capture_output=True, text=True, check=True
        )
        text = done.stdout
    return text


if __name__ == "__main__":
    TWIN.write_text(blocking(SOURCE.read_text()))
