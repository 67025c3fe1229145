# SPDX-License-Identifier: MIT
"""
Types that programs over `hsm_client` get: checked by ``mypy --strict``, never run.

A wrong call stands with the error that mypy must report: a suppression that is not
needed is an error, too.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator, Iterator
from pathlib import Path
from typing import assert_type

import hsm_client
from hsm_client import ApprovalEndedError, Connection, InvalidSignature, Key, aio
from hsm_client.aio import AsyncConnection, AsyncKey
from hsm_core import User
from hsm_core.aio import AsyncUser
from hsm_core.model import AuditEntry
from hsm_core.operations import DescribeKey
from hsm_core.protocols import HSM, AsyncHSM


def program() -> None:
    """Use everything that has a type of its own."""
    with hsm_client.connect() as hsm:
        assert_type(hsm, Connection)
        key = hsm.create("ML-DSA-65", name="release", exist_ok=True)
        assert_type(key, Key)
        assert_type(key.sign(b""), bytes)
        assert_type(hsm.keys(), Iterator[Key])
        assert_type(hsm.follow(), Generator[AuditEntry, None, None])
        needs_user(hsm)
        needs_hsm(hsm)
        hsm_client.open_private_key(hsm, "release")
    hsm_client.connect("https://h", token=lambda: "", ca_bundle=Path("ca.pem"))
    hsm_client.connect("https://h", client_cert="ada.p12", client_key_password="")
    hsm_client.connect(profile="prod", wait_seconds=60, notify=print)


def wrong(hsm: Connection) -> None:
    """Make the mistakes that a type checker finds."""
    hsm_client.conect()  # type: ignore[attr-defined]
    hsm_client.connect("https://h", "prod")  # type: ignore[call-arg]
    hsm_client.connect(token=b"secret")  # type: ignore[arg-type]
    hsm_client.connect(wait_seconds="1")  # type: ignore[arg-type]
    hsm.follow(DescribeKey(key_id="k"))  # type: ignore[arg-type]


def caught(key: Key) -> str:
    """Read the errors that programs handle."""
    try:
        key.verify(b"", b"")
    except InvalidSignature as error:
        assert_type(error.code, str)
    except ApprovalEndedError as error:
        return str(error.facts["state"])
    except hsm_client.HSMError as error:
        return str(error)
    return ""


def needs_user(user: User) -> None:
    """Take a user of any HSM."""


def needs_hsm(hsm: HSM) -> None:
    """Take anything that executes operations."""


def needs_async(user: AsyncUser, hsm: AsyncHSM) -> None:
    """Take a user, and anything that executes operations, on an event loop."""


async def service() -> None:
    """Use the asynchronous twins."""
    async with aio.connect("https://h", token="@token") as hsm:
        assert_type(hsm, AsyncConnection)
        key = await hsm.create("AES-256-GCM")
        assert_type(key, AsyncKey)
        assert_type(await key.encrypt(b""), bytes)
        assert_type(hsm.follow(), AsyncGenerator[AuditEntry, None])
        needs_async(hsm, hsm)
        key.encrypt(b"")  # type: ignore[unused-coroutine]
