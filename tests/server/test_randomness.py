# SPDX-License-Identifier: MIT
"""A server whose operating system has no randomness to give does not start."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.server.process import Site
from tests.support import require_program

_FAILING = (sys.executable, str(Path(__file__).with_name("without_randomness.py")))


def _zeros() -> tuple[str, ...]:
    """Return how to run a program that is given zeros, one by one."""
    return (
        *(require_program("strace"), "-f", "-qq", "-o", "/dev/null", "--seccomp-bpf"),
        *("-e", "trace=getrandom"),
        *("-e", "inject=getrandom:retval=1:poke_exit=@arg1=00"),
    )


@pytest.mark.parametrize("isolation", ["process", "inline"])
@pytest.mark.parametrize("fault", ["fails", "zeros"])
def test_nothing_starts_without_randomness(
    tmp_path: Path, fault: str, isolation: str
) -> None:
    """Whether getrandom(2) fails or gives zeros: one line, and nothing is written."""
    site = Site(tmp_path, isolation)
    before = _FAILING if fault == "fails" else _zeros()
    done = subprocess.run(
        [*before, *site.command()],
        env=site.environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert 1 == done.returncode
    assert done.stderr.startswith(
        "hsm-server: error: The random generator is not healthy."
    )
    assert ("", 1) == (done.stdout, done.stderr.count("\n"))
    assert [] == [path for path in tmp_path.rglob("data/**/*") if path.is_file()]
