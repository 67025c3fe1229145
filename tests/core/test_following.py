# SPDX-License-Identifier: MIT
"""Live views of the trail: one recorded operation, with events."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, contextmanager
from functools import partial
from pathlib import Path
from typing import TypeAlias

import pytest

from hsm_core import errors
from hsm_core import operations as ops
from hsm_core._internal.lib.failpoints import install
from hsm_core._internal.pipeline import live_views
from hsm_core._internal.pipeline.live_views import MOST_FOLLOWERS
from hsm_core._internal.policy.engine import RuleEngine
from hsm_core.factory import OpenHSM, open_hsm
from hsm_core.model import AuditEntry, Caller, Role
from hsm_core.policies import parse_policy
from hsm_core.protocols import AuditLog, LiveHSM
from hsm_core.settings import AuditStoreKind, AuditSync, Settings
from hsm_core.testing import Faults, caller, memory_hsm
from tests.core.hsm_support import session_of

PATIENCE = 60.0
PAUSE = 0.02
LONGER_THAN_A_PAUSE = 0.1
STRANGER = Caller(principal="stranger", roles=frozenset(), request_id="test")

Pages: TypeAlias = AsyncGenerator[ops.AuditPage, None]


def on_disk(
    folder: Path,
    *,
    trail: AuditStoreKind = AuditStoreKind.FILE,
    sync: AuditSync = AuditSync.STRICT,
    timeout_seconds: float = 20.0,
) -> OpenHSM:
    """Open an HSM whose keys and trail lie in a folder."""
    settings = Settings(
        key_dir=folder / "keys",
        audit_store=trail,
        audit_log=folder / "audit.log",
        audit_sqlite_path=folder / "audit.sqlite",
        audit_sync=sync,
        audit_timeout_seconds=timeout_seconds,
    )
    return open_hsm(settings, master_key=b"\x01" * 32, hmac_key=b"\x02" * 32)


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a view look at the log more often than five times a second."""
    monkeypatch.setattr(live_views, "_PAUSE_SECONDS", PAUSE)


OPENERS: dict[str, Callable[[Path], OpenHSM]] = {
    "memory": lambda folder: memory_hsm(),
    "files": on_disk,
    "sqlite": partial(on_disk, trail=AuditStoreKind.SQLITE),
    "bounded": partial(on_disk, sync=AuditSync.BOUNDED),
}


@pytest.fixture(params=OPENERS)
def gateway(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[OpenHSM]:
    """Give an open HSM over each kind of trail."""
    with OPENERS[request.param](tmp_path) as opened:
        yield opened


@pytest.fixture
def memory() -> Iterator[OpenHSM]:
    """Give an HSM in memory."""
    with memory_hsm() as opened:
        yield opened


def trail_of(gateway: OpenHSM) -> AuditLog:
    """Return the trail of an HSM."""
    return gateway._services.audit  # noqa: SLF001 (there is no public way to it)


def as_caller(gateway: OpenHSM, who: Caller | None = None) -> LiveHSM:
    """Return an HSM for an event loop, as somebody sees it."""
    return gateway.act_as_async().act_as(who or caller())


def from_now(
    gateway: OpenHSM,
    *,
    key_id: str = "",
    principal: str = "",
    kind: tuple[str, ...] = (),
) -> ops.ListAuditEvents:
    """Return a view of what is recorded from now on."""
    return ops.ListAuditEvents(
        ascending=True,
        start_seq=trail_of(gateway).head().seq + 1,
        key_id=key_id,
        principal=principal,
        kind=kind,
    )


def everything(gateway: OpenHSM) -> list[AuditEntry]:
    """Return all that is in the trail, and record that it was looked at."""
    found: list[AuditEntry] = []
    hsm, start = gateway.act_as(caller()), 0
    end = trail_of(gateway).head().seq
    while start <= end:
        page = hsm.execute(
            ops.ListAuditEvents(ascending=True, start_seq=start, limit=500)
        )
        found += page.items
        start = page.items[-1].event.seq + 1
    return [entry for entry in found if entry.event.seq <= end]


def seqs_of(entries: list[AuditEntry]) -> list[int]:
    """Return the sequence numbers of entries."""
    return [entry.event.seq for entry in entries]


async def until(
    pages: Pages, is_last: Callable[[AuditEntry], bool]
) -> list[AuditEntry]:
    """Read pages up to one with an entry of a kind, and return all their entries."""
    found: list[AuditEntry] = []
    async with asyncio.timeout(PATIENCE):
        while not any(map(is_last, found)):
            page = await anext(pages)
            assert page.items
            found += page.items
    return found


async def come_true(condition: Callable[[], bool]) -> None:
    """Wait until something is so."""
    async with asyncio.timeout(PATIENCE):
        while not condition():
            await asyncio.sleep(0.01)


async def is_waiting(task: asyncio.Task[ops.AuditPage]) -> bool:
    """Return whether a page has not come after several looks at the trail."""
    await asyncio.wait({task}, timeout=LONGER_THAN_A_PAUSE)
    return not task.done()


@contextmanager
def held_sync() -> Iterator[tuple[threading.Event, threading.Event]]:
    """Let syncs of the trail wait while the first event is set, until the second is."""
    hold, go_on = threading.Event(), threading.Event()

    def wait(name: str) -> None:
        if name == "audit.before_sync" and hold.is_set():
            go_on.wait(PATIENCE)

    try:
        with install(wait):
            yield hold, go_on
    finally:
        go_on.set()


async def test_one_record_and_then_events(gateway: OpenHSM) -> None:
    """A view from now on begins empty; its record and all later events follow."""
    session = session_of(gateway)
    session.create_key("ed25519", name="k")
    asked = from_now(gateway)

    async with aclosing(as_caller(gateway).follow(asked)) as pages:
        first = await anext(pages)
        found = await until(pages, lambda e: e.event.kind == "ListAuditEvents")
        await asyncio.to_thread(session.sign, "k", b"m")
        found += await until(pages, lambda e: e.event.kind == "Sign")
        await asyncio.to_thread(session.revoke, "k")
        found += await until(
            pages,
            lambda e: (e.event.kind, e.event.phase) == ("RevokeKey", "outcome"),
        )

    start = asked.start_seq
    assert start is not None
    assert ((), start, start - 1) == (first.items, first.next_seq, first.head_seq)
    kinds = ["ListAuditEvents", "Sign", "RevokeKey", "RevokeKey"]
    assert kinds == [entry.event.kind for entry in found]
    assert list(range(start, start + 4)) == seqs_of(found)
    assert start + 3 == trail_of(gateway).head().seq
    recorded = found[0].event.parameters
    assert {"follow": 1, "ascending": 1, "start_seq": start} == recorded


def all_of(pages: Sequence[ops.AuditPage]) -> list[AuditEntry]:
    """Return the entries of pages."""
    return [entry for page in pages for entry in page.items]


async def test_every_event_once_whoever_writes(gateway: OpenHSM) -> None:
    """Under concurrent writers nothing is left out, doubled or out of order."""
    session = session_of(gateway)
    session.create_key("ed25519", name="k")
    asked = ops.ListAuditEvents(ascending=True, limit=7)

    def write() -> None:
        for _ in range(40):
            session.sign("k", b"m")

    with ThreadPoolExecutor(4) as writers:
        async with aclosing(as_caller(gateway).follow(asked)) as pages:
            seen = [await anext(pages)]
            written = [writers.submit(write) for _ in range(4)]
            async with asyncio.timeout(PATIENCE):
                # Where nothing is written any more, the next page never comes.
                while 160 > sum(entry.event.kind == "Sign" for entry in all_of(seen)):
                    seen.append(await anext(pages))
        for work in written:
            work.result()

    found = all_of(seen)
    assert everything(gateway) == found
    assert all(1 <= len(page.items) <= 7 for page in seen)
    assert all(page.head_seq >= page.items[-1].event.seq for page in seen)
    assert [page.items[-1].event.seq + 1 for page in seen] == [
        page.next_seq for page in seen
    ]
    views = [entry for entry in found if entry.event.kind == "ListAuditEvents"]
    assert 1 == len(views)


async def test_another_view_goes_on_where_one_ended(memory: OpenHSM) -> None:
    """From the last page's next_seq on nothing is missed and nothing comes twice."""
    session = session_of(memory)
    found: list[int] = []
    start = 0
    for _ in range(4):
        asked = ops.ListAuditEvents(ascending=True, start_seq=start, limit=2)
        async with aclosing(as_caller(memory).follow(asked)) as pages:
            page = await anext(pages)
        found += seqs_of(list(page.items))
        start = page.next_seq or 0
        session.random(8)

    assert list(range(len(found))) == found


async def test_the_same_filters(memory: OpenHSM) -> None:
    """What another does, what is done otherwise, and other keys do not come."""
    mine = session_of(memory)
    other = type(mine)(memory.act_as(caller(principal="other")))
    for name in ("k", "l"):
        mine.create_key("ed25519", name=name)
    asked = from_now(memory, key_id="k", kind=("Sign",), principal="tester")

    async with aclosing(as_caller(memory).follow(asked)) as pages:
        assert () == (await anext(pages)).items
        for session, key, message in (
            (other, "k", b"1"),
            (mine, "l", b"22"),
            (mine, "k", b"333"),
        ):
            await asyncio.to_thread(session.sign, key, message)
        (entry,) = await until(pages, lambda e: e.event.kind == "Sign")

    assert 3 == entry.event.parameters["message_bytes"]
    assert entry.event.caller is not None
    assert "tester" == entry.event.caller.principal


async def test_a_name_that_comes_and_goes(memory: OpenHSM) -> None:
    """A key that gets a name later is followed by it, to its end."""
    session = session_of(memory)
    asked = from_now(memory, key_id="later")

    async with aclosing(as_caller(memory).follow(asked)) as pages:
        await anext(pages)
        await asyncio.to_thread(session.create_key, "ed25519", name="later")
        await until(pages, lambda e: e.event.phase == "outcome")
        await asyncio.to_thread(session.destroy, "later")
        found = await until(pages, lambda e: e.event.phase == "outcome")

    assert ["DestroyKey"] * 2 == [entry.event.kind for entry in found]


async def test_closing_ends_it(memory: OpenHSM) -> None:
    """A closed view gives no page, even if there is something new."""
    pages = as_caller(memory).follow(from_now(memory))
    await anext(pages)
    await pages.aclose()
    with pytest.raises(StopAsyncIteration):
        await anext(pages)


async def test_there_is_a_limit(memory: OpenHSM) -> None:
    """One too many is refused before anything is recorded; one less makes room."""
    head = trail_of(memory).head

    views = [as_caller(memory).follow(from_now(memory)) for _ in range(MOST_FOLLOWERS)]
    for pages in views:
        await anext(pages)
    before = head().seq
    with pytest.raises(errors.OverloadedError, match="16 clients"):
        await anext(as_caller(memory).follow(from_now(memory)))
    after = head().seq
    await views[0].aclose()
    async with aclosing(as_caller(memory).follow(from_now(memory))) as another:
        await anext(another)
    for pages in views:
        await pages.aclose()

    assert before == after
    assert before + 1 == head().seq


async def test_whoever_may_not_look(memory: OpenHSM) -> None:
    """They are refused, recorded, and take nobody's place."""
    asked = from_now(memory)

    for who in (STRANGER, caller(Role.OPERATOR)) * MOST_FOLLOWERS:
        with pytest.raises(errors.AccessDeniedError):
            await anext(as_caller(memory, who).follow(asked))
    async with aclosing(as_caller(memory).follow(asked)) as pages:
        await anext(pages)

    codes = [entry.event.code for entry in everything(memory)[asked.start_seq :]]
    assert ["access_denied"] * (2 * MOST_FOLLOWERS) + ["ok"] == codes


async def test_it_does_not_go_backwards(memory: OpenHSM) -> None:
    """A view that follows the trail is ascending; refusing another is recorded."""
    start = trail_of(memory).head().seq + 1

    with pytest.raises(errors.InvalidInputError) as caught:
        await anext(as_caller(memory).follow(ops.ListAuditEvents()))

    assert "ascending" == caught.value.facts["field"]
    (entry,) = everything(memory)[start:]
    assert ("ListAuditEvents", "invalid_input") == (entry.event.kind, entry.event.code)


async def test_a_field_out_of_its_limits(memory: OpenHSM) -> None:
    """What is no page size is refused as by any other call."""
    asked = ops.ListAuditEvents(ascending=True, limit=0)

    with pytest.raises(errors.InvalidInputError, match="limit"):
        await anext(as_caller(memory).follow(asked))


async def test_a_locked_hsm_is_followed(memory: OpenHSM) -> None:
    """Views of the trail are served while the HSM is locked, and show its recovery."""
    services = memory._services  # noqa: SLF001 (to lock it)
    services.inventory.lock.set("A test.", {"reason": "test"})
    hsm = memory.act_as(caller())

    async with aclosing(as_caller(memory).follow(from_now(memory))) as pages:
        await anext(pages)
        await asyncio.to_thread(hsm.execute, ops.RecoverStore(reason="fine"))
        assert await until(pages, lambda e: e.event.kind == "RecoverStore")


async def test_the_end_of_the_hsm(memory: OpenHSM) -> None:
    """Who waits for the next page is told, and holds nobody up."""
    pages = as_caller(memory).follow(from_now(memory))
    await anext(pages)
    await until(pages, lambda e: e.event.kind == "ListAuditEvents")
    task = asyncio.ensure_future(anext(pages))
    await asyncio.to_thread(memory.close)
    with pytest.raises(errors.UnavailableError, match="closed") as caught:
        async with asyncio.timeout(PATIENCE):
            await task
    assert errors.UnavailableError is type(caught.value)
    with pytest.raises(StopAsyncIteration):
        await anext(pages)
    with pytest.raises(errors.UnavailableError, match="closed"):
        await anext(as_caller(memory).follow(from_now(memory)))


@pytest.mark.parametrize("trail", [AuditStoreKind.FILE, AuditStoreKind.SQLITE])
async def test_nothing_is_shown_that_a_power_cut_could_undo(
    trail: AuditStoreKind, tmp_path: Path
) -> None:
    """An event that is written waits for its sync before it is shown."""
    sync = AuditSync.BOUNDED
    with (
        on_disk(tmp_path, trail=trail, sync=sync) as gateway,
        held_sync() as (hold, go_on),
    ):
        head = trail_of(gateway).head
        async with aclosing(as_caller(gateway).follow(from_now(gateway))) as pages:
            await anext(pages)
            await until(pages, lambda e: e.event.kind == "ListAuditEvents")
            hold.set()
            before = head().seq
            await asyncio.to_thread(session_of(gateway).random, 8)
            assert before + 1 == head().seq
            task = asyncio.ensure_future(anext(pages))
            assert await is_waiting(task)
            go_on.set()
            async with asyncio.timeout(PATIENCE):
                assert [before + 1] == seqs_of(list((await task).items))


async def test_the_record_of_the_view_is_durable_first(tmp_path: Path) -> None:
    """Even where answers do not wait for the sync, the first page does."""
    with (
        on_disk(tmp_path, sync=AuditSync.BOUNDED) as gateway,
        held_sync() as (hold, go_on),
    ):
        asked = from_now(gateway)
        hold.set()
        pages = as_caller(gateway).follow(asked)
        task = asyncio.ensure_future(anext(pages))
        await come_true(lambda: trail_of(gateway).head().seq == asked.start_seq)
        assert await is_waiting(task)
        go_on.set()
        async with asyncio.timeout(PATIENCE):
            await task
        assert trail_of(gateway).durable_head().seq == asked.start_seq
        await pages.aclose()


async def test_a_record_that_does_not_become_durable(tmp_path: Path) -> None:
    """No page is shown where the record of the view is not durable in time."""
    with held_sync() as (hold, go_on):
        gateway = on_disk(tmp_path, sync=AuditSync.BOUNDED, timeout_seconds=1.0)
        hold.set()
        with pytest.raises(errors.AuditUnavailableError):
            async with asyncio.timeout(PATIENCE):
                await anext(as_caller(gateway).follow(from_now(gateway)))
        go_on.set()
        gateway.close()


async def test_a_view_after_a_pause(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that was paused finds the time over; the sync was paused as well."""
    monkeypatch.setattr("hsm_core._internal.lib.silence.MOMENT_SECONDS", PATIENCE)
    with (
        on_disk(tmp_path, sync=AuditSync.BOUNDED, timeout_seconds=1.0) as gateway,
        held_sync() as (hold, go_on),
    ):
        before = trail_of(gateway).head().seq
        hold.set()
        pages = as_caller(gateway).follow(from_now(gateway))
        task = asyncio.ensure_future(anext(pages))
        await come_true(lambda: trail_of(gateway).head().seq > before)
        assert await is_waiting(task)
        time.sleep(1.5)
        asyncio.get_running_loop().call_later(0.05, go_on.set)
        async with aclosing(pages), asyncio.timeout(PATIENCE):
            await task
            assert trail_of(gateway).durable_head().seq > before


async def test_one_that_falls_behind_a_prune(memory: OpenHSM) -> None:
    """It goes on with the oldest record that is left."""
    session, trail = session_of(memory), trail_of(memory)
    asked = ops.ListAuditEvents(ascending=True, limit=1)

    async with aclosing(as_caller(memory).follow(asked)) as pages:
        assert [0] == seqs_of(list((await anext(pages)).items))
        for _ in range(10):
            session.random(8)
        trail.prune(8, "for a test")
        found = await until(pages, lambda e: e.event.kind == "system.prune")

    assert list(range(8, trail.head().seq + 1)) == seqs_of(found)


@pytest.mark.parametrize(
    "error", [errors.AuditUnavailableError(), errors.AuditTamperedError(seq=3)]
)
async def test_a_trail_that_cannot_be_read(error: errors.HSMError) -> None:
    """The view ends with what a call would raise; the place in it is free again."""
    faults = Faults()
    with memory_hsm(faults=faults) as gateway:
        for _ in range(MOST_FOLLOWERS + 1):
            pages = as_caller(gateway).follow(from_now(gateway))
            await anext(pages)
            faults.plan("audit.lines", error)
            with pytest.raises(type(error)) as caught:
                async with asyncio.timeout(PATIENCE):
                    await anext(pages)
            assert caught.value is error
            with pytest.raises(StopAsyncIteration):
                await anext(pages)


async def test_a_store_that_fails_meanwhile() -> None:
    """The records of a key are followed though the key can't be looked up."""
    faults = Faults()
    with memory_hsm(faults=faults) as gateway:
        session = session_of(gateway)
        session.create_key("ed25519", name="k")
        asked = from_now(gateway, key_id="k")
        async with aclosing(as_caller(gateway).follow(asked)) as pages:
            await anext(pages)
            await asyncio.to_thread(session.sign, "k", b"m")
            faults.plan("store.entry", errors.StoreUnavailableError(), times=1000)
            assert 1 == len(await until(pages, lambda e: e.event.kind == "Sign"))
        faults.clear()


async def test_reads_that_wait_already(memory: OpenHSM) -> None:
    """Where too much waits, a view that has begun looks later, and does not end."""
    async with aclosing(as_caller(memory).follow(from_now(memory))) as pages:
        await anext(pages)
        pools = memory._pools  # noqa: SLF001 (to fill it)
        assert pools is not None
        pools._queue.waiting += 1024  # noqa: SLF001 (as if so much waited)
        task = asyncio.ensure_future(anext(pages))
        assert await is_waiting(task)
        pools._queue.waiting -= 1024  # noqa: SLF001 (it is done)
        async with asyncio.timeout(PATIENCE):
            found = (await task).items
    assert ["ListAuditEvents"] == [e.event.kind for e in found]


def test_executed_it_is_one_page(memory: OpenHSM) -> None:
    """Executed, a view that would go on gives a page, and where to go on."""
    asked = from_now(memory)
    followed = ops.ListAuditEvents(
        ascending=True, start_seq=asked.start_seq, follow=True
    )

    for hsm in (memory.act_as(caller()), memory.act_as(caller(Role.AUDITOR))):
        start = trail_of(memory).head().seq + 1
        pages = [hsm.execute(asked), hsm.execute(followed)]
        assert [None, start + 1] == [page.next_seq for page in pages]
        assert [start - 1, start] == [page.head_seq for page in pages]


async def test_a_start_that_is_not_there_yet(memory: OpenHSM) -> None:
    """A view from a later record on shows what comes from that record on."""
    start = trail_of(memory).head().seq + 4
    asked = ops.ListAuditEvents(ascending=True, start_seq=start)
    session = session_of(memory)

    async with aclosing(as_caller(memory).follow(asked)) as pages:
        first = await anext(pages)
        for _ in range(4):
            session.random(8)
        first, found = first, await until(pages, lambda e: e.event.seq == start + 1)

    assert ((), start) == (first.items, first.next_seq)
    assert [start, start + 1] == seqs_of(found)


async def test_it_ends_where_another_policy_denies_it(memory: OpenHSM) -> None:
    """Who may look is judged again by each policy that comes into force."""
    who = caller(Role.AUDITOR)
    async with aclosing(as_caller(memory, who).follow(from_now(memory))) as pages:
        await anext(pages)
        denying = parse_policy(
            "version: 1\nextends: default\nrules:\n  - {name: out, effect: deny, "
            "match: {operations: [ListAuditEvents]}}\n"
        )
        memory._services.policy.replace(RuleEngine(denying), 0)  # noqa: SLF001
        session_of(memory).create_key("aes-256-gcm")
        with pytest.raises(errors.AccessDeniedError):
            await asyncio.wait_for(anext(pages), PATIENCE)
