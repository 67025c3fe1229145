# SPDX-License-Identifier: MIT
"""A fresh clone, and a shell in which the blocks of pages are typed."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from tests.support import REPOSITORY, free_port

__all__ = [
    "DEFAULT_PORT",
    "READY_SECONDS",
    "SHELL",
    "SIGN_IN",
    "START",
    "WAIT",
    "Newcomer",
    "packed_secrets",
    "sh_blocks",
]

DEFAULT_PORT: Final = "8443"
READY_SECONDS: Final = 60.0
_DEV: Final = """\
#!/bin/sh
case $1 in
shell) echo "export PATH=$PWD/.venv/bin:\\$PATH" ;;
install | demo) ;;
*) exit 2 ;;
esac
"""
"""The task runner, where everything is installed: tests/tooling/test_dev.py has it."""
_SECRET: Final = re.compile(rb"\A[A-Za-z0-9+/]{43}=\s*\Z|PRIVATE KEY")

_BLOCK: Final = re.compile(r"^```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def sh_blocks(text: str) -> list[str]:
    """Return the shell blocks of a document."""
    return _BLOCK.findall(text)


START, SIGN_IN, SHELL, _FOLDER = sh_blocks(
    (REPOSITORY / "docs" / "how-to" / "index.md").read_text()
)
"""What a reader of the guides types first, in two terminals."""
WAIT: Final = SHELL[SHELL.index("wait_until()") :]


class Newcomer:
    """A user with a fresh clone in which everything is installed, and a free port."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        folder.mkdir(parents=True)
        self.log = folder.parent / "server.txt"
        self.home = str(folder.parent / "home")
        (folder / ".venv").symlink_to(sys.prefix)
        (folder / "README.md").symlink_to(REPOSITORY / "README.md")
        (folder / "examples").symlink_to(REPOSITORY / "examples")
        # Installing is what the environment of this test has done already.
        (folder / "dev").write_text(_DEV)
        (folder / "dev").chmod(0o755)

    def start(
        self, text: str, stdout: int = subprocess.PIPE
    ) -> subprocess.Popen[bytes]:
        """Type a block into a fresh shell, with the default port made free."""
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("FERROHSM_", "XDG_"))
        }
        return subprocess.Popen(
            ["bash", "-O", "expand_aliases", "-e", "-c", self._with_port(text)],
            cwd=self.folder,
            env=kept | {"FERROHSM_BIND": f"127.0.0.1:{self.port}", "HOME": self.home},
            stdout=stdout,
            stderr=subprocess.STDOUT,
            # The server is a child of the shell: both are ended together.
            start_new_session=True,
        )

    def run(self, text: str, timeout: float = READY_SECONDS) -> tuple[int, str]:
        """Type a block, wait for its end, and return status and output."""
        with self.start(text) as shell:
            try:
                told, _ = shell.communicate(timeout=timeout)
            finally:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(shell.pid, signal.SIGTERM)
        return shell.returncode, told.decode()

    @contextlib.contextmanager
    def serving(self, text: str = START) -> Iterator[subprocess.Popen[bytes]]:
        """
        Type a block that ends with a server, and give its shell while it listens.

        It prints into a file: a pipe that nobody reads would stop it when it is full.
        """
        with self.log.open("wb") as log, self.start(text, log.fileno()) as shell:
            try:
                self.wait_until_it_listens(shell)
                yield shell
            finally:
                if shell.poll() is None:
                    os.killpg(shell.pid, signal.SIGTERM)
                    shell.wait(READY_SECONDS)

    def wait_until_it_listens(self, shell: subprocess.Popen[bytes]) -> None:
        """Wait for a server."""
        while "listening on" not in self.log.read_text():
            assert shell.poll() is None, self.log.read_text()
            time.sleep(0.02)

    def _with_port(self, text: str) -> str:
        return text.replace(f":{DEFAULT_PORT}", f":{self.port}")


def packed_secrets(data: Path) -> list[str]:
    """Return the names of files below a folder that hold a secret or private key."""
    return [
        path.name
        for path in data.rglob("*")
        if path.is_file() and _SECRET.search(path.read_bytes())
    ]
