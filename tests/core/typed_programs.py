# SPDX-License-Identifier: MIT
"""
Types that programs of users get: checked by ``mypy --strict``, never run.

A wrong call stands with the error that mypy must report: a suppression that is not
needed is an error, too.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import assert_type

import hsm_core
from hsm_core import (
    ApprovalRequiredError,
    AuditReport,
    EmbeddedHSM,
    HSMError,
    Key,
    User,
    aio,
)
from hsm_core.aio import AsyncEmbeddedHSM, AsyncKey, AsyncUser
from hsm_core.algorithms import Algorithm
from hsm_core.model import KeyState
from hsm_core.operations import ApprovalInfo, GetPublicKey, PublicKey
from hsm_core.protocols import HSM, AsyncHSM
from hsm_core.testing import FakeClock


def program() -> None:
    """Use everything of the blocking objects that has a type of its own."""
    with hsm_core.open("keys", root=b"", create=True, clock=FakeClock()) as hsm:
        assert_type(hsm, EmbeddedHSM)
        ada = hsm.as_user("ada", roles=["operator", hsm_core.Role.AUDITOR])
        assert_type(ada, User)
        key = ada.create("ML-DSA-65", name="release", tags=("a",), usages=["sign"])
        assert_type(key, Key)
        assert_type(key.sign(b""), bytes)
        assert_type(key.verify(b"", b""), int)
        assert_type(key.rotate(), Key)
        assert_type(key.state, KeyState | None)
        assert_type(key.algorithm, Algorithm | None)
        assert_type(ada.keys(), Iterator[Key])
        assert_type(ada.approvals(), Iterator[ApprovalInfo])
        assert_type(hsm.audit.verify(), AuditReport)
        assert_type(ada.execute(GetPublicKey(key_id="release")), PublicKey)
        needs_hsm(ada)
        wrong(hsm, ada, key)


def wrong(hsm: EmbeddedHSM, ada: User, key: Key) -> None:
    """Make the mistakes that a type checker finds."""
    hsm_core.opn("keys")  # type: ignore[attr-defined]
    hsm_core.open()  # type: ignore[call-arg]
    hsm_core.open("keys", root=5)  # type: ignore[arg-type]
    hsm.as_user("ada")  # type: ignore[call-arg]
    ada.create(name="release")  # type: ignore[call-arg]
    ada.approve("5b1c9a52-7a0e-4d0c-8a35-0c7f0e9b1d24")  # type: ignore[arg-type]
    key.sign("hello")  # type: ignore[arg-type]
    key.verify(b"hello")  # type: ignore[call-arg]
    key.id = "other"  # type: ignore[misc, assignment]
    needs_hsm(hsm)  # type: ignore[arg-type]


def caught(key: Key) -> str:
    """Read the errors that programs handle."""
    try:
        key.verify(b"", b"")
    except hsm_core.InvalidSignature as error:
        assert_type(error.code, str)
    except ApprovalRequiredError as error:
        return str(error.facts["approval_id"])
    except HSMError as error:
        return str(error)
    return ""


def needs_hsm(hsm: HSM) -> None:
    """Take anything that executes operations."""


def needs_async_hsm(hsm: AsyncHSM) -> None:
    """Take anything that executes operations on an event loop."""


async def service() -> None:
    """Use the asynchronous twins."""
    async with aio.open(":memory:") as hsm:
        assert_type(hsm, AsyncEmbeddedHSM)
        ada = hsm.as_user("ada", roles=["operator"])
        assert_type(ada, AsyncUser)
        key = await ada.create("AES-256-GCM")
        assert_type(key, AsyncKey)
        assert_type(await key.encrypt(b""), bytes)
        assert_type(ada.keys(), AsyncIterator[AsyncKey])
        needs_async_hsm(ada)
        key.sign(b"")  # type: ignore[unused-coroutine]
