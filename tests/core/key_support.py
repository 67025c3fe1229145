# SPDX-License-Identifier: MIT
"""What the tests of key stores and sealing share: rings, documents and changes."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Mapping

from hsm_core._internal.keyring.documents import (
    DOCUMENT_FORMAT,
    KeyDocument,
    OperationRecord,
    VersionDocument,
    document_digest,
    encode_document,
    index_of,
)
from hsm_core._internal.keyring.key_ring import BlobContext, KeyRing, RootKey
from hsm_core.model import KeyFilter, KeyId, KeyState
from hsm_core.protocols import IndexQuery, KeyChange, KeyStore
from hsm_core.testing import FakeEntropy

LOG_ID = "10" * 16
ROOT = RootKey(bytes(range(32)), entropy=FakeEntropy(1))
RING = KeyRing.create(FakeEntropy(2), log_id=LOG_ID)


def key_id_of(number: int) -> KeyId:
    """Return the id of a test key; ids ascend with their numbers."""
    return KeyId(str(uuid.UUID(int=number << 64 | 0x4000_8000_0000_0000_0000)))


def operation_of(number: int) -> str:
    """Return an operation id."""
    return f"{number:032x}"


def context_of(document: KeyDocument, number: int) -> BlobContext:
    """Return what the sealed blob of a version is bound to."""
    version = document.version(number)
    assert version is not None
    return BlobContext(
        key_id=document.key_id,
        version=number,
        material_id=version.material_id,
        algorithm=document.algorithm,
        usages=document.usages,
    )


def seal_version(document: KeyDocument, number: int, material: bytes) -> bytes:
    """Return the sealed blob of a version."""
    return RING.seal_material(
        material, context=context_of(document, number), entropy=FakeEntropy(number)
    )


def document_of(
    number: int,
    *,
    generation: int = 1,
    versions: int = 1,
    state: KeyState = KeyState.ACTIVE,
    name: str = "",
    owner: str = "alice",
    tags: tuple[str, ...] = (),
    algorithm: str = "AES-256-GCM",
    created_at: int | None = None,
    operations: tuple[str, ...] = (),
    blobs: Mapping[int, bytes] | None = None,
) -> KeyDocument:
    """Return the document of a key; its last version is current and in *state*."""
    digests = {n: hashlib.sha256(b).hexdigest() for n, b in (blobs or {}).items()}
    gone = state is KeyState.DESTROYED
    return KeyDocument(
        format=DOCUMENT_FORMAT,
        kek_id=RING.kek_id,
        store_id=RING.store_id,
        key_id=key_id_of(number),
        algorithm=algorithm,
        usages=("encrypt", "decrypt"),
        created_at=1000 + number if created_at is None else created_at,
        updated_at=2000,
        generation=generation,
        current=versions,
        name=name,
        owner=owner,
        tags=tags,
        versions=tuple(
            VersionDocument(
                version=n,
                material_id=f"material-{number}-{n}",
                state=state if n == versions else KeyState.RETIRED,
                created_at=1000,
                state_changed_at=1000,
                blob_sha256="" if gone else digests.get(n, "ab" * 32),
            )
            for n in range(1, versions + 1)
        ),
        operations=tuple(
            OperationRecord(
                id=operation_id,
                digest="cd" * 32,
                kind="CreateKey",
                generation=generation,
                version=versions,
                at=2000,
            )
            for operation_id in operations
        ),
    )


def change_of(
    document: KeyDocument,
    operation_id: str,
    *,
    blobs: Mapping[int, bytes] | None = None,
    removed_blobs: tuple[int, ...] = (),
) -> KeyChange:
    """Return the change that brings a document about, from the generation before."""
    stored = encode_document(document, RING.document_mac)
    return KeyChange(
        entry=index_of(document, document_digest(stored)),
        document=stored,
        expected_generation=document.generation - 1,
        operation_id=operation_id,
        blobs=blobs or {},
        removed_blobs=removed_blobs,
    )


def page(
    store: KeyStore,
    *,
    limit: int = 100,
    offset: int = 0,
    after: tuple[int, str] | None = None,
    wanted: KeyFilter | None = None,
) -> list[KeyId]:
    """Return the ids of a page."""
    query = IndexQuery(
        filter=wanted or KeyFilter(), limit=limit, offset=offset, after=after
    )
    return [key_id for _, key_id in store.find(query).keys]


def everything(store: KeyStore) -> dict[KeyId, tuple[bytes, dict[int, bytes]]]:
    """Return every document with the blobs of its first nine versions."""
    found = {}
    for stored in store.scan():
        blobs = {n: store.get_blob(stored.key_id, n) for n in range(1, 10)}
        present = {n: blob for n, blob in blobs.items() if blob is not None}
        found[stored.key_id] = stored.document, present
    return found
