# SPDX-License-Identifier: MIT
"""`hsm_client`: an HSM over HTTPS."""

import threading
from contextlib import suppress
from typing import Any

import pytest

from hsm_core import errors, wire
from hsm_core import operations as ops
from hsm_core.errors import (
    ConfigurationError,
    HSMError,
    InvalidInputError,
    TransportError,
)
from hsm_core.model import KeyState
from hsm_core.rest import APPROVAL_HEADER, INTERFACE_HEADER
from hsm_core.session import Session
from tests.client.stub import PROBLEM, TOKEN, Stub, answer, drop, problem
from tests.client.ways import Remote, Way

UNAVAILABLE = problem(errors.StoreUnavailableError())


class TestOperations:
    def test_long_payload(self, hsm: Way, stub: Stub) -> None:
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
        assert {"application/octet-stream, application/problem+json"} == {
            request.headers["accept"] for request in stub.received[1:]
        }

    def test_long_payload_with_long_aad(self, hsm: Way, stub: Stub) -> None:
        """What is too long for a query travels in JSON, if the payload may."""
        session = Session(hsm)
        session.create_key("aes", name="box")
        payload = bytes(1024 * 1024 - 4096)
        aad = b"\xff" * 60_000
        ciphertext = session.encrypt("box", payload, aad)

        assert payload == session.decrypt("box", ciphertext, aad)
        # A query would hold three characters for each of the 80000 of its base64.
        assert ["/api/v1/keys/box/encrypt", "/api/v1/keys/box/decrypt"] == [
            request.target for request in stub.received[1:]
        ]
        assert {"application/json"} == {
            request.headers["content-type"] for request in stub.received
        }

    def test_too_long_beside_payload(self, hsm: Way, stub: Stub) -> None:
        """What fits neither a query nor JSON is refused, with the field's name."""
        operation = ops.Encrypt(
            key_id="k", plaintext=bytes(1024 * 1024 - 4095), aad=b"\xff" * 60_000
        )
        with pytest.raises(errors.InputSizeError, match="aad must be") as caught:
            hsm.execute(operation)

        assert [] == stub.received
        assert ("aad", 240_000) == (
            caught.value.facts["field"],
            caught.value.facts["actual"],
        )

    def test_long_messages(self, hsm: Way, stub: Stub) -> None:
        """Long messages are verified and authenticated bare, too."""
        session = Session(hsm)
        session.create_key("ed25519", name="signer")
        session.create_key("hs256", name="mac")
        message = bytes(2_000_000)
        signature = session.sign("signer", message).signature
        mac = session.mac("mac", message).mac

        assert session.verify("signer", message, signature).version == 1
        assert session.verify_mac("mac", message, mac).version == 1
        assert {"application/octet-stream"} == {
            request.headers["content-type"] for request in stub.received[2:]
        }

    def test_query(self, hsm: Way, stub: Stub) -> None:
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

    def test_kept_connection(self, hsm: Way, stub: Stub) -> None:
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
    def test_idempotency_key(self, hsm: Way, stub: Stub) -> None:
        """A key has 1 to 128 visible characters."""
        operation = ops.CreateKey(algorithm="aes")
        hsm.execute(operation, idempotency_key="k" * 128)
        for key in ("", "k" * 129, "a b", "a\r\nX: y", "\u00e4"):
            with pytest.raises(InvalidInputError, match="idempotency_key"):
                hsm.execute(operation, idempotency_key=key)

        assert ["k" * 128] == [r.headers["idempotency-key"] for r in stub.received]

    def test_approval(self, hsm: Way, stub: Stub) -> None:
        """The approval to use travels in its header; another text is none."""
        status, number = ops.Status(), "5b1c9a52-7a0e-4d0c-8a35-0c7f0e9b1d24"
        hsm.execute(status, approval_id=number)
        with pytest.raises(InvalidInputError, match="approval_id"):
            hsm.execute(status, approval_id=number.upper())

        (request,) = stub.received
        assert number == request.headers[APPROVAL_HEADER.lower()]

    def test_interface(self, remote: Remote, stub: Stub) -> None:
        """The name of program and interface travels in its header; others do not."""
        remote(interface="pkcs11: p11tool uid 1000").execute(ops.Status())
        remote().execute(ops.Status())
        for text in ("\u00e4", "a\tb", " a", "a" * 129):
            with pytest.raises(InvalidInputError, match="interface"):
                remote(interface=text)

        assert ["pkcs11: p11tool uid 1000", None] == [
            request.headers.get(INTERFACE_HEADER.lower()) for request in stub.received
        ]

    def test_expected_generation(self, hsm: Way, stub: Stub) -> None:
        """The generation that was looked at travels as an entity tag."""
        key = Session(hsm).create_key("aes")
        rotation = ops.RotateKey(key_id=key.key_id)
        hsm.execute(rotation, expected_generation=key.generation)
        for generation in (-1, 10**15):
            with pytest.raises(InvalidInputError, match="expected_generation"):
                hsm.execute(rotation, expected_generation=generation)

        assert f'"{key.generation}"' == stub.received[-1].headers["if-match"]
        assert 2 == len(stub.received)

    @pytest.mark.parametrize(
        "key_id", ["../audit", "..", "a/b", "A", "", "a\n", "x" * 65]
    )
    def test_bad_key_id(self, hsm: Way, stub: Stub, key_id: str) -> None:
        """An invalid key ID is refused before anything is sent."""
        with pytest.raises(InvalidInputError, match="key_id"):
            hsm.execute(ops.DescribeKey(key_id=key_id))

        assert stub.received == []

    @pytest.mark.parametrize(
        ("operation", "field"),
        [
            (ops.GenerateRandom(length=0), "length"),
            (ops.Rollback(key_id="a", version=0), "version"),
            (ops.CreateKey(algorithm="aes", tags=("a,b",)), "tags"),
            (ops.CreateKey(algorithm="aes", description="\udcff"), "description"),
            (ops.ListAuditEvents(principal="\ud800"), "principal"),
            (ops.ListKeys(per_page=100_000), "per_page"),
        ],
        ids=lambda value: value if isinstance(value, str) else type(value).__name__,
    )
    def test_bad_operation(
        self, hsm: Way, stub: Stub, operation: ops.Operation[Any], field: str
    ) -> None:
        """A field that is not valid is named before anything is sent."""
        with pytest.raises(InvalidInputError, match=field):
            hsm.execute(operation)

        assert stub.received == []

    def test_fresh_idempotency_keys(self, hsm: Way, stub: Stub) -> None:
        """Mutations without a key get one each."""
        for _ in range(2):
            hsm.execute(ops.CreateKey(algorithm="aes"))
        keys = [request.headers["idempotency-key"] for request in stub.received]

        assert [32, 32] == [len(key) for key in keys]
        assert 2 == len(set(keys))

    def test_no_token(self, remote: Remote, stub: Stub) -> None:
        """Without a token, the certificate must say who asks: no header is sent."""
        client = remote(token=lambda: "")
        with suppress(HSMError):
            client.execute(ops.Status())

        (request,) = stub.received
        assert "authorization" not in request.headers

    @pytest.mark.parametrize("token", ["a b", "a\r\nX-Evil: 1", "tökén"])
    def test_bad_token(self, remote: Remote, stub: Stub, token: str) -> None:
        """A token with impossible characters is not sent, and not repeated."""
        client = remote(token=lambda: token)
        with pytest.raises(InvalidInputError) as caught:
            client.execute(ops.Status())

        assert stub.received == []
        assert token not in str(caught.value)

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


class TestSecrecy:
    def test_token_in_no_error(self, hsm: Way, stub: Stub) -> None:
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


def test_wire_of_a_mutation(hsm: Way, stub: Stub) -> None:
    """A body holds the fields that are set, without those in the path."""
    hsm.execute(ops.CreateKey(algorithm="aes", name="box"))
    hsm.execute(ops.RevokeKey(key_id="box", reason="because"))

    assert [wire.scan_json(request.body) for request in stub.received] == [
        {"algorithm": "aes", "name": "box"},
        {"reason": "because"},
    ]
