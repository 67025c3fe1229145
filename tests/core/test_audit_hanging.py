"""A disk that does not answer: who waits is refused in time, and later all goes on."""

from __future__ import annotations

import asyncio
import errno
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest

from hsm_core import testing
from hsm_core._internal.audit.writer import Flusher
from hsm_core._internal.lib import silence
from hsm_core._internal.lib.failpoints import install
from hsm_core._internal.pipeline.durability import DurabilityWaits
from hsm_core.errors import AuditUnavailableError, StoreLockedError
from hsm_core.factory import open_async, open_hsm
from hsm_core.operations import GenerateRandom
from hsm_core.settings import AuditStoreKind, AuditSync, Settings
from tests.core.audit_faults import (
    begun,
    close_and_check,
    detail_of,
    is_well,
    resumes,
    until,
)
from tests.core.audit_support import draft, verified
from tests.core.hsm_support import session_of


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Give the path of a trail that is not made yet."""
    return tmp_path / "log" / "audit.log"


@pytest.mark.parametrize("call", ["write", "fdatasync"])
def test_a_hanging_disk_refuses_at_once_and_resumes(
    path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    """Waiting ends in time, then nobody waits any more; all goes on when it does."""
    log, writer = begun(path, 1, timeout_seconds=1.0)
    release = threading.Event()
    whole = getattr(os, call)

    def hanging(*given: object) -> object:
        release.wait(300)
        return whole(*given)

    with monkeypatch.context() as patch:
        patch.setattr(os, call, hanging)
        ticket = log.append([draft(1000)])
        assert not writer.append()
        until(lambda: not log.available)
        assert ("failing", "hanging", 1, 0) == (
            log.health.state,
            log.health.cause,
            log.health.failures,
            log.health.resumes,
        )
        for _ in range(100):
            assert not writer.append()
        release.set()
        ticket.wait(60)
    until(lambda: log.health.resumes)
    assert writer.append()

    assert ("ok", 1) == (log.health.state, log.health.failures)
    assert ["hanging"] == [detail_of(event).cause for event in resumes(log)]
    assert 102 == len(writer.refused) + 1
    log.close()
    assert verified(path).clean


def test_a_disk_that_hangs_and_then_fails_heals(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two faults at once are two causes, and one outage after the other."""
    log, writer = begun(path, 1, timeout_seconds=1.0)

    def hanging(descriptor: int) -> None:
        time.sleep(1.2)
        raise OSError(errno.EIO, "I/O error")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fdatasync", hanging)
        assert not writer.append()
        until(lambda: log.health.cause == "sync")
    until(lambda: is_well(log))
    assert writer.append()
    close_and_check(log, writer, path)


def test_an_hsm_behind_a_hanging_disk_answers_in_time(tmp_path: Path) -> None:
    """Within two seconds it refuses, it tells its state, and later it goes on."""
    settings = Settings(
        key_dir=tmp_path / "keys", audit_log=tmp_path / "log" / "audit.log"
    )
    release = threading.Event()

    def handler(reached: str) -> None:
        if reached == "audit.before_sync":
            release.wait(300)

    with open_hsm(settings, master_key=bytes(32), hmac_key=bytes(32)) as gateway:
        session = session_of(gateway)
        key = session.create_key("AES-256-GCM").key_id
        with install(handler):
            attempts: list[Callable[[], object]] = [
                lambda: session.encrypt(key, b"secret"),
                lambda: session.create_key("AES-256-GCM"),
                lambda: session.random(16),
            ]
            for attempt in attempts:
                with pytest.raises(AuditUnavailableError):
                    attempt()
            audit = session.status().audit
            assert ("failing", "hanging", False) == (
                audit.state,
                audit.cause,
                audit.available,
            )
            assert [key] == [item.key_id for item in session.keys()]
            release.set()
            until(lambda: session.status().audit.state == "ok")
        assert session.encrypt(key, b"secret")
    assert verified(tmp_path / "log" / "audit.log", bytes(32)).clean


@pytest.mark.parametrize("kind", [AuditStoreKind.FILE, AuditStoreKind.SQLITE])
@pytest.mark.parametrize("sync", AuditSync)
def test_an_hsm_that_was_paused_refuses_nobody(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    kind: AuditStoreKind,
    sync: AuditSync,
) -> None:
    """All time is over when it awakes, and what was under way ends a moment later."""
    for module in (silence.__name__, Flusher.__module__, DurabilityWaits.__module__):
        monkeypatch.setattr(f"{module}.MOMENT_SECONDS", 60.0)
    settings = Settings(
        key_dir=tmp_path / "keys",
        audit_store=kind,
        audit_log=tmp_path / "log" / "audit.log",
        audit_sqlite_path=tmp_path / "log" / "audit.sqlite",
        audit_sync=sync,
        audit_timeout_seconds=0.2,
    )

    def handler(reached: str) -> None:
        if reached == "audit.before_write":
            time.sleep(0.3)
            causes.add(session.status().audit.cause)

    causes = set[str]()
    with open_hsm(settings, master_key=bytes(32), hmac_key=bytes(32)) as gateway:
        session = session_of(gateway)

        def use() -> None:
            key = session.create_key("AES-256-GCM").key_id
            session.encrypt(key, b"secret")

        async def use_on_a_loop() -> None:
            hsm = open_async(gateway).act_as(testing.caller())
            asked = GenerateRandom(length=16)
            await asyncio.gather(*(hsm.execute(asked) for _ in range(5)))

        with install(handler), ThreadPoolExecutor(3) as pool:
            for used in [pool.submit(use) for _ in range(3)]:
                used.result()
            asyncio.run(use_on_a_loop())
        session.random(16)

    assert {""} == causes


@pytest.mark.parametrize("kind", [AuditStoreKind.FILE, AuditStoreKind.SQLITE])
def test_an_hsm_opens_on_a_disk_that_is_slow_for_a_while(
    tmp_path: Path, kind: AuditStoreKind
) -> None:
    """Nobody is served yet, so that a start may take longer than an answer."""
    settings = Settings(
        key_dir=tmp_path / "keys",
        audit_store=kind,
        audit_log=tmp_path / "log" / "audit.log",
        audit_sqlite_path=tmp_path / "log" / "audit.sqlite",
        audit_timeout_seconds=0.5,
    )
    slow = iter([1.0] * 2)

    def handler(reached: str) -> None:
        if reached == "audit.before_sync":
            time.sleep(next(slow, 0.0))

    with (
        install(handler),
        open_hsm(settings, master_key=bytes(32), hmac_key=bytes(32)) as gateway,
    ):
        assert len(list(slow)) < 2
        until(lambda: session_of(gateway).status().audit.state == "ok")


@pytest.mark.parametrize("kind", [AuditStoreKind.FILE, AuditStoreKind.SQLITE])
@pytest.mark.parametrize("hanging", ["audit.before_write", "audit.before_sync"])
def test_a_log_that_was_closed_while_its_disk_hung_can_be_opened_again(
    tmp_path: Path, kind: AuditStoreKind, hanging: str
) -> None:
    """The lock is kept while something may yet be written, and released after that."""
    settings = Settings(
        key_dir=tmp_path / "keys",
        audit_store=kind,
        audit_log=tmp_path / "log" / "audit.log",
        audit_sqlite_path=tmp_path / "log" / "audit.sqlite",
        audit_timeout_seconds=1.0,
    )
    hangs, release = threading.Event(), threading.Event()

    def handler(reached: str) -> None:
        if reached == hanging:
            hangs.set()
            release.wait(300)

    def is_open() -> bool:
        with (
            suppress(StoreLockedError),
            open_hsm(settings, master_key=bytes(32), hmac_key=bytes(32)),
        ):
            return True
        return False

    gateway = open_hsm(settings, master_key=bytes(32), hmac_key=bytes(32))
    with install(handler):
        caller = threading.Thread(target=_try, args=[session_of(gateway).random, 16])
        caller.start()
        assert hangs.wait(60)
        with pytest.raises(AuditUnavailableError):
            gateway.close()
        assert not is_open()
        release.set()
        caller.join()
    until(is_open)


def test_a_start_waits_for_a_record_that_another_thread_still_writes(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What refuses a caller at once does not end a start, which may take longer."""
    log, writer = begun(path, 1, timeout_seconds=1.0)
    release = threading.Event()
    whole = os.write

    def hanging(descriptor: int, data: bytes) -> int:
        release.wait(300)
        return whole(descriptor, data)

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", hanging)
        other = threading.Thread(target=writer.append)
        other.start()
        until(lambda: log.health.cause == "hanging")
        assert not writer.append()
        threading.Timer(0.1, release.set).start()
        with silence.opening():
            log.append([draft(1000)]).wait()
        other.join()
    log.close()
    assert verified(path).clean


def _try(call: Callable[[int], object], given: int) -> None:
    with suppress(AuditUnavailableError):
        call(given)
