# SPDX-License-Identifier: MIT
"""State x operation through the whole pipeline, written out a second time."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from hsm_core import errors
from hsm_core import operations as ops
from hsm_core._internal.keyring.documents import OperationRecord
from hsm_core._internal.keyring.repository import KeyRepository
from hsm_core.factory import OpenHSM
from hsm_core.model import KeyState
from hsm_core.operations import Operation
from hsm_core.session import Session
from hsm_core.testing import caller, memory_hsm

#                    staged active retired suspended revoked purge  destroyed
EXPECTED = {
    "Sign":         "no     yes    no      no        no      no     no",
    "Verify":       "no     yes    yes     no        no      no     no",
    "Encrypt":      "no     yes    no      no        no      no     no",
    "Decrypt":      "no     yes    yes     no        no      no     no",
    "ComputeMac":   "no     yes    no      no        no      no     no",
    "VerifyMac":    "no     yes    yes     no        no      no     no",
    "GetPublicKey": "yes    yes    yes     yes       yes     no     no",
    "RotateKey":    "no     yes    no      no        yes     no     no",
    "RevokeKey":    "yes    yes    yes     yes       no      no     no",
    "DestroyKey":   "yes    yes    yes     yes       yes     yes    no",
    "ActivateKey":  "yes    no     no      no        no      no     no",
    "SuspendKey":   "no     yes    no      no        no      no     no",
    "ResumeKey":    "no     no     no      yes       no      no     no",
    "UpdateKey":    "yes    yes    yes     yes       yes     yes    no",
    "SetRotation":  "yes    yes    yes     yes       yes     yes    no",
    "CancelDestroy": "no    no     no      no        no      no     no",
    "DescribeKey":  "yes    yes    yes     yes       yes     yes    yes",
    "ListVersions": "yes    yes    yes     yes       yes     yes    yes",
}  # fmt: skip
STATES = (
    KeyState.STAGED,
    KeyState.ACTIVE,
    KeyState.RETIRED,
    KeyState.SUSPENDED,
    KeyState.REVOKED,
    KeyState.PURGE_SCHEDULED,
    KeyState.DESTROYED,
)
ALGORITHM = {"Encrypt": "aes", "Decrypt": "aes"} | dict.fromkeys(
    ("ComputeMac", "VerifyMac"), "hmac-sha256"
)
MOVING = frozenset(
    {
        "ActivateKey",
        "DestroyKey",
        "ResumeKey",
        "RevokeKey",
        "RotateKey",
        "SuspendKey",
    }
)
CELLS = [
    (kind, state, word == "yes")
    for kind, row in EXPECTED.items()
    for state, word in zip(STATES, row.split(), strict=True)
]


def put_in_state(gateway: OpenHSM, key_id: str, state: KeyState) -> None:
    """Store a key whose only version is in a state that no operation may make yet."""
    inventory: KeyRepository = gateway._services.inventory  # noqa: SLF001 (no operation can)
    before = inventory.document(key_id)  # type: ignore[arg-type]
    came_from = KeyState.RETIRED if state is KeyState.PURGE_SCHEDULED else None
    version = msgspec.structs.replace(
        before.versions[0], state=state, came_from=came_from
    )
    record = OperationRecord(
        id=f"test-{state}".replace("_", "-"),
        digest="",
        kind="Test",
        generation=before.generation + 1,
        version=1,
        at=before.updated_at,
    )
    after = msgspec.structs.replace(
        before,
        versions=(version,),
        generation=before.generation + 1,
        operations=(*before.operations, record),
    )
    inventory.commit(before, after, inventory.encode(after), record.id, {})


def prepared(session: Session, kind: str) -> tuple[str, Operation[Any]]:
    """Return a key and an operation on it that succeeds while the key is active."""
    key = session.create_key(ALGORITHM.get(kind, "ed25519")).key_id
    match kind:
        case "Sign":
            return key, ops.Sign(key_id=key, message=b"m")
        case "Verify":
            made = session.sign(key, b"m").signature
            return key, ops.Verify(key_id=key, message=b"m", signature=made, version=1)
        case "Encrypt":
            return key, ops.Encrypt(key_id=key, plaintext=b"m")
        case "Decrypt":
            return key, ops.Decrypt(key_id=key, ciphertext=session.encrypt(key, b"m"))
        case "ComputeMac":
            return key, ops.ComputeMac(key_id=key, message=b"m")
        case "VerifyMac":
            made = session.mac(key, b"m").mac
            return key, ops.VerifyMac(key_id=key, message=b"m", mac=made)
        case "UpdateKey":
            return key, ops.UpdateKey(key_id=key, description="changed")
        case _:
            operation: Operation[Any] = getattr(ops, kind)(key_id=key)
            return key, operation


@pytest.mark.parametrize(("kind", "state", "permitted"), CELLS)
def test_every_cell(kind: str, state: KeyState, permitted: bool) -> None:
    """Each operation is served or refused as the state of the version says."""
    with memory_hsm() as gateway:
        hsm = gateway.act_as(caller())
        key, operation = prepared(Session(hsm), kind)
        if state is not KeyState.ACTIVE:
            put_in_state(gateway, key, state)

        if permitted:
            hsm.execute(operation)
            newest = Session(hsm).describe(key)
            assert kind in MOVING or state is newest.state
        else:
            with pytest.raises(errors.KeyStateError):
                hsm.execute(operation)


@pytest.mark.parametrize("state", STATES)
def test_rollback_by_the_state_of_its_source(state: KeyState) -> None:
    """Only a retired version can be rolled back to."""
    with memory_hsm() as gateway:
        session = Session(gateway.act_as(caller()))
        key = session.create_key("ed25519").key_id
        put_in_state(gateway, key, KeyState.ACTIVE)
        session.rotate(key)
        inventory: KeyRepository = gateway._services.inventory  # noqa: SLF001
        before = inventory.document(key)
        source = msgspec.structs.replace(before.versions[0], state=state)
        after = msgspec.structs.replace(
            before,
            versions=(source, before.versions[1]),
            generation=before.generation + 1,
        )
        inventory.commit(before, after, inventory.encode(after), "test-source", {})

        if state is KeyState.RETIRED:
            assert 3 == session.rollback(key, 1).version
        else:
            with pytest.raises(errors.KeyStateError):
                session.rollback(key, 1)
