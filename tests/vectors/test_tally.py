# SPDX-License-Identifier: MIT
"""A tally tells agreement from disagreement."""

from __future__ import annotations

import pytest

from hsm_core.algorithms import Algorithm
from hsm_core.errors import (
    DecryptionError,
    InputSizeError,
    SignatureMismatchError,
    UnsupportedOperationError,
)
from tests.vectors.tally import LOADING, Tally

ED25519 = Algorithm.ED25519


def accept() -> None:
    """Accept."""


def reject() -> None:
    """Reject."""
    raise SignatureMismatchError


def test_agreement() -> None:
    """Valid and accepted agree, and so do invalid and rejected."""
    tally = Tally()
    tally.judge(ED25519, {"tcId": 1, "result": "valid"}, accept)
    tally.judge(ED25519, {"tcId": 2, "result": "invalid"}, reject)

    assert {"Ed25519": 2} == tally.counts()["agree"]
    assert [] == tally.wrong


def test_disagreement() -> None:
    """Anything else is wrong, and named."""
    tally = Tally()
    tally.judge(ED25519, {"tcId": 1, "result": "valid"}, reject)
    tally.judge(ED25519, {"tcId": 2, "result": "invalid"}, accept)
    tally.refuse({"tcId": 3}, "hash", DecryptionError, accept)
    tally.compare_inside(ED25519, {"tcId": 4}, b"made", b"expected")

    assert ["1", "2", "3", "4 inside"] == tally.wrong
    assert not any(tally.counts().values())


def test_either_way() -> None:
    """What may be answered either way is counted by decision and flag."""
    tally = Tally()
    test = {"tcId": 1, "result": "acceptable", "flags": ["A", "B"]}
    tally.judge(ED25519, test, reject)
    tally.judge(ED25519, test, accept)

    assert {"accepted B": 1, "rejected B": 1} == tally.counts()["either"]


def test_refusal() -> None:
    """A refusal is counted by its reason."""
    tally = Tally()
    tally.refuse({"tcId": 1}, "hash", SignatureMismatchError, reject)

    assert {"hash": 1} == tally.counts()["refused"]


@pytest.mark.parametrize(
    "error",
    [
        UnsupportedOperationError("not so", algorithm="Ed25519"),
        InputSizeError("key", actual=1, maximum=0),
    ],
)
def test_a_wrong_question(error: Exception) -> None:
    """A test that was asked wrongly is no rejection: the error comes out."""

    def attempt() -> None:
        raise error

    rejections = LOADING if isinstance(error, UnsupportedOperationError) else ()
    with pytest.raises(type(error)):
        Tally().judge(ED25519, {"tcId": 1, "result": "invalid"}, attempt, rejections)
