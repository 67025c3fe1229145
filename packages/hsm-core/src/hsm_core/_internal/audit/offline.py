# SPDX-License-Identifier: MIT
"""What a verification of a whole trail counts and finds, wherever the trail lies."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from hsm_core._internal.audit.check import Follower
from hsm_core._internal.audit.mark import StoredHead
from hsm_core._internal.audit.pruned import PrunedPrefix
from hsm_core.model import AuditEvent

_PROGRESS_EVERY: Final = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class OfflineVerification:
    """
    What an intact trail holds; damage raises instead.

    Attributes:
        records: How many records were verified.
        head_seq: The newest one, -1 for an empty trail.
        head_hash: Its leaf hash, hex; compare it with one written down before.
        log_id: 32 hex digits; empty for an empty trail read without key.
        macs_checked: Whether the key was given. Without it whoever edits a record can
            make all that follow fit again, or cut the end off.
        mark_checked: Whether the head mark was authenticated and agrees.
        clean: The trail was closed in order at its end.
        in_use: A process has the trail open, so that it can't be closed yet.
        torn_bytes: Length of an unfinished tail, which is no record: left by a crash,
            or being written just now.
        first_seq: The oldest record; all before it were pruned, and a record that was
            verified says so.
        pruned_roots: RFC 6962 subtree roots (compact range) of the records before it,
            from the largest subtree to the smallest, hex.
        baseline_checked: Whether what is kept of pruned records was found as that
            record names it.
    """

    records: int
    head_seq: int
    head_hash: str
    log_id: str
    macs_checked: bool
    mark_checked: bool
    clean: bool
    torn_bytes: int
    in_use: bool = False
    first_seq: int = 0
    pruned_roots: tuple[str, ...] = ()
    baseline_checked: bool = False


class VerificationRun:
    """
    A verification under way: its follower is given record after record.

    Args:
        hmac_key: Key of the trail; None leaves the MACs unchecked.

        head: What the head file says; None if there is none, or no key.

        prefix: Judges the beginning.

        progress: Called now and then with the number of records verified.

        look: Called with each good record.
    """

    def __init__(
        self,
        hmac_key: bytes | None,
        head: StoredHead | None,
        prefix: PrunedPrefix,
        progress: Callable[[int], None] | None,
        look: Callable[[AuditEvent], None] | None,
    ) -> None:
        self.head = head
        self.prefix = prefix
        self._has_key = hmac_key is not None
        self._look = look
        self._progress = progress
        self._before, leaf_hash = prefix.start
        self.follower = Follower(
            log_id=head.log_id if head else None,
            hmac_key=hmac_key,
            seq=self._before,
            leaf_hash=leaf_hash,
            mark=head.mark if head else None,
        )

    def visit(self, event: AuditEvent, leaf_hash: str) -> None:
        """Take the next good record into account."""
        self.prefix.visit(event, leaf_hash)
        if self._look is not None:
            self._look(event)
        records = event.seq - self._before
        if self._progress is not None and records % _PROGRESS_EVERY == 0:
            self._progress(records)

    def result(
        self, *, torn_bytes: int = 0, in_use: bool = False
    ) -> OfflineVerification:
        """
        Return what was found, all records having been followed.

        Raises:
            AuditTamperedError: Records were pruned, and none of those says so.
        """
        self.prefix.finish()
        follower, detail = self.follower, self.prefix.detail
        records = follower.seq - self._before
        if self._progress is not None:
            self._progress(records)
        return OfflineVerification(
            records=records,
            head_seq=follower.seq,
            head_hash=follower.leaf_hash,
            log_id=follower.log_id,
            macs_checked=self._has_key,
            mark_checked=follower.mark is not None,
            clean=follower.mark is not None and follower.mark.clean,
            torn_bytes=torn_bytes,
            in_use=in_use,
            first_seq=self._before + 1,
            pruned_roots=detail.roots if detail else (),
            baseline_checked=detail is not None,
        )
