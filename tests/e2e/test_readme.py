# SPDX-License-Identifier: MIT
"""The blocks of the README do what they say, typed into a shell one after the other."""

import os
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.newcomer import READY_SECONDS, Newcomer
from tests.support import REPOSITORY, require_program

README = (REPOSITORY / "README.md").read_text()
BLOCK = re.compile(r"^## ([^\n]*)\n\n```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def block(title: str) -> str:
    """Return the shell block that a section begins with."""
    (text,) = [found[2] for found in BLOCK.finditer(README) if found[1] == title]
    return text


@pytest.fixture
def newcomer(tmp_path: Path) -> Newcomer:
    """Give somebody who has just cloned the repository."""
    require_program("openssl")
    require_program("bash")
    return Newcomer(tmp_path / "clone")


@pytest.fixture
def lasting(newcomer: Newcomer) -> Iterator[subprocess.Popen[bytes]]:
    """Give the server that the README's block starts."""
    with newcomer.start(block("Start a server that stays")) as shell:
        try:
            newcomer.wait_until_it_listens(shell)
            yield shell
        finally:
            if shell.poll() is None:
                os.killpg(shell.pid, signal.SIGTERM)
                shell.communicate(timeout=READY_SECONDS)


def test_server_and_client_blocks(
    newcomer: Newcomer, lasting: subprocess.Popen[bytes]
) -> None:
    """
    The server of the first block serves the client of the second.
    """
    status, told = newcomer.run(block("Use the client"))

    assert 0 == status, told
    assert "The signature is good; version 1 made it." in told
    assert "Attack at dawn." in told
    assert "intact" in told
    assert (newcomer.folder / "README.sig").stat().st_size > 60


def test_certificates_of_a_ca(newcomer: Newcomer) -> None:
    """
    The command line of the original lets in clients of its CA, and nobody else.
    """
    require_program("curl")
    here = f"https://localhost:{newcomer.port}/livez"
    ask = f"curl -sS --cacert certs/ca.pem {here}"
    with newcomer.start(block("Use certificates of a CA")) as shell:
        try:
            newcomer.wait_until_it_listens(shell)
            refused, why = newcomer.run(ask)
            status, told = newcomer.run(
                f"{ask} --cert certs/client.pem --key certs/client-key.pem"
            )
        finally:
            os.killpg(shell.pid, signal.SIGTERM)
            shell.communicate(timeout=READY_SECONDS)

    assert (0, True) == (status, '"status":"ok"' in told), told
    assert (56, True) == (refused, "certificate required" in why), why


def test_server_of_the_readme_ends_in_order(
    newcomer: Newcomer, lasting: subprocess.Popen[bytes]
) -> None:
    """
    The server warns of nothing, ends at Ctrl-C, and can be started again.
    """
    os.killpg(lasting.pid, signal.SIGINT)
    lasting.communicate(timeout=READY_SECONDS)
    again = block("Start a server that stays").partition("done\n")[2]

    with newcomer.start(again) as shell:
        told = newcomer.wait_until_it_listens(shell)
        os.killpg(shell.pid, signal.SIGTERM)
        shell.communicate(timeout=READY_SECONDS)

    assert 0 == lasting.returncode
    assert b"warning" not in told
    assert b"listening on https://127.0.0.1:" in told
    assert [] == [p for p in (newcomer.folder / "data").rglob("*") if is_open(p)]


def is_open(path: Path) -> bool:
    """Return whether others than the owner may do anything with a path."""
    return bool(path.lstat().st_mode & 0o077)
