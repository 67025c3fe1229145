# SPDX-License-Identifier: MIT
"""Somebody who has just cloned the repository, and types what a page says."""

import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Final

from tests.support import REPOSITORY

__all__ = ["DEFAULT_PORT", "READY_SECONDS", "Newcomer"]

DEFAULT_PORT: Final = "8443"
READY_SECONDS: Final = 60.0


def _free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


class Newcomer:
    """Has a clone in which everything is installed, and a free port."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = _free_port()
        (folder / ".venv").mkdir(parents=True)
        (folder / ".venv" / "bin").symlink_to(Path(sys.executable).parent)
        (folder / "README.md").symlink_to(REPOSITORY / "README.md")
        (folder / "examples").symlink_to(REPOSITORY / "examples")
        # Installing is what the environment of this test has done already.
        (folder / "dev").write_text('#!/bin/sh\n[ "$1" = install ]\n')
        (folder / "dev").chmod(0o755)

    def start(self, text: str) -> subprocess.Popen[bytes]:
        """Type a block into a fresh shell, with the default port made free."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith("FERROHSM_")}
        return subprocess.Popen(
            ["bash", "-O", "expand_aliases", "-e", "-c", self._with_port(text)],
            cwd=self.folder,
            env=kept | {"FERROHSM_BIND": f"127.0.0.1:{self.port}"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            # The server is a child of the shell: both are ended together.
            start_new_session=True,
        )

    def run(self, text: str) -> tuple[int, str]:
        """Type a block, wait for its end, and return status and output."""
        with self.start(text) as shell:
            told, _ = shell.communicate(timeout=READY_SECONDS)
        return shell.returncode, told.decode()

    def wait_until_it_listens(self, shell: subprocess.Popen[bytes]) -> bytes:
        """Wait for a server, and return what it has printed."""
        told = b""
        assert shell.stdout is not None
        while b"listening on" not in told:
            line = shell.stdout.readline()
            assert line, told
            told += line
        return told

    def _with_port(self, text: str) -> str:
        return text.replace(f":{DEFAULT_PORT}", f":{self.port}")
