# SPDX-License-Identifier: MIT
"""What a key store must never do, each shown on files and on SQLite."""

from __future__ import annotations

from pathlib import Path

import pytest

from hsm_core.errors import InvalidInputError, KeyTamperedError
from hsm_core.model import Integrity, KeyState
from hsm_core.operations import RecoverKey, RecoverStore
from hsm_core.testing import caller
from tests.core.changed_stores import DATA, Data, FilesystemData, problems, session_on


@pytest.fixture(params=DATA, ids=lambda kind: kind.kind.value)
def data(request: pytest.FixtureRequest, tmp_path: Path) -> Data:
    """Give the place of a new HSM."""
    made: Data = request.param(tmp_path / "data")
    made.folder.mkdir(mode=0o700)
    return made


def test_old_versions_serve_what_was_made_with_them(data: Data) -> None:
    """
    After three rotations, with restarts, every ciphertext and signature is good.

    Where only the current version is asked, the first ones are lost.
    """
    with data.open() as gateway:
        session = session_on(gateway)
        session.create_key("aes", name="secret")
        session.create_key("ed25519", name="signing")
    made = []
    for number in range(4):
        message = b"%d" % number
        with data.open() as gateway:
            session = session_on(gateway)
            sealed = session.encrypt("secret", message)
            signature = session.sign("signing", message).signature
            made.append((message, sealed, signature))
            session.rotate("secret")
            session.rotate("signing")

    with data.open() as gateway:
        session = session_on(gateway)
        assert 5 == session.describe("secret").version
        for message, sealed, signature in made:
            assert message == session.decrypt("secret", sealed)
            session.verify("signing", message, signature)


@pytest.mark.parametrize("junk", [b"junk", b"\0" * 70_000], ids=["short", "long"])
def test_an_unreadable_key_is_listed_as_tampered(data: Data, junk: bytes) -> None:
    """A record that can't be read is neither skipped nor "not found"."""
    with data.open() as gateway:
        session = session_on(gateway)
        bad = session.create_key("aes", name="bad").key_id
        good = session.create_key("aes", name="good").key_id
    data.write_document(bad, junk)

    with data.open() as gateway:
        session = session_on(gateway)
        listed = {key.key_id: key.integrity for key in session.keys()}
        assert {bad: Integrity.TAMPERED, good: Integrity.OK} == listed
        assert 1 == session.status().tampered_keys
        with pytest.raises(KeyTamperedError):
            session.encrypt(bad, b"m")


def test_a_recovery_has_a_reason(data: Data) -> None:
    """Whoever accepts a changed store or key says why."""
    with data.open() as gateway:
        hsm = gateway.act_as(caller())
        key = session_on(gateway).create_key("aes").key_id
        for operation in (RecoverStore(reason=""), RecoverKey(key_id=key, reason="")):
            with pytest.raises(InvalidInputError, match="reason"):
                hsm.execute(operation)


def test_a_blob_that_can_not_be_deleted(tmp_path: Path) -> None:
    """Its version is destroyed, the store serves on, and it is a finding until gone."""
    data = FilesystemData(tmp_path / "data")
    data.folder.mkdir(mode=0o700)
    with data.open() as gateway:
        session = session_on(gateway)
        key = session.create_key("aes", name="old").key_id
        session.create_key("aes", name="other")
        blob = data.folder / "keys" / "keys" / key / "v00000001"
        content = blob.read_bytes()
        # A directory can't be unlinked, not even by root.
        blob.unlink()
        blob.mkdir(mode=0o700)

        session.destroy("old")

        assert KeyState.DESTROYED is session.describe(key).state
        session.encrypt("other", b"m")
        session.create_key("aes", name="old")
        assert {key: "kept"} == problems(gateway)
    with data.open() as gateway:
        assert {key: "kept"} == problems(gateway)
        session_on(gateway).encrypt("other", b"m")
        blob.rmdir()
        blob.write_bytes(content)
        blob.chmod(0o600)
        assert {} == problems(gateway)
        assert not blob.exists()
