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
SECTION = re.compile(r"^## ([^\n]*)\n(.*?)(?=^## |\Z)", re.MULTILINE | re.DOTALL)
BLOCK = re.compile(r"^```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(title: str) -> list[str]:
    """Return the shell blocks of a section."""
    (text,) = [body for name, body in SECTION.findall(README) if name == title]
    return BLOCK.findall(text)


(START,) = blocks("Start a server that stays")
(CLIENT,) = blocks("Use the client")


@pytest.fixture
def newcomer(tmp_path: Path) -> Newcomer:
    """Give somebody who has just cloned the repository."""
    require_program("openssl")
    require_program("bash")
    return Newcomer(tmp_path / "clone")


@pytest.fixture
def lasting(newcomer: Newcomer) -> Iterator[subprocess.Popen[bytes]]:
    """Give the server that the README's block starts."""
    with newcomer.start(START) as shell:
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
    status, told = newcomer.run(CLIENT)

    assert 0 == status, told
    assert "The signature is good; version 1 made it." in told
    assert "Attack at dawn." in told
    assert "intact" in told
    assert (newcomer.folder / "README.sig").stat().st_size > 60


def test_certificates_of_a_ca(
    newcomer: Newcomer, lasting: subprocess.Popen[bytes]
) -> None:
    """
    With the keys of the first server, it lets in clients of its CA, and nobody else.
    """
    require_program("curl")
    serve, ask = blocks("Use certificates of a CA")
    newcomer.run(CLIENT)
    os.killpg(lasting.pid, signal.SIGINT)
    lasting.communicate(timeout=READY_SECONDS)
    with newcomer.start(serve) as shell:
        try:
            newcomer.wait_until_it_listens(shell)
            refused, why = newcomer.run("curl -sSk https://localhost:8443/livez")
            status, told = newcomer.run(ask)
        finally:
            os.killpg(shell.pid, signal.SIGTERM)
            shell.communicate(timeout=READY_SECONDS)

    assert 0 == status, told
    assert "release" in told
    assert '"status":"ok"' in told
    assert "ferrohsm_rate_limit_allowed_total" in told
    assert (56, True) == (refused, "certificate required" in why), why


def test_server_of_the_readme_ends_in_order(
    newcomer: Newcomer, lasting: subprocess.Popen[bytes]
) -> None:
    """
    The server warns of nothing, ends at Ctrl-C, and can be started again.
    """
    os.killpg(lasting.pid, signal.SIGINT)
    lasting.communicate(timeout=READY_SECONDS)
    again = START.partition("done\n")[2]

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
