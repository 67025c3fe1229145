# SPDX-License-Identifier: MIT
"""A key that others changed on disk: shown as such, serves nothing, harms nobody."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from hsm_core import errors
from hsm_core import operations as ops
from hsm_core.model import Integrity, KeyId
from hsm_core.session import Session
from hsm_core.testing import caller
from tests.contract.hsm_ways import disk_session, filesystem_hsm

pytestmark = pytest.mark.usefixtures("private_umask")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Give the data of an HSM with two keys, of two versions each."""
    with disk_session(tmp_path / "data") as session:
        for name in ("good", "bad"):
            key = session.create_key("aes", name=name).key_id
            session.rotate(key)
            (tmp_path / name).write_text(key)
    return tmp_path


def key_folder(folder: Path, name: str) -> Path:
    """Return where a key lies."""
    return folder / "data" / "keys" / "keys" / (folder / name).read_text()


def check_shown_and_refused(folder: Path, wanted: Integrity) -> None:
    """Open the HSM; the bad key is shown and serves nothing, the good one works."""
    bad, good = ((folder / name).read_text() for name in ("bad", "good"))
    with filesystem_hsm(folder / "data") as gateway:
        session = Session(gateway.act_as(caller()))
        gateway.act_as(caller()).execute(ops.VerifyStore())

        shown = {key.key_id: key.integrity for key in session.keys()}
        assert {bad: wanted, good: Integrity.OK} == shown
        assert wanted is session.describe(bad).integrity
        for use in (
            lambda: session.encrypt(bad, b"m"),
            lambda: session.rotate(bad),
            lambda: session.rollback(bad, 1),
            lambda: session.revoke(bad),
            lambda: session.destroy(bad),
        ):
            with pytest.raises(errors.KeyTamperedError) as caught:
                use()
            assert bad == caught.value.facts["key_id"]
        assert b"m" == session.decrypt(good, session.encrypt(good, b"m"))
        assert ("degraded", 1) == (
            session.status().state,
            session.status().tampered_keys,
        )
        assert "key_tampered" in {
            e.event.code for e in session.audit_events(key_id=bad)
        }


@pytest.mark.parametrize("file", ["key.json", "v00000001", "v00000002"])
def test_a_changed_byte(folder: Path, file: str) -> None:
    """One flipped bit in any file of a key is found, and only that key suffers."""
    path = key_folder(folder, "bad") / file
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)

    check_shown_and_refused(folder, Integrity.TAMPERED)


def test_every_byte_of_a_key(folder: Path) -> None:
    """Every single byte of document and blobs is covered."""
    missed = []

    for file in ("key.json", "v00000001", "v00000002"):
        original = (key_folder(folder, "bad") / file).read_bytes()
        with filesystem_hsm(folder / "data") as gateway:
            inventory = gateway._services.inventory  # noqa: SLF001 (many at once)
            bad = KeyId((folder / "bad").read_text())
            for position in range(len(original)):
                changed = bytearray(original)
                changed[position] ^= 0x20
                (key_folder(folder, "bad") / file).write_bytes(changed)
                inventory.accept(bad, None)  # to look again
                _, integrity = inventory.inspect(bad, with_blobs=True)
                if integrity is Integrity.OK:
                    missed.append((file, position))
        (key_folder(folder, "bad") / file).write_bytes(original)

    assert [] == missed


def test_a_lost_blob(folder: Path) -> None:
    """A missing blob is called missing."""
    (key_folder(folder, "bad") / "v00000001").unlink()

    check_shown_and_refused(folder, Integrity.MISSING)


def test_a_lost_document(folder: Path) -> None:
    """A key whose document is gone is still listed while its folder is there."""
    (key_folder(folder, "bad") / "key.json").unlink()

    check_shown_and_refused(folder, Integrity.MISSING)


def test_another_keys_document(folder: Path) -> None:
    """A document can't stand in for another key's."""
    shutil.copy(
        key_folder(folder, "good") / "key.json", key_folder(folder, "bad") / "key.json"
    )

    check_shown_and_refused(folder, Integrity.TAMPERED)


def test_swapped_versions(folder: Path) -> None:
    """The blobs of two versions can't change places."""
    first, second = (key_folder(folder, "bad") / f"v0000000{n}" for n in (1, 2))
    one, two = first.read_bytes(), second.read_bytes()
    first.write_bytes(two)
    second.write_bytes(one)

    check_shown_and_refused(folder, Integrity.TAMPERED)


def test_a_change_under_a_running_hsm(folder: Path) -> None:
    """A listing looks at the documents, a description at the blobs too."""
    good, bad = ((folder / name).read_text() for name in ("good", "bad"))
    with disk_session(folder / "data") as session:
        for path in (
            key_folder(folder, "bad") / "v00000001",
            key_folder(folder, "good") / "key.json",
        ):
            # At once: the comparison in the background must not see an empty file.
            (folder / "junk").write_bytes(b"x")
            (folder / "junk").replace(path)

        described = session.describe(bad).integrity
        listed = {key.key_id: key.integrity for key in session.keys()}

    assert Integrity.TAMPERED is described
    assert dict.fromkeys((good, bad), Integrity.TAMPERED) == listed


def test_the_key_ring(folder: Path) -> None:
    """A damaged or lost ring stops the HSM with its own error."""
    ring = folder / "data" / "keys" / "meta" / "ring"
    original = ring.read_bytes()

    for content in (b"", original[:-1], original[:-1] + bytes([original[-1] ^ 1])):
        ring.write_bytes(content)
        with pytest.raises(errors.KeyRingTamperedError):
            filesystem_hsm(folder / "data")
    ring.unlink()
    with pytest.raises(errors.KeyRingTamperedError):
        filesystem_hsm(folder / "data")
