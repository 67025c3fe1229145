# SPDX-License-Identifier: MIT
"""The published formats of stored keys: page, second writer and product agree."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from hsm_core._internal.keyring.documents import (
    decode_document,
    document_digest,
    encode_document,
)
from hsm_core._internal.keyring.key_ring import BlobContext, KeyRing, RootKey
from hsm_core._internal.keyring.use_counters import UseValue, decode_value, encode_value
from hsm_core._internal.stores.filesystem.stores import FilesystemKeyStore
from hsm_core.errors import ApprovalTamperedError
from hsm_core.model import KeyId
from hsm_core.testing import FakeEntropy
from tests.core.filesystem_support import make_template
from tests.core.key_vectors import (
    KEK,
    KEY_ID,
    MATERIAL,
    MATERIAL_ID,
    ROOT,
    block,
    mac,
    prefixed,
    seal,
    vectors,
)
from tests.support import REPOSITORY

PAGE = (REPOSITORY / "docs" / "reference" / "formats-keys.md").read_text()
VECTORS = vectors()
RING = KeyRing.open(RootKey(ROOT), bytes.fromhex(VECTORS["sealed ring"]))
STORED = VECTORS["document"].encode()


def test_page() -> None:
    """
    The page shows the vectors that the second implementation makes.
    """
    (shown,) = re.findall(r"```text\n(root .*?)```", PAGE, re.DOTALL)

    assert block() == shown


def test_ring() -> None:
    """
    The product opens the published ring.
    """
    assert "0102030405064708890a0b0c0d0e0f10" == RING.store_id
    assert "1112131415161718191a1b1c1d1e1f20" == RING.log_id
    assert "f0f1f2f3f4f5f6f7" == RING.kek_id


def test_ring_contents() -> None:
    """
    The product writes the contents of a ring as the page says, name by name.
    """
    root = RootKey(ROOT)
    sealed = RING.seal(root)
    end = 9 + int.from_bytes(sealed[5:9], "big")
    contents = root.open(sealed[end:-32], b"hsm-core/key-ring/1")

    assert VECTORS["ring contents"] == contents.hex()


def test_blob() -> None:
    """
    The product opens the published blob.
    """
    context = BlobContext(
        key_id=KEY_ID,
        version=1,
        material_id=MATERIAL_ID,
        algorithm="AES-256-GCM",
        usages=("encrypt", "decrypt"),
    )
    blob = bytes.fromhex(VECTORS["sealed blob"])

    assert MATERIAL == RING.open_material(blob, context=context)


def test_document() -> None:
    """
    The product believes the published document, and writes it the same again.
    """
    document = decode_document(KeyId(KEY_ID), RING.store_id, STORED, RING.document_mac)

    assert STORED == encode_document(document, RING.document_mac)
    assert b"example" == document.versions[0].public_der
    assert VECTORS["document digest"] == document_digest(STORED)


def test_derived_values() -> None:
    """
    The product derives the published values.
    """
    element = RING.set_element(KEY_ID, 1, document_digest(STORED))

    assert VECTORS["operation id"] == RING.operation_id("alice", "request-1")
    assert VECTORS["payload digest"] == RING.payload_digest(b"payload")
    assert VECTORS["set element"] == f"{element:064x}"


def _derived() -> dict[str, tuple[bytes, bytes]]:
    """Return by label what the product derives, and over what the page says."""
    store, number = RING.store_id.encode(), (7).to_bytes(8, "big")
    key, digest = KEY_ID.encode(), b"ab" * 32
    element = RING.set_element(KEY_ID, 7, "ab" * 32)
    short = RING.set_element("k", 7, "ab")
    approval = RING.approval_element("a", 7, "ab")
    bucket = RING.bucket_part(9, 8)
    return {
        "document-mac": (RING.document_mac(b"x"), b"x"),
        "store-account": (RING.account_mac(b"x"), b"x"),
        "cluster-state": (RING.cluster_mac(b"x"), b"x"),
        "clock-leaps": (RING.jumps_mac(b"x"), b"x"),
        "retention-state": (RING.retention_mac(b"x"), b"x"),
        "approval-mac": (RING.approval_mac(b"x"), prefixed(store, b"x")),
        "approval-digest": (
            bytes.fromhex(RING.approval_digest(b"x", b"y")),
            prefixed(b"x", b"y"),
        ),
        "credential-key": (
            bytes.fromhex(RING.credential_mark("n")),
            prefixed(store, b"n"),
        ),
        "payload-digest": (bytes.fromhex(RING.payload_digest(b"x")), b"x"),
        "use-counter": (
            RING.counter_mac(MATERIAL_ID, b"x"),
            prefixed(store, MATERIAL_ID.encode(), b"x"),
        ),
        "set-digest": (element.to_bytes(32, "big"), prefixed(key, number, digest)),
        "set-digest of others": (
            short.to_bytes(32, "big"),
            prefixed(b"k", number, b"ab"),
        ),
        "approval-set": (approval.to_bytes(32, "big"), prefixed(b"a", number, b"ab")),
        "store-bucket": (
            bucket.to_bytes(32, "big"),
            (9).to_bytes(4, "big") + (8).to_bytes(32, "big"),
        ),
    }


@pytest.mark.parametrize("label", _derived())
def test_each_derived_value(label: str) -> None:
    """
    What stands under the integrity secret is derived with the label of the page.
    """
    name = f"hsm-core/{label.partition(' ')[0]}/1"
    made, over = _derived()[label]

    assert mac(name.encode(), over) == made
    assert f"`{name}`" in PAGE


def test_sealed_approval() -> None:
    """
    The product opens what an approval holds, sealed as the page says, and no other's.
    """
    bound = prefixed(RING.store_id.encode(), b"approval-1")
    start = b"FHKA\x01" + bytes.fromhex(RING.kek_id)
    blob = seal(KEK, start, b"hsm-core/approval-seal/1", bound, b"request", 0xA6)
    mine = RING.seal_approval(b"request", approval_id="b", entropy=FakeEntropy(1))

    assert b"request" == RING.open_approval(blob, approval_id="approval-1")
    assert blob[: len(start)] == mine[: len(start)]
    assert b"request" == RING.open_approval(mine, approval_id="b")
    other_kek = blob[:5] + bytes(8) + blob[13:]
    for bad in (blob[:-1], b"FHKB" + blob[4:], other_kek, b"", start, mine):
        with pytest.raises(ApprovalTamperedError) as caught:
            RING.open_approval(bad, approval_id="approval-1")
        assert {"approval_id": "approval-1"} == caught.value.facts


@pytest.mark.parametrize(
    ("start", "problem"),
    [
        (b"FHKA\x02", "has format 2, written by a newer release"),
        (b"FHKA\x01", "was tampered with."),
        (b"FHKA\x00", "was tampered with."),
        (b"FHKB\x02", "was tampered with."),
    ],
)
def test_approval_of_another_form(start: bytes, problem: str) -> None:
    """
    A refusal names the approval, and says if only a newer release knows more.
    """
    sealed = RING.seal_approval(b"request", approval_id="a", entropy=FakeEntropy(1))

    with pytest.raises(ApprovalTamperedError, match=f"^The approval a {problem}"):
        RING.open_approval(start + sealed[5:-1], approval_id="a")


def test_use_counter() -> None:
    """
    The product believes the published use counter, and writes it the same again.
    """
    stored = bytes.fromhex(VECTORS["use counter"])
    value = decode_value(MATERIAL_ID, stored, RING.counter_mac)

    assert UseValue(1024, 4096, 1750000000000000, warned=True) == value
    assert stored == encode_value(MATERIAL_ID, value, RING.counter_mac)


def test_layout(tmp_path: Path) -> None:
    """
    Every file of a store is in the table of the page, under its form.
    """
    directory = make_template(tmp_path / "store")
    store = FilesystemKeyStore(directory)
    store.abort("00" * 16)
    store.uses.put(MATERIAL_ID, b"value")
    store.close()
    forms = {
        "KEY-ID": r"[0-9a-f-]{36}",
        "MATERIAL-ID": r"[0-9a-f-]{36}",
        "OPERATION-ID": r"[0-9a-f]{32}",
        "NAME": "[a-z-]+",
        "vNNNNNNNN": "v[0-9]{8}",
    }
    section = PAGE.split("## Files")[1].split("\n## ")[0]
    patterns = re.findall(r"^\| `([^`]+)` \|", section, re.MULTILINE)
    for form, expression in forms.items():
        patterns = [pattern.replace(form, expression) for pattern in patterns]
    files = [p for p in directory.rglob("*") if p.is_file()]
    names = [str(path.relative_to(directory)) for path in files]

    absent = [p for p in patterns if not any(re.fullmatch(p, n) for n in names)]

    assert 8 == len(patterns)
    assert [] == [n for n in names if not any(re.fullmatch(p, n) for p in patterns)]
    # The log need not be there once the store is closed.
    assert set(absent) <= {"index-wal"}
