"""A store is compared with its trail, even where records of its keys were pruned."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from functools import partial
from pathlib import Path
from unittest import mock

import pytest

from hsm_core import errors
from hsm_core import operations as ops
from hsm_core._internal.audit.log import AuditOptions
from hsm_core._internal.audit.reading import AuditWalk
from hsm_core._internal.audit.verify import verify_range
from hsm_core._internal.keyring.stored_keys import TamperedKeys
from hsm_core._internal.stores.filesystem.audit import FileAuditLog
from hsm_core._internal.stores.memory.audit import MemoryAuditLog
from hsm_core._internal.time.clock import SystemClock
from hsm_core.model import KeyId
from hsm_core.protocols import KeyDigest, KnownKey
from hsm_core.settings import AuditSync
from hsm_core.testing import FakeClock, FakeEntropy, caller
from tests.core.audit_prune_support import change
from tests.core.audit_support import KEY, draft
from tests.core.changed_stores import DATA, Data, id_of, problems, session_on


def prune(data: Data) -> int:
    """Prune all that was recorded so far; return the oldest record that is left."""
    log = FileAuditLog.open(
        data.folder / "audit.log",
        AuditOptions(
            hmac_key=b"\x02" * 32,
            clock=SystemClock(),
            entropy=FakeEntropy(),
            sync=AuditSync.STRICT,
            timeout_seconds=20.0,
            node="",
        ),
        segment_bytes=1,
    )
    before = log.head().seq + 1
    ended = time.monotonic() + 60
    while log.first_seq < before and time.monotonic() < ended:
        # A segment is closed after the answer, and the newest record stays.
        log.append([draft(0)]).wait()
        log.prune(before, "for a test")
    first = log.first_seq
    log.close()
    assert before <= first
    return first


@pytest.fixture(params=DATA, ids=lambda kind: kind.kind.value)
def data(request: pytest.FixtureRequest, tmp_path: Path) -> Data:
    """Give the data of an HSM with two keys; a copy is from before a rotation."""
    made: Data = request.param(tmp_path / "data")
    made.folder.mkdir(mode=0o700)
    with made.open() as gateway:
        for name in ("first", "second"):
            key = session_on(gateway).create_key("aes", name=name).key_id
            (tmp_path / name).write_text(key)
    made.keep("older")
    with made.open() as gateway:
        session_on(gateway).rotate("first")
    return made


def test_what_was_pruned_still_counts(data: Data) -> None:
    """Start, comparison, use and verification are as before, prune after prune."""
    for _ in range(2):
        first = prune(data)
        with data.open() as gateway:
            session = session_on(gateway)
            assert {} == problems(gateway)
            assert 2 == session.describe("first").version
            session.rotate("second")
            found = gateway.act_as(caller()).execute(ops.VerifyAudit())
            assert first == found.start_seq == session.status().audit.first_seq
            oldest = gateway.act_as(caller()).execute(
                ops.ListAuditEvents(ascending=True, limit=1)
            )
            assert [first] == [entry.event.seq for entry in oldest.items]


def test_an_older_document_is_named_though_its_record_is_gone(data: Data) -> None:
    """What is kept of pruned records tells what the key must be."""
    prune(data)
    key = id_of(data, "first")
    data.write_document(key, data.kept("older").document(key))

    with data.open() as gateway:
        assert {key: "older"} == problems(gateway)


def test_a_damaged_key_of_unknown_name_blocks_new_names(data: Data) -> None:
    """The error says what helps: restore its document or remove it, then recover."""
    prune(data)
    key = id_of(data, "second")
    whole = data.document(key)

    def create_after_recovery(name: str) -> None:
        with data.open() as gateway:
            problems(gateway)
            gateway.act_as(caller()).execute(ops.RecoverKey(key_id=key, reason="r"))
            session_on(gateway).create_key("aes", name=name)

    data.write_document(key, b"x" + whole[1:])
    with data.open() as gateway:
        with pytest.raises(errors.KeyTamperedError, match="remove") as caught:
            session_on(gateway).create_key("aes", name="new")
        assert key == caught.value.facts["key_id"]
    data.write_document(key, whole)
    create_after_recovery("new")
    data.write_document(key, b"x" + whole[1:])
    data.remove(key)
    create_after_recovery("second")


def test_names_are_read_once_though_a_key_is_recovered(data: Data) -> None:
    """A recovery notes the name of its key, and lets nothing be read again."""
    key = id_of(data, "first")
    with data.open() as gateway:
        session_on(gateway).rotate("second")
    data.write_document(key, data.kept("older").document(key))
    with data.open() as gateway:
        session = session_on(gateway)
        assert {key: "older"} == problems(gateway)
        session.create_key("aes", name="third")
        store = gateway._services.inventory.store  # noqa: SLF001
        with mock.patch.object(type(store), "digests", side_effect=OSError) as digests:
            gateway.act_as(caller()).execute(ops.RecoverKey(key_id=key, reason="r"))
            session.create_key("aes", name="fourth")
            with pytest.raises(errors.NameTakenError):
                session.create_key("aes", name="first")
        assert not digests.called


def test_who_reads_names_keeps_nobody_else(data: Data) -> None:
    """Another new name is refused as long as that takes; other requests go on."""
    begun, goes_on = threading.Event(), threading.Event()
    with data.open() as gateway, ThreadPoolExecutor(1, "first") as pool:
        session = session_on(gateway)
        store = gateway._services.inventory.store  # noqa: SLF001
        real = store.digests

        def digests(bucket: int | None = None) -> Iterator[KeyDigest]:
            # The HSM compares digests in the background, too.
            if threading.current_thread().name.startswith("first"):
                begun.set()
                assert goes_on.wait(60)
            return real(bucket)

        with mock.patch.object(store, "digests", digests):
            first = pool.submit(session.create_key, "aes", name="third")
            try:
                assert begun.wait(60)
                with pytest.raises(errors.OverloadedError):
                    session.create_key("aes", name="fourth")
                session.create_key("aes")
            finally:
                goes_on.set()
            first.result(60)
        session.create_key("aes", name="fourth")


def test_a_store_that_is_older_than_what_is_left_of_the_trail(data: Data) -> None:
    """It locks the whole HSM, though the record that it fits to is gone."""
    prune(data)
    with data.open() as gateway:
        session_on(gateway).rotate("second")
    data.restore_store("older")

    for _ in range(2):
        with data.open() as gateway:
            session = session_on(gateway)
            found = problems(gateway)
            assert {id_of(data, n): "older" for n in ("first", "second")} == found
            with pytest.raises(errors.HSMLockedError) as caught:
                session.encrypt("second", b"m")
            assert "store_older" == caught.value.facts["reason"]
    with data.open() as gateway:
        gateway.act_as(caller()).execute(ops.RecoverStore(reason="restored"))
        session = session_on(gateway)
        with pytest.raises(errors.KeyTamperedError, match="rotate"):
            session.encrypt("second", b"m")
        session.rotate("second")
        session.encrypt("second", b"m")
    with data.open() as gateway:
        assert {} == problems(gateway)
        session_on(gateway).describe("first")


def test_a_missing_key_is_named_though_its_record_is_gone(data: Data) -> None:
    """A key that was removed from the store is missed."""
    prune(data)
    key = id_of(data, "second")
    data.remove(key)

    with data.open() as gateway:
        assert {key: "missing"} == problems(gateway)


@pytest.mark.parametrize("pruned", [False, True])
def test_a_destroyed_key_stays_so_though_it_was_forgotten(
    data: Data, *, pruned: bool
) -> None:
    """A copy from before its end opens nothing, even if nothing else tells of it."""
    key = id_of(data, "second")
    with data.open() as gateway:
        secret = session_on(gateway).encrypt(key, b"m")
    data.keep("living")
    with data.open() as gateway:
        session_on(gateway).destroy(key)
        session_on(gateway).rotate("first")
    data.remove(key)
    with data.open() as gateway:
        assert {key: "missing"} == problems(gateway)
        asked = ops.RecoverKey(key_id=key, reason="gone")
        assert (key,) == gateway.act_as(caller()).execute(asked).forgotten
        session_on(gateway).rotate("first")
    if pruned:
        prune(data)
    data.bring_back(key, "living")

    with data.open() as gateway:
        assert {key: "foreign"} == problems(gateway)
        session = session_on(gateway)
        session.encrypt("first", b"m")
        asked = ops.RecoverKey(key_id=key, reason="put back")
        assert (key,) == gateway.act_as(caller()).execute(asked).left
        with pytest.raises(errors.KeyTamperedError):
            session.decrypt(key, secret)
    assert data.blob(key, 1) is None


def test_a_walk_that_is_overtaken_by_a_prune_begins_anew() -> None:
    """Who reads the trail from its beginning misses nothing that goes meanwhile."""
    clock = FakeClock()
    log = MemoryAuditLog(KEY, clock=clock, entropy=FakeEntropy())
    for number in range(60):
        log.append([change(number, number % 5)])
    before = AuditWalk(log, partial(verify_range, log, KEY)).known()
    begun: list[int] = []

    def verify(start: int, limit: int) -> ops.AuditVerification:
        if not begun:
            begun.append(start)
            log.prune(50, "meanwhile")
        return verify_range(log, KEY, start, limit)

    walk = AuditWalk(log, verify)
    assert [0] == begun
    assert 50 == log.first_seq
    assert before == walk.known()
    log.append([change(60, 7)])
    log.prune(61, "again")
    walk.advance()
    assert KnownKey(KeyId("key-7"), 61, f"{60:064x}") == walk.known()[KeyId("key-7")]


def test_two_checks_at_a_time_find_the_same(data: Data) -> None:
    """A check passes over no key that another one is about to disable."""
    key = id_of(data, "second")
    reached, release = threading.Event(), threading.Event()
    whole = TamperedKeys.condemn

    def slow(self: TamperedKeys, key_id: KeyId, error: errors.KeyTamperedError) -> None:
        reached.set()
        release.wait(60)
        whole(self, key_id, error)

    data.remove(key)
    with (
        # First, for the open HSM checks its store by itself, too.
        mock.patch.object(TamperedKeys, "condemn", slow),
        data.open() as gateway,
        ThreadPoolExecutor(2) as pool,
    ):
        checks = [pool.submit(problems, gateway)]
        assert reached.wait(60)
        checks.append(pool.submit(problems, gateway))
        wait(checks, timeout=1)
        release.set()
        assert [{key: "missing"}] * 2 == [check.result() for check in checks]
