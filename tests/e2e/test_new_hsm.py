# SPDX-License-Identifier: MIT
"""A new HSM from ``init`` to the removal of a person, with a real server."""

import os
import shutil
import signal
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from unittest import mock

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    pkcs12,
)

from hsm_core.private_ca import SERVER_DAYS, PrivateCA
from tests.cli.support import Outcome, run_here
from tests.e2e.certificates import Pair
from tests.e2e.https import Client, NoAnswerError, client_context
from tests.e2e.processes import ServerProcess, program

PATIENCE_SECONDS = 60.0


class NewHSM:
    """Directory of an HSM, its server, and the profiles of its people."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.directory = folder / "hsm"
        self.environment = {
            **{k: v for k, v in os.environ.items() if not k.startswith("FERROHSM_")},
            "HOME": str(folder),
            "XDG_CONFIG_HOME": str(folder / "config"),
        }
        done = subprocess.run(
            [
                *program("hsm-server"),
                *("init", str(self.directory), "--yes", "--second", "grace"),
            ],
            env=self.environment,
            capture_output=True,
            text=True,
        )
        assert (0, "") == (done.returncode, done.stderr)

    def path(self, name: str) -> Path:
        """Return a file of the directory."""
        return self.directory / name

    def start(self) -> ServerProcess:
        """Start the server on a free port; return it when it listens."""
        words = ["serve", "--config", str(self.path("hsm.toml"))]
        server = ServerProcess(
            [*program("hsm-server"), *words, "--bind", "127.0.0.1:0"],
            self.environment,
            self.folder / "server.log",
        )
        server.wait_ready()
        return server

    def cli(self, *words: str) -> Outcome:
        """Run a command of the client."""
        with mock.patch.dict(os.environ, self.environment, clear=True):
            return run_here(*words)

    def ok(self, *words: str) -> str:
        """Run a command that must succeed; return its output."""
        done = self.cli(*words)
        assert 0 == done.code, done.err
        return done.text

    def sign_in(self, name: str, port: int) -> None:
        """Sign a person in with a copy of the credential, in a profile."""
        mine = self.folder / f"{name}.p12"
        shutil.copy(self.path(f"people/{name}.p12"), mine)
        self.ok(
            *("--profile", name, "login", f"https://localhost:{port}"),
            *("--credential", str(mine)),
            *("--password", f"@{self.path(f'people/{name}.password')}"),
            *("--secret-store", "file"),
        )

    def pair(self, name: str) -> Pair:
        """Return the certificate and key of a person's credential, as PEM."""
        password = self.path(f"people/{name}.password").read_bytes().strip()
        data = self.path(f"people/{name}.p12").read_bytes()
        return self.write_pair(name, data, password)

    def write_pair(self, name: str, data: bytes, password: bytes) -> Pair:
        """Write the certificate and key of a PKCS#12 file as PEM."""
        key, certificate, _ = pkcs12.load_key_and_certificates(data, password)
        assert key is not None
        assert certificate is not None
        found = Pair(self.folder / f"{name}.pem", self.folder / f"{name}.key")
        found.certificate.write_bytes(certificate.public_bytes(Encoding.PEM))
        form = (Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        found.key.write_bytes(key.private_bytes(*form))
        return found


@pytest.fixture(scope="module")
def hsm(tmp_path_factory: pytest.TempPathFactory) -> NewHSM:
    """Give a new HSM."""
    return NewHSM(tmp_path_factory.mktemp("new"))


@pytest.fixture(scope="module")
def server(hsm: NewHSM) -> Iterator[ServerProcess]:
    """Give its server."""
    with hsm.start() as running:
        yield running
        assert 0 == running.stop()


def served(port: int, context: ssl.SSLContext) -> x509.Certificate:
    """Return the server's certificate."""
    with (
        socket.create_connection(("127.0.0.1", port), 60) as bare,
        context.wrap_socket(bare, server_hostname="localhost") as tls,
    ):
        der = tls.getpeercert(binary_form=True)
    assert der is not None
    return x509.load_der_x509_certificate(der)


def is_rejected(client: Client) -> bool:
    """Return whether a request gets 401, or no connection once the CRL is loaded."""
    try:
        return client.request("GET", "/api/v1/keys").status == 401
    except NoAnswerError:
        return True


def test_the_certificate_is_renewed(hsm: NewHSM, server: ServerProcess) -> None:
    """The running server replaces one that is due; open connections go on."""
    path = hsm.path("tls/server.pem")
    context = client_context(hsm.path("ca.pem"), hsm.pair("ada"))
    first, ca = x509.load_pem_x509_certificates(path.read_bytes())
    authority = PrivateCA.load(hsm.path("secrets/ca.key").read_bytes(), ca)
    since = datetime.now(UTC) - timedelta(days=SERVER_DAYS - 1)
    old = path.with_suffix(".old")
    old.touch(mode=0o600)
    old.write_bytes(authority.issue_server(("localhost", "127.0.0.1"), since))
    with Client(server.port, context) as connection:
        assert 200 == connection.request("GET", "/api/v1/keys").status
        assert served(server.port, context) == first
        old.rename(path)

        os.kill(server.pid, signal.SIGHUP)

        end = time.monotonic() + PATIENCE_SECONDS
        while True:
            found = served(server.port, context)
            left = found.not_valid_after_utc - datetime.now(UTC)
            if found != first and left > timedelta(days=SERVER_DAYS - 1):
                break
            assert time.monotonic() < end
            time.sleep(0.1)
        assert 200 == connection.request("GET", "/api/v1/keys").status
    assert found == x509.load_pem_x509_certificates(path.read_bytes())[0]


def test_a_certificate_that_the_policy_does_not_list(
    hsm: NewHSM, server: ServerProcess
) -> None:
    """A stolen key of the CA makes certificates, and none gives access."""
    ca = x509.load_pem_x509_certificate(hsm.path("ca.pem").read_bytes())
    authority = PrivateCA.load(hsm.path("secrets/ca.key").read_bytes(), ca)
    forged = authority.issue_person("ada", datetime.now(UTC), days=1, password="x")
    pair = hsm.write_pair("forged", forged.pkcs12, b"x")
    with Client(server.port, client_context(hsm.path("ca.pem"), pair)) as connection:
        assert 401 == connection.request("GET", "/api/v1/keys").status


def test_a_day_with_two_people(hsm: NewHSM, server: ServerProcess) -> None:
    """
    Two people sign in with PKCS#12 files; one alone destroys nothing.

    A removed person is rejected within a second, on an open connection, too, and is no
    longer an approver.
    """
    for name in ("ada", "grace"):
        hsm.sign_in(name, server.port)
    ada, grace = ("--profile", "ada"), ("--profile", "grace")
    assert "Administrator" in hsm.ok(*ada, "whoami")
    hsm.ok(*ada, "create", "--algorithm", "ed25519", "--name", "release")
    hsm.ok(*grace, "sign", "release", "--in", __file__, "--out", str(hsm.folder / "s"))
    alone = hsm.cli(*ada, "destroy", "release", "--yes")
    assert 11 == alone.code, alone.err
    request = alone.err.partition("approval request ")[2].partition(":")[0]
    context = client_context(hsm.path("ca.pem"), hsm.pair("grace"))
    with Client(server.port, context) as connection:
        assert 200 == connection.request("GET", "/api/v1/keys").status
        hsm.ok(*grace, "approvals", "approve", request)

        hsm.ok("people", "remove", "grace", "--directory", str(hsm.directory))

        end = time.monotonic() + PATIENCE_SECONDS
        while not is_rejected(connection):
            assert time.monotonic() < end
            time.sleep(0.05)
    withdrawn = hsm.cli(*ada, "destroy", "release", "--yes")
    assert 0 != withdrawn.code, withdrawn.text
    assert 3 == hsm.cli(*grace, "whoami").code
    assert "active" in hsm.ok(*ada, "describe", "release")


def test_somebody_new(hsm: NewHSM, server: ServerProcess) -> None:
    """An added person signs in at once, without a restart."""
    words = ("--role", "auditor", "--directory", str(hsm.directory))
    hsm.ok("people", "add", "mary", *words)

    end = time.monotonic() + PATIENCE_SECONDS
    context = client_context(hsm.path("ca.pem"), hsm.pair("mary"))
    with Client(server.port, context) as connection:
        while connection.request("GET", "/api/v1/keys").status != 200:
            assert time.monotonic() < end
            time.sleep(0.05)
    hsm.sign_in("mary", server.port)

    assert "Auditor" in hsm.ok("--profile", "mary", "whoami")
