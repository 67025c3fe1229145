"""What the tests of the audit trail share: logs to write, copies to attack."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import TypedDict, Unpack

import pytest

from hsm_core._internal.audit.chain import Follower
from hsm_core._internal.audit.facts import START, Record
from hsm_core._internal.audit.head_mark import StoredHead
from hsm_core._internal.audit.log import AuditOptions, DurableAuditLog
from hsm_core._internal.audit.record import GENESIS, event_of
from hsm_core._internal.audit.verify import OfflineVerification
from hsm_core._internal.stores.filesystem.audit import FileAuditLog
from hsm_core._internal.stores.filesystem.audit_files import open_reader
from hsm_core._internal.stores.filesystem.audit_segments import Segment
from hsm_core._internal.stores.filesystem.audit_stored import StoredSegments
from hsm_core._internal.stores.filesystem.audit_verify import AuditVerifier
from hsm_core._internal.stores.sqlite.audit import SqliteAuditLog
from hsm_core._internal.stores.sqlite.audit_offline import SqliteAuditVerifier
from hsm_core.errors import AuditTamperedError, AuditUnavailableError
from hsm_core.model import AuditedCaller, AuditEvent, Phase
from hsm_core.protocols import AuditDraft, AuditLog, AuditTicket, Clock
from hsm_core.settings import AuditSync
from hsm_core.testing import FakeClock, FakeEntropy
from tests.core.second_reader import BadLogError, read_database, read_files
from tests.support import copy_in_use

KEY = bytes(range(32))


def stored(record: Record) -> bytes:
    """Return a record as it is read."""
    return b"".join(record)[:-1]


def draft(number: int = 0, **fields: object) -> AuditDraft:
    """Return the draft of a use, told apart by its number."""
    given = {
        "phase": Phase.SINGLE,
        "kind": "Sign",
        "request_id": f"request-{number}",
        "caller": AuditedCaller(principal="alice", roles=("Operator",)),
        "parameters": {"message_bytes": number, "scheme": "pss"},
    }
    return AuditDraft(**(given | fields))  # type: ignore[arg-type]


def intent(operation_id: str) -> AuditDraft:
    """Return the intent of an operation."""
    return AuditDraft(phase=Phase.INTENT, kind="CreateKey", operation_id=operation_id)


def outcome(operation_id: str, set_digest: str = "") -> AuditDraft:
    """Return the outcome of an operation."""
    return AuditDraft(
        phase=Phase.OUTCOME,
        kind="CreateKey",
        operation_id=operation_id,
        set_digest=set_digest,
    )


class Given(TypedDict, total=False):
    """How a log is opened, where that is not as usual; the seed gives its id."""

    key: bytes
    clock: Clock
    seed: int
    sync: AuditSync
    timeout_seconds: float
    reserve_bytes: int
    segment_bytes: int


def options(**given: Unpack[Given]) -> AuditOptions:
    """Return how a log is written."""
    return AuditOptions(
        hmac_key=given.get("key", KEY),
        clock=given.get("clock") or FakeClock(),
        entropy=FakeEntropy(given.get("seed", 0)),
        sync=given.get("sync", AuditSync.STRICT),
        timeout_seconds=given.get("timeout_seconds", 20.0),
        node="node-1",
        reserve_bytes=given.get("reserve_bytes", 0),
    )


def open_log(path: Path, **given: Unpack[Given]) -> FileAuditLog:
    """Open the log in files at *path*."""
    size = given.get("segment_bytes", 64 * 1024 * 1024)
    return FileAuditLog.open(path, options(**given), segment_bytes=size)


def open_any(path: Path, **given: Unpack[Given]) -> DurableAuditLog:
    """Open the log at *path*: a database, or files, as the end of its name says."""
    if path.suffix == ".sqlite":
        return SqliteAuditLog.open(path, options(**given))
    return open_log(path, **given)


@contextmanager
def opened(path: Path, **given: Unpack[Given]) -> Iterator[FileAuditLog]:
    """Open the log in files at *path* and close it in order."""
    log = open_log(path, **given)
    try:
        yield log
    finally:
        log.close()


def fill(log: AuditLog, count: int, *, one_by_one: bool = False) -> None:
    """
    Append uses until *count* records were added, and wait until they are durable.

    The first record of a new log names the log, and is counted, unless one use is asked
    for: there is no log with one record.
    """
    if count > 1 and log.head().seq < 0:
        count -= 1
    if one_by_one:
        for number in range(count):
            log.append([draft(number)], durable=True).wait()
    elif count:
        log.append([draft(number) for number in range(count)], durable=True).wait()


def copy_of(path: Path, folder: Path) -> Path:
    """
    Copy a trail with all that lies beside it.

    Of a trail in use that is what a kill at this moment leaves.
    """
    copy_in_use(path.parent, folder)
    return folder / path.name


def torn_log(
    folder: Path, tail: bytes, records: int = 3, **given: Unpack[Given]
) -> Path:
    """Return what a kill leaves of a log in files whose last line was torn."""
    log = open_log(folder / "whole" / "audit.log", **given)
    fill(log, records)
    path = copy_of(folder / "whole" / "audit.log", folder / "torn")
    log.close()
    with path.open("ab") as file:
        file.write(tail)
    return path


def read_lines(path: Path) -> list[bytes]:
    """Return the records of one segment: each entry, behind its facts line."""
    records, facts = [], b""
    for line in path.read_bytes().split(b"\n"):
        if line.startswith(START):
            facts += line + b"\n"
        elif line or facts:
            records.append(facts + line)
            facts = b""
    return records


def write_lines(path: Path, lines: list[bytes]) -> None:
    """Overwrite one segment with these records."""
    path.write_bytes(b"".join(line + b"\n" for line in lines))


def verified(path: Path, key: bytes | None = KEY) -> OfflineVerification:
    """
    Verify a log offline: a database, or files, as the end of its name says.

    The second reader, which knows only the page of the format, must find the same.
    """
    is_files = path.suffix != ".sqlite"
    read = read_files if is_files else read_database
    try:
        found = verifier_of(path, key).verify()
    except AuditTamperedError as error:
        fault = error
        with pytest.raises(BadLogError) as bad:
            read(path, key)
    else:
        assert (found.head_seq, found.head_hash) == read(path, key).head
        return found
    assert fault.facts["seq"] == bad.value.seq, (fault.facts, bad.value)
    raise fault


def verifier_of(
    path: Path, key: bytes | None = KEY
) -> AuditVerifier | SqliteAuditVerifier:
    """Return what verifies a log offline, which may be long or in use."""
    if path.suffix == ".sqlite":
        return SqliteAuditVerifier(path, key)
    return AuditVerifier(path, key)


def check_named(path: Path, seq: int, *reasons: str, key: bytes | None = KEY) -> None:
    """
    Check that offline verification and, with the key, a start name a bad record.

    Args:
        path: The log.

        seq: The first bad record.

        reasons: Of these, one is told; none accepts any.

        key: As for `verified`.
    """
    refusing: list[Callable[[Path], object]] = [partial(verified, key=key)]
    for refuse in [*refusing, open_any] if key else refusing:
        with pytest.raises(AuditTamperedError) as caught:
            refuse(path)
        assert seq == caught.value.facts["seq"]
        assert not reasons or caught.value.facts["reason"] in reasons


def events(log: AuditLog) -> list[AuditEvent]:
    """Return all events of an open trail that were not pruned."""
    lines = log.lines(log.first_seq, 1_000_000)
    return [event_of(line, seq) for seq, line in enumerate(lines, log.first_seq)]


def live_segment(
    content: bytes, follower: Follower, *, log_id: str = ""
) -> StoredSegments:
    """Return a log whose only segment is live and holds this content."""
    mark = follower.mark
    return StoredSegments(
        [],
        Segment(Path("audit.log"), 1, 0),
        BytesIO(content),
        follower.codec,
        head=None if mark is None else StoredHead(log_id or follower.log_id, 1, mark),
        baseline=None,
        open_file=open_reader,
    )


def followed(
    lines: Iterable[bytes],
    *,
    log_id: str | None,
    hmac_key: bytes | None = KEY,
    start: tuple[int, str] = (-1, GENESIS),
) -> Follower:
    """Follow lines, and return where that led."""
    seq, leaf = start
    follower = Follower(log_id=log_id, hmac_key=hmac_key, seq=seq, leaf_hash=leaf)
    for line in lines:
        follower.follow(line)
    return follower


def is_done(ticket: AuditTicket) -> bool:
    """Return whether a record is written already."""
    try:
        ticket.wait(0)
    except AuditUnavailableError:
        return False
    return True
