# SPDX-License-Identifier: MIT
"""Audit records of several nodes in one view, by time: lists and live views."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import ExitStack, aclosing
from pathlib import Path
from typing import TypeAlias

import pytest
from msgspec.structs import replace

from hsm_core._internal.handlers import audit_view
from hsm_core._internal.pipeline import live_views
from hsm_core.errors import AuditTamperedError, InvalidInputError
from hsm_core.factory import OpenHSM
from hsm_core.model import AuditEntry
from hsm_core.operations import FROM_NOW, AuditPage, ListAuditEvents, cursor_after
from hsm_core.testing import caller, memory_hsm
from tests.core.cluster_nodes import node, session, sql

PATIENCE = 60.0

Pages: TypeAlias = AsyncGenerator[AuditPage, None]
Nodes: TypeAlias = Callable[[str], OpenHSM]


@pytest.fixture
def nodes(
    database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Nodes]:
    """Give a function that opens a node of one cluster by its name."""
    monkeypatch.setattr(live_views, "_PAUSE_SECONDS", 0.02)
    with ExitStack() as stack:
        yield lambda name: stack.enter_context(node(database, tmp_path, name))


def live(cursor: str, *, key_id: str = "", limit: int = 50) -> ListAuditEvents:
    """Return a live view of all logs."""
    return ListAuditEvents(ascending=True, cursor=cursor, key_id=key_id, limit=limit)


def follow(hsm: OpenHSM, operation: ListAuditEvents) -> Pages:
    """Return the pages of a live view."""
    return hsm.act_as_async().act_as(caller()).follow(operation)


async def until(pages: Pages, wanted: set[tuple[str, str]]) -> list[AuditPage]:
    """Read pages until each of these nodes and kinds has been shown."""
    found: list[AuditPage] = []
    async with asyncio.timeout(PATIENCE):
        while not wanted <= {_what(entry) for page in found for entry in page.items}:
            found.append(await anext(pages))
    return found


def _what(entry: AuditEntry) -> tuple[str, str]:
    return entry.node, entry.event.kind


def _place(entry: AuditEntry) -> tuple[str, int]:
    return entry.log_id, entry.event.seq


def entries_of(pages: list[AuditPage]) -> list[AuditEntry]:
    """Return the entries of pages."""
    return [entry for page in pages for entry in page.items]


def everything(hsm: OpenHSM, operation: ListAuditEvents) -> list[AuditEntry]:
    """Return the entries of all pages of a query."""
    found: list[AuditEntry] = []
    while True:
        page = hsm.act_as(caller()).execute(operation)
        found += page.items
        if not page.next_cursor:
            return found
        operation = replace(operation, cursor=page.next_cursor)


async def test_records_of_all_nodes_are_followed(nodes: Nodes) -> None:
    """New records of each node come once, those of a node that joins later, too."""
    first, second = nodes("a"), nodes("b")
    key = session(first).create_key("ed25519").key_id

    async with aclosing(follow(first, live(FROM_NOW))) as pages:
        begun = await anext(pages)
        await asyncio.to_thread(session(second).sign, key, b"m")
        shown = await until(pages, {("a", "ListAuditEvents"), ("b", "Sign")})
        third = await asyncio.to_thread(nodes, "c")
        await asyncio.to_thread(session(third).sign, key, b"m")
        shown += await until(pages, {("c", "Sign")})

    assert () == begun.items
    assert all(page.items for page in shown)
    found = [_place(entry) for entry in entries_of(shown)]
    assert len(found) == len(set(found))
    assert "CreateKey" not in {entry.event.kind for entry in entries_of(shown)}
    for log_id in {log_id for log_id, _ in found}:
        seqs = [seq for each, seq in found if each == log_id]
        assert list(range(seqs[0], seqs[0] + len(seqs))) == seqs
    joined = [entry.event.seq for entry in entries_of(shown) if entry.node == "c"]
    assert 0 == joined[0]


async def test_another_node_goes_on(nodes: Nodes) -> None:
    """A view resumes on each node behind any record, without gap or repetition."""
    first, second = nodes("a"), nodes("b")
    key = session(first).create_key("ed25519").key_id
    start = first.act_as(caller()).execute(ListAuditEvents(limit=1)).head_cursor

    for signer in (first, second) * 3:
        session(signer).sign(key, b"m")
    seen: list[AuditEntry] = []
    cursor = start
    for hsm in (first, second) * 3:
        async with aclosing(follow(hsm, live(cursor, key_id=key))) as pages:
            page = await anext(pages)
            if not page.items:
                page = await anext(pages)
            # The client leaves behind the first record of the page.
            cursor = cursor_after(cursor, page.items[0])
            seen.append(page.items[0])

    assert [("a", "Sign"), ("b", "Sign")] * 3 == [_what(entry) for entry in seen]
    assert 6 == len({_place(entry) for entry in seen})


@pytest.mark.parametrize("ascending", [False, True])
def test_rare_records_of_a_busy_node(
    nodes: Nodes, monkeypatch: pytest.MonkeyPatch, *, ascending: bool
) -> None:
    """Records of a node wait until the log of a busy one is searched as far."""
    monkeypatch.setattr(audit_view, "_SCANNED", 5)
    monkeypatch.setattr(audit_view, "_BLOCK", 2)
    busy, idle = nodes("a"), nodes("b")
    key = session(busy).create_key("ed25519").key_id
    for _ in range(4):
        session(busy).sign(key, b"m")
        for _ in range(12):
            session(busy).random(8)
        session(idle).sign(key, b"m")

    query = ListAuditEvents(key_id=key, kind=("Sign",), limit=4, ascending=ascending)
    found = everything(idle, query)

    expected = [("a", "Sign"), ("b", "Sign")] * 4
    assert (expected if ascending else expected[::-1]) == [_what(e) for e in found]


async def test_a_live_view_that_is_behind(
    nodes: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It shows what was recorded meanwhile in order of time, then goes on."""
    monkeypatch.setattr(audit_view, "_SCANNED", 5)
    monkeypatch.setattr(audit_view, "_BLOCK", 2)
    first, second = nodes("a"), nodes("b")
    key = session(first).create_key("ed25519").key_id
    for _ in range(4):
        session(first).sign(key, b"m")
        for _ in range(12):
            session(first).random(8)
        session(second).sign(key, b"m")

    view = replace(live("", key_id=key, limit=3), kind=("Sign",))
    async with aclosing(follow(second, view)) as pages:
        shown: list[AuditEntry] = []
        async with asyncio.timeout(PATIENCE):
            while len(shown) < 8:
                shown += (await anext(pages)).items
        await asyncio.to_thread(session(first).sign, key, b"m")
        async with asyncio.timeout(PATIENCE):
            shown += (await anext(pages)).items

    assert [("a", "Sign"), ("b", "Sign")] * 4 == [_what(entry) for entry in shown[:8]]
    assert [("a", "Sign")] == [_what(entry) for entry in shown[8:]]


async def test_a_record_that_is_gone(nodes: Nodes, database: str) -> None:
    """A live view ends with an error where another node's record was removed."""
    first, second = nodes("a"), nodes("b")

    async with aclosing(follow(first, live(FROM_NOW))) as pages:
        await anext(pages)
        await asyncio.to_thread(second.close)
        sql(
            database,
            "DELETE FROM records USING logs WHERE records.log_id = logs.log_id "
            "AND node = 'b' AND seq = (SELECT max(seq) FROM records AS r "
            "WHERE r.log_id = logs.log_id)",
        )
        ((log_id,),) = sql(database, "SELECT log_id FROM logs WHERE node = 'b'")
    cursor = f"{log_id}0"
    with pytest.raises(AuditTamperedError):
        async with aclosing(follow(first, live(cursor, limit=500))) as pages:
            await until(pages, {("b", "never")})


async def test_cursors_that_are_refused(nodes: Nodes) -> None:
    """A cursor is that of a page; a list does not begin now; one log has none."""
    first = nodes("a").act_as(caller())
    page = first.execute(ListAuditEvents(limit=1))
    following = ListAuditEvents(cursor=page.next_cursor)
    malformed = ("x", FROM_NOW, "0" * 32, f"{'0' * 32}5")
    for query in (
        *(replace(following, cursor=cursor) for cursor in malformed),
        replace(following, start_seq=5),
        replace(following, log_id=page.items[0].log_id),
    ):
        with pytest.raises(InvalidInputError) as caught:
            first.execute(query)
        assert "cursor" == caught.value.facts["field"]
    with memory_hsm() as single, pytest.raises(InvalidInputError, match="cursor"):
        await anext(follow(single, live(FROM_NOW)))
