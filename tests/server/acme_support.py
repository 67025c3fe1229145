# SPDX-License-Identifier: MIT
"""A real server whose certificate comes from Pebble, and what is seen of it."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import ssl
import sys
import threading
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key
from cryptography.x509 import ocsp as ocsp_messages

from tests.server.family import wait_until
from tests.server.pebble import Pebble
from tests.server.process import Running, Site, client_context
from tests.support import free_port, overriding

NAME = "hsm.test"


class ACMESite(Site):
    """
    A folder with stores and a cache, and servers on it.

    Args:
        folder: Empty directory.

        dns_port: Where Pebble asks for names.

        names: Values of ``--acme-domain``.

        isolation: Value of ``--isolation``.

        ocsp: URL that certificates name for OCSP.
    """

    def __init__(
        self,
        folder: Path,
        dns_port: int,
        *,
        names: tuple[str, ...] = (NAME,),
        isolation: str = "process",
        ocsp: str = "",
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        super().__init__(folder, isolation)
        self.names = names
        self.port, self.http_port = free_port(), free_port()
        self.cache = folder / "data/acme"
        self.pebble = Pebble(
            folder / "pebble",
            dns_port,
            self.port,
            self.http_port,
            ocsp=ocsp,
        )
        self.client = self.authority.issue("client", server=False)

    def command(self, *arguments: str) -> list[str]:
        """Return the command that starts a server."""
        words = [
            *(sys.executable, "-I", "-m", "hsm_server"),
            *("--bind", f"127.0.0.1:{self.port}", "--tls-mode", "acme"),
            *(word for name in self.names for word in ("--acme-domain", name)),
            *("--acme-contact", "ops@example.com"),
            *("--acme-cache-dir", str(self.cache)),
            *("--acme-directory-url", self.pebble.directory),
            *("--acme-ca-bundle", str(self.pebble.bundle)),
            *("--client-ca", str(self.authority.path)),
            *("--key-dir", str(self.keys), "--audit-log", str(self.audit)),
            *("--approval-dir", str(self.folder / "data/approvals")),
            *("--isolation", self._isolation, "--drain-timeout-secs", "1"),
            *arguments,
        ]
        return overriding(words)

    def folder_of_ca(self) -> Path:
        """Return where the cache has what belongs to this CA."""
        (found,) = (path for path in self.cache.iterdir() if path.is_dir())
        return found

    def context(self) -> ssl.SSLContext:
        """Return the context of a client with a certificate, who believes anybody."""
        context = client_context(self.authority, self.client)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        return context

    def shown(self) -> x509.Certificate:
        """Return the certificate that a new connection is shown."""
        address = ("127.0.0.1", self.port)
        with (
            socket.create_connection(address, timeout=60) as plain,
            self.context().wrap_socket(plain, server_hostname=NAME) as tls,
        ):
            der = tls.getpeercert(binary_form=True)
        assert der is not None
        return x509.load_der_x509_certificate(der)

    def has_issued(self) -> bool:
        """Return whether what is shown is of a CA."""
        shown = self.shown()
        return shown.issuer != shown.subject

    def metric(self, running: Running, name: str, label: str = "") -> float:
        """Return the sum of the values of a metric with a label; 0 if there is none."""
        answer = running.send("GET", "/metrics", context=self.context())
        lines = answer.body.decode().splitlines()
        found = [line for line in lines if line.startswith(name) and label in line]
        return sum(float(line.split()[-1]) for line in found)

    def alarms(self, part: str = "acme") -> list[str]:
        """Return the reasons of the alarms that the log has."""
        return [
            line["reason"]
            for line in self.log()
            if line["event"] == "tls alarm" and line["part"] == part
        ]


class Responder(ThreadingHTTPServer):
    """
    The OCSP responder of a Pebble, which has none itself.

    Attributes:
        pebble: Whose certificates it speaks for, with that one's key.
    """

    daemon_threads = True
    pebble: Pebble

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Response)

    @property
    def url(self) -> str:
        """Where it is."""
        return f"http://127.0.0.1:{self.server_port}/"

    def say_good(self, data: bytes) -> bytes:
        """Return a response: the certificate that is asked about is good."""
        request = ocsp_messages.load_der_ocsp_request(data)
        issuer = x509.load_pem_x509_certificate(self.pebble.fetch("/intermediates/0"))
        key = load_pem_private_key(self.pebble.fetch("/intermediate-keys/0"), None)
        assert isinstance(key, RSAPrivateKey | EllipticCurvePrivateKey)
        now = datetime.now(UTC).replace(microsecond=0)
        builder = ocsp_messages.OCSPResponseBuilder().add_response_by_hash(
            request.issuer_name_hash,
            request.issuer_key_hash,
            request.serial_number,
            request.hash_algorithm,
            ocsp_messages.OCSPCertStatus.GOOD,
            now,
            now + timedelta(days=1),
            None,
            None,
        )
        for extension in request.extensions:
            builder = builder.add_extension(extension.value, critical=False)
        builder = builder.responder_id(ocsp_messages.OCSPResponderEncoding.HASH, issuer)
        return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.DER)


class _Response(BaseHTTPRequestHandler):
    """One question to a responder."""

    server: Responder

    def do_POST(self) -> None:
        """Answer."""
        question = self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Type", "application/ocsp-response")
        self.end_headers()
        self.wfile.write(self.server.say_good(question))

    def log_message(self, *_: object) -> None:
        """Say nothing."""


class Visitors:
    """
    Somebody who opens one connection after the other, with a request on each.

    Connections have the very name that challenges are about.
    """

    def __init__(self, site: ACMESite) -> None:
        self._site = site
        self._context = site.context()
        self._over = threading.Event()
        self._may_call = threading.Lock()
        self._thread = threading.Thread(target=self._run)
        self.failures: list[str] = []
        self.count = 0

    def __enter__(self) -> Visitors:
        """Begin."""
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """End."""
        self._over.set()
        self._thread.join()

    def check(self) -> None:
        """See that all has gone well, and goes on."""
        count = self.count
        wait_until(lambda: self.count > count + 1 or self.failures)
        assert [] == self.failures

    def pause(self) -> None:
        """Call no more, for the server is about to end."""
        self._may_call.acquire()

    def go_on(self) -> None:
        """Call again."""
        self._may_call.release()

    def stop(self) -> None:
        """Call never again."""
        self._over.set()
        self.go_on()

    def _run(self) -> None:
        while not self._over.wait(0.005):
            with self._may_call:
                if not self._over.is_set():
                    self._try()

    def _try(self) -> None:
        try:
            self._call()
            self.count += 1
        except (OSError, AssertionError) as error:
            self.failures.append(repr(error))

    def _call(self) -> None:
        address = ("127.0.0.1", self._site.port)
        with (
            socket.create_connection(address, timeout=60) as plain,
            self._context.wrap_socket(plain, server_hostname=NAME) as tls,
        ):
            tls.sendall(b"GET /livez HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            assert tls.recv(4096).startswith(b"HTTP/1.1 200"), "no answer"


def children(running: Running, module: str) -> list[int]:
    """Return the processes of a server that run a module."""
    found = []
    for pid in map(int, filter(str.isdigit, os.listdir("/proc"))):
        with contextlib.suppress(OSError):
            status = Path(f"/proc/{pid}/stat").read_text()
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            parent = int(status.rpartition(")")[2].split()[1])
            if parent == running.process.pid and module.encode() in words:
                found.append(pid)
    return found


def reload(running: Running) -> None:
    """Have the server look at once."""
    running.process.send_signal(signal.SIGHUP)
