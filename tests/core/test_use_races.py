# SPDX-License-Identifier: MIT
"""Sixteen threads of uses, in the middle of which they come to an end."""

from __future__ import annotations

import os
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from hsm_core._internal.lib.cells import Snapshot
from hsm_core._internal.pipeline.outcome import Outcome
from hsm_core.algorithms import Algorithm
from hsm_core.protocols import AuditDraft, UseDraft
from hsm_core.settings import KeyStoreKind
from hsm_core.testing import FakeClock, MemoryVault
from tests.core.faulty_crypto import FaultyProvider, faulty_registry
from tests.core.race_endings import (
    ENDINGS,
    Close,
    Ending,
    FailedTest,
    LostTenure,
    Night,
    Revoke,
    Tamper,
)
from tests.core.race_support import (
    ALGORITHMS,
    CROWD,
    OPEN,
    THREADS,
    Crowd,
    Seen,
    Site,
    hasty_threads,
    open_site,
    processing,
    protecting,
)

TRIALS = int(os.environ.get("FERROHSM_RACES", "2"))
FILES = KeyStoreKind.FILESYSTEM
KINDS = (FILES, KeyStoreKind.SQLITE)
HALF_A_DAY = 12 * 3600
NIGHT = (
    f"{OPEN}  - {{name: night, effect: deny, "
    'match: {operations: [use], time: {from: "12:00"}}}\n'
)


@pytest.fixture(autouse=True)
def _hasty_threads() -> Iterator[None]:
    with hasty_threads():
        yield


@pytest.fixture(scope="module", params=KINDS)
def site(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Site]:
    """Give an HSM on disk, once for each kind of store."""
    with open_site(tmp_path_factory.mktemp("races"), request.param) as opened:
        yield opened


def trial(
    site: Site, make: Callable[[Site, str], Ending], algorithm: str = ""
) -> tuple[Ending, list[Seen], int]:
    """Make a key, let all use it, and end that in their middle."""
    algorithm = algorithm or ALGORITHMS[site.tried % len(ALGORITHMS)]
    site.tried += 1
    key = site.session.create_key(algorithm).key_id
    ending = make(site, key)
    users = [site.as_user(number) for number in range(THREADS)]
    works = [protecting(user, key, algorithm) for user in users]
    for user, work in zip(users[::2], works[::2], strict=True):
        work[:] = processing(user, key, algorithm)
    head = site.head()

    def end() -> None:
        time.sleep(random.random() * 0.005)
        ending.happen()

    return ending, Crowd(ending.codes).run(works, end), head


def check(
    site: Site, ending: Ending, seen: list[Seen], head: int, *, is_told: bool = True
) -> None:
    """Check what threads have seen, and that no use is on record behind the end."""
    recorded: Counter[str] = Counter()
    ended_at, behind = -1, []
    for event in site.events_since(head):
        if ended_at < 0 and ending.is_outcome(event):
            ended_at = event.seq
        caller = event.caller
        if caller and caller.principal == CROWD and event.code == "ok":
            recorded[event.request_id] += 1
            if ended_at >= 0:
                behind.append((event.seq - ended_at, event.kind))

    assert [] == behind
    assert is_told == (ended_at >= 0)
    assert [0] * THREADS == [one.late for one in seen]
    assert {frozenset[str]()} == {frozenset(one.other) for one in seen}
    for number, one in enumerate(seen):
        assert one.answered == recorded[f"thread-{number}"]


@pytest.mark.parametrize("kind", ENDINGS, ids=lambda kind: kind.__name__)
def test_an_end_in_the_middle_of_uses(site: Site, kind: type[Ending]) -> None:
    """Who asks later gets nothing, and all that was answered is on record."""
    play(site, kind, trials=TRIALS)


def _record_anyway(outcome: Outcome) -> list[AuditDraft | UseDraft]:
    """Stand in for the look under the audit log's lock."""
    return [] if outcome.draft is None else [outcome.draft]


@pytest.mark.parametrize(
    ("kind", "name", "blind"),
    [(Snapshot, "holds", lambda _: True), (Outcome, "standing", _record_anyway)],
    ids=["cells", "last look"],
)
def test_a_check_that_is_missing_is_found(
    tmp_path: Path,
    kind: type,
    name: str,
    blind: object,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Without cells, or the look at them under the audit log's lock, trials fail."""
    monkeypatch.setattr(kind, name, blind)
    with open_site(tmp_path, FILES) as site, pytest.raises(AssertionError):
        play(site, Revoke, trials=100)


def play(site: Site, kind: type[Ending], *, trials: int) -> None:
    """Make some trials in one HSM."""
    for _ in range(trials):
        ending, seen, head = trial(site, kind)
        ending.undo()
        check(site, ending, seen, head, is_told=kind.is_recorded)


def test_a_blob_that_is_changed(tmp_path: Path) -> None:
    """What was found to be changed serves nothing more, though it is open already."""
    with open_site(tmp_path, FILES) as site:
        play(site, Tamper, trials=TRIALS)


@pytest.mark.parametrize("kind", KINDS)
def test_a_window_that_ends(tmp_path: Path, kind: KeyStoreKind) -> None:
    """A rule with a window denies from its instant on."""
    clock = FakeClock(1_750_032_000_000_000)  # a midnight
    with open_site(tmp_path, kind, clock=clock, policy=NIGHT) as site:
        for _ in range(TRIALS):
            make = partial(Night, clock=clock, seconds=HALF_A_DAY)
            ending, seen, head = trial(site, make)
            ending.undo()
            check(site, ending, seen, head, is_told=False)


@pytest.mark.parametrize("kind", KINDS)
def test_a_failed_self_test(tmp_path: Path, kind: KeyStoreKind) -> None:
    """An algorithm that fails gives nothing more, whatever is open of it."""
    for number in range(TRIALS):
        registry, provider = faulty_registry(
            Algorithm.EC_P256,
            lambda true: FaultyProvider(true, Algorithm.EC_P256, "sign"),
        )
        provider.broken = False
        with open_site(tmp_path / str(number), kind, registry=registry) as site:
            make = partial(FailedTest, provider=provider)
            ending, seen, head = trial(site, make, "p256")
            check(site, ending, seen, head)


@pytest.mark.parametrize("kind", KINDS)
def test_an_hsm_that_is_closed(tmp_path: Path, kind: KeyStoreKind) -> None:
    """Nothing is answered behind the record of its stop."""
    for number in range(TRIALS):
        with open_site(tmp_path / str(number), kind) as site:
            ending, seen, head = trial(site, Close)
        with open_site(tmp_path / str(number), kind) as site:
            check(site, ending, seen, head)


def test_a_lost_tenure(tmp_path: Path) -> None:
    """Who has a vault no more uses no key of it, though it is open already."""
    for number in range(TRIALS):
        clock, vault, folder = FakeClock(), MemoryVault(), tmp_path / str(number)
        with open_site(folder, FILES, clock=clock, vault=vault) as site:
            make = partial(LostTenure, clock=clock, vault=vault)
            ending, seen, head = trial(site, make)
            check(site, ending, seen, head, is_told=False)
