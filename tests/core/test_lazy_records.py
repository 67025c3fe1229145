# SPDX-License-Identifier: MIT
"""Records that nobody waits for: written at once, and never a reason to sync."""

import re
from collections.abc import Sequence
from pathlib import Path

import pytest

from hsm_core._internal.audit.backlog import Backlog
from hsm_core._internal.audit.head_mark import HeadMark
from hsm_core._internal.audit.medium import Group
from hsm_core.errors import AuditUnavailableError, AuthenticationError
from hsm_core.model import Caller
from hsm_core.settings import AuditStoreKind, KeyStoreKind, Settings
from tests.self_tests import open_tested


class Medium:
    """Counts how often it was synced."""

    def __init__(self) -> None:
        self.syncs = 0

    def write(self, lines: Sequence[bytes], mark: HeadMark) -> None:
        """Do nothing."""

    def prepare_sync(self, mark: HeadMark) -> None:
        """Do nothing."""

    def sync(self) -> None:
        """Count."""
        self.syncs += 1


def group(*, lazy: bool, must_sync: bool = False) -> Group:
    """Return a group of one record."""
    made = Group(1.0)
    made.must_sync, made.is_lazy = must_sync, lazy
    made.add([(b"", b"line")])
    return made


def backlog() -> tuple[Backlog, Medium]:
    """Return a backlog, and what it writes on."""
    medium = Medium()
    return Backlog(medium, HeadMark(), 1.0), medium  # type: ignore[arg-type]


def write(backlog: Backlog, group: Group) -> None:
    """Let a backlog write a group."""
    backlog.take(group)
    backlog.write(group)


class TestBacklog:
    def test_a_lazy_record_is_written_and_not_synced(self) -> None:
        """Its ticket is done all the same."""
        found, medium = backlog()
        lazy = group(lazy=True)
        write(found, lazy)

        assert 0 == medium.syncs
        lazy.written.wait(0)
        assert float("inf") > found.sync_at > 0

    def test_it_is_durable_with_the_next_that_is(self) -> None:
        """One sync serves those before it."""
        found, medium = backlog()
        lazy = group(lazy=True)
        write(found, lazy)
        write(found, group(lazy=False, must_sync=True))
        assert 0 == found.sync_at
        assert found.prepare_sync()
        found.sync()

        assert 1 == medium.syncs
        lazy.synced.wait(0)
        assert float("inf") == found.sync_at
        assert not found.prepare_sync()

    def test_others_don_t_wait_for_its_time(self) -> None:
        """A record of bounded mode is synced as soon as without lazy ones."""
        found, _ = backlog()
        write(found, group(lazy=True))
        later = found.sync_at
        write(found, group(lazy=False))

        assert found.sync_at < later

    def test_what_is_written_during_a_sync_waits_for_the_next(self) -> None:
        """A sync makes durable what was there when it began, and no more."""
        found, _ = backlog()
        found.write_more([(b"", b"a")], HeadMark(seq=0), 0.0, durable=True, lazy=False)
        first = found.synced
        assert found.prepare_sync()
        found.write_more([(b"", b"b")], HeadMark(seq=1), 0.0, durable=True, lazy=False)
        found.sync()

        first.wait(0)
        with pytest.raises(AuditUnavailableError):
            found.synced.wait(0)
        assert (0, 1) == (found.durable.seq, found.written.seq)
        assert [(b"", b"b")] == list(found.tail().records)
        assert 0 == found.sync_at


@pytest.mark.parametrize("kind", [AuditStoreKind.FILE, AuditStoreKind.SQLITE])
def test_a_flood_is_on_record_after_a_close(
    tmp_path: Path, kind: AuditStoreKind
) -> None:
    """A hundred thousand bad tokens: few records, and the numbers add up."""
    tmp_path.chmod(0o700)
    settings = Settings(
        key_store=KeyStoreKind.MEMORY,
        audit_store=kind,
        audit_log=tmp_path / "audit.log",
        audit_sqlite_path=tmp_path / "audit.sqlite",
    )
    code = AuthenticationError.code
    with open_tested(settings) as hsm:
        for number in range(100_000):
            stranger = Caller(
                principal="",
                roles=frozenset(),
                source_address=f"192.0.2.{number % 7}",
            )
            hsm.record_refusal(stranger, code)
    with open_tested(settings) as hsm:
        log = hsm._services.audit  # noqa: SLF001 (the trail as it lies there)
        lines = log.lines(log.first_seq, 10_000)
    single = sum(code.encode() in line for line in lines)
    counted = re.findall(rb'"count":(\d+)', b"\n".join(lines))

    assert 70 <= single <= 7 * 20
    assert 1 <= len(counted) <= 3
    assert 100_000 == single + sum(map(int, counted))
