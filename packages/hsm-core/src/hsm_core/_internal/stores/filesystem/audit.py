# SPDX-License-Identifier: MIT
"""Audit log in files: segments of JSON lines, one writer, group sync."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path

from hsm_core._internal.audit.head_mark import HeadMark
from hsm_core._internal.audit.log import AuditOptions, DurableAuditLog
from hsm_core._internal.audit.reasons import Reason, tampered
from hsm_core._internal.lib.failpoints import failpoint
from hsm_core._internal.stores.filesystem.audit_files import (
    HEAD,
    LOCK,
    RESERVE,
    DiskReserve,
    audit_errors,
    check_file,
    closed_names,
)
from hsm_core._internal.stores.filesystem.audit_head import (
    BaselineFile,
    HeadFile,
    create_head,
    read_head,
)
from hsm_core._internal.stores.filesystem.audit_medium import FileMedium
from hsm_core._internal.stores.filesystem.audit_recovery import (
    RecoveredFiles,
    recover_files,
    set_fork_aside,
)
from hsm_core._internal.stores.filesystem.audit_segments import Segments
from hsm_core._internal.stores.filesystem.files import list_directory
from hsm_core._internal.stores.filesystem.opening import (
    LockFile,
    lock_file,
    make_private_directory,
    sibling,
    storage_errors,
)
from hsm_core.errors import AuditUnavailableError, ConfigurationError
from hsm_core.model import Phase, RepairDetail
from hsm_core.protocols import AuditDraft


class FileAuditLog(DurableAuditLog):
    """
    An `AuditLog` in a series of files; `open` makes one.

    Attributes:
        repairs: Repairs made at opening.
    """

    repairs: Sequence[RepairDetail] = ()

    @classmethod
    def open(
        cls, path: Path, options: AuditOptions, *, segment_bytes: int
    ) -> FileAuditLog:
        """
        Open a log, or begin one, and repair what a crash left.

        Args:
            path: The live segment; its directory is made with mode 0700 if absent.

            options: How it is written.

            segment_bytes: Size above which a segment is closed.

        Raises:
            WrongAuditKeyError: The key is not the log's; nothing was written.
            AuditTamperedError: The log is damaged; ``facts`` name the first bad
                record as ``seq`` and the ``reason``.
            StoreLockedError: Another process writes this log.
            UnsafeFileModeError: Others could read or write a file of the log.
            AuditUnavailableError: The log can't be read or written.
        """
        path = path.absolute()
        with ExitStack() as stack, audit_errors(path):
            lock = _lock(path, options.hmac_key)
            stack.callback(lock.release)
            head = _head(path, options)
            stack.callback(head.close)
            stored = head.stored
            reserve = DiskReserve(sibling(path, RESERVE), options.reserve_bytes)
            stack.callback(reserve.close)
            now = options.clock.now()
            recovered = reserve.run(
                lambda: recover_files(path, options.hmac_key, stored, now)
            )
            segments = _segments(recovered)
            stack.callback(segments.close)
            _begin(head, recovered.log.end.mark)
            baselines = BaselineFile(path, stored.log_id, options.hmac_key)
            medium = FileMedium(segments, head, lock, segment_bytes, baselines)
            log = cls(medium, reserve, recovered.log, options)
            stack.pop_all()
        log._record_repairs(recovered.repairs)
        log.repairs = recovered.repairs
        return log

    @classmethod
    def recover_fork(
        cls, path: Path, options: AuditOptions, *, segment_bytes: int
    ) -> RepairDetail:
        """
        Set the other branch of a forked log aside, and record that.

        Args:
            path: The live segment.

            options: How the record is written.

            segment_bytes: Size above which a segment is closed.

        Returns:
            Which file holds the other branch.

        Raises:
            ConfigurationError: There is no audit log, or it is not forked.
            WrongAuditKeyError: The key is not the log's; nothing was written.
            AuditTamperedError: It is damaged in another way; nothing was changed.
            StoreLockedError: Another process has this log open.
            UnsafeFileModeError: Other users can read or write a file of the log.
            AuditUnavailableError: It can't be read or written.
        """
        path = path.absolute()
        with ExitStack() as stack, audit_errors(path):
            if not (check_file(path) and check_file(sibling(path, HEAD))):
                raise ConfigurationError(
                    f"No audit log in files found at {path}.", path=str(path)
                )
            stack.callback(_lock(path, options.hmac_key).release)
            head = _head(path, options)
            stack.callback(head.close)
            set_fork_aside(path, options.hmac_key, head.stored, options.clock.now())
        log = cls.open(path, options, segment_bytes=segment_bytes)
        try:
            return next(found for found in log.repairs if ".fork-" in found.kept_as)
        finally:
            log.close()

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


def _lock(path: Path, hmac_key: bytes) -> LockFile:
    check_file(path)
    check_file(sibling(path, RESERVE))
    make_private_directory(path.parent)
    # The key is judged before anything is written, the lock's file included.
    read_head(sibling(path, HEAD), hmac_key)
    lock_path = sibling(path, LOCK)
    check_file(lock_path)
    return lock_file(lock_path)


def _segments(recovered: RecoveredFiles) -> Segments:
    stored = recovered.stored
    stored.live.facts = stored.facts.copy(stored.live.next_seq)
    return Segments(
        stored.closed,
        stored.live,
        recovered.descriptor,
        recovered.log.end.mark.leaf_hash,
    )


def _begin(head: HeadFile, mark: HeadMark) -> None:
    # Before the first record, so that none ever follows a clean mark.
    head.write(mark)
    head.sync()
    failpoint("audit.open.after_mark")


def _head(path: Path, options: AuditOptions) -> HeadFile:
    place = sibling(path, HEAD)
    if not check_file(place):
        closed = closed_names(path.name, list_directory(path.parent)[1])
        if closed or (check_file(path) and path.stat().st_size):
            raise tampered(Reason.HEAD_MISSING, 0)
        create_head(place, options.hmac_key, options.new_log_id())
        failpoint("audit.create.after_head")
    return HeadFile(place, options.hmac_key)


def log_exists(path: Path) -> bool:
    """
    Return whether a live segment, a closed one or a head mark lies at *path*.

    Raises:
        StoreUnavailableError: The directory can't be read.
    """
    with storage_errors():
        try:
            names = [entry.name for entry in path.parent.iterdir()]
        except FileNotFoundError:
            return False
    name = path.name
    return name in names or name + HEAD in names or bool(closed_names(name, names))
