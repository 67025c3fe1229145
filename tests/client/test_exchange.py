# SPDX-License-Identifier: MIT
"""Whatever happens to requests: what a program is told is what the server did."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from hsm_client.exchange import Pause, UnsentError, exchange
from hsm_client.messages import Answer, Request
from hsm_core import errors, wire
from hsm_core import operations as ops
from hsm_core.errors import HSMError, OutcomeUnknownError, TransportError
from hsm_core.testing import caller, memory_hsm
from tests.client.stub import PROBLEM, problem


class Fate(Enum):
    """What happens to a request."""

    DONE = auto()
    DONE_AND_LOST = auto()
    LOST = auto()
    UNREACHED = auto()
    UNSENT = auto()
    BUSY = auto()
    DENIED = auto()
    ABORTED = auto()


with memory_hsm() as _gateway:
    KEY = _gateway.act_as(caller()).execute(ops.CreateKey(algorithm="Ed25519"))
    RANDOM = _gateway.act_as(caller()).execute(ops.GenerateRandom(length=8))


@dataclass
class Server:
    """
    Server that keeps what it did, by idempotency key.

    Attributes:
        done: How often each mutation was made, or a use.
        keys: The keys of the requests that were sent.
    """

    success: int
    result: Any
    done: dict[str, int] = field(default_factory=dict)
    keys: list[str] = field(default_factory=list)

    def answer(self, request: Request, fate: Fate) -> Answer:
        """Answer a request, or raise what a client meets instead."""
        key = request.headers.get("Idempotency-Key", "")
        if fate is Fate.UNSENT:
            raise UnsentError(errors.AuthenticationError("The sign-in has ended."))
        self.keys.append(key)
        match fate:
            case Fate.DONE | Fate.DONE_AND_LOST:
                if not key or key not in self.done:
                    self.done[key] = self.done.get(key, 0) + 1
                if fate is Fate.DONE:
                    body = wire.encode_json(self.result)
                    return _answer(self.success, "application/json", body)
                raise TransportError("lost", reason="lost")
            case Fate.LOST:
                raise TransportError("lost", reason="lost")
            case Fate.UNREACHED:
                raise TransportError("nobody", reason="connect")
            case Fate.BUSY:
                return _refusal(503, errors.OverloadedError())
            case Fate.DENIED:
                return _refusal(403, errors.AccessDeniedError())
            case Fate.ABORTED if key in self.done:
                # What is done is never said to be aborted.
                body = wire.encode_json(self.result)
                return _answer(self.success, "application/json", body)
            case Fate.ABORTED:
                return _refusal(409, errors.OperationAbortedError())
        raise AssertionError(fate)


def _answer(status: int, kind: str, body: bytes) -> Answer:
    return Answer(status=status, content_type=kind, body=body)


def _refusal(status: int, error: HSMError) -> Answer:
    return _answer(status, PROBLEM, problem(error))


def perform(operation: ops.Operation[Any], server: Server, fates: list[Fate]) -> Any:
    """Perform an exchange; once the fates are over, every request is answered."""
    steps = exchange(operation, attempts=3)
    left = iter(fates)
    try:
        step = next(steps)
        while True:
            if isinstance(step, Pause):
                step = steps.send(None)
                continue
            try:
                answer = server.answer(step, next(left, Fate.DONE))
            except (HSMError, UnsentError) as error:
                step = steps.throw(error)
            else:
                step = steps.send(answer)
    except StopIteration as end:
        return end.value


FATES = st.lists(st.sampled_from(Fate), max_size=9)


@given(FATES)
def test_mutation(fates: list[Fate]) -> None:
    """It is made once if it succeeds, never if it fails, and else that is not known."""
    server = Server(ops.CreateKey.route.success, KEY)
    try:
        result = perform(ops.CreateKey(algorithm="Ed25519"), server, fates)
    except HSMError as error:
        result = error

    made = sum(server.done.values())
    if isinstance(result, OutcomeUnknownError):
        assert made <= 1
        assert server.keys[-1] == result.facts["idempotency_key"]
    elif isinstance(result, HSMError):
        assert 0 == made
    else:
        assert (KEY, 1) == (result, made)
    assert all(server.keys)
    assert len(set(server.keys)) <= 3
    assert max(map(server.keys.count, server.keys), default=0) <= 3


@given(FATES)
def test_use(fates: list[Fate]) -> None:
    """It is made at most once, whatever becomes of the answers."""
    server = Server(ops.GenerateRandom.route.success, RANDOM)
    with suppress(HSMError):
        assert RANDOM == perform(ops.GenerateRandom(length=8), server, fates)

    assert server.done.get("", 0) <= 1
    assert not any(server.keys)
