# SPDX-License-Identifier: MIT
"""
Objects of a vault for the stores: retried reads, resolved lost answers, fences.

A put whose answer got lost was done, or was not, or is still on its way. Because each
put names the tag that it expects, it can be sent again until one of them is known to be
done, or can't be done any more.

A document lies in a frame that tells which tenure wrote it, and has a random token. So
rewriting the same document changes the object's tag, and every put still in flight is
refused when it arrives: the object is *fenced*. Where there is no document, a frame
around nothing does the same for a key that somebody is still making.

Nothing that a vault returns is trusted; who forges a frame can only cause refusals.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import islice
from typing import Final, TypeGuard, TypeVar

import msgspec

from hsm_core._internal.keyring.documents import MAX_DOCUMENT_BYTES
from hsm_core._internal.stores.records import UnsettledError, document_name
from hsm_core.errors import StorageFullError, StoreUnavailableError, VaultConflictError
from hsm_core.model import KeyId
from hsm_core.protocols import ABSENT, Entropy, RemoteKeyVault, VaultObject

MAX_OBJECT_BYTES: Final = MAX_DOCUMENT_BYTES + 1024
"""Longest object that is read or written: a document in its frame."""

_PAUSES: Final = (0.05, 0.2, 0.5)
_PATIENCE: Final = 4.0
"""After so many seconds of failures nothing is tried once more."""

_PAGE: Final = 1000

R = TypeVar("R")


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except (StoreUnavailableError, VaultConflictError):
        raise
    except Exception as error:
        raise StoreUnavailableError(
            f"The vault failed ({type(error).__name__})."
        ) from error


class CheckedVault(RemoteKeyVault):
    """
    Vault wrapper that passes only documented errors and valid answers.

    Args:
        inner: The vault; it is closed with this one.
    """

    def __init__(self, inner: RemoteKeyVault) -> None:
        self._inner = inner

    def __repr__(self) -> str:
        return repr(self._inner)

    def get(self, name: str, /) -> VaultObject | None:
        """Return an object; one that is too long for us has no bytes."""
        found: object = _again(lambda: self._inner.get(name))
        if found is None:
            return None
        if not _is_object(found):
            raise StoreUnavailableError("The vault returned a malformed object.")
        is_long = len(found.data) > MAX_OBJECT_BYTES
        return VaultObject(b"", found.tag) if is_long else found

    def put(self, name: str, data: bytes, /, *, expected: str | None = None) -> str:
        """Put an object once, whatever comes of it."""
        with _translated():
            tag: object = self._inner.put(name, data, expected=expected)
        if not isinstance(tag, str) or not tag:
            raise StoreUnavailableError("The vault returned an object without a tag.")
        return tag

    def put_surely(self, name: str, data: bytes, /, *, expected: str) -> str:
        """
        Put an object, and check the outcome if the answer got lost.

        Args:
            name: Its name.

            data: If the object has these bytes already, they pass for put.

            expected: The tag that it must have now, or `ABSENT`.

        Returns:
            The new tag.

        Raises:
            VaultConflictError: It has another tag, and was not put.
            StorageFullError: There is no room; it was not put.
            UnsettledError: It may have been put, or may be later.
        """
        until, last = time.monotonic() + _PATIENCE, None
        for pause in (*_PAUSES, None):
            try:
                return self.put(name, data, expected=expected)
            except (StoreUnavailableError, VaultConflictError) as error:
                if isinstance(error, StorageFullError) and last is None:
                    raise
                last = error
            try:
                found = self.get(name)
            except StoreUnavailableError as error:
                last = error
            else:
                if found is not None and found.data == data:
                    return found.tag
                if (ABSENT if found is None else found.tag) != expected:
                    raise VaultConflictError from last
            if pause is None or time.monotonic() > until:
                break
            time.sleep(pause)
        raise UnsettledError from last

    def replace(self, name: str, data: bytes, /) -> str:
        """
        Put an object whatever is there, so that no earlier put of ours can undo it.

        Raises:
            StorageFullError: There is no room; it was not put.
            StoreUnavailableError: It may have been put, or may be later.
        """
        found = self.get(name)
        return self.put_surely(
            name, data, expected=ABSENT if found is None else found.tag
        )

    def list(self, prefix: str, /, *, after: str = "", limit: int = 1000) -> list[str]:
        """Return names that begin with *prefix*, ascending, and nothing else."""
        return [*self._page(prefix, after, limit)[0]]

    def list_all(self, prefix: str, /) -> Iterator[str]:
        """
        Return all names that begin with *prefix*, ascending, page by page.

        Raises:
            StoreUnavailableError: They can't be read, or the pages don't go on.
        """
        after, is_last = "", False
        while not is_last:
            names, is_last = self._page(prefix, after, _PAGE)
            if not is_last and (not names or names[0] <= after):
                raise StoreUnavailableError(
                    "The vault returned the same page of names twice."
                )
            yield from names
            after = names[-1] if names else after

    def _page(self, prefix: str, after: str, limit: int) -> tuple[Sequence[str], bool]:
        listed: list[object] = list(
            _again(lambda: [*self._inner.list(prefix, after=after, limit=limit)])
        )
        names = {n for n in listed if isinstance(n, str) and n.startswith(prefix)}
        return sorted(names), len(listed) < limit

    def delete(self, name: str, /) -> None:
        """Delete an object, if there is one."""
        _again(lambda: self._inner.delete(name))

    def close(self) -> None:
        """Release connections; failures are ignored."""
        with _translated():
            self._inner.close()


def _is_object(found: object) -> TypeGuard[VaultObject]:
    if not isinstance(found, VaultObject):
        return False
    data: object = found.data
    tag: object = found.tag
    return isinstance(data, bytes) and isinstance(tag, str) and tag != ""


def _again(call: Callable[[], R]) -> R:
    """Make an idempotent call, and retry it on failure."""
    until = time.monotonic() + _PATIENCE
    for pause in _PAUSES:
        try:
            with _translated():
                return call()
        except StoreUnavailableError:
            if time.monotonic() > until:
                raise
        time.sleep(pause)
    with _translated():
        return call()


_FRAME: Final = re.compile(rb"ferrohsm-document 1 ([0-9]{1,18}) [0-9a-f]{32}\n")
_TOKEN_BYTES: Final = 16
_FENCE_TRIES: Final = 8
_READERS: Final = 8
_BATCH: Final = 64


class FoundDocument(msgspec.Struct, frozen=True):
    """
    What lies in the vault for a key's document.

    Attributes:
        document: Not trusted; None if there is none.
        tag: Of the object, or `ABSENT`.
        epoch: Of the tenure that wrote it, as the object says; 0 where there is none,
            and None in an object that no store has written.
    """

    document: bytes | None
    tag: str
    epoch: int | None


class RemoteDocuments:
    """
    Documents by key.

    Args:
        vault: Where they lie.

        entropy: Source of the tokens.
    """

    def __init__(self, vault: CheckedVault, entropy: Entropy) -> None:
        self._vault = vault
        self._entropy = entropy

    def read(self, key_id: KeyId) -> FoundDocument:
        """Return what lies there now."""
        found = self._vault.get(document_name(key_id))
        if found is None:
            return FoundDocument(None, ABSENT, 0)
        frame = _FRAME.match(found.data)
        if frame is None:
            return FoundDocument(found.data, found.tag, None)
        document = found.data[frame.end() :]
        return FoundDocument(document or None, found.tag, int(frame[1]))

    def read_many(
        self, key_ids: Iterable[KeyId]
    ) -> Iterator[tuple[KeyId, FoundDocument]]:
        """Return what lies there for many keys, in their order."""
        remaining = iter(key_ids)
        with ThreadPoolExecutor(_READERS, "hsm-core-vault") as pool:
            while batch := list(islice(remaining, _BATCH)):
                yield from zip(batch, pool.map(self.read, batch), strict=True)

    def write(self, key_id: KeyId, document: bytes, *, tag: str, epoch: int) -> str:
        """
        Replace a document, and return the new tag.

        Args:
            key_id: Its key.

            document: May be empty, which is none.

            tag: What the object must have now, or `ABSENT`.

            epoch: Of the tenure that writes.

        Raises:
            VaultConflictError: It has another tag; nothing was written.
            StorageFullError: There is no room; nothing was written.
            UnsettledError: It may have been written, or may be later.
        """
        token = self._entropy.random_bytes(_TOKEN_BYTES).hex()
        frame = f"ferrohsm-document 1 {epoch} {token}\n".encode()
        return self._vault.put_surely(
            document_name(key_id), frame + document, expected=tag
        )

    def fence(self, key_id: KeyId, *, epoch: int) -> FoundDocument:
        """
        Return what lies there, after no earlier write can arrive any more.

        An object that no store has written stays as it is: no write expects it.

        Raises:
            StoreUnavailableError: That could not be brought about.
        """
        for _ in range(_FENCE_TRIES):
            found = self.read(key_id)
            if found.epoch is None:
                return found
            document = found.document or b""
            try:
                tag = self.write(key_id, document, tag=found.tag, epoch=epoch)
            except VaultConflictError:
                continue
            return FoundDocument(found.document, tag, epoch)
        raise StoreUnavailableError(
            f"The document of {key_id} keeps changing; try again."
        )
