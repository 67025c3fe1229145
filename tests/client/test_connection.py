# SPDX-License-Identifier: MIT
"""`hsm_client`: unreachable and untrusted servers."""

import socket
import threading
from collections.abc import Sequence
from http.client import HTTPConnection
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    KeySerializationEncryption,
    NoEncryption,
)
from cryptography.hazmat.primitives.serialization.pkcs12 import (
    serialize_key_and_certificates,
)

from hsm_core import operations as ops
from hsm_core.errors import (
    ConfigurationError,
    KeyNotFoundError,
    TransportError,
    UnsafeFileModeError,
)
from hsm_core.factory import OpenHSM
from hsm_core.model import AuditEntry
from hsm_core.protocols import HSM
from hsm_core.testing import caller
from tests.client.certificates import Certificates
from tests.client.streams import streamed
from tests.client.stub import Stub, serving
from tests.client.ways import WAYS, Remote, Way
from tests.pki import self_signed_root


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest) -> str:
    """Give each client in turn."""
    return str(request.param)


class TestConnection:
    def test_nobody_there(self, remote: Remote) -> None:
        """A server that is down is reported at once, as not reached."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        client = remote(endpoint=f"https://127.0.0.1:{port}")
        with pytest.raises(TransportError, match="Connection refused") as caught:
            client.execute(ops.CreateKey(algorithm="aes"))

        assert caught.value.facts["reason"] == "connect"

    def test_stranger(self, remote: Remote, certificates: Certificates) -> None:
        """A certificate of another CA is refused, with a reason of its own."""
        with pytest.raises(TransportError, match=r"not trusted.*ca_bundle") as caught:
            remote(ca_bundle=certificates.stranger).execute(ops.Status())

        assert caught.value.facts["reason"] == "certificate"

    def test_system_authorities(self, remote: Remote) -> None:
        """Without a bundle, the system's CAs apply."""
        with pytest.raises(TransportError, match="not trusted"):
            remote(ca_bundle=None).execute(ops.Status())

    def test_other_name(
        self, remote: Remote, gateway: OpenHSM, certificates: Certificates
    ) -> None:
        """A good certificate of another host is refused."""
        hsm: HSM = gateway.act_as(caller())
        with serving(hsm, certificates, elsewhere=True) as other:
            client = remote(endpoint=other.endpoint)
            with pytest.raises(TransportError, match="Hostname mismatch"):
                client.execute(ops.Status())

            assert other.received == []

    def test_insecure(self, remote: Remote, certificates: Certificates) -> None:
        """Insecure accepts any certificate."""
        client = remote(ca_bundle=certificates.stranger, insecure=True)

        assert client.execute(ops.Status()).state == "operational"

    def test_client_certificate(
        self, remote: Remote, gateway: OpenHSM, certificates: Certificates
    ) -> None:
        """Mutual TLS: the client certificate is sent; without it the server refuses."""
        hsm: HSM = gateway.act_as(caller())
        with serving(hsm, certificates, wants_client_certificate=True) as strict:
            known = remote(
                endpoint=strict.endpoint,
                client_cert=certificates.client,
                client_key=certificates.client_key,
            )
            unknown = remote(endpoint=strict.endpoint)

            assert known.execute(ops.Status()).state == "operational"
            with pytest.raises(
                TransportError, match=r"certificate required|without a response|reset"
            ):
                unknown.execute(ops.Status())

    def test_plain_http_server(self, remote: Remote) -> None:
        """A server that speaks no TLS gets no request."""
        with socket.socket() as plain:
            plain.bind(("127.0.0.1", 0))
            plain.listen()

            def serve() -> None:
                connection, _ = plain.accept()
                with connection:
                    connection.recv(1)
                    connection.sendall(b"HTTP/1.0 400 Bad Request\r\n\r\n")

            thread = threading.Thread(target=serve)
            thread.start()
            client = remote(endpoint=f"https://127.0.0.1:{plain.getsockname()[1]}")
            with pytest.raises(TransportError):
                client.execute(ops.CreateKey(algorithm="aes"))
            thread.join()

    @pytest.mark.parametrize("way", ["blocking"])
    def test_gone_while_written(
        self, hsm: Way, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A connection that is gone while the request is written is a lost one."""

        def send(connection: HTTPConnection, _: bytes) -> None:
            socket.socket.shutdown(connection.sock, socket.SHUT_RDWR)
            raise BrokenPipeError

        monkeypatch.setattr(HTTPConnection, "send", send)
        with pytest.raises(TransportError) as caught:
            hsm.execute(ops.Status())

        assert caught.value.facts["reason"] == "lost"

    def test_reused(self, hsm: Way, stub: Stub) -> None:
        """One request after another takes the same connection, also after an error."""
        for _ in range(3):
            hsm.execute(ops.Status())
            with pytest.raises(KeyNotFoundError):
                hsm.execute(ops.DescribeKey(key_id="nobody"))

        assert (6, 1) == (len(stub.received), stub.connections)

    def test_closed(self, hsm: Way, stub: Stub, entries: Sequence[AuditEntry]) -> None:
        """A closed client sends nothing, and its views end."""
        stub.faults.append(streamed(entries[0], whole=False))
        view = hsm.follow(ops.ListAuditEvents())
        next(view)
        hsm.close()
        for use in (lambda: next(view), lambda: hsm.execute(ops.Status())):
            with pytest.raises(TransportError, match="The client is closed") as caught:
                use()

            assert caught.value.facts["reason"] == "closed"
        assert 1 == len(stub.received)

    def test_environment_proxy(self, hsm: Way, monkeypatch: pytest.MonkeyPatch) -> None:
        """Proxies of the environment are not used."""
        for name in ("https_proxy", "HTTPS_PROXY", "ALL_PROXY"):
            monkeypatch.setenv(name, "http://127.0.0.1:1")

        assert hsm.execute(ops.Status()).state == "operational"

    def test_bad_files(
        self, remote: Remote, certificates: Certificates, tmp_path: Path
    ) -> None:
        """Files that can't be used are told with their names."""
        text = tmp_path / "text.pem"
        text.write_text("not PEM")
        text.chmod(0o600)

        for changes in (
            {"ca_bundle": tmp_path / "none.pem"},
            {"ca_bundle": text},
            {"client_cert": text},
            {"client_cert": certificates.client, "client_key": tmp_path / "none.pem"},
            {"client_cert": certificates.server.parent, "client_key": text},
        ):
            with pytest.raises(ConfigurationError, match=r"Can't (read|load)"):
                remote(**changes)
        with pytest.raises(ConfigurationError, match="requires client_cert"):
            remote(client_key=text)
        with pytest.raises(ConfigurationError, match="holds no private key"):
            remote(client_cert=certificates.ca)

    @pytest.mark.parametrize("mode", [0o640, 0o604, 0o660])
    def test_open_key_file(
        self, remote: Remote, certificates: Certificates, tmp_path: Path, mode: int
    ) -> None:
        """A client key that other users can access is refused."""
        key = tmp_path / "key.pem"
        key.write_bytes(certificates.client_key.read_bytes())
        key.chmod(mode)
        with pytest.raises(UnsafeFileModeError, match="chmod 600"):
            remote(client_cert=certificates.client, client_key=key)

    def test_open_pkcs12_file(self, remote: Remote, tmp_path: Path) -> None:
        """A PKCS#12 file that other users can read must have a password."""
        issued = self_signed_root("Test authority").issue("ada")
        path = tmp_path / "ada.p12"

        def write(form: KeySerializationEncryption) -> None:
            path.write_bytes(
                serialize_key_and_certificates(
                    None, issued.key, issued.certificate, None, form
                )
            )
            path.chmod(0o644)

        write(BestAvailableEncryption(b"4711"))
        remote(client_cert=path, client_key_password="4711")
        write(NoEncryption())
        with pytest.raises(UnsafeFileModeError, match="chmod 600"):
            remote(client_cert=path)

    def test_encrypted_key(
        self, remote: Remote, certificates: Certificates, tmp_path: Path
    ) -> None:
        """An encrypted key is refused rather than asked a passphrase for."""
        from cryptography.hazmat.primitives import serialization

        plain = certificates.client_key.read_bytes()
        key = serialization.load_pem_private_key(plain, None)
        path = tmp_path / "key.pem"
        path.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.BestAvailableEncryption(b"passphrase"),
            )
        )
        path.chmod(0o600)
        with pytest.raises(ConfigurationError, match="encrypted"):
            remote(client_cert=certificates.client, client_key=path)
