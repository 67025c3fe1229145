# SPDX-License-Identifier: MIT
"""Use counters of an HSM: shown, limited, kept over restarts, and guarded."""

from __future__ import annotations

import asyncio
import shutil
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from hsm_core import errors
from hsm_core import operations as ops
from hsm_core.algorithms import KeyUsage
from hsm_core.factory import open_async
from hsm_core.model import Integrity, MessageDetail, UseInfo
from hsm_core.session import Session
from hsm_core.testing import FakeClock, Faults, caller, memory_hsm
from tests.contract.hsm_ways import disk_session, filesystem_hsm
from tests.core.hsm_support import memory_session

NEAR = "system.use-limit-near"


def used(session: Session, key_id: str) -> UseInfo:
    """Return what describing a key shows of its use."""
    found = session.describe(key_id).use
    assert found is not None
    return found


def counter_files(folder: Path) -> list[Path]:
    """Return the use counters of an HSM on disk, oldest first."""
    files = (folder / "keys" / "uses").iterdir()
    return sorted(files, key=lambda path: path.stat().st_mtime_ns)


class TestShown:
    def test_what_counts(self) -> None:
        """
        What protects is counted with its bytes; what only reads is noted as last use.
        """
        clock = FakeClock()
        with memory_session(clock=clock) as session:
            key = session.create_key("aes").key_id
            assert UseInfo(uses=0, limit=3_865_470_566) == used(session, key)

            ciphertext = session.encrypt(key, b"12345")
            first = used(session, key)
            clock.advance(60)
            session.decrypt(key, ciphertext)
            second = used(session, key)

            assert (1, 5, False) == (first.uses, first.bytes, first.near_limit)
            assert (1, 5) == (second.uses, second.bytes)
            assert first.last_used_at is not None
            assert second.last_used_at is not None
            assert 60 == (second.last_used_at - first.last_used_at).total_seconds()

    @pytest.mark.parametrize(
        ("algorithm", "work"),
        [
            ("ed25519", lambda session, key: session.sign(key, b"123")),
            ("rsa2048", lambda session, key: session.sign(key, b"123")),
            ("hmac-sha-256", lambda session, key: session.mac(key, b"123")),
            ("ml-kem-768", lambda session, key: session.seal(key, b"123")),
            ("chacha20-poly1305", lambda session, key: session.encrypt(key, b"123")),
        ],
    )
    def test_every_kind(
        self, algorithm: str, work: Callable[[Session, str], object], session: Session
    ) -> None:
        """
        Signatures, MACs, sealing and encryption count alike.
        """
        key = session.create_key(algorithm).key_id
        work(session, key)
        work(session, key)

        assert (2, 6) == (used(session, key).uses, used(session, key).bytes)

    def test_checks_count_nothing(self, session: Session) -> None:
        """
        Checking signatures and MACs is the last use, and no use that protects.
        """
        key = session.create_key("hmac-sha-256").key_id
        session.verify_mac(key, b"m", session.mac(key, b"m").mac)
        with suppress(errors.MacMismatchError):
            session.verify_mac(key, b"m", bytes(32))

        assert 1 == used(session, key).uses

    def test_versions(self, session: Session) -> None:
        """
        A rotation begins anew; a rollback goes on with the count of its source.
        """
        key = session.create_key("aes").key_id
        for _ in range(3):
            session.encrypt(key, b"m")
        session.rotate(key)
        session.encrypt(key, b"m")
        session.rollback(key, 1)
        session.encrypt(key, b"m")

        counts = [v.use.uses if v.use else None for v in session.versions(key)]
        assert [4, 1, 4] == counts
        assert 4 == used(session, key).uses

    def test_destroyed(self, session: Session) -> None:
        """
        Of material that is destroyed no use is shown any more.
        """
        key = session.create_key("aes").key_id
        session.encrypt(key, b"m")
        session.destroy(key)

        assert session.describe(key).use is None
        assert [None] == [version.use for version in session.versions(key)]

    def test_wrapping_and_deriving(self, session: Session) -> None:
        """
        An export counts for the wrapping key, a derivation for the base key.
        """
        wrapping = session.create_key("aes-256-kw").key_id
        base = session.create_key("hkdf-sha-256").key_id
        key = session.create_key("aes", exportable=True).key_id
        wrapped = session.export_key(key, wrapping)
        session.import_key("aes", wrapping, wrapped.wrapped)
        session.derive_key("aes", base)

        assert [1, 1, 0] == [used(session, k).uses for k in (wrapping, base, key)]

    def test_data_keys(self, session: Session) -> None:
        """
        A data key is one encryption of the key that wraps it, and so is a rewrap.
        """
        key = session.create_key("aes").key_id
        made = session.data_key(key)
        session.rewrap(key, made.ciphertext)

        assert 2 == used(session, key).uses


class TestLimit:
    def test_the_limit(self) -> None:
        """
        Exactly so many encryptions; then the error says what to do, and that helps.
        """
        with memory_session(use_limit=5) as session:
            key = session.create_key("aes").key_id
            made = [session.encrypt(key, b"m") for _ in range(5)]
            with pytest.raises(errors.UseLimitError, match="Rotate the key") as caught:
                session.encrypt(key, b"m")

            assert {"version": 1, "uses": 5, "limit": 5} == caught.value.facts
            assert used(session, key).near_limit
            assert [b"m"] * 5 == [session.decrypt(key, one) for one in made]
            session.rotate(key)
            assert b"m" == session.decrypt(key, session.encrypt(key, b"m"))
            assert not used(session, key).near_limit
            session.rollback(key, 1)
            with pytest.raises(errors.UseLimitError):
                session.encrypt(key, b"m")
            codes = [e.event.code for e in session.audit_events(key_id=key)]
            assert 2 == codes.count("use_limit")

    def test_no_limit_elsewhere(self) -> None:
        """
        Keys that sign have no limit.
        """
        with memory_session(use_limit=2) as session:
            key = session.create_key("ed25519").key_id
            for _ in range(5):
                session.sign(key, b"m")

            assert (5, 0) == (used(session, key).uses, used(session, key).limit)

    def test_the_warning(self) -> None:
        """
        At four fifths the trail says so once, before the use that came near.
        """
        with memory_session(use_limit=10) as session:
            key = session.create_key("aes").key_id
            near = []
            for _ in range(10):
                session.encrypt(key, b"m")
                near.append(used(session, key).near_limit)

            assert [False] * 7 + [True] * 3 == near
            kinds = [e.event for e in session.audit_events(key_id=key)]
            (told,) = [event for event in kinds if event.kind == NEAR]
            assert (key, 1) == (told.key_id, told.version)
            assert isinstance(told.detail, MessageDetail)
            assert "8 of 10 uses" == told.detail.text
            before = [e for e in kinds if e.kind == "Encrypt" and e.seq < told.seq]
            assert 7 == len(before)


class TestFailingDisk:
    def test_no_use_without_a_count(self) -> None:
        """
        If the count can't be stored nothing is encrypted, and later all is well.
        """
        faults = Faults()
        with memory_session(faults=faults) as session:
            key = session.create_key("aes").key_id
            for error in (errors.StorageFullError(), errors.StoreUnavailableError()):
                faults.plan("counters.put", error)
                with pytest.raises(type(error)):
                    session.encrypt(key, b"m")
                assert 0 == used(session, key).uses

            session.encrypt(key, b"m")
            assert 1 == used(session, key).uses

    def test_no_key_without_a_counter(self) -> None:
        """
        If the first count can't be stored no key is made, and its name stays free.
        """
        faults = Faults()
        with memory_session(faults=faults) as session:
            faults.plan("counters.put", errors.StorageFullError())
            with pytest.raises(errors.StorageFullError):
                session.create_key("aes", name="vault")

            assert [] == list(session.keys())
            session.create_key("aes", name="vault")

    def test_a_commit_that_fails(self) -> None:
        """
        A key that was not stored leaves no counter.
        """
        faults = Faults()
        with memory_hsm(faults=faults) as gateway:
            session = Session(gateway.act_as(caller()))
            faults.plan("store.commit", errors.StorageFullError())
            with pytest.raises(errors.StorageFullError):
                session.create_key("aes")

            accounts = gateway._services.uses  # noqa: SLF001 (what lies there)
            assert [] == list(accounts._counters.material_ids())  # noqa: SLF001

    def test_not_on_the_event_loop(self) -> None:
        """
        Counts are read and written by other threads than that of the event loop.
        """

        class Watched(Faults):
            """Faults that only note who calls."""

            def strike(self, call: str) -> None:
                if call.startswith("counters."):
                    threads.append(threading.current_thread().name)

        threads: list[str] = []
        with memory_hsm(faults=Watched()) as gateway:
            key = Session(gateway.act_as(caller())).create_key("aes").key_id
            threads.clear()
            hsm = open_async(gateway).act_as(caller())

            async def work() -> None:
                for _ in range(1100):
                    await hsm.execute(ops.Encrypt(key_id=key, plaintext=b"m"))
                await hsm.execute(ops.DescribeKey(key_id=key))

            asyncio.run(work())

            assert 2 <= len(threads) <= 10
            assert threading.main_thread().name not in threads


@pytest.mark.usefixtures("private_umask")
class TestOnDisk:
    def test_closed_and_opened(self, tmp_path: Path) -> None:
        """
        A clean end keeps exact counts, bytes and the last use, decryptions included.
        """
        with disk_session(tmp_path) as session:
            key = session.create_key("aes").key_id
            signer = session.create_key("ed25519").key_id
            ciphertext = session.encrypt(key, b"12345")
            signature = session.sign(signer, b"m").signature
        with disk_session(tmp_path) as session:
            assert (1, 5) == (used(session, key).uses, used(session, key).bytes)
            session.decrypt(key, ciphertext)
            session.verify(signer, b"m", signature)
            last = used(session, key), used(session, signer)
        with disk_session(tmp_path) as session:
            assert last == (used(session, key), used(session, signer))

    def test_a_crash(self, tmp_path: Path) -> None:
        """
        After a crash the whole block counts as used.
        """
        with disk_session(tmp_path / "live") as session:
            key = session.create_key("aes").key_id
            session.encrypt(key, b"m")
            shutil.copytree(tmp_path / "live", tmp_path / "crashed")
        with disk_session(tmp_path / "crashed") as session:
            assert 1024 == used(session, key).uses
            session.encrypt(key, b"m")
            assert 1025 == used(session, key).uses

    @pytest.mark.parametrize("way", ["missing", "changed", "foreign"])
    def test_a_counter_that_others_touched(self, tmp_path: Path, way: str) -> None:
        """
        Such a key protects nothing more, still decrypts, and a rotation heals it.
        """
        with disk_session(tmp_path) as session:
            bad, good = (session.create_key("aes").key_id for _ in range(2))
            ciphertext = session.encrypt(bad, b"m")
            (version,) = session.versions(bad)
            (other,) = session.versions(good)
        path = tmp_path / "keys" / "uses" / version.material_id
        content = path.read_bytes()
        path.unlink()
        if way == "changed":
            path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        if way == "foreign":
            path.write_bytes((path.parent / other.material_id).read_bytes())
        wanted = Integrity.MISSING if way == "missing" else Integrity.TAMPERED

        with disk_session(tmp_path) as session:
            for _ in range(2):
                with pytest.raises(errors.KeyTamperedError, match="counter") as caught:
                    session.encrypt(bad, b"m")
                facts = {"key_id": bad, "integrity": wanted.value}
                assert facts == caught.value.facts
            shown = session.describe(bad)

            assert (wanted, None) == (shown.integrity, shown.use)
            assert [wanted] == [v.integrity for v in session.versions(bad)]
            assert ("degraded", 1) == (
                session.status().state,
                session.status().tampered_keys,
            )
            kinds = [e.event.kind for e in session.audit_events(key_id=bad)]
            assert 1 == kinds.count("system.tampered")
            assert b"m" == session.decrypt(bad, ciphertext)
            assert b"m" == session.decrypt(good, session.encrypt(good, b"m"))
            session.rotate(bad)
            assert b"m" == session.decrypt(bad, session.encrypt(bad, b"m"))
            assert Integrity.OK is session.describe(bad).integrity
            found = [v.integrity for v in session.versions(bad)]
            assert [wanted, Integrity.OK] == found
            assert "operational" == session.status().state

    def test_keys_without_a_limit(self, tmp_path: Path) -> None:
        """
        Where there is no limit a missing counter is 0, and a changed one is refused.
        """
        with disk_session(tmp_path) as session:
            key = session.create_key("ed25519").key_id
            assert [] == counter_files(tmp_path)
            session.sign(key, b"m")
        (path,) = counter_files(tmp_path)
        path.unlink()
        with disk_session(tmp_path) as session:
            session.sign(key, b"m")
            assert 1 == used(session, key).uses
        path.write_bytes(b"junk")
        with disk_session(tmp_path) as session:
            with pytest.raises(errors.KeyTamperedError):
                session.sign(key, b"m")

    def test_counters_go_with_their_material(self, tmp_path: Path) -> None:
        """
        Destroying a key removes its counters; a scrub removes what a crash has left.
        """
        with disk_session(tmp_path) as session:
            key = session.create_key("aes", usages=[KeyUsage.ENCRYPT]).key_id
            session.rotate(key)
            session.encrypt(key, b"m")
            one, _ = counter_files(tmp_path)
            content = one.read_bytes()
            session.destroy(key)
            assert [] == counter_files(tmp_path)
        one.write_bytes(content)
        (one.parent / "README").write_bytes(b"not ours")
        with filesystem_hsm(tmp_path) as gateway:
            gateway.act_as(caller()).execute(ops.VerifyStore())
            assert ["README"] == [path.name for path in counter_files(tmp_path)]

    def test_counters_wait_for_a_damaged_document(self, tmp_path: Path) -> None:
        """
        While a document can't be read no counter is removed: it may be put right.
        """
        with disk_session(tmp_path) as session:
            key = session.create_key("aes").key_id
        path = tmp_path / "keys" / "keys" / key / "key.json"
        whole = path.read_bytes()
        path.write_bytes(whole[:-1])
        with filesystem_hsm(tmp_path):
            pass
        path.write_bytes(whole)

        with disk_session(tmp_path) as session:
            assert session.encrypt(key, b"m")
