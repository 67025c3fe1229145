# SPDX-License-Identifier: MIT
"""Older, foreign and edited stores: named, locked as far as it concerns, recovered."""

from __future__ import annotations

import shutil
import sqlite3
import time
from contextlib import suppress
from pathlib import Path
from typing import Final

import pytest

from hsm_core import errors
from hsm_core import operations as ops
from hsm_core._internal.lib.failpoints import install
from hsm_core.factory import OpenHSM
from hsm_core.model import Integrity, KeyState
from hsm_core.testing import FakeClock, caller
from tests.core.changed_stores import (
    DATA,
    Data,
    SqliteData,
    id_of,
    problems,
    session_on,
)

DAY: Final = 24 * 3600


@pytest.fixture(params=DATA, ids=lambda kind: kind.kind.value)
def data(request: pytest.FixtureRequest, tmp_path: Path) -> Data:
    """Give the data of an HSM with two keys, and a copy before a third was made."""
    made: Data = request.param(tmp_path / "data")
    made.folder.mkdir(mode=0o700)
    with made.open() as gateway:
        session = session_on(gateway)
        for name in ("first", "second"):
            key = session.create_key("aes", name=name).key_id
            session.rotate(name)
            (tmp_path / name).write_text(key)
            (tmp_path / f"{name}.secret").write_bytes(session.encrypt(name, b"m"))
    made.keep("older")
    with made.open() as gateway:
        session = session_on(gateway)
        session.revoke("first", version=1)
        session.create_key("ed25519", name="third")
    return made


def recover(gateway: OpenHSM) -> ops.Recovered:
    """Accept the store as it is."""
    return gateway.act_as(caller()).execute(ops.RecoverStore(reason="restored"))


def recover_key(gateway: OpenHSM, key: str) -> ops.Recovered:
    """Accept a key as it is."""
    asked = ops.RecoverKey(key_id=key, reason="restored")
    return gateway.act_as(caller()).execute(asked)


def kinds(gateway: OpenHSM, limit: int = 10) -> list[str]:
    """Return the kinds of the newest records, newest first."""
    return [e.event.kind for e in session_on(gateway).audit_events(limit=limit)]


class TestAnOlderStore:
    def test_locks_the_whole_hsm(self, data: Data) -> None:
        """Nothing but status, the trail, verification and recovery is served."""
        data.restore_store("older")
        with data.open() as gateway:
            assert "locked" == session_on(gateway).status().state

        # Another start does not get used to it.
        with data.open() as gateway:
            session = session_on(gateway)
            status = session.status()
            assert ("locked", True) == (
                status.state,
                "older copy" in status.store.locked,
            )
            with pytest.raises(errors.HSMLockedError) as caught:
                session.encrypt("second", b"m")
            assert "store_older" == caught.value.facts["reason"]
            assert "system.locked" in kinds(gateway)
            session.verify_audit()
            problems(gateway)

    def test_is_served_again_after_recovery(self, data: Data) -> None:
        """Each key is on record before that; what encrypts must be rotated first."""
        data.restore_store("older")
        with data.open() as gateway:
            session = session_on(gateway)
            third = next(iter(session.status().store.findings), None)
            assert third is not None

            done = recover(gateway)

            first = id_of(data, "first")
            assert (first,) == done.accepted
            assert 1 == len(done.forgotten)
            assert ["RecoverStore", "system.key-accepted", "system.key-accepted"] == (
                kinds(gateway, 3)
            )
            for name in ("first", "second"):
                secret = (data.folder.parent / f"{name}.secret").read_bytes()
                assert b"m" == session.decrypt(name, secret)
                with pytest.raises(errors.KeyTamperedError, match="rotate"):
                    session.encrypt(name, b"m")
                session.rotate(name)
                session.encrypt(name, b"m")
            session.create_key("ed25519", name="third")
        with data.open() as gateway:
            assert {} == problems(gateway)
            assert "operational" == session_on(gateway).status().state
            session_on(gateway).encrypt("first", b"m")

    def test_a_recovery_that_was_not_recorded_has_no_effect(self, data: Data) -> None:
        """Until its records are durable the HSM stays locked."""
        data.restore_store("older")
        with data.open() as gateway:
            audit = gateway._services.audit  # noqa: SLF001 (to make it fail)
            real = type(audit).append

            def fail(*_: object, **__: object) -> None:
                raise errors.AuditUnavailableError

            audit.append = fail  # type: ignore[method-assign,assignment]
            with pytest.raises(errors.AuditUnavailableError):
                recover(gateway)
            audit.append = real.__get__(audit)  # type: ignore[method-assign]

            with pytest.raises(errors.HSMLockedError):
                session_on(gateway).describe("second")

    def test_a_crash_during_recovery(self, data: Data) -> None:
        """It has no effect, or its effect; either way what may be old is not used."""
        data.restore_store("older")
        points: list[str] = []

        def take(name: str) -> None:
            if name.startswith("acceptance."):
                data.keep(name)
                points.append(name)

        with install(take), data.open() as gateway:
            recover(gateway)

        assert 3 == len(points)
        for name in points:
            with data.kept(name).open() as gateway:
                session = session_on(gateway)
                is_locked = session.status().state == "locked"
                assert is_locked == (name == "acceptance.before_record")
                if is_locked:
                    recover(gateway)
                assert {} == problems(gateway)
                with pytest.raises(errors.KeyTamperedError, match="rotate"):
                    session.encrypt("second", b"m")
                session.rotate("second")
                session.encrypt("second", b"m")

    def test_does_not_bring_destroyed_material_back(self, data: Data) -> None:
        """Whoever accepts an older copy does not undo the end of a key."""
        with data.open() as gateway:
            session_on(gateway).destroy("second")
        second = id_of(data, "second")
        data.restore_store("older")

        for _ in range(2):
            with data.open() as gateway:
                session = session_on(gateway)
                assert "older" == problems(gateway)[second]
                done = recover(gateway)
                assert second in done.left
                assert second not in done.accepted
                secret = (data.folder.parent / "second.secret").read_bytes()
                with pytest.raises(errors.KeyTamperedError):
                    session.decrypt(second, secret)
        assert None is data.blob(second, 1) is data.blob(second, 2)

    def test_does_not_bring_back_what_was_destroyed_after_a_wait(
        self, data: Data
    ) -> None:
        """The end of a key is known though nobody but the HSM itself made it."""
        clock, second = FakeClock(time.time_ns() // 1000), id_of(data, "second")
        with data.open(clock=clock) as gateway:
            session_on(gateway).destroy(second, waiting_days=1)
            clock.advance(2 * DAY)
            gateway.schedulers.destruction.run()
            assert KeyState.DESTROYED is session_on(gateway).describe(second).state
        data.restore_store("older")

        with data.open(clock=clock) as gateway:
            assert second in recover(gateway).left
            secret = (data.folder.parent / "second.secret").read_bytes()
            with pytest.raises(errors.KeyTamperedError):
                session_on(gateway).decrypt(second, secret)
        assert None is data.blob(second, 1) is data.blob(second, 2)

    def test_loses_nothing_whose_destruction_was_cancelled(self, data: Data) -> None:
        """A key that only waited for its end is accepted like any other."""
        second = id_of(data, "second")
        with data.open() as gateway:
            session_on(gateway).destroy(second, waiting_days=1)
            session_on(gateway).cancel_destroy(second)
        data.restore_store("older")

        with data.open() as gateway:
            assert second in recover(gateway).accepted
            secret = (data.folder.parent / "second.secret").read_bytes()
            assert b"m" == session_on(gateway).decrypt(second, secret)

    def test_of_which_only_a_destroyed_key_is_older(self, data: Data) -> None:
        """Nor does it stay locked for ever because of that key."""
        data.keep("before")
        with data.open() as gateway:
            session_on(gateway).destroy("second")
        data.restore_store("before")

        with data.open() as gateway:
            session = session_on(gateway)
            assert {id_of(data, "second"): "older"} == problems(gateway)
            session.sign("third", b"m")


class TestAnOlderTrail:
    def test_locks_the_whole_hsm(self, data: Data) -> None:
        """A trail that does not know what was done to the store is not believed."""
        older = data.kept("older")
        with older.open() as gateway:
            session_on(gateway).rotate("second")
        shutil.rmtree(older.folder)
        with data.open() as gateway:
            session_on(gateway).rotate("second")
        data.keep("newer")
        with data.open() as gateway:
            session_on(gateway).rotate("second")
            session_on(gateway).create_key("ed25519", name="fourth")
        data.restore_trail("newer")

        with data.open() as gateway:
            session = session_on(gateway)
            assert "locked" == session.status().state
            with pytest.raises(errors.HSMLockedError) as caught:
                session.encrypt("second", b"m")
            assert "trail_older" == caught.value.facts["reason"]
            found = {f.problem for f in session.status().store.findings}
            assert {"newer", "foreign"} == found

            assert 2 == len(recover(gateway).accepted)
            session.sign("fourth", b"m")
        with data.open() as gateway:
            assert {} == problems(gateway)


class TestOneKey:
    def test_an_older_document(self, data: Data) -> None:
        """One key that was rolled back is locked alone, and can be accepted."""
        first = id_of(data, "first")
        data.write_document(first, data.kept("older").document(first))

        with data.open() as gateway:
            session = session_on(gateway)
            assert {first: "older"} == problems(gateway)
            with pytest.raises(errors.KeyTamperedError):
                session.encrypt("first", b"m")
            assert Integrity.TAMPERED is session.describe(first).integrity
            session.encrypt("second", b"m")
            assert "degraded" == session.status().state

            assert (first,) == recover_key(gateway, first).accepted
            assert ops.Recovered() == recover_key(gateway, first)
            session.rotate("first")
            session.encrypt("first", b"m")
        with data.open() as gateway:
            assert {} == problems(gateway)

    def test_an_older_document_that_a_start_accepts(self, data: Data) -> None:
        """Who starts so accepts what only a comparison of everything finds."""
        first = id_of(data, "first")
        data.write_document(first, data.kept("older").document(first))

        with data.open(accepting=True) as gateway:
            assert "system.key-accepted" in kinds(gateway)
            assert {} == problems(gateway)
            session_on(gateway).rotate("first")
            session_on(gateway).encrypt("first", b"m")
        with data.open() as gateway:
            assert {} == problems(gateway)

    def test_it_is_noticed_at_its_first_use(self, data: Data) -> None:
        """No scrub must have been there before."""
        first = id_of(data, "first")
        data.write_document(first, data.kept("older").document(first))

        with data.open() as gateway, pytest.raises(errors.KeyTamperedError):
            session_on(gateway).encrypt("first", b"m")

    def test_an_edited_state(self, data: Data) -> None:
        """The states in a document stand under its MAC; nobody can accept another."""
        first = id_of(data, "first")
        document = data.document(first)
        assert f'"state":"{KeyState.REVOKED}"'.encode() in document
        data.write_document(first, document.replace(b'"revoked"', b'"retired"'))

        with data.open() as gateway:
            assert {first: "document"} == problems(gateway)
            assert (first,) == recover_key(gateway, first).left
            with pytest.raises(errors.KeyTamperedError):
                session_on(gateway).encrypt("first", b"m")

    def test_two_current_pointers(self, data: Data) -> None:
        """A document that points at two current versions is none of ours."""
        first = id_of(data, "first")
        document = data.document(first)
        twice = document.replace(b'"current":2', b'"current":2,"current":1')
        assert twice != document
        data.write_document(first, twice)

        with data.open() as gateway:
            assert {first: "document"} == problems(gateway)
            session_on(gateway).encrypt("second", b"m")

    def test_a_document_that_is_put_right(self, data: Data) -> None:
        """Once the right document lies there again, the key is recovered with it."""
        first = id_of(data, "first")
        document = data.document(first)
        data.write_document(first, b"junk")
        with data.open() as gateway:
            assert {first: "document"} == problems(gateway)
        data.write_document(first, document)

        with data.open() as gateway:
            assert {} == problems(gateway)
            session_on(gateway).encrypt("first", b"m")

    def test_swapped_blobs(self, data: Data) -> None:
        """Sealed blobs of two keys can't change places."""
        one, two = id_of(data, "first"), id_of(data, "second")
        blobs = [data.blob(key, 2) for key in (one, two)]
        for key, blob in zip((two, one), blobs, strict=True):
            assert blob is not None
            data.write_blob(key, 2, blob)

        with data.open() as gateway:
            assert {one: "blob", two: "blob"} == problems(gateway)
            assert {one, two} == set(recover(gateway).left)
            session_on(gateway).sign("third", b"m")

    def test_a_missing_key(self, data: Data) -> None:
        """A key that is gone is named, and forgotten when somebody says so."""
        first = id_of(data, "first")
        data.remove(first)

        with data.open() as gateway:
            session = session_on(gateway)
            assert {first: "missing"} == problems(gateway)
            assert Integrity.MISSING is session.describe(first).integrity
            session.encrypt("second", b"m")

            assert (first,) == recover_key(gateway, first).forgotten
            with pytest.raises(errors.KeyNotFoundError):
                session.describe(first)
        with data.open() as gateway:
            assert {} == problems(gateway)

    def test_a_destroyed_blob_that_comes_back(self, data: Data) -> None:
        """The material of a destroyed version is of no use, and is discarded again."""
        second = id_of(data, "second")
        blob = data.blob(second, 2)
        assert blob is not None
        with data.open() as gateway:
            session_on(gateway).destroy("second")
        data.write_blob(second, 2, blob)

        with data.open() as gateway:
            secret = (data.folder.parent / "second.secret").read_bytes()
            with pytest.raises(errors.KeyStateError):
                session_on(gateway).decrypt(second, secret)
            assert {} == problems(gateway)
        assert None is data.blob(second, 2)

    def test_an_unknown_key_can_not_be_recovered(self, data: Data) -> None:
        """Recovery of a key that nobody misses says that there is none."""
        with data.open() as gateway, pytest.raises(errors.KeyNotFoundError):
            recover_key(gateway, "00000000-0000-4000-8000-000000000000")


SWAPPED_CLAIMS = [
    "UPDATE keys SET claim = 'second' WHERE name = 'first'",
    "UPDATE keys SET claim = 'first' WHERE name = 'second'",
]


BOTH = ["first", "second"]
INDEX_CORRECTED = "system.index-corrected"
FORGERIES: dict[str, tuple[list[str], list[str]]] = {
    "names": (["UPDATE keys SET claim = name || 'x'", *SWAPPED_CLAIMS], BOTH),
    "claims": (["UPDATE keys SET claim = NULL"], BOTH),
    "places": (["DELETE FROM places WHERE hex(key_id) = '{1}'"], ["first"]),
    "all-places": (["DELETE FROM places"], BOTH),
    "facets": (["DELETE FROM facets WHERE tag = 't'"], BOTH),
    "numbers": (["UPDATE facets SET number = 1"], ["first"]),
    "operations": (["DELETE FROM operations"], BOTH),
    "operations-too": (
        ["UPDATE keys SET operations = '[]'", "DELETE FROM operations"],
        BOTH,
    ),
    "tags": (["UPDATE keys SET tags = '[]' WHERE key_id = '{0}'"], ["first"]),
    "state": (["UPDATE keys SET state = 'destroyed' WHERE key_id = '{0}'"], ["first"]),
    "algorithm": (["UPDATE keys SET algorithm = 'AES-256-GCM'"], BOTH),
    "owner": (["UPDATE keys SET owner = 'me' WHERE key_id = '{0}'"], ["first"]),
}
"""Statements that edit an index, and the keys that they hide."""


class TestForgedIndex:
    """Who edits the index of a database without knowing any key."""

    @pytest.fixture
    def data(self, tmp_path: Path) -> SqliteData:
        """Give the data of an HSM with two keys."""
        made = SqliteData(tmp_path / "data")
        made.folder.mkdir(mode=0o700)
        with made.open() as gateway:
            for name in ("first", "second"):
                key = session_on(gateway).create_key(
                    "ed25519", name=name, tags=["t"], idempotency_key=name
                )
                (tmp_path / name).write_text(key.key_id)
        return made

    def test_a_name_leads_to_no_other_key(self, data: SqliteData) -> None:
        """A name that was moved to another key does not lead there."""
        first, second = id_of(data, "first"), id_of(data, "second")
        data.do("UPDATE keys SET claim = NULL WHERE key_id = ?", first)
        data.do(
            "UPDATE keys SET name = 'first', claim = 'first' WHERE key_id = ?",
            second,
        )

        with data.open() as gateway:
            session = session_on(gateway)
            # Until the index is right again, there may be no key of this name.
            with suppress(errors.KeyNotFoundError):
                signature = session.sign("first", b"m").signature
                session.verify(first, b"m", signature)
            found = problems(gateway)
            assert {first, second} == found.keys()
            assert {"index"} == set(found.values())
            assert "system.index-corrected" in kinds(gateway)
            signature = session.sign("first", b"m").signature
            session.verify(first, b"m", signature)
            session.sign("second", b"m")

    @pytest.mark.parametrize("forgery", FORGERIES)
    def test_all_leads_to_a_key_again(self, data: SqliteData, forgery: str) -> None:
        """No key is hidden from names, listings or repeated requests for long."""
        statements, hidden = FORGERIES[forgery]
        first = id_of(data, "first")
        for statement in statements:
            data.do(statement.format(first, first.replace("-", "").upper()))

        with data.open() as gateway:
            session = session_on(gateway)
            expected = dict.fromkeys((id_of(data, name) for name in hidden), "index")
            assert expected == problems(gateway)
            assert expected == {
                f.key_id: f.problem for f in session.status().store.findings
            }
            records = [e.event for e in session.audit_events(limit=100)]
            corrected = [e.key_id for e in records if e.kind == INDEX_CORRECTED]
            assert sorted(expected) == sorted(corrected)

            for asked in ({}, {"tags": ["t"]}, {"algorithm": "ed25519"}):
                found = [key.name for key in session.keys(**asked)]
                assert ["second", "first"] == found
            assert 2 == session.status().keys
            assert first == session.describe("first").key_id
            again = session.create_key(
                "ed25519", name="first", tags=["t"], idempotency_key="first"
            )
            assert first == again.key_id
            assert expected == problems(gateway)

    def test_a_hidden_name_is_not_free(self, data: SqliteData) -> None:
        """No second key gets a name that an editor took from the first."""
        data.do("UPDATE keys SET claim = NULL")

        with data.open() as gateway:
            session = session_on(gateway)
            for name in ("first", "second"):
                with pytest.raises(errors.NameTakenError):
                    session.create_key("ed25519", name=name)
                assert id_of(data, name) == session.describe(name).key_id

    @pytest.mark.parametrize(
        ("column", "value"), [("state", b"\0"), ("created_at", None)]
    )
    def test_a_row_that_makes_no_sense(
        self, data: SqliteData, column: str, value: object
    ) -> None:
        """Its key is named, and goes on."""
        first = id_of(data, "first")
        statement = f"UPDATE keys SET {column} = ? WHERE key_id = ?"  # noqa: S608
        data.do(statement, value, first)

        with data.open() as gateway:
            session = session_on(gateway)
            assert {first: "index"} == problems(gateway)
            session.sign("first", b"m")
            assert ["second", "first"] == [key.name for key in session.keys()]
        with data.open() as gateway:
            assert {} == problems(gateway)

    @pytest.mark.parametrize("table", ["keys", "documents", "both"])
    def test_what_a_removed_row_left(self, data: SqliteData, table: str) -> None:
        """No new key gets what still lies there of one whose row was removed."""
        second = id_of(data, "second")
        number = data.do("SELECT n FROM keys WHERE key_id = ?", second)
        for each in ("keys", "documents") if table == "both" else (table,):
            data.do(f"DELETE FROM {each} WHERE n = ?", number)  # noqa: S608

        with data.open() as gateway:
            session = session_on(gateway)
            assert {second: "missing"} == problems(gateway)
            with pytest.raises(errors.NameTakenError):
                session.create_key("ed25519", name="second")
            new = session.create_key("ed25519", name="new")
            session.verify("new", b"m", session.sign("new", b"m").signature)
            assert (second,) == recover(gateway).forgotten
            session.create_key("ed25519", name="second")
            assert {} == problems(gateway)
        assert number != data.do("SELECT n FROM keys WHERE name = ?", "new")
        assert new.key_id != second

    def test_digests_that_no_document_has(self, data: SqliteData) -> None:
        """Digests that were edited are read again from the documents."""
        data.do("UPDATE keys SET digest = ?", "0" * 64)

        with data.open() as gateway:
            session_on(gateway).sign("first", b"m")
            assert {"index"} == set(problems(gateway).values())
            assert 2 == len(problems(gateway))

    def test_a_forged_account(self, data: SqliteData) -> None:
        """Sums that were edited are counted again."""
        bucket = int(id_of(data, "first")[:3], 16)
        forged = b"\0" * 32
        data.do("UPDATE account SET value = ? WHERE bucket = ?", forged, bucket)

        with data.open() as gateway:
            session_on(gateway).sign("first", b"m")
            assert {} == problems(gateway)

    def test_an_older_row_with_its_own_digest(self, data: SqliteData) -> None:
        """A key whose rows are older altogether is found by the sums of the others."""
        first = id_of(data, "first")
        data.keep("older")
        with data.open() as gateway:
            session_on(gateway).revoke("first")
            session_on(gateway).rotate("second")
        older = SqliteData(data.folder.parent / "older")
        document = older.document(first)
        data.write_document(first, document)
        connection = sqlite3.connect(older.folder / "keys.sqlite")
        row = connection.execute(
            "SELECT generation, state, operations, digest FROM keys WHERE key_id = ?",
            (first,),
        ).fetchone()
        connection.close()
        data.do(
            "UPDATE keys SET generation = ?, state = ?, operations = ?, digest = ? "
            "WHERE key_id = ?",
            *row,
            first,
        )

        with data.open() as gateway:
            session = session_on(gateway)
            with pytest.raises(errors.StoreUnavailableError):
                session.sign(first, b"m")
            assert {first: "older"} == problems(gateway)
            with pytest.raises(errors.KeyTamperedError):
                session.sign(first, b"m")
            session.sign("second", b"m")
