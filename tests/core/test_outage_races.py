# SPDX-License-Identifier: MIT
"""Sixteen threads of uses on a disk that fails: no answer without its record."""

from __future__ import annotations

import errno
import os
import random
import resource
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from hsm_core.settings import AuditSync, KeyStoreKind
from tests.core.audit_faults import Faults, until
from tests.core.race_support import (
    ALGORITHMS,
    CROWD,
    THREADS,
    Crowd,
    Seen,
    Site,
    hasty_threads,
    open_site,
    protecting,
)

TRIALS = int(os.environ.get("FERROHSM_RACES", "1"))
REFUSALS = frozenset({"audit_unavailable", "storage_full", "store_unavailable"})


@pytest.fixture(autouse=True)
def _hasty_threads() -> Iterator[None]:
    with hasty_threads():
        yield


@contextmanager
def failing_sync(site: Site) -> Iterator[None]:
    """Let no sync of the trail succeed."""
    faults = Faults()
    faults.fail("fdatasync", code=errno.EIO, times=1e9, at="audit.log")
    with faults.installed():
        yield


@contextmanager
def full_disk(site: Site) -> Iterator[None]:
    """Let no file of this process grow, but for what may fit still."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    room = random.randrange(8000)
    if site.kind is KeyStoreKind.FILESYSTEM:
        room += site.audit_path.stat().st_size
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


OUTAGES = [
    (full_disk, KeyStoreKind.FILESYSTEM),
    (full_disk, KeyStoreKind.SQLITE),
    (failing_sync, KeyStoreKind.FILESYSTEM),
]
"""A database writes and syncs in C: that its syncs fail is shown by other tests."""


def trial(site: Site, outage: object) -> None:
    """Let all use a key, let the disk fail, heal it, and look for every answer."""
    algorithm = ALGORITHMS[site.tried % len(ALGORITHMS)]
    site.tried += 1
    key = site.session.create_key(algorithm).key_id
    works = [protecting(site.as_user(n), key, algorithm) for n in range(THREADS)]
    head = site.head()
    with ExitStack() as stack:

        def end() -> None:
            time.sleep(random.random() * 0.005)
            stack.enter_context(outage(site))  # type: ignore[operator]

        seen = Crowd(REFUSALS, stops=False).run(works, end)
    until(lambda: site.session.status().audit.available)
    check(site, seen, head)


def check(site: Site, seen: list[Seen], head: int) -> None:
    """Check that all that was answered is on record, and the trail whole."""
    recorded: Counter[str] = Counter()
    for event in site.events_since(head):
        if event.caller and event.caller.principal == CROWD and event.code == "ok":
            recorded[event.request_id] += 1

    assert {True} == {one.refused in REFUSALS for one in seen}
    assert {frozenset[str]()} == {frozenset(one.other) for one in seen}
    for number, one in enumerate(seen):
        assert one.answered <= recorded[f"thread-{number}"] <= one.answered + 1
    site.session.verify_audit()


@pytest.mark.parametrize("sync", AuditSync)
@pytest.mark.parametrize(("outage", "kind"), OUTAGES)
def test_a_disk_that_fails(
    tmp_path: Path, outage: object, kind: KeyStoreKind, sync: AuditSync
) -> None:
    """Whoever was answered is on record, and who is not on record was refused."""
    with open_site(tmp_path, kind, sync=sync) as site:
        for _ in range(TRIALS):
            trial(site, outage)
