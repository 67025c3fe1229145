# SPDX-License-Identifier: MIT
"""Pebble, a CA for tests, on loopback: with names, bad nonces and no pauses."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import ssl
import subprocess
import time
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.serialization import Encoding

from tests.pki import SERVER, self_signed_root
from tests.support import free_port, require_program

_SECONDS = 60.0


@dataclass(frozen=True)
class Names:
    """DNS where all names are of this machine, as long as nothing else is said."""

    port: int
    management: int

    def point(self, name: str, address: str) -> None:
        """Let a name be another machine's."""
        self._tell("add-a", {"host": f"{name}.", "addresses": [address]})

    def point_back(self, name: str) -> None:
        """Let a name be of this machine again."""
        self._tell("clear-a", {"host": f"{name}."})

    def _tell(self, what: str, body: dict[str, Any]) -> None:
        url = f"http://127.0.0.1:{self.management}/{what}"
        data = json.dumps(body).encode()
        with urllib.request.urlopen(url, data, timeout=_SECONDS) as answer:
            answer.read()


@contextlib.contextmanager
def names_served() -> Iterator[Names]:
    """Serve DNS."""
    port, management = free_port(socket.SOCK_DGRAM), free_port()
    command = [
        *(require_program("pebble-challtestsrv"), "-defaultIPv6", ""),
        *("-defaultIPv4", "127.0.0.1", "-dns01", f"127.0.0.1:{port}"),
        *("-management", f"127.0.0.1:{management}"),
        *("-doh", "", "-http01", "", "-https01", "", "-tlsalpn01", ""),
    ]
    with subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        try:
            _await_port(management, process)
            yield Names(port, management)
        finally:
            process.kill()


class Pebble:
    """
    One CA; it forgets everything when it ends.

    Args:
        folder: For its files.

        dns_port: Where it asks for names.

        tls_port: Where it looks for challenges in handshakes.

        http_port: Where it looks for those over HTTP.

        ocsp: URL that its certificates name for OCSP.
    """

    def __init__(
        self,
        folder: Path,
        dns_port: int,
        tls_port: int,
        http_port: int,
        *,
        ocsp: str = "",
    ) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._folder = folder
        self._port, self._management = free_port(), free_port()
        self._dns_port = dns_port
        root = self_signed_root("The CA's own")
        cert, key = root.issue("pebble", use=SERVER).write(folder, "pebble")
        self.bundle = folder / "bundle.pem"
        self.bundle.write_bytes(root.certificate.public_bytes(Encoding.PEM))
        self._config = folder / "config.json"
        self._settings = {
            "listenAddress": f"127.0.0.1:{self._port}",
            "managementListenAddress": f"127.0.0.1:{self._management}",
            "certificate": str(cert),
            "privateKey": str(key),
            "httpPort": http_port,
            "tlsPort": tls_port,
            "ocspResponderURL": ocsp,
            "externalAccountBindingRequired": False,
            "domainBlocklist": ["blocked.example"],
            "retryAfter": {"authz": 1, "order": 1},
        }
        self._process: subprocess.Popen[bytes] | None = None
        self.log = folder / "log"

    @property
    def directory(self) -> str:
        """Where it begins."""
        return f"https://localhost:{self._port}/dir"

    def start(self, validity_seconds: int = 90 * 24 * 3600, **variables: str) -> None:
        """Start it; certificates are valid so long, and *variables* environment."""
        settings = self._settings | {"certificateValidityPeriod": validity_seconds}
        self._config.write_text(json.dumps({"pebble": settings}))
        command = [require_program("pebble"), "-strict", "-config", str(self._config)]
        environment: Mapping[str, str] = {
            "PATH": os.environ.get("PATH", ""),
            "PEBBLE_VA_NOSLEEP": "1",
            "PEBBLE_AUTHZREUSE": "0",
            "PEBBLE_WFE_NONCEREJECT": "20",
            **variables,
        }
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [*command, "-dnsserver", f"127.0.0.1:{self._dns_port}"],
                env=environment,
                stdout=log,
                stderr=log,
            )
        _await_port(self._port, self._process)
        _await_port(self._management, self._process)

    @property
    def pid(self) -> int:
        """Its process."""
        assert self._process is not None
        return self._process.pid

    def stop(self) -> None:
        """End it at once, as a crash does."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def has_logged(self, text: str) -> int:
        """Return how often its log has a text."""
        return self.log.read_text().count(text)

    def wait_for(self, text: str, count: int = 1) -> None:
        """Wait until its log has a text so often."""
        end = time.monotonic() + _SECONDS
        while self.has_logged(text) < count:
            assert time.monotonic() < end, self.log.read_text()[-3000:]
            time.sleep(0.005)

    def fetch(self, path: str) -> bytes:
        """Return a page of its management, such as ``/roots/0``."""
        context = ssl.create_default_context(cafile=str(self.bundle))
        url = f"https://localhost:{self._management}{path}"
        with urllib.request.urlopen(url, context=context, timeout=_SECONDS) as answer:
            body: Any = answer.read()
        assert isinstance(body, bytes)
        return body

    def root(self) -> bytes:
        """Return the root of what it issues, PEM."""
        return self.fetch("/roots/0")


def _await_port(port: int, process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + _SECONDS
    while time.monotonic() < end:
        assert process.poll() is None
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        time.sleep(0.01)
    raise AssertionError(f"Nobody listens at {port}.")
