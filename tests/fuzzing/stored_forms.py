# SPDX-License-Identifier: MIT
"""What lies in stores: documents, blobs, counters, indexes, approvals, leases."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from contextlib import closing
from typing import Any, Final, cast

import msgspec

from hsm_core._internal.approvals.records import (
    decode_approval,
    encode_approval,
    read_entry,
)
from hsm_core._internal.crypto import ciphertexts
from hsm_core._internal.keyring.documents import (
    decode_document,
    encode_document,
    peek,
    read_index,
)
from hsm_core._internal.keyring.key_ring import KeyRing
from hsm_core._internal.keyring.use_counters import UseValue, decode_value, encode_value
from hsm_core._internal.lib import encoding
from hsm_core._internal.retention.state import (
    LOST,
    Allowance,
    LedgerAnchor,
    RetentionState,
    StateFile,
)
from hsm_core._internal.stores.remote.leases import decode_lease, encode_lease
from hsm_core._internal.stores.remote.objects import CheckedVault, RemoteDocuments
from hsm_core._internal.stores.sqlite.records import SqliteKeyStore
from hsm_core._internal.time.clock_guard import (
    ClockJump,
    decode_jumps,
    decode_look,
    encode_jumps,
    encode_look,
)
from hsm_core.algorithms import HashAlgorithm
from hsm_core.algorithms.specs import RSAES_OAEP
from hsm_core.errors import ConfigurationError, HSMError, IntegrityError
from hsm_core.model import ApprovalDecision, Role
from hsm_core.protocols import Lease
from hsm_core.testing import FakeEntropy
from tests.core.approval_support import MAC, approval_id_of, approval_of
from tests.core.key_support import (
    RING,
    ROOT,
    change_of,
    context_of,
    document_of,
    operation_of,
    page,
    seal_version,
)
from tests.fuzzing.target import Target, own_folder

MacOf = Callable[[bytes], bytes]

_DOCUMENT: Final = document_of(
    7, versions=3, name="release", tags=("a.b", "c"), operations=("ab" * 16,)
)
_KEY_ID: Final = _DOCUMENT.key_id
_MATERIAL: Final = "00000000-0000-4000-8000-000000000001"


class NothingReadError(Exception):
    """A reader that has no error says by its answer that it can't read something."""


def sealed(name: bytes, mac_of: MacOf) -> Callable[[bytes], bytes]:
    """Return what puts frame and right MAC round a payload."""
    return lambda payload: encoding.join(name, payload, mac_of(payload))


def payload_of(name: bytes, framed: bytes) -> bytes:
    """Return what is within the frame."""
    return encoding.split(name, framed)[0]


def wanted(found: Any) -> Any:
    """Return what was found; that there is nothing is a refusal."""
    if not found:
        raise NothingReadError
    return found


def targets() -> list[Target]:
    """Return a target for each form."""
    return [
        _document(),
        _blob(),
        _ring(),
        _counter(),
        _approval(),
        _lease(),
        _retention_state(),
        _leaps(),
        _vault_object(),
        _ciphertext(),
        _database(),
    ]


def _document() -> Target:
    mac_of = RING.document_mac
    stored = encode_document(_DOCUMENT, mac_of)
    frame_it = sealed(b"key", mac_of)

    def read(data: bytes) -> object:
        return decode_document(_KEY_ID, RING.store_id, data, mac_of)

    return Target(
        name="key-document",
        readers=(
            read,
            lambda data: read(frame_it(data)),
            lambda data: wanted(peek(_KEY_ID, data)),
            lambda data: wanted(peek(_KEY_ID, frame_it(data))),
            lambda data: wanted(read_index(_KEY_ID, data).state),
        ),
        seeds=(stored, payload_of(b"key", stored)),
        refusals=(IntegrityError, NothingReadError),
    )


def _blob() -> Target:
    context = context_of(_DOCUMENT, 1)
    approval_id = approval_id_of(1)
    consent = RING.seal_approval(
        b"consent", approval_id=approval_id, entropy=FakeEntropy(3)
    )
    return Target(
        name="sealed-blob",
        readers=(
            lambda data: RING.open_material(data, context=context),
            lambda data: RING.open_approval(data, approval_id=approval_id),
        ),
        seeds=(seal_version(_DOCUMENT, 1, bytes(32)), consent),
        refusals=(IntegrityError,),
    )


class _NoRoot:
    """A root that hides nothing, so that what it has sealed can be made up."""

    def seal(self, plaintext: bytes, context: bytes, /) -> bytes:
        return plaintext

    def open(self, blob: bytes, context: bytes, /) -> bytes:
        return blob


def _ring() -> Target:
    plain = cast(Any, _NoRoot())
    whole, open_ring = RING.seal(ROOT), RING.seal(plain)
    start = open_ring[:5]
    length = int.from_bytes(open_ring[5:9], "big")
    contents = open_ring[9 + length : -32]

    def read_contents(data: bytes) -> object:
        body = start + length.to_bytes(4, "big") + open_ring[9 : 9 + length] + data
        return KeyRing.open(plain, body + hashlib.sha256(body).digest())

    def read_body(data: bytes) -> object:
        return KeyRing.open(plain, data + hashlib.sha256(data).digest())

    return Target(
        name="key-ring",
        readers=(lambda data: KeyRing.open(ROOT, data), read_body, read_contents),
        seeds=(whole, open_ring[:-32], contents),
        refusals=(IntegrityError, ConfigurationError),
    )


def _counter() -> Target:
    stored = encode_value(_MATERIAL, UseValue(7, 900, 1000, True), RING.counter_mac)

    def read_counts(data: bytes) -> object:
        mac = RING.counter_mac(_MATERIAL, data)
        return wanted(decode_value(_MATERIAL, data + mac, RING.counter_mac))

    return Target(
        name="use-counter",
        readers=(
            lambda data: wanted(decode_value(_MATERIAL, data, RING.counter_mac)),
            read_counts,
        ),
        seeds=(stored, stored[:-32]),
        refusals=(NothingReadError,),
        longest=128,
    )


def _approval() -> Target:
    decision = ApprovalDecision(
        principal="bob", granted=True, at=5, roles=(Role.AUDITOR,)
    )
    approval = approval_of(1, decisions=(decision,), sealed=b"s", salt=bytes(32))
    stored = encode_approval(approval, MAC)
    frame_it = sealed(b"approval", MAC)
    approval_id = approval.approval_id
    return Target(
        name="approval",
        readers=(
            lambda data: decode_approval(approval_id, data, MAC),
            lambda data: decode_approval(approval_id, frame_it(data), MAC),
            lambda data: wanted(read_entry(approval_id, data).generation),
        ),
        seeds=(stored, payload_of(b"approval", stored)),
        refusals=(IntegrityError, NothingReadError),
    )


def _lease() -> Target:
    lease = Lease(name="writer", holder="host-1", epoch=3, expires_at=99)
    return Target(
        name="lease",
        readers=(lambda data: decode_lease("writer", data),),
        seeds=(encode_lease(lease, "token"), encode_lease(lease)),
        longest=1024,
    )


class _OneValue:
    """A store that has one value, whatever it is asked for."""

    def __init__(self, value: bytes) -> None:
        self._value = value

    def read_meta(self, name: str, /) -> bytes:
        return self._value


def _retention_state() -> Target:
    state = RetentionState(
        store_id=RING.store_id,
        pauses=(LOST,),
        jumps_allowed=5,
        allowance=Allowance(purges=3, until=9),
        anchor=LedgerAnchor(log_id="ab" * 16, seq=4, leaf_hash="cd" * 32),
        asked={"ef": "approval"},
    )
    payload = msgspec.json.encode(state)
    frame_it = sealed(b"retention", RING.retention_mac)

    def read(data: bytes) -> object:
        found = StateFile(cast(Any, _OneValue(data)), RING).state
        return wanted(found != RetentionState(pauses=(LOST,)))

    return Target(
        name="retention-state",
        readers=(read, lambda data: read(frame_it(data))),
        seeds=(payload, frame_it(payload)),
        refusals=(NothingReadError,),
    )


def _leaps() -> Target:
    mac_of = RING.jumps_mac
    leaps, look = (
        encode_jumps([ClockJump(1, 2), ClockJump(5, 9)], mac_of),
        encode_look(7, mac_of),
    )
    frame_leaps, frame_look = sealed(b"leaps", mac_of), sealed(b"look", mac_of)
    return Target(
        name="clock-leaps",
        readers=(
            lambda data: wanted(decode_jumps(data, mac_of)),
            lambda data: wanted(decode_look(data, mac_of)),
            lambda data: wanted(decode_jumps(frame_leaps(data), mac_of)),
            lambda data: wanted(decode_look(frame_look(data), mac_of)),
        ),
        seeds=(leaps, look, payload_of(b"leaps", leaps), payload_of(b"look", look)),
        refusals=(NothingReadError,),
    )


class _VaultObject(msgspec.Struct):
    data: bytes
    tag: str = "t"


def _vault_object() -> Target:
    stored = encode_document(_DOCUMENT, RING.document_mac)

    class OneObject:
        def __init__(self, data: bytes) -> None:
            self._data = data

        def get(self, name: str) -> _VaultObject:
            return _VaultObject(self._data)

    def read(data: bytes) -> object:
        vault = cast(CheckedVault, OneObject(data))
        found = RemoteDocuments(vault, FakeEntropy(1)).read(_KEY_ID)
        return wanted(found.epoch)

    head = b"ferrohsm-document 1 4 " + b"0" * 32 + b"\n"
    return Target(
        name="vault-object",
        readers=(read,),
        seeds=(head + stored, head),
        refusals=(NothingReadError,),
    )


def _ciphertext() -> Target:
    rsa = ciphertexts.Header(
        RSAES_OAEP, _KEY_ID, 2, HashAlgorithm.SHA_512, HashAlgorithm.SHA_256
    )
    others = [ciphertexts.Header(kind, _KEY_ID, 1) for kind in range(1, 6)]
    return Target(
        name="ciphertext",
        readers=(ciphertexts.parse,),
        seeds=tuple(header.encode() + bytes(28) for header in (rsa, *others)),
        longest=256,
    )


def _database() -> Target:
    """Return the target of a database of keys whose very pages are changed."""
    folder = own_folder()
    path = folder / "keys.sqlite"
    with closing(SqliteKeyStore(path)) as store:
        store.commit(change_of(_DOCUMENT, operation_of(1)))
        store.write_meta("ring", b"sealed")
    seed = path.read_bytes()

    def read(data: bytes) -> object:
        for beside in folder.glob("keys.sqlite-*"):
            beside.unlink()
        path.write_bytes(data)
        with closing(SqliteKeyStore(path)) as store:
            store.read_meta("ring")
            list(store.scan())
            list(store.digests())
            return wanted(page(store))

    return Target(
        name="keys-database",
        readers=(read,),
        seeds=(seed,),
        refusals=(HSMError, NothingReadError),
        longest=128 * 1024,
    )
