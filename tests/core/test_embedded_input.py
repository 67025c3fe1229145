# SPDX-License-Identifier: MIT
"""Operations built by a program, which nobody has parsed: bad ones are refused too."""

from __future__ import annotations

from typing import Any

import pytest

from hsm_core import errors
from hsm_core import operations as ops
from hsm_core.factory import OpenHSM
from hsm_core.model import Caller
from hsm_core.session import Session
from hsm_core.testing import caller, memory_hsm

BAD: list[Any] = [
    ops.GenerateRandom(length=-1),
    ops.GenerateRandom(length=2**70),
    ops.GenerateRandom(length="5"),  # type: ignore[arg-type]
    ops.CreateKey(algorithm="ed25519", description="\ud800"),
    ops.CreateKey(algorithm="ed25519", name="../x"),
    ops.CreateKey(algorithm="ed25519", tags=("a b",)),
    ops.CreateKey(algorithm="ed25519", usages=("fly",)),  # type: ignore[arg-type]
    ops.CreateKey(algorithm=5),  # type: ignore[arg-type]
    ops.DescribeKey(key_id=None),  # type: ignore[arg-type]
    ops.DescribeKey(key_id="k\n"),
    ops.Sign(key_id="k", message="text"),  # type: ignore[arg-type]
    ops.Encrypt(key_id="k", plaintext=object()),  # type: ignore[arg-type]
    ops.RevokeKey(key_id="k", version=0),
    ops.Rollback(key_id="k", version=2**64),
    ops.ListKeys(per_page=0),
    ops.SignBatch(key_id="k", items=None),  # type: ignore[arg-type]
    ops.SignBatch(key_id="k", items="items"),  # type: ignore[arg-type]
    ops.SignBatch(key_id="k", items=(5,)),  # type: ignore[arg-type]
    ops.SignBatch(key_id="k", items=(object(),)),  # type: ignore[arg-type]
    ops.SignBatch(key_id="k", items=(ops.SignItem(message=5),)),  # type: ignore[arg-type]
    ops.SignBatch(key_id="k", items=(ops.EncryptItem(plaintext=b""),)),  # type: ignore[arg-type]
]


@pytest.mark.parametrize("operation", BAD, ids=lambda o: type(o).__name__)
def test_bad_operations_are_refused(
    gateway: OpenHSM, session: Session, operation: ops.Operation[Any]
) -> None:
    """A record that breaks its own type is a clear error, whoever built it."""
    session.create_key("ed25519", name="k")

    with pytest.raises(errors.InvalidInputError):
        gateway.act_as(caller()).execute(operation)

    session.verify_audit()


@pytest.mark.parametrize(
    ("operation", "message"),
    [
        (
            ops.CreateKey(algorithm="ed25519", name="My Key"),
            "name must be up to 64 lower-case letters, digits, dots, hyphens",
        ),
        (ops.DescribeKey(key_id="a b"), "key_id must be a key ID or name: up to 64"),
        (
            ops.CreateKey(algorithm="ed25519", tags=("a b",)),
            "tags[0] must be up to 64 letters, digits and characters of",
        ),
        (
            ops.SuspendKey(key_id="k", reason="a\nb"),
            "reason must be one line without control characters.",
        ),
        (ops.GetApproval(approval_id="5B1C"), "approval_id must be a UUID in lower-"),
    ],
)
def test_forms_in_words(
    gateway: OpenHSM, operation: ops.Operation[Any], message: str
) -> None:
    """The message says in words what a name, tag, line or UUID looks like."""
    with pytest.raises(errors.InvalidInputError) as caught:
        gateway.act_as(caller()).execute(operation)

    assert str(caught.value).startswith(message)


def test_bytes_like_objects_are_bytes(session: Session) -> None:
    """A program may hand over a bytearray or a memoryview."""
    session.create_key("ed25519", name="k")

    made = session.sign("k", bytearray(b"m")).signature  # type: ignore[arg-type]

    session.verify("k", memoryview(b"m"), made)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "who",
    [
        Caller(principal="\ud800", roles=caller().roles),
        Caller(principal="x" * 10_000, roles=caller().roles),
        Caller(principal="", roles=caller().roles),
        Caller(principal="p", roles=caller().roles, request_id="r" * 10_000),
        Caller(principal="p\n\x1b[31m", roles=caller().roles),
    ],
    ids=["surrogate", "long", "empty", "long request id", "control"],
)
def test_callers_that_can_not_be_recorded(who: Caller) -> None:
    """Who can't be written into the trail can't do anything."""
    with memory_hsm() as gateway:
        with pytest.raises(errors.InvalidInputError):
            gateway.act_as(who).execute(ops.CreateKey(algorithm="ed25519"))

        assert [] == list(Session(gateway.act_as(caller())).keys())
