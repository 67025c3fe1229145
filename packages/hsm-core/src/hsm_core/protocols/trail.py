# SPDX-License-Identifier: MIT
"""The trail: an append-only chain of records."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, ClassVar, Protocol, Self, TypeAlias

import msgspec

from hsm_core.model import (
    ApprovalDemand,
    AuditDetail,
    AuditedCaller,
    AuditedKey,
    AuditEvent,
    KeyId,
    MessageDetail,
    Parameters,
    Phase,
    PruneDetail,
)
from hsm_core.operations.audit import SyncTimes

__all__ = [
    "AuditDraft",
    "AuditDrafts",
    "AuditFacts",
    "AuditHead",
    "AuditHealth",
    "AuditLog",
    "AuditTicket",
    "KnownKey",
    "UseDraft",
]


class AuditDraft(msgspec.Struct, frozen=True, kw_only=True):
    """
    An event without position, time and MAC; fields as in `AuditEvent`.

    Attributes:
        bound: What the record's ``bind`` commits to; empty for none.
        subjects: Keys and credential on which a use was decided; not recorded.
    """

    phase: Phase
    kind: str
    code: str = "ok"
    request_id: str = ""
    revision: int = 0
    operation_id: str = ""
    intent_log: str = ""
    key_id: str = ""
    version: int = 0
    generation: int = 0
    document_before: str = ""
    document_after: str = ""
    set_digest: str = ""
    caller: AuditedCaller | None = None
    key: AuditedKey | None = None
    parameters: Parameters = msgspec.field(default_factory=dict)
    rule: str = ""
    policy: str = ""
    demands: tuple[ApprovalDemand, ...] = ()
    approval_id: str = ""
    approval_signatures: tuple[str, ...] = ()
    digest: str = ""
    detail: AuditDetail | None = None
    bound: bytes = b""
    subjects: tuple[str, ...] = ()

    @classmethod
    def system(cls, kind: str, text: str = "", /, **facts: Any) -> Self:
        """
        Return a record of the HSM itself.

        Args:
            kind: Such as ``system.start``.

            text: Message, if there is something to say.

            facts: Further fields.
        """
        detail = MessageDetail(text=text) if text else None
        return cls(phase=Phase.SINGLE, kind=kind, detail=detail, **facts)


class AuditFacts:
    """
    Facts that many uses share, encoded by the log once an hour; fields as in a draft.

    Args:
        parameters: With None for each integer; a use gives those as *numbers*.

    Attributes:
        encoded: Text that the log keeps here between uses.
    """

    __slots__ = (
        "caller",
        "encoded",
        "generation",
        "key",
        "key_id",
        "kind",
        "parameters",
        "policy",
        "rule",
        "version",
    )

    def __init__(
        self,
        *,
        kind: str,
        caller: AuditedCaller | None = None,
        key: AuditedKey | None = None,
        key_id: str = "",
        version: int = 0,
        generation: int = 0,
        parameters: Mapping[str, str | list[str] | None] = MappingProxyType({}),
        rule: str = "",
        policy: str = "",
    ) -> None:
        self.kind = kind
        self.caller = caller
        self.key = key
        self.key_id = key_id
        self.version = version
        self.generation = generation
        self.parameters = parameters
        self.rule = rule
        self.policy = policy
        self.encoded: Any = None


class UseDraft(msgspec.Struct, frozen=True):
    """
    Draft of a use whose facts are shared with others; fields as in `AuditDraft`.

    Attributes:
        numbers: The integers among the parameters, in their order.
    """

    phase: ClassVar = Phase.SINGLE
    operation_id: ClassVar = ""
    set_digest: ClassVar = ""

    facts: AuditFacts
    code: str = "ok"
    request_id: str = ""
    numbers: tuple[int, ...] = ()
    bound: bytes = b""
    digest: str = ""
    detail: AuditDetail | None = None
    revision: int = 0

    @property
    def kind(self) -> str:
        """Name of the operation."""
        return self.facts.kind

    @property
    def subjects(self) -> tuple[str, ...]:
        """See `AuditDraft`."""
        facts = self.facts
        credential = facts.caller.credential_id if facts.caller else ""
        return (facts.key_id, credential) if credential else (facts.key_id,)


AuditDrafts: TypeAlias = (
    Sequence[AuditDraft | UseDraft] | Callable[[], Sequence[AuditDraft | UseDraft]]
)
"""Records to append, or a function that returns them; see `AuditLog.append`."""


class AuditHead(msgspec.Struct, frozen=True):
    """Newest record: sequence number (-1 if none) and leaf hash, hex."""

    seq: int
    leaf_hash: str


class KnownKey(msgspec.Struct, frozen=True):
    """
    What the trail says of a key: generation and digest after its last change.

    Attributes:
        digest: Empty if the key was forgotten, after it had been destroyed.
        destroyed: Whether all its material was destroyed.
    """

    key_id: KeyId
    generation: int
    digest: str
    destroyed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditHealth:
    """
    How a trail is.

    Attributes:
        state: ``ok``; ``reserve`` (the disk is full, only reserved records are taken);
            ``failing`` (nothing is taken).
        cause: Of a state that is not ok: ``full``, ``write``, ``sync``, ``moved`` or
            ``hanging``; else empty.
        failures: How often it failed since it was opened.
        resumes: How often it healed.
        syncs: How long it took to make records durable; of no matter where two states
            are compared.
    """

    state: str = "ok"
    cause: str = ""
    failures: int = 0
    resumes: int = 0
    syncs: SyncTimes = field(default=SyncTimes(), compare=False)


class AuditTicket(Protocol):
    """A promise that appended records become as durable as the mode says."""

    def wait(self, timeout: float | None = None) -> None:
        """
        Block until then.

        Raises:
            AuditUnavailableError: They can't be written, or not within the limit.
        """
        ...

    def add_done_callback(
        self, callback: Callable[[BaseException | None], None], /
    ) -> None:
        """Call *callback* once, from any thread, with None or the error."""
        ...


class AuditLog(Protocol):
    """
    The trail: an append-only chain of records without gaps.

    Implementers promise: `append` assigns seq, prev, time and MAC in the order of
    calls; a ticket is done when its records are durable as the mode says, and all
    before them too. Safe for many threads.

    After a failed write or sync, appends are refused and nothing more is called durable
    until the log has healed itself: what was appended and is not known to be durable is
    written again, in the same order, to where nothing has failed, followed by a record
    of kind ``system.resume``.
    """

    @property
    def log_id(self) -> str:
        """Random identifier of this trail, 32 hex digits."""
        ...

    @property
    def available(self) -> bool:
        """Whether the next append may succeed."""
        ...

    @property
    def health(self) -> AuditHealth:
        """How the trail is, for status and metrics; costs nothing."""
        ...

    @property
    def set_digest_at_open(self) -> str:
        """The newest set digest that was recorded before this log was opened."""
        ...

    def append(
        self,
        drafts: AuditDrafts,
        /,
        *,
        durable: bool = False,
        reserved: bool = False,
        lazy: bool = False,
    ) -> AuditTicket:
        """
        Append records.

        Args:
            drafts: At least one. Or a function that returns them, called under the
                log's lock immediately before they are chained, so that no other record
                can come between: it returns those that still stand. If there are none,
                nothing is written, and the ticket is done; what it raises is raised.
                It must be quick, and must not call the log.

            durable: Wait for the sync even in bounded mode, as lifecycle records do.

            reserved: They may use the space that is kept back for when the disk is
                full: records of recovery and administration, and outcomes of what has
                been done already.

            lazy: Nobody waits for them: they are written at once, and synced with
                others, or within a second. Their ticket is done when they are written.

        Raises:
            AuditUnavailableError: The trail can't be written.
        """
        ...

    def hand_over(self) -> None:
        """
        Let no append wait for the disk from now on, for an event loop appends.

        Without it, an append in bounded mode may write the records itself.
        """
        ...

    def head(self) -> AuditHead:
        """Return the newest record's position and leaf hash."""
        ...

    def durable_head(self) -> AuditHead:
        """
        Return position and leaf hash of the newest record that no power cut can undo.

        It costs nothing, never goes back, and has passed a record when a ticket for it
        that was asked for with *durable* is done.
        """
        ...

    def lines(self, start_seq: int, limit: int, /) -> list[bytes]:
        """
        Return up to *limit* records from *start_seq* on: facts line, newline, entry.

        Raises:
            AuditUnavailableError: The trail can't be read.
            InvalidInputError: *start_seq* lies before `first_seq`.
        """
        ...

    @property
    def first_seq(self) -> int:
        """Oldest record that is still there; all before it were pruned."""
        ...

    def baseline(self) -> Iterator[KnownKey]:
        """
        Return what the pruned records said of each key.

        Raises:
            AuditTamperedError: It was changed.
            AuditUnavailableError: It can't be read.
        """
        ...

    def prunable(self, before: int, /) -> int:
        """
        Return the seq up to which (exclusive) a prune may remove records.

        All of them are older than *before*, whatever the clock did meanwhile; none is
        an intent without outcome; `first_seq` if there is nothing to remove.

        Args:
            before: Microseconds since 1970.
        """
        ...

    def prune(self, seq: int, policy: str, /) -> PruneDetail | None:
        """
        Remove all records before *seq*, or fewer, durably.

        A record of kind ``system.prune`` says what was removed before anything is; it
        bears the subtree roots of all that was removed so far. Removing whole segments
        only, a log in files may remove fewer, or nothing.

        Args:
            seq: At most what `prunable` says.

            policy: By which policy; stands in the record.

        Returns:
            What was recorded; None if nothing was removed.

        Raises:
            AuditUnavailableError: It can't be recorded, and nothing was removed; or a
                removal failed, which the next start or prune finishes.
        """
        ...

    def open_intents(self) -> list[AuditEvent]:
        """Return the intents without outcome that were found at start."""
        ...

    def close(self) -> None:
        """Sync, mark the end as clean, release the lock."""
        ...
