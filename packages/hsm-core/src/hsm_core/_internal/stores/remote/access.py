# SPDX-License-Identifier: MIT
"""
Vault access for the stores: retries reads, and resolves lost answers.

A put whose answer got lost was done, or was not, or is still on its way. Because each
put names the tag that it expects, it can be sent again until one of them is known to be
done, or can't be done any more. Nothing that a vault returns is trusted.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final, TypeGuard, TypeVar

from hsm_core._internal.keyring.documents import MAX_DOCUMENT_BYTES
from hsm_core._internal.stores.failures import UnsettledError
from hsm_core.errors import (
    StorageFullError,
    StoreUnavailableError,
    VaultConflictError,
)
from hsm_core.protocols import ABSENT, RemoteKeyVault, VaultObject

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


class VaultAccess(RemoteKeyVault):
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
