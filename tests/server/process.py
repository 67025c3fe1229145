# SPDX-License-Identifier: MIT
"""A real server in a process of its own, spoken to over TLS."""

import contextlib
import http.client
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tests.server.support import PATIENCE, SECRET, Answer, Authority, b64, mint
from tests.support import overriding

MASTER = b64(b"\7" * 32)
"""Master key of these servers, as base64."""


class Site:
    """
    A folder with certificates and stores, and servers on it.

    Args:
        folder: Empty directory.

        isolation: Value of ``--isolation``.
    """

    def __init__(self, folder: Path, isolation: str = "process") -> None:
        folder.chmod(0o700)
        self._isolation = isolation
        self.folder = folder
        self.authority = Authority(folder)
        self.cert, self.key = self.authority.issue("server", server=True)
        self.keys, self.audit = folder / "data/keys", folder / "data/audit.log"

    def command(self, *arguments: str) -> list[str]:
        """Return the command that starts a server on a free port."""
        words = [
            *(sys.executable, "-I", "-m", "hsm_server", "--bind", "127.0.0.1:0"),
            *("--cert", str(self.cert), "--key", str(self.key)),
            *("--key-dir", str(self.keys), "--audit-log", str(self.audit)),
            *("--approval-dir", str(self.folder / "data/approvals")),
            *("--isolation", self._isolation),
            *("--rate-limit-per-second", "0", "--address-limit-per-second", "0"),
            *("--lockout-after", "0"),
            *arguments,
        ]
        return overriding(words)

    def environment(self, **changes: str) -> dict[str, str]:
        """Return the environment of a server, with its secrets."""
        return {
            "PATH": os.environ.get("PATH", ""),
            "FERROHSM_MASTER_KEY": MASTER,
            "FERROHSM_HMAC_KEY": b64(b"\10" * 32),
            "FERROHSM_JWT_SECRET": f"text:{SECRET.decode()}",
            **changes,
        }

    def fails(self, *arguments: str, **changes: str) -> tuple[int, str]:
        """
        Run a server that does not start; return its exit code and its message.

        Warnings are left out, as the one on missing users is for root, and the steps of
        the start in the log.
        """
        done = subprocess.run(
            self.command(*arguments),
            env=self.environment(**changes),
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert "Traceback" not in done.stderr
        assert "" == done.stdout
        lines = done.stderr.splitlines(keepends=True)
        told = [
            line
            for line in lines
            if not line.startswith("hsm-server: warning: ")
            and '"event": "starting"' not in line
        ]
        return done.returncode, "".join(told)

    @contextlib.contextmanager
    def serve(
        self,
        *arguments: str,
        variables: dict[str, str] | None = None,
        before: Sequence[str] = (),
        changes: Mapping[str, str] | None = None,
        descriptors: Sequence[int] = (),
        cwd: Path | None = None,
    ) -> Iterator["Running"]:
        """
        Run a server until the end of the block, then stop it.

        Args:
            arguments: More flags.

            variables: If given, all of its settings; it then has no flags.

            before: Command that executes the server's, which follows it.

            changes: More environment.

            descriptors: What it inherits beside its standard streams.

            cwd: Folder it runs in.
        """
        command = [*before, *self.command(*arguments)]
        environment = self.environment(**(changes or {}))
        if variables is not None:
            command, environment = [sys.executable, "-m", "hsm_server"], variables
        with (
            (self.folder / "log").open("ab") as log,
            subprocess.Popen(
                command,
                env=environment,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                pass_fds=descriptors,
                cwd=cwd,
            ) as process,
        ):
            try:
                assert process.stdout is not None
                line = process.stdout.readline()
                assert line.startswith("hsm-server: listening on https://"), (
                    self.folder / "log"
                ).read_text()
                yield Running(process, line.split()[-1], self)
            finally:
                if process.poll() is None:
                    process.kill()

    def log(self) -> list[dict[str, Any]]:
        """Return every line of the servers' logs that is there to its end."""
        lines = (self.folder / "log").read_text().rpartition("\n")[0].splitlines()
        return [json.loads(line) for line in lines if line.startswith("{")]


class Running:
    """A server that accepts connections."""

    def __init__(self, process: subprocess.Popen[str], url: str, site: Site) -> None:
        self.process = process
        parts = urlsplit(url)
        assert parts.hostname is not None
        assert parts.port is not None
        self.address = (parts.hostname, parts.port)
        self._site = site

    def send(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        token: str | None = None,
        context: ssl.SSLContext | None = None,
    ) -> Answer:
        """Send one request over a connection of its own."""
        context = context or client_context(self._site.authority)
        return request(self.address, context, method, path, body, token=token)

    def stop(self) -> int:
        """Send SIGTERM and return the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(PATIENCE)


def client_context(
    authority: Authority, identity: tuple[Path, Path] | None = None
) -> ssl.SSLContext:
    """Return a client's context, with or without a certificate."""
    context = ssl.create_default_context(cafile=str(authority.path))
    if identity is not None:
        context.load_cert_chain(*identity)
    return context


def request(
    address: tuple[str, int],
    context: ssl.SSLContext,
    method: str,
    path: str,
    body: object = None,
    *,
    token: str | None = None,
) -> Answer:
    """Send one request and read its answer."""
    connection = http.client.HTTPSConnection(
        *address, context=context, timeout=PATIENCE
    )
    headers = {"Authorization": f"Bearer {token or mint()}"}
    data = None
    if body is not None:
        data, headers["Content-Type"] = json.dumps(body), "application/json"
    with contextlib.closing(connection):
        connection.request(method, path, data, headers)
        response = connection.getresponse()
        return Answer(response.status, dict(response.getheaders()), response.read())


def connect(address: tuple[str, int], context: ssl.SSLContext) -> ssl.SSLSocket:
    """Open a TLS connection."""
    plain = socket.create_connection(address, timeout=PATIENCE)
    try:
        return context.wrap_socket(plain, server_hostname="localhost")
    except BaseException:
        plain.close()
        raise
