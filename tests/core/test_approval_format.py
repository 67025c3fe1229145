# SPDX-License-Identifier: MIT
"""The published format of approvals: page, second writer and product agree."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from hsm_core._internal.approvals.records import (
    decode_approval,
    encode_approval,
    read_entry,
)
from hsm_core._internal.keyring.key_ring import KeyRing, RootKey
from hsm_core._internal.lib.encoding import join, length_prefixed, split
from hsm_core._internal.stores.filesystem.stores import FileApprovalStore
from hsm_core._internal.stores.sqlite.records import APPROVALS_SCHEMA
from hsm_core.errors import ApprovalTamperedError
from hsm_core.model import Approval, ApprovalDemand, ApprovalState, Caller, Role
from hsm_core.protocols import ApprovalEntry
from hsm_core.testing import FakeClock, FakeEntropy
from tests.core import key_vectors
from tests.core.approval_support import Register
from tests.core.approval_vectors import APPROVAL_ID, block, vectors
from tests.support import REPOSITORY

PAGE = (REPOSITORY / "docs" / "reference" / "formats-approvals.md").read_text()
RING = KeyRing.open(
    RootKey(key_vectors.ROOT), bytes.fromhex(key_vectors.vectors()["sealed ring"])
)
VECTORS = vectors()


def test_page() -> None:
    """
    The page shows the vectors that the second implementation makes.
    """
    (shown,) = re.findall(r"```text\n(pending .*?)```", PAGE, re.DOTALL)

    assert block() == shown


@pytest.mark.parametrize("name", VECTORS)
def test_record(name: str) -> None:
    """
    The product reads the published records, and writes them byte for byte.
    """
    stored = VECTORS[name].encode()

    approval = decode_approval(APPROVAL_ID, stored, RING.approval_mac)

    assert stored == encode_approval(approval, RING.approval_mac)
    assert name == approval.state


def test_life(tmp_path: Path) -> None:
    """
    The steps that the product makes lead to the published files.
    """
    clock = FakeClock()
    store = FileApprovalStore(tmp_path / "approvals")
    register = Register(store, RING.approval_mac, clock)
    file = tmp_path / "approvals" / f"{APPROVAL_ID}.json"
    register.insert(
        Approval(
            approval_id=APPROVAL_ID,
            generation=1,
            state=ApprovalState.PENDING,
            kind="DestroyKey",
            digest="41" * 32,
            requester="alice",
            demands=(ApprovalDemand(rule="destroy", distinct_roles=(Role.AUDITOR,)),),
            created_at=clock.now(),
            expires_at=clock.now() + 86_400_000_000,
            salt=bytes(range(32)),
            shown_sha256="44" * 32,
            sealed=b"sealed",
            key_id=key_vectors.KEY_ID,
            credential_id="token-1",
            policy="42" * 32,
        )
    )
    assert VECTORS["pending"] == file.read_text()
    clock.advance(60)
    bob = Caller(
        principal="bob",
        roles=frozenset({Role.AUDITOR}),
        credential_id="token-7",
        certificate_sha256="43" * 32,
    )
    register.decide(APPROVAL_ID, bob, granted=True, comment="as agreed")
    clock.advance(60)
    operation = key_vectors.OPERATION_ID
    register.reserve(
        APPROVAL_ID, operation_id=operation, digest="41" * 32, requester="alice"
    )
    register.consume(APPROVAL_ID, operation_id=operation)

    assert VECTORS["consumed"] == file.read_text()
    store.close()


def test_bound_to_its_store() -> None:
    """
    A record of another store is refused, as is a MAC under another label.
    """
    stored = VECTORS["consumed"].encode()
    other = KeyRing.create(FakeEntropy(), log_id="00" * 16)
    for mac_of in (
        other.approval_mac,
        RING.document_mac,
        lambda payload: RING.document_mac(
            length_prefixed(RING.store_id.encode(), payload)
        ),
    ):
        with pytest.raises(ApprovalTamperedError):
            decode_approval(APPROVAL_ID, stored, mac_of)


def test_another_form() -> None:
    """
    A refusal names the approval, and says if only a newer release knows more.
    """
    named = f"Approval {APPROVAL_ID}"
    payload = split(b"approval", VECTORS["pending"].encode())[0]
    newer = payload.replace(b'"format":1', b'"format":2')
    older = payload.replace(b'"format":1', b'"format":0')
    facts: dict[str, object] = {"approval_id": APPROVAL_ID}

    for changed, problem, more in (
        (newer, "has format 2, written by a newer release", {"format": 2}),
        (older, "was tampered with.", {}),
    ):
        stored = join(b"approval", changed, RING.approval_mac(changed))
        with pytest.raises(ApprovalTamperedError, match=f"^{named} {problem}") as found:
            decode_approval(APPROVAL_ID, stored, RING.approval_mac)
        assert facts | more == found.value.facts


@pytest.mark.parametrize(
    "stored", [b"", b"\xff", VECTORS["consumed"].encode()], ids=["", "noise", "others"]
)
def test_listed_though_unreadable(stored: bytes) -> None:
    """
    What can't be read as an approval's own is listed as one that waits, by nobody.
    """
    other = "00000000-0000-4000-8000-000000000000"
    entry = ApprovalEntry(
        approval_id=other,
        generation=0,
        state=ApprovalState.PENDING,
        requester="",
        digest="",
        created_at=0,
    )

    assert entry == read_entry(other, stored)


def test_database() -> None:
    """
    The page names the application id of the database.
    """
    mark = APPROVALS_SCHEMA.application_id.to_bytes(4, "big").decode()

    assert f"`{mark}`" in PAGE
