# SPDX-License-Identifier: MIT
"""
Record store: named byte strings on one medium, and the one shape of their changes.

::

    keys/<key id>/document     the document of a key
    keys/<key id>/vNNNNNNNN    the sealed blobs of its versions
    uses/<material id>         how often a key's material was used
    aborted/<operation id>     operations that may not commit any more
    meta/<name>                small values, such as the sealed key ring
    approvals/<approval id>    approvals

A medium says where a record of a name lies. Key store, use counters and approvals are
written once, over any medium. Nothing that a medium returns is trusted.
"""

from __future__ import annotations

import re
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Final

import msgspec

from hsm_core._internal.keyring.documents import MAX_DOCUMENT_BYTES, is_key_id, peek
from hsm_core.errors import (
    IntegrityError,
    InvalidInputError,
    OutcomeUnknownError,
    StoreUnavailableError,
)
from hsm_core.model import KeyId
from hsm_core.protocols import AccountChange, ApprovalEntry, KeyChange, StoreAccount


class UnsettledError(StoreUnavailableError):
    """
    A change was made, or may have been, or may be later; it is known after `reopen`.

    A later sync of what was written before must not be trusted.
    """


class DamagedRecordError(IntegrityError):
    """What lies in the place of a record is none, or longer than any."""


_OPERATION_ID: Final = re.compile(r"[0-9a-z][0-9a-z-]{0,63}")
_META_NAME: Final = re.compile(r"[a-z][a-z0-9._-]{0,63}")
_LAST_VERSION: Final = 99_999_999


def check_material_id(material_id: str) -> None:
    """
    Check the id of a material.

    Raises:
        InvalidInputError: It is not a UUID in lower-case canonical form.
    """
    if not is_key_id(material_id):
        raise InvalidInputError("material_id has an invalid form.")


def check_operation_id(operation_id: str) -> None:
    """
    Check an operation id.

    Raises:
        InvalidInputError: It is not 1 to 64 lower-case letters, digits and hyphens.
    """
    if not _OPERATION_ID.fullmatch(operation_id):
        raise InvalidInputError("operation_id has an invalid form.")


def check_meta_name(name: str) -> None:
    """
    Check the name of a small value.

    Raises:
        InvalidInputError: It is not 1 to 64 lower-case letters, digits, dots, hyphens
            and underscores, a letter first.
    """
    if not _META_NAME.fullmatch(name):
        raise InvalidInputError("name has an invalid form.")


def check_change(change: KeyChange) -> None:
    """
    Check every name in a change.

    Raises:
        InvalidInputError: A key id, operation id or version can't be one.
    """
    check_operation_id(change.operation_id)
    check_versions(change.entry.key_id, (*change.blobs, *change.removed_blobs))


def check_versions(key_id: str, versions: Iterable[int]) -> None:
    """
    Check the names of the sealed blobs of a key.

    Raises:
        InvalidInputError: The key id or a version can't be one.
    """
    if not is_key_id(key_id):
        raise InvalidInputError("key_id must be a UUID in lower-case canonical form.")
    for version in versions:
        if not 1 <= version <= _LAST_VERSION:
            raise InvalidInputError(f"version must be between 1 and {_LAST_VERSION}.")


KEYS: Final = "keys/"
USES: Final = "uses/"
ABORTED: Final = "aborted/"
META: Final = "meta/"
APPROVALS: Final = "approvals/"
DOCUMENT: Final = "document"


def document_name(key_id: KeyId) -> str:
    """Return the name of a key's document."""
    return f"{KEYS}{key_id}/{DOCUMENT}"


def blob_name(key_id: KeyId, version: int) -> str:
    """Return the name of the sealed blob of a version."""
    return f"{KEYS}{key_id}/v{version:08d}"


def key_of(name: str) -> KeyId:
    """Return the key of a document or blob."""
    return KeyId(name.split("/")[1])


def version_of(name: str) -> int:
    """Return the version of a sealed blob."""
    return int(name.rpartition("/v")[2])


def names_blob(name: str, document: bytes | None) -> bool:
    """Return whether a key's document names a blob, or can't be read."""
    if document is None:
        return False
    known = peek(key_of(name), document)
    if known is None:
        return True
    version = known.version(version_of(name))
    return version is not None and bool(version.blob_sha256)


def _nothing() -> None:
    """Do nothing."""


def _no_name(name: str) -> None:
    """Do nothing."""


class Commit(msgspec.Struct, frozen=True, kw_only=True):
    """
    A change of a key: immutable records, the one that decides, and deletes.

    Attributes:
        name: The document; its replacement is the commit point.
        data: Its new content.
        expected_generation: Of the document that it replaces; 0 for a new key.
        tenure: That of the records when the change was prepared; a change of an earlier
            one is refused.
        expected: Returns the SHA-256 of the document that it replaces, hex; empty for a
            new key.
        counted: The same as the nodes of a cluster count it, whatever the index says.
        before: Sealed blobs that no document names yet; written first.
        after: Names of sealed blobs that the new document names no more; deleted last.
        account: Returns what a medium with transactions keeps with the document; see
            `KeyChange.account`.
        generation: Of the new document.
        operation_id: For a medium that several nodes write; empty if there is none.
        check: Raises if the change may not be made; called while nobody else writes. A
            medium that compares generation, operation id and name itself calls it only
            where they are not as expected.
        made: Called once the change is made.
    """

    name: str
    data: bytes
    expected_generation: int
    tenure: int
    expected: Callable[[], str]
    counted: str = ""
    before: Mapping[str, bytes] = msgspec.field(default_factory=dict)
    after: Sequence[str] = ()
    account: Callable[[], AccountChange] | None = None
    generation: int = 0
    operation_id: str = ""
    check: Callable[[], None] = _nothing
    made: Callable[[], None] = _nothing


class Reload:
    """
    Whether others may have changed everything, so that all must be read again.

    It is true from the request until a reading has succeeded, but for the thread that
    reads: as long, nobody else is answered.

    Attributes:
        is_due: Whether it was requested, and no reading has succeeded yet.
    """

    def __init__(self) -> None:
        self.is_due = False
        self._reader = 0

    def __bool__(self) -> bool:
        return self.is_due and self._reader != threading.get_ident()

    @property
    def is_running(self) -> bool:
        """Whether this thread reads all again."""
        return self._reader == threading.get_ident()

    def request(self) -> None:
        """Note that others may have changed everything."""
        self.is_due = True

    def run(self, every: Callable[[], None]) -> None:
        """
        Read all again, if that was requested; what fails is due still.

        Args:
            every: Reads all.
        """
        if not self.is_due:
            return
        self._reader = threading.get_ident()
        try:
            every()
        finally:
            self._reader = 0
        self.is_due = False


class Records(ABC):
    """
    Records of one medium. Safe for many threads; other processes are locked out.

    Where a failed write leaves nobody sure of what is stored, every method but `reopen`
    and `close` raises, until `reopen` has succeeded.
    """

    is_remote = False
    """Whether each read is a request, and lists may lag behind."""

    @property
    def tenure(self) -> int:
        """
        Number of the lease that this process writes under.

        It is 0 where a lock of the operating system keeps other processes out.
        """
        return 0

    def check_tenure(self, commit: Commit) -> None:
        """
        Check that a change was prepared in the tenure that goes on.

        Raises:
            StoreUnavailableError: Others may have written since.
        """
        if commit.tenure != self.tenure:
            raise StoreUnavailableError("The writer lease changed; try again.")

    @property
    def available(self) -> bool:
        """Whether it can be read and written, as far as is known."""
        try:
            self.check_usable()
        except StoreUnavailableError:
            return False
        return True

    @abstractmethod
    def check_usable(self) -> None:
        """
        Check that it can be used.

        Raises:
            StoreUnavailableError: It is closed, or a write has failed.
        """

    @abstractmethod
    def writing(self) -> AbstractContextManager[None]:
        """
        Let one thread change records in a ``with`` block; one transaction, if there is.

        Use counters may change meanwhile.

        Raises:
            UnsettledError: A transaction may have been made.
            StoreUnavailableError: It can't be written now; nothing was changed.
        """

    @abstractmethod
    def read(self, name: str, /, most: int = MAX_DOCUMENT_BYTES) -> bytes | None:
        """
        Return a record, or None if there is none.

        Args:
            name: Of a valid form.

            most: Longest record, in bytes.

        Raises:
            DamagedRecordError: Something else lies there.
            StoreUnavailableError: It can't be read now.
        """

    def stored(self, name: str, /, most: int = MAX_DOCUMENT_BYTES) -> bytes | None:
        """Return a record; empty where something else lies there."""
        try:
            return self.read(name, most)
        except DamagedRecordError:
            return b""

    @abstractmethod
    def ids(self, folder: str, /) -> Iterable[str]:
        """Return what stands behind a folder in names: ids, and whatever lies there."""

    def read_documents(
        self, key_ids: Iterable[KeyId], /, *, again: bool = False
    ) -> Iterator[tuple[KeyId, bytes | None]]:
        """
        Return documents of keys, in this order; None if there is nothing of a key.

        Args:
            key_ids: Of the keys.

            again: Whether these are what later commits replace.
        """
        for key_id in key_ids:
            self.check_usable()
            yield key_id, self.read_again(document_name(key_id))

    def read_again(self, name: str, /) -> bytes | None:
        """Return a document as `stored` does; no earlier write may arrive after it."""
        return self.stored(name)

    @abstractmethod
    def commit(self, commit: Commit, /) -> None:
        """
        Change a key.

        Raises:
            GenerationConflictError: The document is not the expected one.
            ConflictError: A blob of this name is there, and named by the document.
            UnsettledError: The document may have been replaced.
            StorageFullError: There is no room; the document is as it was.
            StoreUnavailableError: The document is as it was.
        """

    def stage(  # noqa: B027 (most media have nothing to stage)
        self, name: str, data: bytes, before: Mapping[str, bytes], /
    ) -> None:
        """
        Write a new document and its blobs ahead of their commit, without a name.

        A medium that commits in one step does nothing.

        Args:
            name: Of the document.

            data: Its content.

            before: Its blobs, by their names.

        Raises:
            StorageFullError: There is no room.
            StoreUnavailableError: It can't be written.
        """

    def discard_staged(self, name: str, /) -> None:  # noqa: B027 (nothing staged)
        """Remove what was written ahead and not committed; a failure leaves it."""

    @abstractmethod
    def put(
        self,
        name: str,
        data: bytes,
        /,
        *,
        is_first: bool = False,
        entry: ApprovalEntry | None = None,
        made: Callable[[], None] = _nothing,
    ) -> None:
        """
        Create or replace one record, durably.

        Args:
            name: Of a valid form.

            data: All of its content.

            is_first: There is no record of this name; it need not be durable before the
                next commit.

            entry: Facts of an approval, for a medium with columns.

            made: Called once it is there; if that is interrupted, it is unsettled.

        Raises:
            UnsettledError: It may have been replaced.
            StorageFullError: There is no room; it is as it was.
            StoreUnavailableError: It is as it was.
        """

    @abstractmethod
    def delete(
        self, names: Sequence[str], /, gone: Callable[[str], None] = _no_name
    ) -> None:
        """
        Delete records, durably, where they are there.

        Args:
            names: Of one folder.

            gone: Called for each that was deleted.

        Raises:
            UnsettledError: Some are gone, perhaps not durably.
            StoreUnavailableError: One is still there.
        """

    def read_account(self) -> StoreAccount | None:
        """Return the account; None where none is kept."""
        self.check_usable()
        return None

    def write_account(self, account: StoreAccount, /) -> None:
        """Replace the account, where one is kept."""
        self.check_usable()

    @abstractmethod
    def reopen(
        self,
        again: Callable[[str, bytes | None], None],
        every: Callable[[], None] = _nothing,
        /,
    ) -> None:
        """
        After a failed write: make durable what is there, and go on.

        Args:
            again: Called with each record that may have changed.

            every: Called if any may have.

        Raises:
            StoreUnavailableError: It still can't be; to be tried again later.
        """

    @abstractmethod
    def close(self) -> None:
        """Let other processes have it; later calls raise StoreUnavailableError."""


@contextmanager
def unknown_outcome(**facts: str) -> Iterator[None]:
    """
    Report an unsettled change with what tells it apart.

    Raises:
        OutcomeUnknownError: The block raised an `UnsettledError`.
    """
    try:
        yield
    except UnsettledError as error:
        raise OutcomeUnknownError(
            "The outcome of the change is unknown; reopen the store.", **facts
        ) from error
