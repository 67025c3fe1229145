# SPDX-License-Identifier: MIT
"""A store that is not the one that the trail knows."""

from __future__ import annotations

import json
import shutil
import uuid
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from hsm_core import errors
from hsm_core import operations as ops
from hsm_core._internal.lib.failpoints import install
from hsm_core._internal.stores.keys import RecordKeyStore
from hsm_core.factory import OpenHSM
from hsm_core.model import Integrity, KeyState, MessageDetail
from hsm_core.protocols import IndexEntry
from hsm_core.session import Session
from hsm_core.settings import Settings
from hsm_core.testing import caller
from tests.contract.hsm_ways import disk_session, filesystem_hsm
from tests.core.changed_stores import SqliteData, session_on
from tests.core.cluster_nodes import die_at
from tests.core.forked import was_killed
from tests.core.sqlite_support import edited
from tests.self_tests import open_tested


def accepting(folder: Path) -> OpenHSM:
    """Open an HSM whatever its trail says of its store."""
    settings = Settings(
        key_dir=folder / "keys",
        audit_log=folder / "audit.log",
        accept_changed_store=True,
    )
    return open_tested(settings)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Give the data of an HSM with two keys, and an older copy of its store."""
    with disk_session(tmp_path) as session:
        session.create_key("ed25519", name="first")
        session.create_key("ed25519", name="second")
    shutil.copytree(tmp_path / "keys", tmp_path / "older")
    with filesystem_hsm(tmp_path) as gateway:
        Session(gateway.act_as(caller())).revoke("first")
    return tmp_path


def check_locked(folder: Path, reason: str) -> Session:
    """Open the HSM: it is locked for this reason, and uses no key."""
    with disk_session(folder) as session:
        status = session.status()
        assert "locked" == status.state
        assert status.store.locked
        for refused in (
            lambda: session.sign("second", b"m"),
            lambda: session.create_key("aes"),
            lambda: session.describe("second"),
            lambda: list(session.keys()),
        ):
            with pytest.raises(errors.HSMLockedError) as caught:
                refused()
            assert reason == caught.value.facts["reason"]
        kinds = [e.event.kind for e in session.audit_events(limit=20)]
        assert "system.locked" in kinds
        session.verify_audit()
    return session


def problems(gateway: OpenHSM) -> dict[str, str]:
    """Compare everything, and return what is wrong with which key."""
    hsm = gateway.act_as(caller())
    findings = hsm.execute(ops.VerifyStore()).findings
    assert findings == Session(hsm).status().store.findings
    return {found.key_id: found.problem for found in findings}


def test_an_older_store_is_locked(folder: Path) -> None:
    """A revoked key does not come back with yesterday's copy of the store."""
    shutil.rmtree(folder / "keys")
    shutil.move(folder / "older", folder / "keys")

    check_locked(folder, "store_older")
    check_locked(folder, "store_older")


def test_an_older_key_is_locked(folder: Path) -> None:
    """Nor with yesterday's copy of that key alone; the others are served."""
    with disk_session(folder) as session:
        first = session.describe("first").key_id
        session.rotate("second")
    document = Path("keys") / first / "key.json"
    shutil.copy(folder / "older" / document, folder / "keys" / document)

    with filesystem_hsm(folder) as gateway:
        session = Session(gateway.act_as(caller()))
        assert {first: "older"} == problems(gateway)
        with pytest.raises(errors.KeyTamperedError, match="older"):
            session.sign("first", b"m")
        session.sign("second", b"m")


def test_a_removed_key_is_noticed(folder: Path) -> None:
    """A key that is gone with its folder is not forgotten; the others are served."""
    with disk_session(folder) as session:
        first = session.describe("first").key_id
        session.rotate("second")
    shutil.rmtree(folder / "keys" / "keys" / first)

    with filesystem_hsm(folder) as gateway:
        session = Session(gateway.act_as(caller()))
        assert {first: "missing"} == problems(gateway)
        assert Integrity.MISSING is session.describe(first).integrity
        with pytest.raises(errors.NameTakenError):
            session.create_key("aes", name="first")
        session.sign("second", b"m")


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
        events = [entry.event for entry in session.audit_events(limit=2)]
        first = session.describe("first").key_id
        session.rotate("second")
    with disk_session(folder) as session:
        assert KeyState.ACTIVE is session.describe("first").state

    assert ["system.start", "system.key-accepted"] == [e.kind for e in events]
    assert first == events[1].key_id
    detail = MessageDetail(text="accepted in its current state: accept_changed_store")
    assert detail == events[1].detail


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
    with disk_session(folder) as session:
        session.rotate("second")
        session.create_key("aes", name="third")

    path.write_bytes(original)

    with disk_session(folder) as session:
        assert {Integrity.OK} == {key.integrity for key in session.keys()}


def test_a_name_whose_row_makes_no_sense(tmp_path: Path) -> None:
    """
    A name that leads to a row without a time leads to its key, for every operation.
    """
    data = SqliteData(tmp_path)
    with closing(data.open()) as gateway:
        key_id = session_on(gateway).create_key("ed25519", name="name").key_id
    for use in ("describe", "versions", "public_key"):
        edited(tmp_path / "keys.sqlite", "UPDATE keys SET created_at = NULL")
        with closing(data.open()) as gateway:
            assert getattr(session_on(gateway), use)("name")
            assert {key_id: "index"} == problems(gateway)


def test_a_row_that_is_put_right_while_it_is_missed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    A key whose row was away for a moment is not called absent.
    """
    read, missed = RecordKeyStore.entry, set[str]()

    def once(store: RecordKeyStore, reference: str) -> IndexEntry | None:
        if reference not in missed:
            return read(store, reference)
        missed.discard(reference)
        return None

    monkeypatch.setattr(RecordKeyStore, "entry", once)
    with filesystem_hsm(tmp_path) as gateway:
        session = Session(gateway.act_as(caller()))
        key_id = session.create_key("aes", exportable=True).key_id
        wrapping = session.create_key("AES-256-KWP").key_id
        for away in (key_id, wrapping):
            missed.add(away)
            assert key_id == session.export_key(key_id, wrapping).key_id
            assert not missed


def _rotate_and_die(folder: Path) -> None:
    session = session_on(SqliteData(folder).open())
    session.create_key("ed25519", name="key")
    die_at("mutation.after_store", lambda: session.rotate("key"))


def test_a_false_row_of_a_key_whose_change_was_interrupted(tmp_path: Path) -> None:
    """
    A row is a finding though the start makes it again, to decide on the change.
    """
    assert was_killed(partial(_rotate_and_die, tmp_path))
    edited(tmp_path / "keys.sqlite", "UPDATE keys SET state = 'destroyed'")

    with closing(SqliteData(tmp_path).open()) as gateway:
        assert ["index"] == list(problems(gateway).values())
        assert session_on(gateway).sign("key", b"m").version == 2


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

        with disk_session(folder) as session:
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

        with disk_session(folder) as session:
            shown = {str(key.key_id): key.integrity for key in session.keys()}
            with pytest.raises(errors.NameTakenError):
                session.create_key("aes", name="second")

        assert Integrity.TAMPERED is shown[stored]
        assert (key_folder / stored / "v00000001").exists()


class TestNothingHidesAnOlderKey:
    """Neither a damaged document nor a crash makes the comparison look away."""

    def roll_back(self, folder: Path) -> None:
        """Put yesterday's store back, in which the first key is not revoked."""
        shutil.rmtree(folder / "keys")
        shutil.copytree(folder / "older", folder / "keys")

    def check_first_is_locked(self, folder: Path, **others: str) -> None:
        """Open the HSM: the first key is older, and the others have these problems."""
        with filesystem_hsm(folder) as gateway:
            found = problems(gateway)
            names = {self.name_of(folder, key): found[key] for key in found}
            assert {"first": "older"} | others == names
            with pytest.raises(errors.KeyTamperedError):
                Session(gateway.act_as(caller())).sign("first", b"m")

    def name_of(self, folder: Path, key: str) -> str:
        """Return the name of a key in the older store, or "strange"."""
        path = folder / "older" / "keys" / key / "key.json"
        return (
            json.loads(path.read_text())["key"]["name"] if path.exists() else "strange"
        )

    def test_a_strange_folder(self, folder: Path) -> None:
        """An empty folder that looks like a key is no excuse."""
        self.roll_back(folder)
        (folder / "keys" / "keys" / str(uuid.uuid4())).mkdir(mode=0o700)

        check_locked(folder, "store_older")

    def test_a_damaged_document(self, folder: Path) -> None:
        """Nor is the damage of another key."""
        with filesystem_hsm(folder) as gateway:
            second = Session(gateway.act_as(caller())).describe("second").key_id
        self.roll_back(folder)
        (folder / "keys" / "keys" / second / "key.json").write_bytes(b"junk")

        self.check_first_is_locked(folder, second="document")

    def test_an_open_intent(self, folder: Path) -> None:
        """Nor is a crash between intent and commit of another key."""
        crash(folder, "mutation.after_intent")
        self.roll_back(folder)

        check_locked(folder, "store_older")

    def test_the_key_of_the_open_intent_itself(self, folder: Path) -> None:
        """A key under change is as it was, or as the intent made it; nothing else."""
        crash(folder, "mutation.after_store")
        for path in (folder / "older" / "keys").glob("*/key.json"):
            text = path.read_text()
            if '"name":"second"' in text:
                path.write_text(text.replace('"generation":1', '"generation":0'))
        self.roll_back(folder)

        self.check_first_is_locked(folder, second="document")


def crash(folder: Path, point: str) -> None:
    """Leave the data as a crash at a point of a rotation of the second key would."""
    taken = folder / "taken"

    def take(name: str) -> None:
        if name == point:
            shutil.copytree(folder / "keys", taken / "keys")
            for path in folder.glob("audit.log*"):
                shutil.copy2(path, taken / path.name)

    taken.mkdir(mode=0o700)
    with install(take), filesystem_hsm(folder) as gateway:
        Session(gateway.act_as(caller())).rotate("second")
    shutil.rmtree(folder / "keys")
    for path in folder.glob("audit.log*"):
        path.unlink()
    for path in taken.iterdir():
        shutil.move(path, folder / path.name)


class TestNoFalseAlarm:
    """What is honest opens, whatever came together."""

    @pytest.mark.parametrize("point", ["mutation.after_intent", "mutation.after_store"])
    @pytest.mark.parametrize("damaged", ["first", "second"])
    def test_a_crash_beside_a_damaged_document(
        self, folder: Path, point: str, damaged: str
    ) -> None:
        """A crash, a damaged document, a start, its repair, another start."""
        with filesystem_hsm(folder) as gateway:
            key = Session(gateway.act_as(caller())).describe(damaged).key_id
        crash(folder, point)
        path = folder / "keys" / "keys" / key / "key.json"
        original = path.read_bytes()
        path.write_bytes(b"junk")
        with disk_session(folder) as session:
            session.create_key("aes", name="third")

        path.write_bytes(original)

        with disk_session(folder) as session:
            assert {Integrity.OK} == {k.integrity for k in session.keys()}
            codes = {
                entry.event.code
                for entry in session.audit_events(limit=50)
                if entry.event.phase == "outcome"
            }
            committed = point == "mutation.after_store"
            assert (2 if committed else 1) == session.describe("second").version
            wanted = "recovered-committed" if committed else "recovered-aborted"
            assert wanted in codes
        with filesystem_hsm(folder):
            pass

    @pytest.mark.parametrize("point", ["mutation.after_intent", "mutation.after_store"])
    def test_a_document_that_is_put_right_while_it_runs(
        self, folder: Path, point: str
    ) -> None:
        """Once its key is recovered, what a crash left open is settled too."""
        with filesystem_hsm(folder) as gateway:
            key = Session(gateway.act_as(caller())).describe("second").key_id
        crash(folder, point)
        path = folder / "keys" / "keys" / key / "key.json"
        original = path.read_bytes()
        path.write_bytes(b"junk")
        with filesystem_hsm(folder) as gateway:
            hsm = gateway.act_as(caller())
            assert {key: "document"} == problems(gateway)
            asked = ops.RecoverKey(key_id=key, reason="put right")
            assert (key,) == hsm.execute(asked).left
            path.write_bytes(original)

            assert (key,) == hsm.execute(asked).accepted

            committed = point == "mutation.after_store"
            codes = {e.event.code for e in Session(hsm).audit_events(limit=20)}
            wanted = "recovered-committed" if committed else "recovered-aborted"
            assert wanted in codes
            assert {} == problems(gateway)
            Session(hsm).rotate("second")
            assert (3 if committed else 2) == Session(hsm).describe(key).version
        with filesystem_hsm(folder) as gateway:
            assert {} == problems(gateway)

    def test_an_outcome_that_came_late(self, tmp_path: Path) -> None:
        """An outcome that is appended after those of others does not turn time back."""
        with filesystem_hsm(tmp_path) as gateway:
            session = Session(gateway.act_as(caller()))
            audit: Any = gateway._services.audit  # noqa: SLF001 (to make it fail once)
            real, left = audit.append, ["outcome"]

            def failing(drafts: Any, **options: Any) -> Any:
                if left and drafts[0].phase == left[0]:
                    left.clear()
                    raise errors.AuditUnavailableError
                return real(drafts, **options)

            audit.append = failing
            with pytest.raises(errors.OutcomeUnknownError):
                session.create_key("aes", name="a", idempotency_key="a")
            for _ in range(3):
                session.create_key("aes")
            session.create_key("aes", name="a", idempotency_key="a")
            audit.append = real
            shutil.copytree(tmp_path, tmp_path / "killed")

        for data in (tmp_path, tmp_path / "killed"):
            with disk_session(data) as session:
                outcomes = [
                    e.event.operation_id
                    for e in session.audit_events(limit=50)
                    if e.event.phase == "outcome"
                ]
                assert 4 == len(outcomes) == len(set(outcomes))

    def test_an_intent_that_was_given_up(self, tmp_path: Path) -> None:
        """A change that failed on its intent is closed by the next one."""
        with filesystem_hsm(tmp_path) as gateway:
            session = Session(gateway.act_as(caller()))
            audit: Any = gateway._services.audit  # noqa: SLF001 (to make it slow once)
            real, left = audit.append, ["intent"]

            class Late:
                def wait(self, timeout: float | None = None) -> None:
                    raise errors.AuditUnavailableError

            def slow(drafts: Any, **options: Any) -> Any:
                ticket = real(drafts, **options)
                if left and drafts[0].phase == left[0]:
                    left.clear()
                    return Late()
                return ticket

            audit.append = slow
            with pytest.raises(errors.AuditUnavailableError):
                session.create_key("aes", name="lost")
            session.create_key("aes", name="made")
            audit.append = real

            outcomes = [
                (e.event.code, e.event.generation)
                for e in session.audit_events(limit=50)
                if e.event.phase == "outcome"
            ]
        assert [("ok", 1), ("audit_unavailable", 0)] == outcomes
