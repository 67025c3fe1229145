# SPDX-License-Identifier: MIT
"""A server does not start where randomness or its own cryptography is broken."""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from hsm_server.config.exit_codes import ExitCode
from tests.server.process import Site
from tests.support import require_program

_FAILING = (sys.executable, str(Path(__file__).with_name("without_randomness.py")))

_SABOTAGED = """
import sys
{fault}
from hsm_server.main import main
sys.argv[0] = "hsm-server"
main()
"""
_WRONG_AES = """
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hsm_core._internal.keyring import key_ring
class Garbling:
    def __init__(self, key):
        self._true = AESGCM(key)
        self.decrypt = self._true.decrypt
    def encrypt(self, nonce, data, aad):
        sealed = self._true.encrypt(nonce, data, aad)
        return sealed[:-1] + bytes([sealed[-1] ^ 1])
key_ring.AESGCM = Garbling
"""
_NO_SEALS = "import hsm_server.system.secret_handover as s; s._ALL_SEALS = 0"


def _refused(site: Site, command: Sequence[str]) -> str:
    """Start a server in vain; return the one line that says why."""
    done = subprocess.run(
        command,
        env=site.environment(),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    # As root there is a warning on missing users, and the log names the step.
    lines = done.stderr.splitlines()
    *steps, told = (line for line in lines if "hsm-server: warning: " not in line)
    assert all('"step": "self-tests"' in step for step in steps)

    assert ExitCode.SELF_TEST_FAILED == done.returncode
    assert "" == done.stdout
    assert [] == [path for path in site.folder.rglob("data/**/*") if path.is_file()]
    return told.removeprefix("hsm-server: error: ")


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
    told = _refused(site, [*before, *site.command()])

    assert told.startswith("The system's random generator failed its health test.")


@pytest.mark.parametrize(
    ("isolation", "fault", "message"),
    [
        ("inline", _WRONG_AES, "The self-test of the HSM's own cryptography failed"),
        ("process", _NO_SEALS, "The self-test of sealed memory files failed"),
    ],
)
def test_nothing_starts_with_wrong_cryptography(
    tmp_path: Path, isolation: str, fault: str, message: str
) -> None:
    """Sealing that failed its self-test ends the start with a code of its own."""
    site = Site(tmp_path, isolation)
    program = _SABOTAGED.format(fault=fault)
    told = _refused(site, [sys.executable, "-c", program, *site.command()[4:]])

    assert told.startswith(f"{message}: ")
