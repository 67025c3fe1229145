# SPDX-License-Identifier: MIT
"""Records in memory, and the stores over them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from hsm_core._internal.keyring.documents import MAX_DOCUMENT_BYTES
from hsm_core._internal.stores.approvals import RecordApprovalStore
from hsm_core._internal.stores.index import KeyIndex
from hsm_core._internal.stores.keys import RecordKeyStore, RecordUseCounters
from hsm_core._internal.stores.records import KEYS, Commit, Records
from hsm_core.errors import ConflictError, StoreUnavailableError
from hsm_core.protocols import ApprovalEntry


class MemoryRecords(Records):
    """
    Records in a dictionary, under one lock.

    Args:
        what: What they are, for errors.

        found: Records that are there.
    """

    def __init__(self, what: str, found: dict[str, bytes] | None = None) -> None:
        self._what = what
        self._found = {} if found is None else found
        self._lock = threading.RLock()
        self._is_closed = False

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {len(self._found)}>"

    def check_usable(self) -> None:
        """See `Records.check_usable`."""
        if self._is_closed:
            raise StoreUnavailableError(f"The {self._what} is closed.")

    @contextmanager
    def writing(self) -> Iterator[None]:
        """See `Records.writing`."""
        with self._lock:
            self.check_usable()
            yield

    def read(self, name: str, /, most: int = MAX_DOCUMENT_BYTES) -> bytes | None:
        """See `Records.read`."""
        self.check_usable()
        return self._found.get(name)

    def ids(self, folder: str, /) -> list[str]:
        """See `Records.ids`."""
        with self.writing():
            names = [name for name in self._found if name.startswith(folder)]
        if folder == KEYS:
            names = [name for name in names if name.endswith("/document")]
        return [name.split("/")[1] for name in names]

    def commit(self, commit: Commit, /) -> None:
        """See `Records.commit`."""
        with self.writing():
            self.check_tenure(commit)
            commit.check()
            self.put_blobs(commit)
            self._found[commit.name] = commit.data
            commit.made()
            for name in commit.after:
                self._found.pop(name, None)

    def put_blobs(self, commit: Commit) -> None:
        """Add the blobs of a change, of which none may be there."""
        for name in commit.before:
            if name in self._found:
                raise ConflictError("A sealed blob is immutable and can't be replaced.")
        self._found.update(commit.before)

    def put(
        self,
        name: str,
        data: bytes,
        /,
        *,
        is_first: bool = False,
        entry: ApprovalEntry | None = None,
        made: Callable[[], None] = lambda: None,
    ) -> None:
        """See `Records.put`."""
        with self.writing():
            self._found[name] = data
            made()

    def delete(
        self, names: Sequence[str], /, gone: Callable[[str], None] = lambda name: None
    ) -> None:
        """See `Records.delete`."""
        with self.writing():
            for name in names:
                if self._found.pop(name, None) is not None:
                    gone(name)

    def reopen(
        self,
        again: Callable[[str, bytes | None], None],
        every: Callable[[], None] = lambda: None,
        /,
    ) -> None:
        """Do nothing: no write fails here."""
        self.check_usable()

    def close(self) -> None:
        """Keep the records, but refuse further calls."""
        with self._lock:
            self._is_closed = True


class MemoryKeyStore(RecordKeyStore):
    """Key store in memory."""

    def __init__(self) -> None:
        super().__init__(MemoryRecords("key store"), KeyIndex())


class MemoryUseCounters(RecordUseCounters):
    """Use counters in memory."""

    def __init__(self) -> None:
        super().__init__(MemoryRecords("use counters"))


class MemoryApprovalStore(RecordApprovalStore):
    """Approval store in memory."""

    def __init__(self) -> None:
        super().__init__(MemoryRecords("approval store"))
