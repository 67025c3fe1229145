# SPDX-License-Identifier: MIT
"""The folder that a server's processes share: made, locked, removed."""

import multiprocessing
import os
import subprocess
import sys
from multiprocessing.synchronize import Event
from pathlib import Path

import pytest

from hsm_core.errors import ConfigurationError
from hsm_server.config.plan import Plan
from hsm_server.config.settings import ServerSettings
from hsm_server.processes.runtime_folder import RuntimeFolder


def plan(folder: Path | None, workers: int = 1) -> Plan:
    """Return the plan of a server that shares its metrics below *folder*."""
    settings = ServerSettings(workers=workers)
    return Plan(settings=settings, url="https://localhost", runtime_folder=folder)


def hold(place: Path, is_there: Event) -> None:
    """Be a server that does not end by itself."""
    with RuntimeFolder(plan(place)):
        is_there.set()
        multiprocessing.Event().wait()


def start_another(place: Path) -> multiprocessing.process.BaseProcess:
    """Start another server, and wait until it has its folder."""
    context = multiprocessing.get_context("spawn")
    is_there = context.Event()
    other = context.Process(target=hold, args=(place, is_there), daemon=True)
    other.start()
    assert is_there.wait(60)
    return other


def test_it_has_a_file_for_each_process_and_ends_with_them(tmp_path: Path) -> None:
    """Each process finds the files that it writes; others can't read them."""
    with RuntimeFolder(plan(tmp_path, workers=2)) as folder:
        names = {path.name for path in folder.path.iterdir()}
        modes = {path.stat().st_mode & 0o777 for path in folder.path.iterdir()}

    slots = ("supervisor", "vault", "tls", "front1", "front2")
    kinds = ("counter", "histogram", "gauge_sum", "gauge_mostrecent")
    expected = {f"{kind}_{slot}.db" for kind in kinds for slot in slots}
    assert expected == names
    assert {0o640} == modes
    assert [] == list(tmp_path.iterdir())


COUNTING = """
import inspect, sys
from pathlib import Path
from hsm_server.observability.metrics import Metrics, share_metrics

samples = {"str": "x", "int": 1, "float": 1.0, "bool": True}
share_metrics(Path(sys.argv[1]), sys.argv[2])
metrics = Metrics()
for name in dir(metrics):
    if not name.startswith(("count_", "show_")) or name == "show_certificates":
        continue
    given = inspect.signature(getattr(metrics, name)).parameters.values()
    words = [samples[p.annotation] for p in given if p.kind != p.KEYWORD_ONLY]
    named = {p.name: samples[p.annotation] for p in given if p.kind == p.KEYWORD_ONLY}
    getattr(metrics, name)(*words, **named)
    print(name)
"""


@pytest.mark.parametrize("slot", ["vault", "front1"])
def test_whatever_is_counted_has_its_file(tmp_path: Path, slot: str) -> None:
    """No process makes a file there, for it may be a user who can't."""
    with RuntimeFolder(plan(tmp_path)) as folder:
        before = {path.name for path in folder.path.iterdir()}
        done = subprocess.run(
            [sys.executable, "-c", COUNTING, str(folder.path), slot],
            check=True,
            capture_output=True,
            text=True,
        )
        after = {path.name for path in folder.path.iterdir()}

    assert before == after
    assert {"count_request", "show_buckets"} <= set(done.stdout.split())
    assert [] == list(tmp_path.iterdir())


def test_that_of_a_living_server_stays(tmp_path: Path) -> None:
    """Another server's folder is not touched, whatever process ids say."""
    other = start_another(tmp_path)
    try:
        (theirs,) = tmp_path.iterdir()
        # As it looks from a container, or where /proc is hidden.
        renamed = theirs.with_name("ferrohsm-metrics-999999999-abcdefgh")
        theirs.rename(renamed)
        with RuntimeFolder(plan(tmp_path)):
            assert renamed.is_dir()
    finally:
        other.kill()
        other.join()

    assert [renamed] == list(tmp_path.iterdir())


def test_that_of_a_killed_server_is_removed(tmp_path: Path) -> None:
    """What a killed server left, even under an id that is in use, does not pile up."""
    other = start_another(tmp_path)
    other.kill()
    other.join()
    (left,) = tmp_path.iterdir()
    left.rename(tmp_path / f"ferrohsm-metrics-{os.getpid()}-abcdefgh")

    with RuntimeFolder(plan(tmp_path)) as folder:
        assert [folder.path] == list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "name", ["ferrohsm-metrics-notes", "ferrohsm-metrics-1-abcdefgh"]
)
def test_what_is_not_ours_stays(tmp_path: Path, name: str) -> None:
    """Nobody's files are removed for a name that begins as ours does."""
    (tmp_path / name).mkdir()
    (tmp_path / name / "counter.txt").write_text("precious")

    with RuntimeFolder(plan(tmp_path)):
        pass

    assert "precious" == (tmp_path / name / "counter.txt").read_text()


def test_it_is_in_memory_where_nothing_else_is_said() -> None:
    """No disk is needed, which may be read-only."""
    with RuntimeFolder(plan(None)) as folder:
        assert Path("/dev/shm") == folder.path.parent


def test_no_place_is_told(tmp_path: Path) -> None:
    """A folder that is not there is a sentence, not a traceback."""
    with pytest.raises(ConfigurationError, match="No directory"):
        RuntimeFolder(plan(tmp_path / "nothing"))
