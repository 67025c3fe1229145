"""Room that is kept back for the records that matter most when the disk is full."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from hsm_core._internal.audit import writer as flusher
from hsm_core._internal.stores.filesystem.audit import FileAuditLog
from hsm_core._internal.stores.filesystem.audit_files import DiskReserve
from hsm_core.errors import AuditUnavailableError
from hsm_core.model import Phase
from hsm_core.protocols import AuditDraft
from tests.core.audit_faults import Faults, Writer, begun, until
from tests.core.audit_support import (
    draft,
    events,
    fill,
    intent,
    open_log,
    opened,
    outcome,
    torn_log,
    verified,
)
from tests.support import REPOSITORY, require_mounts, require_program

SIZE = 65536


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Give the path of a trail that is not made yet."""
    return tmp_path / "log" / "audit.log"


@pytest.fixture
def faults() -> Iterator[Faults]:
    """Give calls that can be made to fail."""
    with Faults().installed() as faults:
        yield faults


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a trail ask for its reserve more often than every second."""
    monkeypatch.setattr(flusher, "_RESERVE_SECONDS", 0.05)


def _allocated(path: Path) -> int:
    return path.stat().st_blocks * 512


def test_a_reserve_with_another_name_is_left_alone(path: Path) -> None:
    """A link to another file is not written to: the reserve is a file of its own."""
    with opened(path) as log:
        fill(log, 3)
    reserve = path.with_name("audit.log.reserve")
    for linked in (path, path.with_name("audit.log.head")):
        reserve.unlink(missing_ok=True)
        reserve.hardlink_to(linked)
        log = open_log(path, reserve_bytes=SIZE)
        log.append([draft(4)]).wait()
        assert (log.health.state, _allocated(reserve)) == ("ok", SIZE)
        log.close()
        assert not reserve.samefile(linked)
    assert verified(path).records == 5


@pytest.mark.parametrize("call", ["open", "write", "fsync", "rename"])
@pytest.mark.parametrize("at", ["audit.log.head.new", "audit.log", "log"])
def test_a_start_that_fails_leaves_nothing_half_made(
    path: Path, faults: Faults, call: str, at: str
) -> None:
    """One clear error, no file that is not whole, and the next start goes on."""
    faults.fail(call, code=errno.ENOSPC, at=at)
    try:
        open_log(path).close()
    except AuditUnavailableError:
        left = {name.name: name.stat().st_size for name in path.parent.iterdir()}
        assert not any(name.endswith(".new") for name in left)
        assert left.get("audit.log.head", 1536) == 1536
    faults.lift()
    with opened(path) as log:
        fill(log, 2)
    assert verified(path).clean


def test_a_reserve_has_its_blocks(tmp_path: Path) -> None:
    """It is taken with real blocks, given up without, and taken again."""
    path = tmp_path / "reserve"
    reserve = DiskReserve(path, SIZE)
    assert not reserve.held

    assert reserve.take()
    assert reserve.take()
    assert (_allocated(path), path.stat().st_mode & 0o777) == (SIZE, 0o600)
    assert reserve.give_up()
    assert _allocated(path) == 0
    assert not reserve.held
    assert not reserve.give_up()
    assert reserve.take()
    reserve.close()
    assert _allocated(path) == SIZE


def test_a_reserve_of_another_size_is_changed(tmp_path: Path) -> None:
    """A new setting makes it smaller or larger."""
    path = tmp_path / "reserve"
    for size in (SIZE, 2 * SIZE, SIZE):
        reserve = DiskReserve(path, size)
        assert reserve.take()
        reserve.close()
        assert (_allocated(path), path.stat().st_size) == (size, size)


def test_half_a_reserve_is_none(tmp_path: Path, faults: Faults) -> None:
    """What can't be allocated wholly takes no room."""
    path = tmp_path / "reserve"
    reserve = DiskReserve(path, SIZE)
    faults.fail("posix_fallocate", code=errno.ENOSPC)
    assert not reserve.take()
    assert _allocated(path) == 0

    assert reserve.take()
    reserve.close()


@pytest.mark.parametrize("code", [errno.EOPNOTSUPP, errno.EINVAL])
def test_a_reserve_is_written_where_it_can_not_be_allocated(
    tmp_path: Path, faults: Faults, code: int
) -> None:
    """Not every file system and C library can allocate what is not written."""
    path = tmp_path / "reserve"
    size = 3 * SIZE // 2
    faults.fail("posix_fallocate", code=code, times=2)
    faults.fail("pwrite", code=errno.ENOSPC, skip=1, short=True)
    reserve = DiskReserve(path, size)
    assert not reserve.take()
    assert _allocated(path) == 0

    assert reserve.take()
    assert _allocated(path) == size
    assert reserve.give_up()
    assert _allocated(path) == 0
    reserve.close()


@pytest.mark.parametrize("kind", ["link", "open"])
def test_a_reserve_is_a_private_file(tmp_path: Path, kind: str) -> None:
    """Neither a link nor a file open to others is taken for it."""
    path = tmp_path / "reserve"
    if kind == "link":
        path.symlink_to(tmp_path / "elsewhere")
    else:
        path.touch(0o600)
        path.chmod(0o644)

    assert not DiskReserve(path, SIZE).take()
    assert not (tmp_path / "elsewhere").exists()


def _fill_up(faults: Faults) -> None:
    """Let the disk be full from now on, but for what the reserve gives back."""
    faults.fail("write", code=errno.ENOSPC, at="audit.log", times=2)
    faults.fail("posix_fallocate", code=errno.ENOSPC, times=float("inf"))


def test_on_a_full_disk_only_what_must_be_recorded_is_taken(
    path: Path, faults: Faults
) -> None:
    """Outcomes, the system's own and reserved records go on; uses wait for room."""
    log, writer = begun(path, 1, reserve_bytes=SIZE)
    log.append([intent("operation")]).wait()
    _fill_up(faults)
    assert not writer.append()
    until(lambda: log.health.state == "reserve")

    assert ("full", 1, 1) == (
        log.health.cause,
        log.health.failures,
        log.health.resumes,
    )
    assert log.available is False
    for refused in (draft(7), intent("another")):
        with pytest.raises(AuditUnavailableError, match="disk is full"):
            log.append([refused])
    with pytest.raises(AuditUnavailableError, match="disk is full"):
        log.append([outcome("operation"), draft(7)])
    log.append([outcome("operation")], durable=True).wait()
    log.append([AuditDraft(phase=Phase.SINGLE, kind="system.stop")]).wait()
    assert writer.append(reserved=True)
    log.append([intent("administration")], reserved=True).wait()
    assert log.health.state == "reserve"

    faults.lift()
    until(lambda: log.available)
    assert log.health.state == "ok"
    assert writer.append()
    assert _allocated(path.with_name("audit.log.reserve")) == SIZE
    _check(log, writer)
    log.close()
    assert verified(path).clean


def test_a_reserve_that_is_used_up_is_the_end_until_there_is_room(
    path: Path, faults: Faults
) -> None:
    """Then nothing is taken any more, and all goes on when there is room again."""
    log, writer = begun(path, reserve_bytes=SIZE)
    _fill_up(faults)
    writer.append()
    until(lambda: log.health.state == "reserve")
    faults.fail("write", code=errno.ENOSPC, at="audit.log", times=float("inf"))

    assert not writer.append(reserved=True)
    assert ("failing", "full") == (log.health.state, log.health.cause)
    with pytest.raises(AuditUnavailableError, match="disk is full"):
        log.append([draft()], reserved=True)
    faults.lift()
    until(lambda: log.health.state == "ok")
    assert writer.append()
    _check(log, writer)
    log.close()
    assert verified(path).clean


def test_a_trail_without_reserve_waits_for_room(path: Path, faults: Faults) -> None:
    """With a size of 0 there is no state between working and failing."""
    log, writer = begun(path)
    faults.fail("write", code=errno.ENOSPC, at="audit.log", times=3)
    assert not writer.append()
    assert ("failing", "full") == (log.health.state, log.health.cause)
    until(lambda: log.health.state == "ok")

    assert writer.append()
    assert not path.with_name("audit.log.reserve").exists()
    log.close()


def test_a_start_on_a_full_disk_uses_the_reserve(
    tmp_path: Path, faults: Faults
) -> None:
    """A torn tail is set aside with the room that an earlier process kept back."""
    killed = torn_log(tmp_path, b"torn", reserve_bytes=SIZE)
    faults.fail("write", code=errno.ENOSPC, at=".torn.new")
    faults.fail("posix_fallocate", code=errno.ENOSPC, skip=1, times=float("inf"))

    log = open_log(killed, reserve_bytes=SIZE)
    assert log.health.state == "reserve"
    assert "system.repair" == events(log)[-1].kind
    assert _allocated(killed.with_name("audit.log.reserve")) == 0
    log.close()
    assert verified(killed).clean


def test_a_start_without_any_room_is_refused(path: Path, faults: Faults) -> None:
    """Nothing stays locked, and the next start with room succeeds."""
    faults.fail("write", "posix_fallocate", code=errno.ENOSPC, times=float("inf"))
    with pytest.raises(AuditUnavailableError):
        open_log(path, reserve_bytes=SIZE)
    faults.lift()

    with opened(path) as log:
        fill(log, 1)


def _check(log: FileAuditLog, writer: Writer) -> None:
    found = [event.request_id for event in events(log)]
    assert set(writer.acknowledged) <= set(found)


FULL_DISK = """
import os, sys, time
from pathlib import Path
from tests.core.audit_faults import Writer, until
from tests.core.audit_support import draft, events, open_log, opened, outcome, verified

folder = Path(sys.argv[1])
path, filler = folder / "log" / "audit.log", folder / "filler"
log = open_log(path, reserve_bytes=65536, segment_bytes=16384)
writer = Writer(log)
for _ in range(20):
    assert writer.append()
with filler.open("wb", buffering=0) as file:
    for size in (65536, 512, 1):
        try:
            while file.write(bytes(size)):
                pass
        except OSError:
            pass
while writer.append():
    pass
until(lambda: log.health.state == "reserve")
assert os.statvfs(folder).f_bavail < 16
log.append([outcome("operation")], durable=True).wait()
assert not writer.append()
print(log.health.cause, log.health.failures)
os.truncate(filler, 0)
until(lambda: log.health.state == "ok")
for _ in range(20):
    assert writer.append()
assert set(writer.acknowledged) <= {event.request_id for event in events(log)}
log.close()
assert verified(path).clean
with opened(path) as log:
    assert set(writer.acknowledged) <= {event.request_id for event in events(log)}
print(len(writer.acknowledged) >= 40)
"""


def test_a_disk_that_is_really_full(tmp_path: Path) -> None:
    """On a file system without one free block it fails, reserves, and resumes."""
    unshare = require_program("unshare")
    user = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    command = (
        'mount -t tmpfs -o size=512k,mode=0700 tmpfs "$1" && exec "$2" -c "$3" "$1"'
    )
    result = subprocess.run(
        [
            *(unshare, "--mount", *user, "sh", "-c", command, "sh"),
            *(str(tmp_path), sys.executable, FULL_DISK),
        ],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )

    if result.stderr.startswith(("mount:", "unshare:")):
        require_mounts(result.stderr.strip())
    assert 0 == result.returncode, result.stderr
    assert ["full", "1", "True"] == result.stdout.split()
