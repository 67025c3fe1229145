# SPDX-License-Identifier: MIT
"""Everything that is stored is compared in the background, and harms nobody."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from hsm_core import errors
from hsm_core._internal.lib.concurrency import BackgroundWorker
from hsm_core.factory import OpenHSM
from hsm_core.model import Integrity
from hsm_core.testing import memory_hsm
from tests.core.changed_stores import (
    DATA,
    Data,
    FilesystemData,
    id_of,
    problems,
    session_on,
)


@pytest.fixture(params=DATA, ids=lambda kind: kind.kind.value)
def data(request: pytest.FixtureRequest, tmp_path: Path) -> Data:
    """Give the data of an HSM with three keys."""
    made: Data = request.param(tmp_path / "data")
    made.folder.mkdir(mode=0o700)
    with made.open() as gateway:
        for name in ("first", "second", "third"):
            key = session_on(gateway).create_key("aes", name=name).key_id
            (tmp_path / name).write_text(key)
    return made


def wait_for_scrub(gateway: OpenHSM) -> None:
    """Wait for the end of the first scrub."""
    deadline = time.monotonic() + 60
    while session_on(gateway).status().store.compared_at is None:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_it_runs_right_after_the_start(data: Data) -> None:
    """Status tells how far it got, and when it came to its end."""
    with data.open() as gateway:
        wait_for_scrub(gateway)
        store = session_on(gateway).status().store

    assert (3, 3, ()) == (store.compared, store.to_compare, store.findings)


def test_a_corrupt_blob(data: Data) -> None:
    """It is listed as tampered, with an alarm; others are served."""
    first = id_of(data, "first")
    blob = data.blob(first, 1)
    assert blob is not None
    data.write_blob(first, 1, blob[:-1] + bytes([blob[-1] ^ 1]))

    with data.open() as gateway:
        wait_for_scrub(gateway)
        session = session_on(gateway)
        status = session.status()
        assert ("degraded", 1) == (status.state, status.tampered_keys)
        assert [(first, "blob")] == [
            (found.key_id, found.problem) for found in status.store.findings
        ]
        shown = {key.name: key.integrity for key in session.keys()}
        assert {
            "first": Integrity.TAMPERED,
            "second": Integrity.OK,
            "third": Integrity.OK,
        } == shown
        deadline = time.monotonic() + 60
        while "key_tampered" not in {
            e.event.code for e in session.audit_events(key_id=first)
        }:
            assert time.monotonic() < deadline
        session.encrypt("second", b"m")


def test_changes_while_it_looks(data: Data) -> None:
    """Whatever is changed while everything is compared is no false alarm."""
    failures: list[BaseException] = []
    with data.open() as gateway:
        done = threading.Event()

        def change() -> None:
            session = session_on(gateway)
            try:
                for number in range(12):
                    session.rotate("first")
                    session.create_key("aes", name=f"new-{number}")
                    session.destroy(f"new-{number}")
            except BaseException as error:
                failures.append(error)
            done.set()

        thread = threading.Thread(target=change)
        thread.start()
        found = []
        while not done.is_set():
            found.append(problems(gateway))
        thread.join()
        found.append(problems(gateway))

    assert [] == failures
    assert [{}] == [each for n, each in enumerate(found) if each or n == 0]


def test_it_ends_with_the_hsm(data: Data) -> None:
    """Closing waits for no scrub, and a verification gives up."""
    with data.open() as gateway:
        scrubber = gateway._services  # noqa: SLF001 (to close it from within)
        scrubber.closing.set()
        with pytest.raises(errors.UnavailableError):
            problems(gateway)
        scrubber.closing.clear()


def test_a_folder_that_is_no_key_of_ours(tmp_path: Path) -> None:
    """Documents of another HSM are named as foreign, and serve nothing."""
    here, there = (FilesystemData(tmp_path / name) for name in ("here", "there"))
    key = ""
    for made in (here, there):
        made.folder.mkdir(mode=0o700)
        with made.open() as gateway:
            key = session_on(gateway).create_key("aes", name="a").key_id
    source = there.folder / "keys" / "keys" / key
    target = here.folder / "keys" / "keys" / key
    target.mkdir(mode=0o700)
    for path in source.iterdir():
        (target / path.name).touch(mode=0o600)
        (target / path.name).write_bytes(path.read_bytes())

    with here.open() as gateway:
        found = problems(gateway)
        session_on(gateway).encrypt("a", b"m")
        with pytest.raises(errors.HSMError):
            session_on(gateway).encrypt(key, b"m")

    assert {key: "foreign"} == found


def test_nothing_is_compared_in_memory() -> None:
    """What lies in this very process is not scrubbed, but can be verified."""
    with memory_hsm() as gateway:
        session_on(gateway).create_key("aes")
        assert {} == problems(gateway)


class TestCaretaker:
    @pytest.fixture
    def worker(self) -> Iterator[BackgroundWorker]:
        """Give one that was begun."""
        worker = BackgroundWorker()
        worker.start()
        yield worker
        worker.stop(5)

    def test_what_fails_is_done_again(self, worker: BackgroundWorker) -> None:
        """A task that raises runs again at its next time."""
        done, tries = threading.Event(), list[int]()

        def fail_twice() -> None:
            tries.append(len(tries))
            if len(tries) < 3:
                raise ValueError("not yet")
            done.set()

        worker.every(0.01, fail_twice)

        assert done.wait(60)
        assert [0, 1, 2] == tries[:3]

    def test_a_task_says_when_it_goes_on(self, worker: BackgroundWorker) -> None:
        """A task with more to do comes again sooner than usual."""
        done, steps = threading.Event(), list[int]()

        def step() -> float | None:
            steps.append(len(steps))
            if len(steps) == 5:
                done.set()
                return None
            return 0.0

        worker.every(3600, step)

        assert done.wait(60)
        time.sleep(0.05)
        assert 5 == len(steps)

    @pytest.mark.parametrize("seconds", [1e12, float("inf"), 10**400])
    def test_however_long_it_is_until_the_next_time(
        self, worker: BackgroundWorker, seconds: float
    ) -> None:
        """A task that comes again in ages does not keep others from being done."""
        first, second = threading.Event(), threading.Event()
        worker.every(seconds, first.set)
        assert first.wait(60)
        time.sleep(0.02)

        worker.every(1.0, second.set)

        assert second.wait(60)

    def test_hurried_it_does_everything_now(self, worker: BackgroundWorker) -> None:
        """Tasks that rest are done; one that is under way is done once more."""
        rested, begun, goes_on = (threading.Event() for _ in range(3))
        steps: list[int] = []

        def slow() -> float:
            steps.append(1)
            begun.set()
            assert goes_on.wait(60)
            return 3600.0

        worker.every(3600, rested.set, first=3600)
        worker.every(3600, slow)
        assert begun.wait(60)
        begun.clear()
        worker.hurry()
        assert not rested.is_set()
        goes_on.set()

        assert rested.wait(60)
        assert begun.wait(60)
        time.sleep(0.05)
        assert 2 == len(steps)

    def test_nothing_is_begun_after_the_end(self, worker: BackgroundWorker) -> None:
        """Once it is stopped no task runs any more."""
        runs: list[int] = []
        worker.every(0.001, lambda: runs.append(1))

        worker.stop(5)

        before = len(runs)
        time.sleep(0.05)
        assert before == len(runs)
