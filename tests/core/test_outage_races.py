# SPDX-License-Identifier: MIT
"""Sixteen threads of uses on a disk that fails: no answer without its record."""

from __future__ import annotations

import errno
import json
import os
import random
import resource
import subprocess
import sys
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
    OUTAGE,
    THREADS,
    Crowd,
    Seen,
    Site,
    hasty_threads,
    open_site,
    protecting,
)
from tests.support import REPOSITORY, require_program

TRIALS = int(os.environ.get("FERROHSM_RACES", "1"))


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
"""A database syncs in C, where only the kernel can let a sync fail: see below."""


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

        seen = Crowd(OUTAGE, stops=False).run(works, end)
    until(lambda: site.session.status().audit.available)
    check(site, seen, head)


def check(site: Site, seen: list[Seen], head: int) -> None:
    """Check that all that was answered is on record, and the trail whole."""
    recorded: Counter[str] = Counter()
    for event in site.events_since(head):
        if event.caller and event.caller.principal == CROWD and event.code == "ok":
            recorded[event.request_id] += 1

    assert {True} == {one.refused in OUTAGE for one in seen}
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


@pytest.mark.skipif(TRIALS == 1, reason="A traced process takes ten seconds to open.")
@pytest.mark.parametrize("sync", AuditSync)
def test_a_sync_of_a_database_that_fails(tmp_path: Path, sync: AuditSync) -> None:
    """The kernel refuses all syncs from one on; what was answered is found later."""
    strace = require_program("strace")
    for number in range(TRIALS // 50 + 1):
        folder, first = tmp_path / str(number), 60 + random.randrange(20)
        rule = f"inject=fdatasync:error=EIO:when={first}+"
        done = subprocess.run(
            [
                *(strace, "-f", "--seccomp-bpf", "-qq", "-o", "/dev/null"),
                *("-e", "trace=fdatasync", "-e", rule),
                *(sys.executable, "-m", "tests.core.race_child"),
                *(str(folder), KeyStoreKind.SQLITE, sync),
            ],
            cwd=REPOSITORY,
            capture_output=True,
            text=True,
            timeout=120,
            check=True,
        )
        told = json.loads(done.stdout)
        with open_site(folder, KeyStoreKind.SQLITE) as site:
            recorded: Counter[str] = Counter()
            for event in site.events_since(told["head"]):
                if event.caller and event.caller.principal == CROWD:
                    recorded[event.request_id] += event.code == "ok"

            assert [] == told["others"]
            assert any(told["answered"])
            for thread, answered in enumerate(told["answered"]):
                assert answered <= recorded[f"thread-{thread}"]
            site.session.verify_audit()
