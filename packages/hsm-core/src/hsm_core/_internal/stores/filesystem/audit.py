# SPDX-License-Identifier: MIT
"""The trail in files: segments of JSON lines, one writer, synced in groups."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Final

from hsm_core._internal.audit.chain import Chain
from hsm_core._internal.audit.mark import StoredHead
from hsm_core._internal.audit.naming import closed_names, head_name, lock_name
from hsm_core._internal.audit.reasons import Reason, tampered
from hsm_core._internal.failpoints import failpoint
from hsm_core._internal.stores.filesystem.audit_files import (
    audit_errors,
    check_file,
)
from hsm_core._internal.stores.filesystem.audit_flusher import Flusher
from hsm_core._internal.stores.filesystem.audit_head import (
    HeadFile,
    create_head,
    read_head,
)
from hsm_core._internal.stores.filesystem.audit_recovery import Recovered, recover
from hsm_core._internal.stores.filesystem.audit_segments import Segments
from hsm_core._internal.stores.filesystem.files import (
    LockFile,
    list_directory,
    lock_file,
    make_private_directory,
)
from hsm_core.errors import AuditUnavailableError, ConfigurationError
from hsm_core.model import AuditEvent, Phase, PruneDetail, RepairDetail
from hsm_core.protocols import (
    AuditDraft,
    AuditHead,
    AuditHealth,
    AuditTicket,
    Clock,
    Entropy,
    KnownKey,
)
from hsm_core.settings import AuditSync

__all__ = ["FileAuditLog"]

_MIN_KEY_BYTES: Final = 32
_LOG_ID_BYTES: Final = 16


class FileAuditLog:
    """
    An `AuditLog` in a series of files; `open` makes one.

    Records are hashed and authenticated in the calling thread; one other thread
    writes and syncs them. After a failed write or sync nothing more is appended until
    the trail is opened again.
    """

    def __init__(
        self,
        lock: LockFile,
        chain: Chain,
        segments: Segments,
        head: HeadFile,
        recovered: Recovered,
        *,
        clock: Clock,
        sync: AuditSync,
        segment_bytes: int,
        timeout_seconds: float,
    ) -> None:
        self._process = os.getpid()
        self._clock = clock
        self._lock_file = lock
        self._chain = chain
        self._segments = segments
        self._head = head
        self._open_intents = recovered.open_events
        self._set_digest_at_open = recovered.mark.set_digest
        self._closed = False
        self._lock = threading.Lock()
        self._flusher = Flusher(
            self._lock,
            segments,
            head,
            chain.mark,
            sync=sync,
            segment_bytes=segment_bytes,
            timeout_seconds=timeout_seconds,
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
            recovered = recover(path, hmac_key, stored, clock.now())
            segments = Segments(recovered.closed, recovered.live, recovered.descriptor)
            stack.callback(segments.close)
            head = HeadFile(path.with_name(head_name(path.name)), hmac_key, stored)
            stack.callback(head.close)
            # Before the first record, so that none ever follows a clean mark.
            head.write(recovered.mark)
            head.sync()
            failpoint("audit.open.after_mark")
            chain = Chain(
                log_id=stored.log_id,
                hmac_key=hmac_key,
                node=node,
                mark=recovered.mark,
                intents=recovered.intents,
            )
            log = cls(
                lock,
                chain,
                segments,
                head,
                recovered,
                clock=clock,
                sync=sync,
                segment_bytes=segment_bytes,
                timeout_seconds=timeout_seconds,
            )
            stack.pop_all()
        log._record_repairs(recovered.repairs)
        return log

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

    @property
    def log_id(self) -> str:
        """Random identifier of this trail, 32 hex digits."""
        return self._chain.log_id

    @property
    def available(self) -> bool:
        """Whether the next append may succeed."""
        try:
            self._check_process()
            self._flusher.check()
        except AuditUnavailableError:
            return False
        return True

    @property
    def set_digest_at_open(self) -> str:
        """The newest set digest that the trail held when it was opened, or empty."""
        return self._set_digest_at_open

    @property
    def health(self) -> AuditHealth:
        """How the trail is."""
        return AuditHealth(state="ok" if self.available else "failing")

    @property
    def first_seq(self) -> int:
        """Oldest record that is still there."""
        return 0

    def baseline(self) -> Iterator[KnownKey]:
        """Return nothing: no record was pruned."""
        return iter(())

    def prunable(self, before: int, /) -> int:
        """Return 0: nothing is pruned here."""
        return 0

    def prune(self, seq: int, policy: str, /) -> PruneDetail | None:
        """Remove nothing."""
        return None

    def append(
        self,
        drafts: Sequence[AuditDraft],
        /,
        *,
        durable: bool = False,
        reserved: bool = False,
    ) -> AuditTicket:
        """
        Append records; see `AuditLog.append`.

        Raises:
            AuditUnavailableError: The trail can't be written.
            InvalidInputError: A draft can't be recorded; none of them was.
        """
        self._check_process()
        with self._lock:
            self._flusher.check()
            lines = self._chain.extend(drafts, self._clock.now())
            return self._flusher.enqueue(lines, durable=durable)

    def head(self) -> AuditHead:
        """Return position and leaf hash of the newest record that was written."""
        mark = self._flusher.written
        return AuditHead(mark.seq, mark.leaf_hash)

    def lines(self, start_seq: int, limit: int, /) -> list[bytes]:
        """
        Return up to *limit* written lines from *start_seq* on, without newline.

        Raises:
            AuditUnavailableError: The trail can't be read, or is closed.
            AuditTamperedError: It holds fewer lines than were written.
        """
        if self._closed:
            raise AuditUnavailableError("The audit trail is closed.")
        return self._segments.read(max(start_seq, 0), limit)

    def open_intents(self) -> list[AuditEvent]:
        """Return the intents without outcome that were found at start."""
        return list(self._open_intents)

    def close(self) -> None:
        """
        Sync, mark the end as clean, release the lock; a second time does nothing.

        Raises:
            AuditUnavailableError: Something could not be written, now or before; all
                is released, and the trail is left as after a crash. Or writing still
                hangs; then the lock stays.
        """
        if self._closed or self._process != os.getpid():
            return
        if not self._flusher.close():
            # The lock stays: what still hangs may yet be written.
            raise AuditUnavailableError("The audit trail is not written in time.")
        self._closed = True
        self._head.close()
        self._segments.close()
        self._lock_file.release()
        failure = self._flusher.failure
        if failure is not None:
            raise AuditUnavailableError from failure

    def _check_process(self) -> None:
        # A child made by fork shares the files, but has no thread that writes them.
        if self._process != os.getpid():
            raise AuditUnavailableError("The audit trail belongs to another process.")


def _lock(path: Path, hmac_key: bytes) -> LockFile:
    check_file(path)
    make_private_directory(path.parent)
    # The key is judged before anything is written, the lock's file included.
    read_head(path.with_name(head_name(path.name)), hmac_key)
    lock = path.with_name(lock_name(path.name))
    check_file(lock)
    return lock_file(lock)


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
