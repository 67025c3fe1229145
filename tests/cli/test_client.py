# SPDX-License-Identifier: MIT
"""Tests of `hsm_cli.client`: an HSM over HTTPS, and everything that can go wrong."""

import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from hsm_cli.client import RemoteHSM
from hsm_core import errors, wire
from hsm_core import operations as ops
from hsm_core.errors import (
    AccessDeniedError,
    AuthenticationError,
    ConfigurationError,
    ConflictError,
    HSMError,
    InvalidInputError,
    OutcomeUnknownError,
    TransportError,
    UnavailableError,
    UnsafeFileModeError,
)
from hsm_core.factory import OpenHSM
from hsm_core.model import KeyState
from hsm_core.protocols import HSM
from hsm_core.session import Session
from hsm_core.testing import caller
from tests.cli.certificates import Certificates
from tests.cli.stub import TOKEN, Fault, Stub, answer, drop, problem, serving

Remote = Callable[..., RemoteHSM]


@pytest.fixture
def pauses() -> list[float]:
    """Give the list of waits between attempts."""
    return []


@pytest.fixture
def remote(
    stub: Stub, certificates: Certificates, pauses: list[float]
) -> Iterator[Remote]:
    """Give a maker of clients of the stub, closed at the end."""
    made = []

    def make(**changes: Any) -> RemoteHSM:
        arguments: dict[str, Any] = {
            "endpoint": stub.endpoint,
            "token": lambda: TOKEN,
            "ca_bundle": certificates.ca,
            "timeout_seconds": 5.0,
            "pause": pauses.append,
        }
        arguments.update(changes)
        made.append(RemoteHSM(arguments.pop("endpoint"), **arguments))
        return made[-1]

    yield make
    for client in made:
        client.close()


@pytest.fixture
def hsm(remote: Remote) -> RemoteHSM:
    """Give a client of the stub."""
    return remote()


UNAVAILABLE = problem(errors.StoreUnavailableError())
PROBLEM = "application/problem+json"


class TestOperations:
    def test_life_of_a_key(self, hsm: RemoteHSM) -> None:
        """Every operation on keys goes through the table and comes back typed."""
        session = Session(hsm)
        key = session.create_key("p256", name="release", tags=["a", "b"])
        session.rotate("release")
        rolled = session.rollback(key.key_id, 1)
        revoked = session.revoke("release", version=2, reason="lost")
        listed = list(session.keys(algorithm="EC-P256", tags=["a", "b"]))
        versions = session.versions("release")
        public = session.public_key("release", version=1)
        destroyed = session.destroy("release")

        assert [key.key_id] == [found.key_id for found in listed]
        assert (3, [1, 2, 3]) == (rolled.version, [v.version for v in versions])
        assert KeyState.REVOKED == versions[1].state
        assert revoked.generation == 4
        assert public.pem.startswith("-----BEGIN PUBLIC KEY-----\n")
        assert KeyState.DESTROYED == destroyed.state

    def test_uses(self, hsm: RemoteHSM) -> None:
        """Signatures, ciphertexts, MACs and random bytes come back as made."""
        session = Session(hsm)
        for algorithm, name in (
            *(("Ed25519", "signer"), ("aes", "box"), ("hs256", "mac")),
        ):
            session.create_key(algorithm, name=name)
        signature = session.sign("signer", b"\x00\xff").signature
        ciphertext = session.encrypt("box", b"plain", b"aad")
        mac = session.mac("mac", b"message").mac

        assert session.verify("signer", b"\x00\xff", signature).version == 1
        assert session.decrypt("box", ciphertext, b"aad") == b"plain"
        assert session.verify_mac("mac", b"message", mac).version == 1
        assert len(session.random(33)) == 33

    def test_trail_and_health(self, hsm: RemoteHSM) -> None:
        """Views of the trail, status and self-tests come back typed."""
        session = Session(hsm)
        session.create_key("aes")
        events = session.audit_events(limit=3)
        verification = session.verify_audit()

        assert [e.event.kind for e in events][:2] == ["CreateKey", "CreateKey"]
        assert verification.head_seq >= events[0].event.seq
        assert session.status().state == "operational"
        assert session.self_test().passed

    def test_long_payload(self, hsm: RemoteHSM, stub: Stub) -> None:
        """A payload too long for JSON travels bare, with other fields in the query."""
        session = Session(hsm)
        session.create_key("aes", name="box")
        payload = bytes(3_000_000)
        aad = bytes([251, 255, 254])
        ciphertext = session.encrypt("box", payload, aad)
        sent = stub.received[-1]

        assert session.decrypt("box", ciphertext, aad) == payload
        assert ("application/octet-stream", payload) == (
            sent.headers["content-type"],
            sent.body,
        )
        assert sent.target == "/api/v1/keys/box/encrypt?aad=%2B%2F%2F%2B"

    def test_query(self, hsm: RemoteHSM, stub: Stub) -> None:
        """Fields of a GET travel in the query; those at their default do not."""
        hsm.execute(
            ops.ListKeys(
                tags=("a:1", "b/2"), state=KeyState.PURGE_SCHEDULED, per_page=7
            )
        )
        hsm.execute(ops.ListAuditEvents(ascending=True, principal="Ada L&é"))

        assert [request.target for request in stub.received] == [
            "/api/v1/keys?per_page=7&state=purge_scheduled&tags=a%3A1%2Cb%2F2",
            "/api/v1/audit/events?ascending=true&principal=Ada%20L%26%C3%A9",
        ]

    def test_endpoint_with_prefix(self, remote: Remote, stub: Stub) -> None:
        """A server below a path is reached there."""
        client = remote(endpoint=f"{stub.endpoint}/vault/")
        stub.faults.append(answer(404, "text/html", b"<p>"))
        with pytest.raises(TransportError):
            client.execute(ops.Status())

        assert stub.received[-1].target == "/vault/api/v1/status"

    def test_kept_connection(self, hsm: RemoteHSM, stub: Stub) -> None:
        """Many threads may share one client."""
        Session(hsm).create_key("aes", name="box")
        results: list[bytes] = []

        def work(number: int) -> None:
            session = Session(hsm)
            text = b"%d" % number
            results.append(session.decrypt("box", session.encrypt("box", text)))

        threads = [threading.Thread(target=work, args=(n,)) for n in range(12)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        assert sorted(results) == sorted(b"%d" % n for n in range(12))


class TestChecks:
    @pytest.mark.parametrize(
        "key_id", ["../audit", "..", "a/b", "A", "", "a\n", "x" * 65]
    )
    def test_bad_key_id(self, hsm: RemoteHSM, stub: Stub, key_id: str) -> None:
        """What is no key id is refused before anything is sent."""
        with pytest.raises(InvalidInputError, match="key_id"):
            hsm.execute(ops.DescribeKey(key_id=key_id))

        assert stub.received == []

    @pytest.mark.parametrize(
        "operation",
        [
            ops.GenerateRandom(length=0),
            ops.Rollback(key_id="a", version=0),
            ops.CreateKey(algorithm="aes", tags=("a,b",)),
            ops.CreateKey(algorithm="aes", description="\udcff"),
            ops.ListAuditEvents(principal="\ud800"),
            ops.ListKeys(per_page=100_000),
        ],
        ids=lambda operation: type(operation).__name__,
    )
    def test_bad_operation(
        self, hsm: RemoteHSM, stub: Stub, operation: ops.Operation[Any]
    ) -> None:
        """An operation that breaks its own type is refused before anything is sent."""
        with pytest.raises(InvalidInputError):
            hsm.execute(operation)

        assert stub.received == []

    @pytest.mark.parametrize("key", ["", "a b", "ä", "a\r\nX: y", "x" * 129])
    def test_bad_idempotency_key(self, hsm: RemoteHSM, stub: Stub, key: str) -> None:
        """Only 1 to 128 visible ASCII characters make an idempotency key."""
        with pytest.raises(InvalidInputError, match="idempotency_key"):
            hsm.execute(ops.CreateKey(algorithm="aes"), idempotency_key=key)

        assert stub.received == []

    def test_fresh_idempotency_keys(self, hsm: RemoteHSM, stub: Stub) -> None:
        """Mutations without a key get one each."""
        for _ in range(2):
            hsm.execute(ops.CreateKey(algorithm="aes"))
        keys = [request.headers["idempotency-key"] for request in stub.received]

        assert [32, 32] == [len(key) for key in keys]
        assert 2 == len(set(keys))

    @pytest.mark.parametrize("token", ["", "a b", "a\r\nX-Evil: 1", "tökén"])
    def test_bad_token(self, remote: Remote, stub: Stub, token: str) -> None:
        """A token with impossible characters is not sent, and not repeated."""
        client = remote(token=lambda: token)
        with pytest.raises(InvalidInputError) as caught:
            client.execute(ops.Status())

        assert stub.received == []
        assert not token or token not in str(caught.value)

    @pytest.mark.parametrize(
        "endpoint",
        [
            "http://localhost:1",
            "localhost:8443",
            "https://",
            "https://ada:pw@localhost",
            "https://localhost:99999",
            "https://localhost/?x=1",
            "https://localhost/#x",
            "https://[::1",
            "https://exämple.org",
            "file:///etc/passwd",
        ],
    )
    def test_bad_endpoint(self, remote: Remote, endpoint: str) -> None:
        """Only an https URL without user, query and fragment is an endpoint."""
        with pytest.raises(ConfigurationError, match="endpoint must be"):
            remote(endpoint=endpoint)


class TestProblems:
    @pytest.mark.parametrize("code", sorted(errors.error_classes()))
    def test_every_error_comes_back(
        self, remote: Remote, stub: Stub, code: str
    ) -> None:
        """A problem becomes the error of its code, with message and facts."""
        cls = errors.error_classes()[code]
        original = cls.from_wire("What happened.", {"field": "x", "limit": 3})
        stub.faults.append(answer(422, PROBLEM, problem(original)))
        with pytest.raises(HSMError) as caught:
            remote(attempts=1).execute(ops.Status())

        assert type(caught.value) is cls
        assert str(caught.value) == "What happened."
        assert caught.value.facts == {"field": "x", "limit": 3}

    def test_unknown_code(self, hsm: RemoteHSM, stub: Stub) -> None:
        """A problem of a later server is an HSMError, and its request id is kept."""
        body = (
            b'{"code":"brand_new","title":"New","status":500,"request_id":"r-9",'
            b'"facts":{"a":[1],"b":true,"c":"d"},"more":{}}'
        )
        stub.faults.append(answer(500, PROBLEM, body))
        with pytest.raises(HSMError) as caught:
            hsm.execute(ops.Status())

        assert type(caught.value) is HSMError
        assert str(caught.value) == "New"
        assert caught.value.facts == {"c": "d", "request_id": "r-9"}

    @pytest.mark.parametrize(
        ("status", "expected"),
        [
            (401, AuthenticationError),
            (403, AccessDeniedError),
            (429, UnavailableError),
            (502, UnavailableError),
            (500, TransportError),
            (404, TransportError),
            (204, TransportError),
            (200, TransportError),
        ],
    )
    def test_answer_of_a_stranger(
        self, remote: Remote, stub: Stub, status: int, expected: type[HSMError]
    ) -> None:
        """An answer that no HSM wrote is told by its status."""
        stub.faults.append(
            answer(status, "text/html", b"" if status == 204 else b"<p>")
        )
        with pytest.raises(expected):
            remote(attempts=1).execute(ops.Status())

        assert len(stub.received) == 1

    @pytest.mark.parametrize("status", [301, 302, 307, 308])
    def test_redirect(self, hsm: RemoteHSM, stub: Stub, status: int) -> None:
        """A redirect is never followed, so that no token goes to another server."""
        headers = {"Location": f"{stub.endpoint}/api/v1/status"}
        stub.faults.append(answer(status, "text/html", b"", headers))
        with pytest.raises(TransportError, match="redirect") as caught:
            hsm.execute(ops.Status())

        assert caught.value.facts["reason"] == "redirect"
        assert len(stub.received) == 1

    @pytest.mark.parametrize(
        "body",
        [
            b"",
            b"{",
            b"[]",
            b'{"state":"ok","state":"ok"}',
            b'{"state":1}',
            b"\xff\xfe",
            b"[" * 100_000,
        ],
        ids=["empty", "cut", "list", "twice", "type", "bytes", "deep"],
    )
    def test_unreadable_answer(self, hsm: RemoteHSM, stub: Stub, body: bytes) -> None:
        """An answer that is not the operation's result is refused."""
        stub.faults.append(answer(200, "application/json", body))
        with pytest.raises(TransportError) as caught:
            hsm.execute(ops.Status())

        assert caught.value.facts["reason"] == "answer"

    def test_problem_that_claims_success(self, hsm: RemoteHSM, stub: Stub) -> None:
        """A problem document with status 200 is no result and no known error."""
        body = problem(AccessDeniedError())
        stub.faults.append(answer(200, PROBLEM, body))
        with pytest.raises(TransportError):
            hsm.execute(ops.Status())

        assert len(stub.received) == 1

    def test_huge_answer(self, remote: Remote, stub: Stub) -> None:
        """No more of an answer is read than is allowed."""
        client = remote(max_answer_bytes=1000)
        stub.faults.append(answer(200, "application/json", b" " * 5_000_000))
        with pytest.raises(TransportError, match="longer than 1000 bytes"):
            client.execute(ops.Status())

        assert client.execute(ops.GenerateRandom(length=5)).random


LOST = {
    "dropped before": drop(executed=False),
    "dropped after": drop(executed=True),
    "bad gateway": answer(502, "text/html", b""),
    "gateway timeout": answer(504, "text/html", b""),
    "unknown": answer(503, PROBLEM, problem(OutcomeUnknownError("It is not known."))),
}


class TestRepetition:
    @pytest.mark.parametrize("fault", LOST.values(), ids=LOST)
    def test_lost_mutation(self, hsm: RemoteHSM, stub: Stub, fault: Fault) -> None:
        """A mutation whose answer is lost is repeated under its key, and done once."""
        stub.faults.extend([fault, fault])
        key = Session(hsm).create_key("aes", name="box")
        keys = {request.headers["idempotency-key"] for request in stub.received}

        assert (3, 1) == (len(stub.received), len(keys))
        assert [key.key_id] == [found.key_id for found in Session(hsm).keys()]

    @pytest.mark.parametrize("fault", LOST.values(), ids=LOST)
    def test_outcome_unknown(self, hsm: RemoteHSM, stub: Stub, fault: Fault) -> None:
        """When no attempt is answered, the error names the key that repeats safely."""
        stub.faults.extend([fault] * 3)
        operation = ops.CreateKey(algorithm="aes", name="box")
        with pytest.raises(OutcomeUnknownError, match="key the-key,") as caught:
            hsm.execute(operation, idempotency_key="the-key")
        again = hsm.execute(operation, idempotency_key="the-key")

        assert caught.value.facts["idempotency_key"] == "the-key"
        assert hsm.execute(ops.ListKeys()).total == 1
        assert again.name == "box"

    def test_refused_after_a_lost_answer(self, hsm: RemoteHSM, stub: Stub) -> None:
        """A refusal to answer says nothing of an earlier attempt that was not heard."""
        denied = answer(401, PROBLEM, problem(AuthenticationError()))
        stub.faults.extend([drop(executed=True), denied, denied])
        with pytest.raises(OutcomeUnknownError):
            hsm.execute(ops.CreateKey(algorithm="aes"))

        assert len(stub.received) == 3

    def test_answer_after_a_lost_one(self, hsm: RemoteHSM, stub: Stub) -> None:
        """A definite error of a later attempt is the outcome."""
        conflict = answer(409, PROBLEM, problem(ConflictError("No.")))
        stub.faults.extend([drop(executed=False), conflict])
        with pytest.raises(ConflictError):
            hsm.execute(ops.CreateKey(algorithm="aes"))

        assert len(stub.received) == 2

    def test_unreadable_success(self, hsm: RemoteHSM, stub: Stub) -> None:
        """A mutation whose answers can't be read has an unknown outcome."""
        stub.faults.extend([answer(201, "application/json", b"{}")] * 3)
        with pytest.raises(OutcomeUnknownError):
            hsm.execute(ops.CreateKey(algorithm="aes"))

        assert len(stub.received) == 3

    @pytest.mark.parametrize(
        "operation",
        [ops.ListKeys(), ops.CreateKey(algorithm="aes")],
        ids=["read", "mutation"],
    )
    def test_unavailable(
        self,
        hsm: RemoteHSM,
        stub: Stub,
        pauses: list[float],
        operation: ops.Operation[Any],
    ) -> None:
        """A server that can't answer now is asked again, after the time it wishes."""
        busy = answer(503, PROBLEM, UNAVAILABLE, {"Retry-After": "7"})
        endless = answer(503, PROBLEM, UNAVAILABLE, {"Retry-After": "9999999"})
        stub.faults.extend([busy, endless])
        hsm.execute(operation)

        assert (3, [7.0, 30.0]) == (len(stub.received), pauses)

    def test_unavailable_for_good(self, hsm: RemoteHSM, stub: Stub) -> None:
        """A server that said each time that nothing was done is believed."""
        stub.faults.extend([answer(503, PROBLEM, UNAVAILABLE)] * 3)
        with pytest.raises(errors.StoreUnavailableError):
            hsm.execute(ops.CreateKey(algorithm="aes"))

        assert len(stub.received) == 3

    @pytest.mark.parametrize(
        "error",
        [
            errors.SelfTestFailedError("S."),
            errors.StorageFullError(),
            ConflictError("C."),
        ],
        ids=lambda error: error.code,
    )
    def test_lasting_errors(self, hsm: RemoteHSM, stub: Stub, error: HSMError) -> None:
        """What trying again can't change is not tried again."""
        stub.faults.append(answer(503, PROBLEM, problem(error)))
        with pytest.raises(type(error)):
            hsm.execute(ops.CreateKey(algorithm="aes"))

        assert len(stub.received) == 1

    def test_lost_use(self, hsm: RemoteHSM, stub: Stub) -> None:
        """A use is not repeated, and sends no idempotency key."""
        stub.faults.append(drop(executed=False))
        with pytest.raises(TransportError) as caught:
            hsm.execute(ops.GenerateRandom(length=1), idempotency_key="k")

        assert caught.value.facts["reason"] == "lost"
        assert ["idempotency-key" in r.headers for r in stub.received] == [False]

    def test_lost_read(self, hsm: RemoteHSM, stub: Stub) -> None:
        """A read whose answer is lost is repeated."""
        stub.faults.extend([drop(executed=False)] * 2)

        assert hsm.execute(ops.ListKeys()).total == 0
        assert len(stub.received) == 3

    def test_cut_answer(self, remote: Remote, stub: Stub) -> None:
        """An answer that ends before its announced length is lost."""

        def fault(handler: Any, request: Any) -> None:
            handler.send_response(200)
            handler.send_header("Content-Type", "application/json")
            handler.send_header("Content-Length", "1000")
            handler.end_headers()
            handler.wfile.write(b'{"items":')
            handler.hang_up()

        stub.faults.append(fault)
        with pytest.raises(TransportError) as caught:
            remote(attempts=1).execute(ops.ListKeys())

        assert caught.value.facts["reason"] == "lost"

    def test_slow_answers(self, remote: Remote, stub: Stub) -> None:
        """Neither silence nor a trickle holds a client longer than its time-out."""
        done = threading.Event()

        def silence(handler: Any, request: Any) -> None:
            done.wait(10)
            handler.hang_up()

        def trickle(handler: Any, request: Any) -> None:
            handler.send_response(200)
            handler.send_header("Content-Length", "1000")
            handler.end_headers()
            for _ in range(100):
                handler.wfile.write(b" ")
                if done.wait(0.05):
                    break
            handler.hang_up()

        stub.faults.extend([silence, trickle])
        client = remote(attempts=1, timeout_seconds=0.3)
        reasons = []
        for _ in range(2):
            with pytest.raises(TransportError) as caught:
                client.execute(ops.ListKeys())
            reasons.append(caught.value.facts["reason"])
        done.set()

        assert reasons == ["lost", "lost"]


class TestConnection:
    def test_nobody_there(self, remote: Remote) -> None:
        """A server that is down is told at once, and nothing was sent."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        client = remote(endpoint=f"https://127.0.0.1:{port}")
        with pytest.raises(TransportError, match="Connection refused") as caught:
            client.execute(ops.CreateKey(algorithm="aes"))

        assert caught.value.facts["reason"] == "connect"

    def test_stranger(self, remote: Remote, certificates: Certificates) -> None:
        """A certificate of another authority is refused, and told apart."""
        with pytest.raises(TransportError, match="not trusted") as caught:
            remote(ca_bundle=certificates.stranger).execute(ops.Status())

        assert caught.value.facts["reason"] == "certificate"

    def test_system_authorities(self, remote: Remote) -> None:
        """Without a bundle, the system's authorities are asked, who don't know it."""
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
        """With insecure, any certificate will do."""
        client = remote(ca_bundle=certificates.stranger, insecure=True)

        assert client.execute(ops.Status()).state == "operational"

    def test_client_certificate(
        self, remote: Remote, gateway: OpenHSM, certificates: Certificates
    ) -> None:
        """A server that asks for a certificate gets ours, and refuses us without."""
        hsm: HSM = gateway.act_as(caller())
        with serving(hsm, certificates, wants_client_certificate=True) as strict:
            known = remote(
                endpoint=strict.endpoint,
                client_cert=certificates.client,
                client_key=certificates.client_key,
            )
            unknown = remote(endpoint=strict.endpoint)

            assert known.execute(ops.Status()).state == "operational"
            with pytest.raises(TransportError):
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

    def test_environment_proxy(
        self, hsm: RemoteHSM, monkeypatch: pytest.MonkeyPatch
    ) -> None:
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
            with pytest.raises(ConfigurationError, match=r"could not be (read|loaded)"):
                remote(**changes)
        with pytest.raises(ConfigurationError, match="without a client certificate"):
            remote(client_key=text)

    @pytest.mark.parametrize("mode", [0o640, 0o604, 0o660])
    def test_open_key_file(
        self, remote: Remote, certificates: Certificates, tmp_path: Path, mode: int
    ) -> None:
        """A key that others may read or write is refused."""
        key = tmp_path / "key.pem"
        key.write_bytes(certificates.client_key.read_bytes())
        key.chmod(mode)
        with pytest.raises(UnsafeFileModeError, match="chmod 600"):
            remote(client_cert=certificates.client, client_key=key)

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


class TestSecrecy:
    def test_token_in_no_error(self, hsm: RemoteHSM, stub: Stub) -> None:
        """No failure carries the token in text, facts, causes or repr."""
        faults = [drop(executed=False), answer(500, "text/html", b"<p>")]
        stub.faults.extend(faults)
        for _ in faults:
            with pytest.raises(HSMError) as caught:
                hsm.execute(ops.GenerateRandom(length=1))
            error = caught.value
            shown = repr((error, error.facts, error.__cause__, error.__context__, hsm))

            assert TOKEN not in shown

    def test_token_is_asked_for_each_attempt(self, remote: Remote, stub: Stub) -> None:
        """A token that is renewed between attempts is used."""
        tokens = iter(["old.token", TOKEN])
        client = remote(token=lambda: next(tokens))
        stub.faults.append(answer(503, PROBLEM, UNAVAILABLE))
        client.execute(ops.Status())

        assert [r.headers["authorization"] for r in stub.received] == [
            "Bearer old.token",
            f"Bearer {TOKEN}",
        ]


def test_wire_of_a_mutation(hsm: RemoteHSM, stub: Stub) -> None:
    """A body holds the fields that are set, without those in the path."""
    hsm.execute(ops.CreateKey(algorithm="aes", name="box"))
    hsm.execute(ops.RevokeKey(key_id="box", reason="because"))

    assert [wire.scan_json(request.body) for request in stub.received] == [
        {"algorithm": "aes", "name": "box"},
        {"reason": "because"},
    ]
