# SPDX-License-Identifier: MIT
"""Every byte that a store keeps on the disk, changed and swapped, is noticed."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pytest

from hsm_core._internal.keyring.documents import (
    KeyDocument,
    decode_document,
    encode_document,
)
from hsm_core._internal.keyring.key_ring import KeyRing
from hsm_core._internal.stores.filesystem.stores import FilesystemKeyStore
from hsm_core.errors import IntegrityError
from hsm_core.model import KeyId
from hsm_core.testing import FakeEntropy
from tests.core.filesystem_support import key_path
from tests.core.key_support import (
    LOG_ID,
    RING,
    ROOT,
    change_of,
    context_of,
    document_of,
    key_id_of,
    operation_of,
    seal_version,
)

ALGORITHMS = {1: "AES-256-GCM", 2: "AES-256-GCM", 3: "HMAC-SHA-256"}


@dataclass
class Sealed:
    """An open store with three keys of two versions each, all sealed by one ring."""

    directory: Path
    store: FilesystemKeyStore

    def check(self, number: int) -> None:
        """Read a key as an HSM does: ring, document, digest of each blob, material."""
        sealed = self.store.read_meta("ring")
        assert sealed is not None
        ring = KeyRing.open(ROOT, sealed)
        key_id = key_id_of(number)
        stored = self.store.get(key_id).document
        document = decode_document(key_id, ring.store_id, stored, ring.document_mac)
        for version in document.versions:
            blob = self.store.get_blob(key_id, version.version) or b""
            digest = hashlib.sha256(blob).hexdigest()
            if digest != version.blob_sha256:
                raise IntegrityError
            context = context_of(document, version.version)
            material = ring.open_material(blob, context=context)
            assert b"material %d" % version.version == material

    def is_noticed(self, number: int) -> bool:
        """Return whether reading a key fails in the documented way."""
        try:
            self.check(number)
        except IntegrityError:
            return True
        return False


def new_key(number: int) -> tuple[KeyDocument, dict[int, bytes]]:
    """Return the document and the sealed blobs of a key."""
    algorithm = ALGORITHMS[number]
    plain = document_of(number, versions=2, algorithm=algorithm)
    blobs = {n: seal_version(plain, n, b"material %d" % n) for n in (1, 2)}
    document = document_of(
        number,
        versions=2,
        algorithm=algorithm,
        operations=(operation_of(number),),
        blobs=blobs,
    )
    return document, blobs


@pytest.fixture
def sealed(tmp_path: Path) -> Iterator[Sealed]:
    """Give a store whose keys all open."""
    store = FilesystemKeyStore(tmp_path / "store")
    store.write_meta("ring", RING.seal(ROOT))
    for number in ALGORITHMS:
        document, blobs = new_key(number)
        store.commit(change_of(document, operation_of(number), blobs=blobs))
    found = Sealed(tmp_path / "store", store)
    for number in ALGORITHMS:
        found.check(number)
    yield found
    store.close()


@pytest.mark.parametrize("name", ["key.json", "v00000001", "v00000002", "ring"])
def test_every_byte(sealed: Sealed, name: str) -> None:
    """
    A byte changed at any place of any file is noticed, and the other keys still open.
    """
    path = key_path(sealed.directory, 1) / name
    if name == "ring":
        path = sealed.directory / "meta" / name
    whole = path.read_bytes()
    missed = []
    for position in range(len(whole)):
        for mask in (0x01, 0x20, 0x80, 0xFF):
            changed = bytearray(whole)
            changed[position] ^= mask
            path.write_bytes(changed)
            if not sealed.is_noticed(1):
                missed.append((position, mask))

    assert [] == missed
    if name != "ring":
        sealed.check(2)
    path.write_bytes(whole)
    sealed.check(1)


def swap(one: Path, other: Path) -> None:
    """Let two files change places."""
    first, second = one.read_bytes(), other.read_bytes()
    one.write_bytes(second)
    other.write_bytes(first)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ((1, "v00000001"), (1, "v00000002")),
        ((1, "v00000001"), (2, "v00000001")),
        ((1, "v00000002"), (3, "v00000002")),
        ((1, "key.json"), (2, "key.json")),
        ((1, "key.json"), (3, "key.json")),
    ],
    ids=["versions", "keys", "algorithms", "documents", "documents of algorithms"],
)
def test_swapped(sealed: Sealed, one: tuple[int, str], other: tuple[int, str]) -> None:
    """
    Files that change places between versions, keys and algorithms are noticed.
    """
    swap(*(key_path(sealed.directory, number) / name for number, name in (one, other)))

    assert sealed.is_noticed(one[0])
    assert sealed.is_noticed(other[0])


def edited(edit: Callable[[KeyDocument], KeyDocument]) -> bytes:
    """Return the stored form of key 1 after an edit, with the MAC it had before."""
    document, _ = new_key(1)
    mac = encode_document(document, RING.document_mac)[-66:]
    return encode_document(edit(document), RING.document_mac)[:-66] + mac


@pytest.mark.parametrize("version", [1, 2])
def test_swapped_with_a_right_digest(sealed: Sealed, version: int) -> None:
    """
    Even if the document's MAC could be made, a blob of another key does not open.
    """
    document, _ = new_key(1)
    theirs = key_path(sealed.directory, 2) / f"v{version:08d}"
    digest = hashlib.sha256(theirs.read_bytes()).hexdigest()
    versions = tuple(
        msgspec.structs.replace(v, blob_sha256=digest) if v.version == version else v
        for v in document.versions
    )
    forged = msgspec.structs.replace(document, versions=versions)
    ours = key_path(sealed.directory, 1)
    (ours / "key.json").write_bytes(encode_document(forged, RING.document_mac))
    (ours / theirs.name).write_bytes(theirs.read_bytes())

    assert sealed.is_noticed(1)


@pytest.mark.parametrize(
    "edit",
    [
        lambda d: msgspec.structs.replace(d, usages=("sign",)),
        lambda d: msgspec.structs.replace(d, tags=("free",)),
        lambda d: msgspec.structs.replace(d, algorithm="HMAC-SHA-256"),
        lambda d: msgspec.structs.replace(d, versions=d.versions[::-1]),
        lambda d: msgspec.structs.replace(d, versions=d.versions[:1], current=1),
        lambda d: msgspec.structs.replace(d, generation=7),
        lambda d: msgspec.structs.replace(d, key_id=KeyId(key_id_of(2))),
    ],
    ids=["usages", "tags", "algorithm", "order", "versions", "generation", "key id"],
)
def test_edited_document(
    sealed: Sealed, edit: Callable[[KeyDocument], KeyDocument]
) -> None:
    """
    A document edited on the disk is noticed, whatever was edited.
    """
    path = key_path(sealed.directory, 1) / "key.json"
    assert path.read_bytes() == edited(lambda document: document)
    path.write_bytes(edited(edit))

    assert sealed.is_noticed(1)


@pytest.mark.parametrize("name", ["key.json", "v00000001"])
def test_another_installation(sealed: Sealed, tmp_path: Path, name: str) -> None:
    """
    A file from another installation under the same root is noticed.
    """
    other = KeyRing.create(FakeEntropy(99), log_id=LOG_ID)
    document, _ = new_key(1)
    theirs = {
        "key.json": encode_document(document, other.document_mac),
        "v00000001": other.seal_material(
            b"material 1", context=context_of(document, 1), entropy=FakeEntropy(5)
        ),
    }
    (key_path(sealed.directory, 1) / name).write_bytes(theirs[name])

    assert sealed.is_noticed(1)


def test_another_ring(sealed: Sealed) -> None:
    """
    Another ring under the same root in place of ours makes every key tampered.
    """
    other = KeyRing.create(FakeEntropy(98), log_id=LOG_ID)
    (sealed.directory / "meta" / "ring").write_bytes(other.seal(ROOT))

    assert all(sealed.is_noticed(number) for number in ALGORITHMS)
