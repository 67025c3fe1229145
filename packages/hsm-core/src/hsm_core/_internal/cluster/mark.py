# SPDX-License-Identifier: MIT
"""
Last-seen mark: what a node has seen of a cluster's database, in a local file.

A database that was restored from a dump, or a standby that lacked the newest changes
and was promoted, is authentic, and older. A node notices it because its mark names a
change or an audit record that the database does not have. The file has two slots. One
is synced; the other takes everything newer until it is synced in its turn, so one slot
is intact after a power failure, and a killed process loses nothing.
"""

from __future__ import annotations

import errno
import fcntl
import hmac
import os
import struct
import threading
from collections.abc import Callable, Mapping, Set
from pathlib import Path
from typing import Final, TypeAlias

import msgspec
from msgspec.structs import replace

from hsm_core._internal.lib.encoding import length_prefixed
from hsm_core.errors import ConfigurationError, Fact, StoreLockedError
from hsm_core.private_files import sync_folder

_MAGIC: Final = b"FerroHSM mark 1\n"
_FIRST_SLOT: Final = 4096
_SLOT: Final = 1 << 20
_HEAD: Final = struct.Struct(">QI")
_MAC_BYTES: Final = 32
_MOST_NAMED: Final = 16

HeadOf: TypeAlias = Callable[[int], bytes | None]
"""Returns the head of the feed at a revision; None if there is no such change."""


class SeenEnd(msgspec.Struct, frozen=True):
    """Newest record of an audit log: its number, and its leaf hash in hex."""

    seq: int
    leaf_hash: str


EndOf: TypeAlias = Callable[[str, int], SeenEnd | None]
"""
Returns a record of an audit log, given the log's ID and the record's number.

If the log ends before it, returns its last record; None if there is no such log. If
the record was pruned, returns the first record that was not.
"""


class LastSeen(msgspec.Struct, frozen=True):
    """
    State of the database as a node has seen it last.

    Attributes:
        revision: Newest change that was applied.
        head: Head of the feed there.
        logs: End of each audit log, by its ID.
        epoch: Epoch of the node itself; 0 if it is not known.
    """

    revision: int = 0
    head: bytes = b""
    logs: Mapping[str, SeenEnd] = msgspec.field(default_factory=dict)
    epoch: int = 0


class LastSeenMark:
    """
    File of a node's last-seen mark, open for this process alone. Thread-safe.

    A mark that can't be written is a finding in the status, and nothing more: the node
    then notices less after its next start.

    Args:
        path: The file; it and its directory are made, private, if absent.

        mac_of: MAC of a payload, 32 bytes.

        owner: Cluster and node that it belongs to.

    Raises:
        StoreLockedError: Another process has it open.
        ConfigurationError: It can't be made or read, or is another node's, or was
            altered.

    Attributes:
        before: What it said when it was opened; None if there was none.
        failure: Why it could not be written; empty if it could.
    """

    def __init__(
        self, path: Path, mac_of: Callable[[bytes], bytes], owner: bytes
    ) -> None:
        self._path = path
        self._mac_of = mac_of
        self._owner = owner
        self._lock = threading.Lock()
        self._counter = 0
        self._is_begun = False
        self.failure = ""
        self._file = self._opened()
        try:
            self.before = self._read()
        except BaseException:
            os.close(self._file)
            raise
        self._seen = self.before or LastSeen()
        # Who wrote it may have been killed before. Else both slots could be torn.
        self._is_synced = False
        if self.before is None:
            # So that one slot is whole whatever happens later.
            self._write()
        self.sync()

    def __repr__(self) -> str:
        return f"<LastSeenMark {str(self._path)!r}>"

    @property
    def seen(self) -> LastSeen:
        """What was noted last."""
        return self._seen

    def note_change(self, revision: int, head: bytes) -> None:
        """
        Note that the node has applied a change; before it answers anything under it.

        Args:
            revision: Number of the change.

            head: Head of the feed there.
        """
        with self._lock:
            self._seen = replace(self._seen, revision=revision, head=head)
            self._write()

    def note_logs(
        self, ends: Mapping[str, SeenEnd], ended: Set[str] = frozenset()
    ) -> None:
        """
        Note ends of audit logs, of this node's before the record is answered.

        Args:
            ends: The ends.

            ended: IDs of logs that are to be noted no more.
        """
        with self._lock:
            logs = {**self._seen.logs, **ends}
            for log_id in ended:
                logs.pop(log_id, None)
            self._seen = replace(self._seen, logs=logs)
            self._write()

    def note_epoch(self, epoch: int) -> None:
        """Note the epoch of the node; before it answers anything under it."""
        with self._lock:
            if epoch > self._seen.epoch:
                self._seen = replace(self._seen, epoch=epoch)
                self._write()

    def begin_again(self, revision: int, head: bytes) -> None:
        """Forget all but this position, after an older database was accepted."""
        with self._lock:
            self._seen = LastSeen(revision, head, epoch=self._seen.epoch)
            self._write()
        self.sync()

    def sync(self) -> None:
        """Make durable what was noted; at least once a second."""
        with self._lock:
            if self._is_synced:
                return
            if self.failure:
                self._write()
            try:
                if not self._is_begun:
                    self._begin()
                os.fdatasync(self._file)
            except OSError as error:
                self._fail(error)
            else:
                # From now on the other slot is written, and this one stays intact.
                self._is_synced = not self.failure
                self._counter += self._is_synced

    def close(self) -> None:
        """Sync, and let other processes have the file."""
        self.sync()
        with self._lock:
            if self._file >= 0:
                os.close(self._file)
                self._file = -1

    def _opened(self) -> int:
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            file = os.open(self._path, flags, 0o600)
        except OSError as error:
            raise ConfigurationError(
                f"The last-seen mark {self._path} can't be opened: {error.strerror}.",
                field="node_mark",
            ) from error
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(file)
            raise StoreLockedError(
                f"Another process uses the last-seen mark {self._path}. Give each "
                "node a file of its own."
            ) from None
        return file

    def _read(self) -> LastSeen | None:
        magic = os.pread(self._file, len(_MAGIC), 0)
        slots = [self._stored(place) for place in range(2)]
        if magic in {b"", bytes(len(_MAGIC)), _MAGIC} and not any(map(any, slots)):
            return None  # New, or nothing was ever synced.
        found = [self._decoded(place, slots[place]) for place in range(2)]
        whole = [slot for slot in found if slot is not None]
        if magic != _MAGIC or not whole:
            raise ConfigurationError(
                f"The last-seen mark {self._path} belongs to another node or cluster, "
                "or was altered. Without it, the node can't detect an older database. "
                "To start anyway, move the file away.",
                field="node_mark",
            )
        self._counter, seen = max(whole, key=lambda slot: slot[0])
        return seen

    def _stored(self, place: int) -> bytes:
        return os.pread(self._file, _SLOT, _FIRST_SLOT + place * _SLOT)

    def _decoded(self, place: int, stored: bytes) -> tuple[int, LastSeen] | None:
        if len(stored) < _HEAD.size + _MAC_BYTES:
            return None
        counter, length = _HEAD.unpack_from(stored)
        end = _HEAD.size + length
        body, mac = stored[:end], stored[end : end + _MAC_BYTES]
        if counter % 2 != place or not hmac.compare_digest(mac, self._mac(body)):
            return None
        payload = body[_HEAD.size :]
        return counter, msgspec.msgpack.decode(payload, type=LastSeen)

    def _mac(self, body: bytes) -> bytes:
        return self._mac_of(length_prefixed(self._owner, body))

    def _begin(self) -> None:
        """Write its head, and make its name durable."""
        os.pwrite(self._file, _MAGIC, 0)
        sync_folder(self._path.parent)
        self._is_begun = True

    def _write(self) -> None:
        payload = msgspec.msgpack.encode(self._seen)
        body = _HEAD.pack(self._counter, len(payload)) + payload
        stored = body + self._mac(body)
        place = _FIRST_SLOT + self._counter % 2 * _SLOT
        self._is_synced = False
        try:
            if len(stored) > _SLOT:
                raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
            os.pwrite(self._file, stored, place)
        except OSError as error:
            self._fail(error)
        else:
            self.failure = ""

    def _fail(self, error: OSError) -> None:
        self.failure = (
            f"The last-seen mark {self._path} can't be written: {error.strerror}."
        )


class OlderDatabase(msgspec.Struct, frozen=True):
    """
    Way in which a database is older than what a node has seen of it.

    Attributes:
        reason: A sentence for people.
        facts: The same for programs.
        logs: Ends, as they were seen, of the audit logs that lost records, by ID.
    """

    reason: str
    facts: Mapping[str, Fact]
    logs: Mapping[str, SeenEnd] = {}

    @property
    def losses(self) -> str:
        """Sentences that name the lost ends of audit logs, for the audit log."""
        named = "".join(
            f" Audit log {log_id} ended at record {end.seq}, {end.leaf_hash}."
            for log_id, end in sorted(self.logs.items())[:_MOST_NAMED]
        )
        more = len(self.logs) - _MOST_NAMED
        return f"{named} {more} more audit logs lost records." if more > 0 else named


def is_older(facts: Mapping[str, Fact]) -> bool:
    """
    Return whether these are facts of an `OlderDatabase`.

    Keys, approvals and the retention ledger can be older than an audit log, or it than
    them, for the same *reason*; they have none of these facts.
    """
    return not facts.keys().isdisjoint({"seen", "log_id"})


def compare(
    seen: LastSeen, revision: int, head_of: HeadOf, end_of: EndOf
) -> OlderDatabase | None:
    """
    Compare a database with what a node has seen of it; None if it lost nothing.

    Args:
        seen: What the node has seen.

        revision: Newest change of the database.

        head_of: Its feed.

        end_of: Its audit logs.
    """
    logs = {
        log_id: end
        for log_id, end in seen.logs.items()
        if _lacks(end, end_of(log_id, end.seq))
    }
    if revision < seen.revision:
        return OlderDatabase(
            f"The database is an older copy: its newest change is {revision}, and "
            f"this node has seen change {seen.revision}.",
            {"reason": "store_older", "revision": revision, "seen": seen.revision},
            logs,
        )
    if seen.revision and head_of(seen.revision) != seen.head:
        return OlderDatabase(
            "The database is a different copy: its change "
            f"{seen.revision} differs from the one that this node has seen.",
            {"reason": "store_older", "revision": revision, "seen": seen.revision},
            logs,
        )
    if logs:
        log_id, end = min(logs.items())
        return OlderDatabase(
            f"The database is an older copy: audit log {log_id} lacks record "
            f"{end.seq}, which this node has seen.",
            {"reason": "trail_older", "log_id": log_id, "seq": end.seq},
            logs,
        )
    return None


def _lacks(seen: SeenEnd, found: SeenEnd | None) -> bool:
    if found is None or found.seq < seen.seq:
        return True
    return found.seq == seen.seq and found.leaf_hash != seen.leaf_hash
