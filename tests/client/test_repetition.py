# SPDX-License-Identifier: MIT
"""`hsm_client`: lost responses and retries."""

import threading
from typing import Any

import pytest

from hsm_core import errors
from hsm_core import operations as ops
from hsm_core.errors import (
    AuthenticationError,
    ConflictError,
    HSMError,
    OperationAbortedError,
    OutcomeUnknownError,
    TransportError,
)
from hsm_core.session import Session
from tests.client.stub import PROBLEM, Fault, Stub, answer, drop, problem
from tests.client.ways import WAYS, Remote, Way

UNAVAILABLE = problem(errors.StoreUnavailableError())


LOST = {
    "dropped before": drop(executed=False),
    "dropped after": drop(executed=True),
    "bad gateway": answer(502, "text/html", b""),
    "gateway timeout": answer(504, "text/html", b""),
    "unknown": answer(503, PROBLEM, problem(OutcomeUnknownError("It is not known."))),
}


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest) -> str:
    """Give each client in turn."""
    return str(request.param)


class TestRepetition:
    @pytest.mark.parametrize("fault", LOST.values(), ids=LOST)
    def test_lost_mutation(self, hsm: Way, stub: Stub, fault: Fault) -> None:
        """A mutation whose response is lost is retried with its key."""
        stub.faults.extend([fault, fault])
        key = Session(hsm).create_key("aes", name="box")
        keys = {request.headers["idempotency-key"] for request in stub.received}

        assert (3, 1) == (len(stub.received), len(keys))
        assert [key.key_id] == [found.key_id for found in Session(hsm).keys()]

    @pytest.mark.parametrize("fault", LOST.values(), ids=LOST)
    def test_outcome_unknown(self, hsm: Way, stub: Stub, fault: Fault) -> None:
        """If no attempt gets a response, the error names the idempotency key."""
        stub.faults.extend([fault] * 3)
        operation = ops.CreateKey(algorithm="aes", name="box")
        with pytest.raises(OutcomeUnknownError, match=r"key the-key\.") as caught:
            hsm.execute(operation, idempotency_key="the-key")
        again = hsm.execute(operation, idempotency_key="the-key")

        assert caught.value.facts["idempotency_key"] == "the-key"
        assert "reason" not in caught.value.facts
        assert hsm.execute(ops.ListKeys()).total == 1
        assert again.name == "box"

    def test_refused_after_a_lost_answer(self, hsm: Way, stub: Stub) -> None:
        """A refusal does not settle an earlier attempt without a response."""
        denied = answer(401, PROBLEM, problem(AuthenticationError()))
        stub.faults.extend([drop(executed=True), denied, denied])
        with pytest.raises(OutcomeUnknownError):
            hsm.execute(ops.CreateKey(algorithm="aes"))

        assert len(stub.received) == 3

    def test_answer_after_a_lost_one(self, hsm: Way, stub: Stub) -> None:
        """A definite error of a later attempt is the outcome."""
        conflict = answer(409, PROBLEM, problem(ConflictError("No.")))
        stub.faults.extend([drop(executed=False), conflict])
        with pytest.raises(ConflictError):
            hsm.execute(ops.CreateKey(algorithm="aes"))

        assert len(stub.received) == 2

    def test_aborted_by_a_crash(self, hsm: Way, stub: Stub) -> None:
        """A mutation aborted by a crash is retried with a new key."""
        aborted = answer(409, PROBLEM, problem(OperationAbortedError()))
        stub.faults.extend([drop(executed=False), aborted])
        hsm.execute(ops.CreateKey(algorithm="aes"))
        first, again, fresh = (r.headers["idempotency-key"] for r in stub.received)

        assert first == again != fresh

    def test_aborted_for_good(self, hsm: Way, stub: Stub) -> None:
        """Retries with new keys are limited."""
        aborted = answer(409, PROBLEM, problem(OperationAbortedError()))
        stub.faults.extend([aborted] * 3)
        with pytest.raises(OperationAbortedError):
            hsm.execute(ops.CreateKey(algorithm="aes"))

        assert 3 == len({r.headers["idempotency-key"] for r in stub.received})

    def test_aborted_under_a_given_key(self, hsm: Way, stub: Stub) -> None:
        """A key given by the caller is not replaced."""
        stub.faults.append(answer(409, PROBLEM, problem(OperationAbortedError())))
        with pytest.raises(OperationAbortedError):
            hsm.execute(ops.CreateKey(algorithm="aes"), idempotency_key="mine")

        assert 1 == len(stub.received)

    def test_unreadable_success(self, hsm: Way, stub: Stub) -> None:
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
        hsm: Way,
        stub: Stub,
        pauses: list[float],
        operation: ops.Operation[Any],
    ) -> None:
        """An unavailable server is retried after its Retry-After time."""
        busy = answer(503, PROBLEM, UNAVAILABLE, {"Retry-After": "7"})
        endless = answer(503, PROBLEM, UNAVAILABLE, {"Retry-After": "9999999"})
        stub.faults.extend([busy, endless])
        hsm.execute(operation)

        assert (3, [7.0, 30.0]) == (len(stub.received), pauses)

    def test_pauses(self, hsm: Way, stub: Stub, pauses: list[float]) -> None:
        """Without a wish of the server, pauses grow, and differ between clients."""
        for _ in range(8):
            stub.faults.extend([answer(503, PROBLEM, UNAVAILABLE)] * 2)
            hsm.execute(ops.Status())
        first, second = pauses[::2], pauses[1::2]

        assert all(0.1 <= pause <= 0.3 for pause in first)
        assert all(0.2 <= pause <= 0.6 for pause in second)
        assert len(set(first)) > 1

    def test_unavailable_for_good(self, hsm: Way, stub: Stub) -> None:
        """If every attempt was refused, the error is that of the server."""
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
    def test_lasting_errors(self, hsm: Way, stub: Stub, error: HSMError) -> None:
        """Lasting errors are not retried."""
        stub.faults.append(answer(503, PROBLEM, problem(error)))
        with pytest.raises(type(error)):
            hsm.execute(ops.CreateKey(algorithm="aes"))

        assert len(stub.received) == 1

    def test_lost_use(self, hsm: Way, stub: Stub) -> None:
        """A use of a key is not retried, and has no idempotency key."""
        stub.faults.append(drop(executed=False))
        with pytest.raises(TransportError) as caught:
            hsm.execute(ops.GenerateRandom(length=1), idempotency_key="k")

        assert caught.value.facts["reason"] == "lost"
        assert ["idempotency-key" in r.headers for r in stub.received] == [False]

    def test_use_that_was_not_begun(
        self, hsm: Way, stub: Stub, pauses: list[float]
    ) -> None:
        """A use is repeated if the server was too busy, or the caller too quick."""
        stub.faults.extend(
            [
                answer(
                    429,
                    PROBLEM,
                    problem(errors.RateLimitedError()),
                    {"Retry-After": "2"},
                ),
                answer(503, PROBLEM, problem(errors.OverloadedError())),
            ]
        )
        assert 8 == len(hsm.execute(ops.GenerateRandom(length=8)).random)
        assert (3, 2, 2.0) == (len(stub.received), len(pauses), pauses[0])

    def test_use_that_may_have_been_begun(self, hsm: Way, stub: Stub) -> None:
        """A use that may have been made is not repeated."""
        stub.faults.append(answer(503, PROBLEM, UNAVAILABLE))
        with pytest.raises(errors.StoreUnavailableError):
            hsm.execute(ops.GenerateRandom(length=8))

        assert 1 == len(stub.received)

    def test_no_token(self, remote: Remote, stub: Stub) -> None:
        """Without a token nothing is sent; nor is what is unknown forgotten."""
        away = TransportError("The provider is away.", reason="lost")
        tokens: list[str] = []

        def token() -> str:
            if tokens:
                return tokens.pop()
            raise away

        client = remote(token=token)
        with pytest.raises(TransportError, match="provider") as caught:
            client.execute(ops.CreateKey(algorithm="aes"))
        assert (away, []) == (caught.value, stub.received)

        tokens.append("good.for.once")
        stub.faults.append(drop(executed=True))
        with pytest.raises(OutcomeUnknownError):
            client.execute(ops.CreateKey(algorithm="aes"))
        assert 1 == len(stub.received)

    def test_lost_read(self, hsm: Way, stub: Stub) -> None:
        """A read with a lost response is retried."""
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
        """A silent or slow server can't hold a client longer than its time-out."""
        done = threading.Event()

        def silence(handler: Any, request: Any) -> None:
            done.wait(60)
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
        client = remote(attempts=1, timeout_seconds=1.0)
        reasons = []
        for _ in range(2):
            with pytest.raises(TransportError) as caught:
                client.execute(ops.ListKeys())
            reasons.append(caught.value.facts["reason"])
        done.set()

        assert reasons == ["lost", "lost"]
