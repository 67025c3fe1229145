# SPDX-License-Identifier: MIT
"""The trail in files: segments of JSON lines, one writer, synced in groups."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Final

from hsm_core._internal.audit.chain import Chain
from hsm_core._internal.audit.mark import StoredHead
from hsm_core._internal.audit.naming import (
    closed_names,
    head_name,
    lock_name,
    reserve_name,
)
from hsm_core._internal.audit.reasons import Reason, tampered
from hsm_core._internal.failpoints import failpoint
from hsm_core._internal.stores.filesystem.audit_files import (
    audit_errors,
    check_file,
    is_full,
)
from hsm_core._internal.stores.filesystem.audit_head import (
    HeadFile,
    create_head,
    read_head,
)
from hsm_core._internal.stores.filesystem.audit_lock import TrailLock
from hsm_core._internal.stores.filesystem.audit_medium import FileMedium
from hsm_core._internal.stores.filesystem.audit_pruning import Pruner
from hsm_core._internal.stores.filesystem.audit_recovery import Recovered, recover
from hsm_core._internal.stores.filesystem.audit_segments import Segments
from hsm_core._internal.stores.filesystem.files import (
    list_directory,
    make_private_directory,
)
from hsm_core._internal.stores.trail.log import TrailLog
from hsm_core._internal.stores.trail.medium import TrailMedium
from hsm_core._internal.stores.trail.reserve import Reserve
from hsm_core.errors import (
    AuditUnavailableError,
    ConfigurationError,
    StoreUnavailableError,
)
from hsm_core.model import AuditEvent, Phase, PruneDetail, RepairDetail
from hsm_core.protocols import AuditDraft, Clock, Entropy, KnownKey
from hsm_core.settings import AuditSync

__all__ = ["FileAuditLog"]

_MIN_KEY_BYTES: Final = 32
_LOG_ID_BYTES: Final = 16


class FileAuditLog(TrailLog):
    """An `AuditLog` in a series of files; `open` makes one."""

    def __init__(
        self,
        chain: Chain,
        medium: TrailMedium,
        reserve: Reserve,
        pruner: Pruner,
        *,
        clock: Clock,
        sync: AuditSync,
        timeout_seconds: float,
        open_events: Sequence[AuditEvent],
    ) -> None:
        self._pruner = pruner
        self._pruning = threading.Lock()
        super().__init__(
            chain,
            medium,
            reserve,
            clock=clock,
            sync=sync,
            timeout_seconds=timeout_seconds,
            open_events=open_events,
        )

    @classmethod
    def open(
        cls,
        path: Path,
        hmac_key: bytes,
        *,
        clock: Clock,
        entropy: Entropy,
        sync: AuditSync,
        segment_bytes: int,
        timeout_seconds: float,
        node: str,
        reserve_bytes: int = 0,
    ) -> FileAuditLog:
        """
        Open a trail, or begin one, and repair what a crash left.

        Args:
            path: The live segment; its directory is made with mode 0700 if absent.

            hmac_key: At least 32 bytes; what all keys of the trail are derived from.

            clock: Gives the time of each record.

            entropy: Gives the id of a new trail.

            sync: When a ticket is done.

            segment_bytes: Size above which a segment is closed.

            timeout_seconds: How long an append may take before it fails.

            node: Name of this node in the trail.

            reserve_bytes: Room that is kept for when the disk is full.

        Raises:
            WrongAuditKeyError: The key is not the trail's; nothing was written.
            AuditTamperedError: The trail is damaged; ``facts`` name the first bad
                record as ``seq`` and the ``reason``.
            StoreLockedError: Another process writes this trail.
            UnsafeFileModeError: Others could read or write a file of the trail.
            ConfigurationError: The HMAC key is too short.
            AuditUnavailableError: The trail can't be read or written.
        """
        if len(hmac_key) < _MIN_KEY_BYTES:
            raise ConfigurationError(
                f"The HMAC key must have at least {_MIN_KEY_BYTES} bytes."
            )
        path = path.absolute()
        with ExitStack() as stack, audit_errors():
            lock = _lock(path, hmac_key)
            stack.callback(lock.release)
            stored = _stored_head(path, hmac_key, entropy)
            reserve = Reserve(path.with_name(reserve_name(path.name)), reserve_bytes)
            stack.callback(reserve.close)
            recovered = _recovered(path, hmac_key, stored, clock.now(), reserve)
            mark = recovered.mark
            segments = Segments(
                recovered.closed,
                recovered.live,
                recovered.descriptor,
                mark.leaf_hash,
            )
            stack.callback(segments.close)
            head = HeadFile(path.with_name(head_name(path.name)), hmac_key, stored)
            stack.callback(head.close)
            # Before the first record, so that none ever follows a clean mark.
            head.write(mark)
            head.sync()
            failpoint("audit.open.after_mark")
            chain = Chain(
                log_id=stored.log_id,
                hmac_key=hmac_key,
                node=node,
                mark=mark,
                intents=recovered.intents,
            )
            pruner = Pruner(
                path,
                segments,
                hmac_key=hmac_key,
                log_id=stored.log_id,
                baseline=recovered.baseline,
            )
            log = cls(
                chain,
                FileMedium(segments, head, lock, segment_bytes),
                reserve,
                pruner,
                clock=clock,
                sync=sync,
                timeout_seconds=timeout_seconds,
                open_events=recovered.open_events,
            )
            stack.pop_all()
        log._record_repairs(recovered.repairs)
        return log

    @property
    def first_seq(self) -> int:
        """Oldest record that is still there; all before it were pruned."""
        return self._pruner.first_seq

    def baseline(self) -> Iterator[KnownKey]:
        """
        Return what the pruned records said of each key.

        Raises:
            AuditTamperedError: It was changed.
            AuditUnavailableError: It can't be read.
        """
        return self._pruner.known()

    def prune(self, seq: int, policy: str, /) -> PruneDetail | None:
        """
        Remove the whole segments before *seq*; see `AuditLog.prune`.

        Raises:
            AuditTamperedError: A record that would be removed is bad; none was.
            AuditUnavailableError: It can't be recorded, and nothing was removed; or a
                removal failed, which the next start or prune finishes.
        """
        self._check_process()
        with self._pruning:
            head = self.head().seq
            end = min(seq, self._floor(), head)
            return self._pruner.prune(end, policy, head, self.lines, self._record_prune)

    def _record_prune(self, detail: PruneDetail) -> None:
        draft = AuditDraft(phase=Phase.SINGLE, kind="system.prune", detail=detail)
        self.append([draft], durable=True, reserved=True).wait()

    def _record_repairs(self, repairs: list[RepairDetail]) -> None:
        if not repairs:
            return
        drafts = [
            AuditDraft(phase=Phase.SINGLE, kind="system.repair", detail=detail)
            for detail in repairs
        ]
        try:
            self.append(drafts, durable=True).wait()
        except AuditUnavailableError:
            with suppress(AuditUnavailableError):
                self.close()
            raise
        failpoint("audit.repair.after_record")


def _lock(path: Path, hmac_key: bytes) -> TrailLock:
    check_file(path)
    check_file(path.with_name(reserve_name(path.name)))
    make_private_directory(path.parent)
    # The key is judged before anything is written, the lock's file included.
    read_head(path.with_name(head_name(path.name)), hmac_key)
    return TrailLock(path.with_name(lock_name(path.name)))


def _recovered(
    path: Path, hmac_key: bytes, stored: StoredHead, now: int, reserve: Reserve
) -> Recovered:
    """Recover; on a full disk with the room that an earlier process kept back."""
    try:
        return recover(path, hmac_key, stored, now)
    except (OSError, StoreUnavailableError) as error:
        if not (is_full(error) and reserve.take() and reserve.give_up()):
            raise
    return recover(path, hmac_key, stored, now)


def _stored_head(path: Path, hmac_key: bytes, entropy: Entropy) -> StoredHead:
    head_path = path.with_name(head_name(path.name))
    stored = read_head(head_path, hmac_key)
    if stored is not None:
        return stored
    closed = closed_names(path.name, list_directory(path.parent)[1])
    if closed or (check_file(path) and path.stat().st_size):
        raise tampered(Reason.HEAD_MISSING, 0)
    log_id = entropy.random_bytes(_LOG_ID_BYTES).hex()
    stored = create_head(head_path, hmac_key, log_id)
    failpoint("audit.create.after_head")
    return stored
