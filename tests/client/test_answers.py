# SPDX-License-Identifier: MIT
"""`hsm_client`: meaning of responses."""

import pytest

from hsm_client.client_certificates import ClientCertificate
from hsm_client.messages import Answer, EventBlock, Request
from hsm_client.settings import ClientSettings, TokenSettings
from hsm_client.tokens import secret_signer
from hsm_core import errors
from hsm_core import operations as ops
from hsm_core.errors import (
    AccessDeniedError,
    AuthenticationError,
    HSMError,
    TransportError,
    UnavailableError,
)
from hsm_core.rest import RESULT_HEADER
from tests.client.stub import PROBLEM, Stub, answer, problem
from tests.client.ways import Remote, Way


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

    def test_unknown_code(self, hsm: Way, stub: Stub) -> None:
        """An unknown problem code is an HSMError with the request ID."""
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

    def test_message_for_terminals(self, hsm: Way, stub: Stub) -> None:
        """Of a message, programs may print and log everything."""
        body = (
            b'{"code":"conflict","detail":"\\u001b[31mr\\u00e9d\\u009b\\u202e\\nnext",'
            b'"status":409}'
        )
        stub.faults.append(answer(409, PROBLEM, body))
        with pytest.raises(HSMError) as caught:
            hsm.execute(ops.Status())

        assert str(caught.value) == "\\x1b[31mr\xe9d\\x9b\\u202e\\nnext"

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
        """A response from an intermediary is reported by its status."""
        stub.faults.append(
            answer(status, "text/html", b"" if status == 204 else b"<p>")
        )
        with pytest.raises(expected):
            remote(attempts=1).execute(ops.Status())

        assert len(stub.received) == 1

    @pytest.mark.parametrize("status", [301, 302, 307, 308])
    def test_redirect(self, hsm: Way, stub: Stub, status: int) -> None:
        """Redirects are not followed, so the token goes to no other server."""
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
    def test_unreadable_answer(self, hsm: Way, stub: Stub, body: bytes) -> None:
        """A response that is not the operation's result is refused."""
        stub.faults.append(answer(200, "application/json", body))
        with pytest.raises(TransportError) as caught:
            hsm.execute(ops.Status())

        assert caught.value.facts["reason"] == "answer"

    @pytest.mark.parametrize(
        "fields",
        ["", "{", "[]", "{}", '{"key_id":"k","version":"1"}', '{"version":1}', "\xff"],
    )
    def test_unreadable_raw_answer(self, hsm: Way, stub: Stub, fields: str) -> None:
        """Bytes without the other fields of the result are refused."""
        headers = {RESULT_HEADER: fields}
        stub.faults.append(answer(200, "application/octet-stream", b"c", headers))
        with pytest.raises(TransportError) as caught:
            hsm.execute(ops.Encrypt(key_id="k", plaintext=bytes(10**6)))

        assert caught.value.facts["reason"] == "answer"

    def test_problem_that_claims_success(self, hsm: Way, stub: Stub) -> None:
        """A problem document with status 200 is no result and no known error."""
        body = problem(AccessDeniedError())
        stub.faults.append(answer(200, PROBLEM, body))
        with pytest.raises(TransportError):
            hsm.execute(ops.Status())

        assert len(stub.received) == 1

    def test_huge_answer(self, remote: Remote, stub: Stub) -> None:
        """A response over the limit is not read to its end."""
        client = remote(max_answer_bytes=1000)
        stub.faults.append(answer(200, "application/json", b" " * 5_000_000))
        with pytest.raises(TransportError, match="longer than 1000 bytes"):
            client.execute(ops.Status())

        assert client.execute(ops.GenerateRandom(length=5)).random


def test_no_secret_in_repr() -> None:
    """Values with secrets and payloads show their class only."""
    hidden = "very-secret"
    for value in (
        Answer(status=200, content_type="", body=hidden.encode()),
        Request(method="POST", target="/", headers={}, body=hidden.encode()),
        EventBlock(data=hidden.encode()),
        ClientCertificate(None, (), hidden.encode(), hidden),  # type: ignore[arg-type]
        ClientSettings(client_key_password=hidden),
        TokenSettings(auth_token=hidden, jwt_secret=hidden),
        secret_signer(hidden.encode(), kid=hidden),
    ):
        assert f"<{type(value).__name__}>" == repr(value) == str(value)
