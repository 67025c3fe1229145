# SPDX-License-Identifier: MIT
"""Records of an audit log that is read without its HSM."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from hsm_core import operations as ops
from hsm_core._internal.time.clock import instant
from hsm_core.errors import (
    AuditTamperedError,
    ConfigurationError,
    InvalidInputError,
    KeyNotFoundError,
)
from hsm_core.factory import follow_trail, open_hsm, read_trail
from hsm_core.model import AuditEntry, Role
from hsm_core.operations import ListAuditEvents
from hsm_core.settings import AuditStoreKind, AuditSync, Settings
from hsm_core.testing import FakeClock, caller
from tests.core.audit_support import (
    KEY,
    copy_of,
    draft,
    fill,
    open_any,
    open_log,
    opened,
)

MASTER = b"\x01" * 32


@pytest.fixture(scope="module", params=["audit.log", "audit.sqlite"])
def life(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, list[tuple[ListAuditEvents, ops.AuditPage]]]:
    """Give a closed log, and pages of it that its HSM returned."""
    folder = tmp_path_factory.mktemp("life")
    path, clock = folder / "trail" / str(request.param), FakeClock()
    settings = Settings(key_dir=folder / "keys", audit_log=path)
    if path.suffix == ".sqlite":
        settings = Settings(
            key_dir=folder / "keys",
            audit_store=AuditStoreKind.SQLITE,
            audit_sqlite_path=path,
        )
    with open_hsm(settings, master_key=MASTER, hmac_key=KEY, clock=clock) as hsm:
        ann = hsm.act_as(caller(Role.ADMINISTRATOR, Role.OPERATOR, principal="ann"))
        bob = hsm.act_as(caller(Role.OPERATOR, principal="bob"))
        key = ann.execute(ops.CreateKey(algorithm="ed25519", name="signer")).key_id
        for person in (ann, bob, ann):
            for _ in range(5):
                person.execute(ops.Sign(key_id=key, message=b"m"))
            with pytest.raises(KeyNotFoundError):
                person.execute(ops.Sign(key_id="nothing", message=b"m"))
            clock.advance(3600)
        auditor = hsm.act_as(caller(Role.AUDITOR, principal="carl"))
        last = auditor.execute(ListAuditEvents(limit=1)).head_seq
        since = instant(clock.now() - 2 * 3600 * 1_000_000)
        queries = [
            ListAuditEvents(start_seq=last),
            ListAuditEvents(start_seq=last, limit=4),
            ListAuditEvents(start_seq=3, limit=2),
            ListAuditEvents(start_seq=0),
            ListAuditEvents(ascending=True, limit=7),
            ListAuditEvents(ascending=True, start_seq=4, limit=3),
            ListAuditEvents(start_seq=last, principal="bob", limit=4),
            ListAuditEvents(start_seq=last, failed=True),
            ListAuditEvents(start_seq=last, kind=("Sign",), code="ok", limit=3),
            ListAuditEvents(start_seq=last, key_id=key, since=since),
            ListAuditEvents(start_seq=last, until=since, ascending=False),
        ]
        return path, [(query, auditor.execute(query)) for query in queries]


@pytest.mark.parametrize("key", [KEY, None], ids=["key", "chain only"])
def test_it_shows_what_the_hsm_shows(
    life: tuple[Path, list[tuple[ListAuditEvents, ops.AuditPage]]], key: bytes | None
) -> None:
    """The same records, in the same order, whatever is asked for."""
    path, pages = life
    for query, page in pages:
        found = read_trail(path, key, query)

        assert page.items == found.items, query
        if len(found.items) < query.limit:
            assert found.next_seq is None


def test_pages_lead_to_each_other(
    life: tuple[Path, list[tuple[ListAuditEvents, ops.AuditPage]]],
) -> None:
    """From the newest record to the oldest, and back."""
    path, _ = life
    head = read_trail(path, KEY, ListAuditEvents(limit=1)).head_seq
    for ascending in (False, True):
        found: list[int] = []
        start: int | None = None
        while not found or start is not None:
            query = ListAuditEvents(start_seq=start, limit=7, ascending=ascending)
            page = read_trail(path, KEY, query)
            found += [entry.event.seq for entry in page.items]
            start = page.next_seq
        everything = list(range(head + 1))

        assert everything == (found if ascending else found[::-1])


def test_nothing_is_shown_of_a_damaged_log(
    life: tuple[Path, list[tuple[ListAuditEvents, ops.AuditPage]]], tmp_path: Path
) -> None:
    """Not even records that are good."""
    path = copy_of(life[0], tmp_path / "copy")
    path.write_bytes(path.read_bytes().replace(b"CreateKey", b"DeleteKey"))
    with pytest.raises(AuditTamperedError):
        read_trail(path, KEY, ListAuditEvents(limit=1))
    with pytest.raises(InvalidInputError, match="kind"):
        read_trail(path, KEY, ListAuditEvents(kind=("Sgin",)))


@pytest.mark.parametrize("name", ["log_id", "cursor"])
def test_fields_of_a_cluster_are_refused(
    life: tuple[Path, list[tuple[ListAuditEvents, ops.AuditPage]]], name: str
) -> None:
    """They choose among several logs, and this is one."""
    query = replace(ListAuditEvents(), **{name: "0" * 32})
    with pytest.raises(InvalidInputError, match=name):
        read_trail(life[0], KEY, query)


class _EnoughError(Exception):
    """There is nothing more to wait for."""


def _followed(
    path: Path, steps: list[Callable[[], object]], query: ListAuditEvents
) -> list[AuditEntry]:
    """Return what is shown if each step is made when all before it is shown."""
    found: list[AuditEntry] = []
    rest: Iterator[Callable[[], object]] = iter(steps)

    def wait() -> None:
        step = next(rest, None)
        if step is None:
            raise _EnoughError
        step()

    with pytest.raises(_EnoughError):
        follow_trail(path, KEY, query, found.append, wait)
    return found


@pytest.mark.parametrize("sync", AuditSync)
def test_following(sync: AuditSync, tmp_path: Path) -> None:
    """Each new record is shown once, through changes of segment and a restart."""
    path = tmp_path / "log" / "audit.log"
    log = open_log(path, segment_bytes=4096, sync=sync)
    fill(log, 10)

    def restart() -> None:
        nonlocal log
        log.close()
        log = open_log(path, segment_bytes=4096, sync=sync)
        fill(log, 3)

    steps: list[Callable[[], object]] = [
        lambda: fill(log, 1),
        lambda: None,
        lambda: fill(log, 30, one_by_one=True),
        lambda: fill(log, 2),
        restart,
        lambda: fill(log, 30, one_by_one=True),
        lambda: log.append([draft(0, kind="Encrypt")], durable=True).wait(),
        lambda: log.close(),
        lambda: None,
    ]
    everything = _followed(path, steps, ListAuditEvents(start_seq=0))
    head = everything[-1].event.seq

    assert list(range(10 + 1 + 30 + 2 + 3 + 30 + 1)) == [
        entry.event.seq for entry in everything
    ]
    assert everything == list(
        read_trail(path, KEY, ListAuditEvents(ascending=True, limit=1000)).items
    )
    with opened(path, segment_bytes=4096, sync=sync) as log:
        more: list[Callable[[], object]] = [
            lambda: fill(log, 2),
            lambda: fill(log, 40, one_by_one=True),
        ]
        new = _followed(path, more, ListAuditEvents())

    assert list(range(head + 1, head + 43)) == [entry.event.seq for entry in new]


def test_following_what_is_altered(tmp_path: Path) -> None:
    """A record that the log did not write is not shown, nor a log cut short."""
    path = tmp_path / "log" / "audit.log"
    with opened(path) as log:
        fill(log, 10)
    *kept, last = path.read_bytes().splitlines(keepends=True)

    def forge() -> None:
        with path.open("ab") as file:
            file.write(
                last.replace(b'"seq":"000000000000000', b'"seq":"100000000000000')
            )

    def cut() -> None:
        path.with_suffix(".copy").write_bytes(b"".join(kept))
        path.with_suffix(".copy").replace(path)

    for step, bad, reason in ((forge, 10, "mac"), (cut, 9, "shorter")):
        shown: list[AuditEntry] = []
        with pytest.raises(AuditTamperedError) as caught:
            follow_trail(path, KEY, ListAuditEvents(start_seq=0), shown.append, step)

        assert 10 == len(shown)
        assert {"seq": bad, "reason": reason} == caught.value.facts
        path.write_bytes(b"".join((*kept, last)))


def test_a_database_is_not_followed(tmp_path: Path) -> None:
    """Only the process that has it open reads what it writes."""
    path = tmp_path / "log" / "audit.sqlite"
    log = open_any(path)
    fill(log, 2)
    log.close()
    with pytest.raises(ConfigurationError, match="through its server"):
        follow_trail(path, KEY, ListAuditEvents(), print, lambda: None)
