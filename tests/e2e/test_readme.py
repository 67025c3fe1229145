# SPDX-License-Identifier: MIT
"""The blocks of the README do what they say, typed into a shell one after the other."""

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.newcomer import (
    CLIENT,
    READY_SECONDS,
    SHELL,
    START,
    Newcomer,
    packed_secrets,
    readme_blocks,
)
from tests.support import require_program


@pytest.fixture
def newcomer(tmp_path: Path) -> Newcomer:
    """Give somebody who has just cloned the repository."""
    require_program("openssl")
    require_program("bash")
    return Newcomer(tmp_path / "clone")


@pytest.fixture
def lasting(newcomer: Newcomer) -> Iterator[subprocess.Popen[bytes]]:
    """Give the server that the README's block starts."""
    with newcomer.serving() as shell:
        yield shell


def test_client_blocks_and_certificates_of_a_ca(
    newcomer: Newcomer, lasting: subprocess.Popen[bytes]
) -> None:
    """
    The client's blocks work; with certificates of a CA only its clients are let in.
    """
    require_program("curl")
    serve, ask = readme_blocks("Use certificates of a CA")

    status, told = newcomer.run(SHELL + CLIENT)

    assert 0 == status, told
    assert "Valid signature: " in told
    assert "Attack at dawn." in told
    assert "intact" in told
    assert (newcomer.folder / "README.sig").stat().st_size > 60
    assert [] == packed_secrets(newcomer.folder / "data")
    os.killpg(lasting.pid, signal.SIGINT)
    lasting.communicate(timeout=READY_SECONDS)
    with newcomer.serving(serve):
        refused, why = newcomer.run("curl -sSk https://localhost:8443/livez")
        status, told = newcomer.run(ask)

    assert 0 == status, told
    assert "release" in told
    assert '"status":"ok"' in told
    assert "ferrohsm_rate_limit_allowed_total" in told
    assert (56, True) == (refused, "certificate required" in why), why


def test_server_of_the_readme_ends_in_order(
    newcomer: Newcomer, lasting: subprocess.Popen[bytes]
) -> None:
    """
    The server ends at Ctrl-C, and the whole block starts it again without a warning.

    That replaces no file of the first time, be it edited or not.
    """
    with (newcomer.folder / "config/policy.yaml").open("a") as policy:
        policy.write("# edited\n")
    kept = _made(newcomer.folder)
    os.killpg(lasting.pid, signal.SIGINT)
    lasting.communicate(timeout=READY_SECONDS)

    with newcomer.start(START) as shell:
        told = newcomer.wait_until_it_listens(shell)
        os.killpg(shell.pid, signal.SIGTERM)
        shell.communicate(timeout=READY_SECONDS)

    assert kept == _made(newcomer.folder)
    assert 0 == lasting.returncode
    warnings = [line for line in told.splitlines() if b"warning" in line]
    assert [] == [line for line in warnings if b"run as root" not in line]
    assert b"listening on https://127.0.0.1:" in told
    assert [] == [p for p in (newcomer.folder / "data").rglob("*") if is_open(p)]


def _made(folder: Path) -> dict[Path, bytes]:
    folders = ("certs", "config", "secrets")
    return {p: p.read_bytes() for name in folders for p in (folder / name).iterdir()}


def is_open(path: Path) -> bool:
    """Return whether others than the owner may do anything with a path."""
    return bool(path.lstat().st_mode & 0o077)
