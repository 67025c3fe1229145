"""What the tests of pruned trails in files share: trails that are old enough."""

from __future__ import annotations

from pathlib import Path

from hsm_core._internal.audit.merkle import CompactRange
from hsm_core._internal.audit.record import leaf_hash
from hsm_core._internal.stores.filesystem.audit import FileAuditLog
from hsm_core.model import Phase, PruneDetail
from hsm_core.protocols import AuditDraft
from hsm_core.testing import FakeClock
from tests.core.audit_support import draft, open_log

DAY = 24 * 3600
SEGMENT = 4096
"""Size of a segment, so that eight records fill one."""


def open_aged(path: Path, clock: FakeClock) -> FileAuditLog:
    """Open a trail of small segments."""
    return open_log(path, clock=clock, segment_bytes=SEGMENT)


def change(number: int, key: int) -> AuditDraft:
    """Return the outcome of a change of a key, told apart by its number."""
    return AuditDraft(
        phase=Phase.OUTCOME,
        kind="RotateKey",
        operation_id=f"operation-{number}",
        key_id=f"key-{key}",
        generation=number + 1,
        document_after=f"{number:064x}",
    )


def age(log: FileAuditLog, clock: FakeClock, days: int, *, per_day: int = 4) -> None:
    """Let days pass, with uses and the change of a key on each of them."""
    for day in range(days):
        clock.advance(DAY)
        first = log.head().seq + 1
        for number in range(max(first, 1), first + per_day - 1):
            log.append([draft(number)]).wait()
        log.append([change(first + per_day - 1, day % 3)]).wait()


def ago(clock: FakeClock, days: int) -> int:
    """Return the instant so many days ago."""
    return clock.now() - days * DAY * 1_000_000


def prune(log: FileAuditLog, clock: FakeClock, days: int) -> PruneDetail:
    """Prune what is older than so many days; there must be something."""
    detail = log.prune(log.prunable(ago(clock, days)), f"{days} days")
    assert detail is not None
    return detail


def roots_of(lines: list[bytes]) -> tuple[str, ...]:
    """Return the subtree roots of these records, as nobody pruned them."""
    tree = CompactRange()
    for line in lines:
        tree.append(leaf_hash(line))
    return tree.roots


def segments_of(path: Path) -> list[Path]:
    """Return the closed segments of a trail, in order."""
    return sorted(path.parent.glob(f"{path.name}.0*"))
