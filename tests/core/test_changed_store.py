# SPDX-License-Identifier: MIT
"""A store that is not the one that the trail knows."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from hsm_core import errors
from hsm_core.factory import OpenHSM, open_hsm
from hsm_core.model import Integrity, KeyState
from hsm_core.session import Session
from hsm_core.settings import Settings
from hsm_core.testing import caller
from tests.contract.hsm_ways import filesystem_hsm


def accepting(folder: Path) -> OpenHSM:
    """Open an HSM whatever its trail says of its store."""
    settings = Settings(
        key_dir=folder / "keys",
        audit_log=folder / "audit.log",
        accept_changed_store=True,
    )
    return open_hsm(settings, master_key=b"\x01" * 32, hmac_key=b"\x02" * 32)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Give the data of an HSM with two keys, and an older copy of its store."""
    with filesystem_hsm(tmp_path) as gateway:
        session = Session(gateway.act_as(caller()))
        session.create_key("ed25519", name="first")
        session.create_key("ed25519", name="second")
    shutil.copytree(tmp_path / "keys", tmp_path / "older")
    with filesystem_hsm(tmp_path) as gateway:
        Session(gateway.act_as(caller())).revoke("first")
    return tmp_path


def test_an_older_store_is_refused(folder: Path) -> None:
    """A revoked key does not come back with yesterday's copy of the store."""
    shutil.rmtree(folder / "keys")
    shutil.move(folder / "older", folder / "keys")

    with pytest.raises(errors.StoreMismatchError):
        filesystem_hsm(folder)


def test_an_older_key_is_refused(folder: Path) -> None:
    """Nor with yesterday's copy of that key alone."""
    for path in (folder / "older" / "keys").glob("*/key.json"):
        shutil.copy(path, folder / "keys" / "keys" / path.parent.name / "key.json")

    with pytest.raises(errors.StoreMismatchError):
        filesystem_hsm(folder)


def test_a_removed_key_is_noticed(folder: Path) -> None:
    """A key that is gone with its folder is not forgotten."""
    shutil.rmtree(next((folder / "keys" / "keys").iterdir()))

    with pytest.raises(errors.StoreMismatchError):
        filesystem_hsm(folder)


def test_an_empty_store_is_not_taken_for_a_new_one(folder: Path) -> None:
    """A wiped store does not open as new, under whatever root."""
    shutil.rmtree(folder / "keys")

    with pytest.raises(errors.StoreMismatchError):
        filesystem_hsm(folder)
    assert not (folder / "keys" / "meta" / "ring").exists()


def test_a_restore_can_be_accepted(folder: Path) -> None:
    """Who restores an older copy says so; the trail records it, and it goes on."""
    shutil.rmtree(folder / "keys")
    shutil.move(folder / "older", folder / "keys")

    with accepting(folder) as gateway:
        session = Session(gateway.act_as(caller()))
        kinds = [entry.event.kind for entry in session.audit_events(limit=2)]
        session.rotate("second")
    with filesystem_hsm(folder) as gateway:
        session = Session(gateway.act_as(caller()))
        assert KeyState.ACTIVE is session.describe("first").state

    assert ["system.store-accepted", "system.start"] == kinds


def test_an_unchanged_store_needs_no_acceptance(folder: Path) -> None:
    """The setting does nothing where there is nothing to accept."""
    with accepting(folder) as gateway:
        newest = Session(gateway.act_as(caller())).audit_events(limit=1)[0].event

    assert "system.start" == newest.kind


def test_changes_beside_a_tampered_key_are_no_false_alarm(folder: Path) -> None:
    """While one document can't be read, others change; later all is well again."""
    with filesystem_hsm(folder) as gateway:
        first = Session(gateway.act_as(caller())).describe("first").key_id
    path = folder / "keys" / "keys" / first / "key.json"
    original = path.read_bytes()
    path.write_bytes(b"junk")
    with filesystem_hsm(folder) as gateway:
        session = Session(gateway.act_as(caller()))
        session.rotate("second")
        session.create_key("aes", name="third")

    path.write_bytes(original)

    with filesystem_hsm(folder) as gateway:
        session = Session(gateway.act_as(caller()))
        assert {Integrity.OK} == {key.integrity for key in session.keys()}


class TestForgedDocuments:
    def edit(self, folder: Path, name: str, changes: dict[str, object]) -> str:
        """Change what the document of a key says, without the key to its MAC."""
        for path in (folder / "keys" / "keys").glob("*/key.json"):
            stored = json.loads(path.read_text())
            if stored["key"].get("name") == name:
                stored["key"] |= changes
                path.write_text(json.dumps(stored, separators=(",", ":")))
                return path.parent.name
        raise AssertionError(name)

    def test_no_key_takes_the_name_of_another(self, folder: Path) -> None:
        """A forged name leads nobody away from the key that really has it."""
        forged = self.edit(folder, "first", {"name": "second"})

        with filesystem_hsm(folder) as gateway:
            session = Session(gateway.act_as(caller()))
            second = session.describe("second")
            session.sign("second", b"m")

        assert (Integrity.OK, True) == (second.integrity, second.key_id != forged)

    def test_a_key_can_not_be_hidden(self, folder: Path) -> None:
        """A key that is said to be destroyed is listed, and keeps name and blobs."""
        key_folder = folder / "keys" / "keys"
        stored = self.edit(folder, "second", {})
        text = (key_folder / stored / "key.json").read_text()
        forged = text.replace('"state":"active"', '"state":"destroyed"')
        (key_folder / stored / "key.json").write_text(forged)

        with filesystem_hsm(folder) as gateway:
            session = Session(gateway.act_as(caller()))
            shown = {str(key.key_id): key.integrity for key in session.keys()}
            with pytest.raises(errors.NameTakenError):
                session.create_key("aes", name="second")

        assert Integrity.TAMPERED is shown[stored]
        assert (key_folder / stored / "v00000001").exists()
