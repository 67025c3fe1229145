# SPDX-License-Identifier: MIT
"""Offline verification of a whole audit log, in files or in a database."""

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
    Result of verifying an intact audit log; damage raises instead.

    Attributes:
        records: Number of verified records.
        head_seq: The newest one, -1 for an empty trail.
        head_hash: Its leaf hash, hex; compare it with one written down before.
        log_id: 32 hex digits; empty for an empty trail read without key.
        macs_checked: Whether the key was given. Without it, an attacker who edits a
            record can recompute all later ones, or truncate the log.
        mark_checked: Whether the head mark was authenticated and agrees.
        clean: The log was closed cleanly at its end.
        in_use: A process has the log open, so that it is not closed yet.
        torn_bytes: Length of an unfinished tail: left by a crash, or being written.
        first_seq: The oldest record; all before it were pruned, and a record that was
            verified says so.
        pruned_roots: RFC 6962 subtree roots (compact range) of the records before it,
            from the largest subtree to the smallest, hex.
        baseline_checked: Whether the baseline matches the pruning record.
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
    Running verification: records are passed to its follower in order.

    Args:
        hmac_key: Key of the trail; None leaves the MACs unchecked.

        head: Content of the head file; None without the file or the key.

        prefix: Checks the start of the log.

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
        """Process the next good record."""
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
        Return the result, after all records were followed.

        Raises:
            AuditTamperedError: Records are missing, and no pruning record accounts for
                them.
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
