# SPDX-License-Identifier: MIT
"""Reading of an audit log: verified events, recorded key states, filters."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import Final, Protocol

from hsm_core._internal.audit.baseline import KnownKeys
from hsm_core._internal.audit.record import event_of, head_of, member
from hsm_core.errors import InvalidInputError
from hsm_core.model import AuditEvent, KeyId, KeyState, Phase
from hsm_core.operations import AuditVerification, ListAuditEvents
from hsm_core.protocols import AuditHead, AuditLog, KnownKey

_BLOCK: Final = 1000
_PURGES: Final = "PurgeVersion"
_KEYS: Final = 64
"""Length of the part of a set digest that covers keys."""

_INTENT: Final = Phase.INTENT.value.encode()


class RecordSource(Protocol):
    """
    Records of an audit log that may be written meanwhile.

    An `AuditLog` is one, and so is another node's log. Its methods do, and raise, what
    those of an `AuditLog` do.
    """

    @property
    def log_id(self) -> str:
        """Random identifier of the log, 32 hex digits."""
        ...

    @property
    def first_seq(self) -> int:
        """Oldest record that is there; all before it were pruned."""
        ...

    def head(self) -> AuditHead:
        """Return position and leaf hash of the newest record."""
        ...

    def lines(self, start_seq: int, limit: int, /) -> list[bytes]:
        """Return up to *limit* records from *start_seq* on, without newline."""
        ...

    def baseline(self) -> Iterator[KnownKey]:
        """Return what the pruned records said of each key."""
        ...


class LogLabel(Protocol):
    """Log of a cluster, and the node that writes it."""

    @property
    def log_id(self) -> str:
        """Random identifier of the log, 32 hex digits."""
        ...

    @property
    def node(self) -> str:
        """Name of the node."""
        ...

    @property
    def written(self) -> bytes:
        """Stored head mark: another one whenever the log has grown. Not verified."""
        ...


class VerifiableLog(RecordSource, Protocol):
    """Log of a cluster that can be read and verified."""

    def verify(self, start_seq: int, limit: int, /) -> AuditVerification:
        """Verify a range of records."""
        ...


class LogCatalog(Protocol):
    """Audit logs of all nodes of a cluster."""

    def names(self) -> Sequence[LogLabel]:
        """Return all logs, in a fixed order."""
        ...

    def log(self, log_id: str, /) -> VerifiableLog:
        """Return a log, to be read."""
        ...


def pruned_before(first_seq: int) -> InvalidInputError:
    """Return the error for reading pruned records."""
    return InvalidInputError(
        f"start_seq must be at least {first_seq}: earlier records were pruned.",
        field="start_seq",
        limit=first_seq,
    )


def lines_from(
    audit: RecordSource, start_seq: int, limit: int
) -> tuple[int, list[bytes]]:
    """
    Return lines from *start_seq*, or from the oldest remaining record.

    Returns:
        The sequence number of the first line, and up to *limit* lines.

    Raises:
        AuditUnavailableError: The log can't be read.
    """
    while True:
        first = max(start_seq, audit.first_seq)
        try:
            return first, audit.lines(first, limit)
        except InvalidInputError:
            # Unless it was pruned in this very moment, nothing helps.
            if audit.first_seq <= first:
                raise


def verified_events(
    audit: RecordSource, verify: Callable[[int, int], AuditVerification], start: int
) -> Iterator[AuditEvent]:
    """
    Yield the events up to the current head, verifying each record.

    Args:
        audit: The log.

        verify: Verifies a range of it, given the first record and how many.

        start: The first record.

    Raises:
        AuditTamperedError: A record is bad.
        AuditUnavailableError: The log can't be read.
        InvalidInputError: The next records were pruned.
    """
    seq, head = start, audit.head()
    while seq <= head.seq:
        verify(seq, _BLOCK)
        for line in audit.lines(seq, _BLOCK):
            yield event_of(line, seq)
            seq += 1


class AuditWalk:
    """
    Recorded state of every key, read from the start of the audit log.

    Args:
        audit: The log.

        verify: Verifies a range of it.

        wanted: Set digests to find.

    Attributes:
        destroyed: Keys that were destroyed.
        changed: Keys that the remaining records changed.
        purged: Versions that the remaining records purged: the key's id, and the newest
            version of the material.
        met: Last record of each wanted digest: sequence number and time.
    """

    def __init__(
        self,
        audit: RecordSource,
        verify: Callable[[int, int], AuditVerification],
        wanted: Iterable[str] = (),
    ) -> None:
        self._audit = audit
        self._verify = verify
        self._wanted = frozenset(wanted)
        self._next = -1
        self._keys = KnownKeys()
        self.destroyed: set[KeyId] = set()
        self.changed: set[KeyId] = set()
        self.purged: set[tuple[KeyId, int]] = set()
        self.met: dict[str, tuple[int, int]] = {}
        self._destroyed_elsewhere: set[KeyId] = set()
        self._purged_elsewhere: set[tuple[KeyId, int]] = set()
        self._begin()
        self.advance()

    def _begin(self) -> None:
        """Start with the baseline of pruned records."""
        while self._next != self._audit.first_seq:
            self._next = self._audit.first_seq
            self._keys = KnownKeys(self._audit.baseline())
        self.changed, self.met = set(), {}
        self.purged = set(self._purged_elsewhere)

    def advance(self) -> None:
        """Read the records since the last call."""
        while True:
            try:
                self._read()
            except InvalidInputError:
                # Unless it was pruned before it was read, nothing helps.
                if self._next >= self._audit.first_seq:
                    raise
                self._begin()
            else:
                break
        destroyed = {known.key_id for known in self._keys if known.destroyed}
        self.destroyed = destroyed | self._destroyed_elsewhere

    def include(self, other: AuditWalk) -> None:
        """Count what another node's log says of destroyed and purged keys, too."""
        self._destroyed_elsewhere |= other.destroyed
        self._purged_elsewhere |= other.purged
        self.destroyed |= other.destroyed
        self.purged |= other.purged

    def _read(self) -> None:
        for event in verified_events(self._audit, self._verify, self._next):
            self._next = event.seq + 1
            if self._keys.note(event):
                self.changed.add(KeyId(event.key_id))
                if event.kind == _PURGES:
                    self.purged.add((KeyId(event.key_id), event.version))
            keys = event.set_digest[:_KEYS]
            if keys in self._wanted:
                self.met[keys] = event.seq, event.time

    def known(self) -> dict[KeyId, KnownKey]:
        """Return the recorded state of each key that should exist."""
        return {known.key_id: known for known in self._keys if known.digest}


def recorded_names(
    audit: AuditLog,
    verify: Callable[[int, int], AuditVerification],
    key_ids: Collection[KeyId],
) -> dict[KeyId, str]:
    """
    Return the names that keys had after their last recorded change.

    A destroyed key has an empty name. Keys without a remaining record are left out.

    Args:
        audit: The log.

        verify: Verifies a range of it.

        key_ids: Keys to look up.

    Raises:
        AuditTamperedError: A record is bad.
        AuditUnavailableError: The log can't be read.
    """
    while True:
        first = audit.first_seq
        try:
            return _recorded_names(audit, verify, key_ids, first)
        except InvalidInputError:
            # Unless records were pruned meanwhile, nothing helps.
            if audit.first_seq <= first:
                raise


def _recorded_names(
    audit: AuditLog,
    verify: Callable[[int, int], AuditVerification],
    key_ids: Collection[KeyId],
    first_seq: int,
) -> dict[KeyId, str]:
    found: dict[KeyId, str] = {}
    keys = KnownKeys()
    for event in verified_events(audit, verify, first_seq):
        key_id = KeyId(event.key_id)
        if key_id in key_ids and keys.note(event) and event.key is not None:
            is_destroyed = event.key.state == KeyState.DESTROYED
            found[key_id] = "" if is_destroyed else event.key.name
    return found


class EventFilter:
    """
    Filter of a query: over stored lines roughly, over events exactly.

    Args:
        operation: The query.

        since: Lower bound in microseconds since 1970, if any.

        until: As *since*.
    """

    def __init__(
        self, operation: ListAuditEvents, since: int | None, until: int | None
    ) -> None:
        self._operation = operation
        self._since = since
        self._until = until
        self._failed = operation.failed
        self._kinds = frozenset(kind.encode() for kind in operation.kind)
        # The clock that wrote the records may have been set back: no bound on the
        # time of one record is a bound on the time of those beside it.
        self._reads_heads = bool(
            self._failed or self._kinds or since is not None or until is not None
        )
        self._members = [
            member(name, text)
            for name in ("principal", "code")
            if (text := getattr(operation, name)) and text != "ok"
        ]
        self._keys: list[bytes] = []
        self._key_ids: frozenset[str] = frozenset()
        self.learn_keys((operation.key_id,))

    def learn_keys(self, key_ids: Iterable[str]) -> None:
        """Pass records of these keys too, where the query names one."""
        self._key_ids |= frozenset(key_ids)
        self._keys = [member("key_id", key_id) for key_id in self._key_ids]

    def lets_through(self, line: bytes) -> bool:
        """Return whether a stored line must be decoded: all that match, and some."""
        for found in self._members:
            if found not in line:
                return False
        if self._keys and not any(found in line for found in self._keys):
            return False
        return not (self._reads_heads and self._is_ruled_out(line))

    def matches(self, event: AuditEvent) -> bool:
        """Return whether the query asks for an event."""
        operation = self._operation
        principal = event.caller.principal if event.caller else ""
        return (
            (not operation.key_id or event.key_id in self._key_ids)
            and operation.principal in ("", principal)
            and (not operation.kind or event.kind in operation.kind)
            and operation.code in ("", _answered(event))
            and not (operation.failed and _answered(event) in ("", "ok"))
            and (self._since is None or event.time >= self._since)
            and (self._until is None or event.time < self._until)
        )

    def _is_ruled_out(self, line: bytes) -> bool:
        """Return whether the head of a line rules it out."""
        found = head_of(line)
        if found is None:
            return False
        time, phase, kind, code = found
        return bool(
            (self._failed and (phase == _INTENT or code in (b"", b"ok")))
            or (self._kinds and kind not in self._kinds)
            or (self._since is not None and time < self._since)
            or (self._until is not None and time >= self._until)
        )


def _answered(event: AuditEvent) -> str:
    """Return the code of an answer; an intent is none yet."""
    return "" if event.phase is Phase.INTENT else event.code
