# SPDX-License-Identifier: MIT
"""
Guard around any key store and its use counters: translates foreign exceptions.

An exception of a store that is not an `HSMError` becomes a `StoreUnavailableError`.
After such a failure of a commit its outcome is unknown.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Generic, Protocol, TypeVar

from hsm_core.errors import HSMError, OutcomeUnknownError, StoreUnavailableError
from hsm_core.model import KeyId
from hsm_core.protocols import (
    IndexEntry,
    IndexPage,
    IndexQuery,
    KeyChange,
    KeyDigest,
    KeyStore,
    OperationMark,
    StoreAccount,
    StoredKey,
    UseCounters,
)


@contextmanager
def guarded() -> Iterator[None]:
    """
    Translate foreign exceptions of a block.

    Raises:
        StoreUnavailableError: The block raised something that is no `HSMError`.
    """
    try:
        yield
    except HSMError:
        raise
    except Exception as error:
        raise StoreUnavailableError from error


@contextmanager
def guarded_commit(**facts: str) -> Iterator[None]:
    """
    Translate foreign exceptions of a commit.

    Args:
        facts: Which change it is.

    Raises:
        OutcomeUnknownError: The block raised something that is no `HSMError`.
    """
    try:
        yield
    except HSMError:
        raise
    except Exception as error:
        raise OutcomeUnknownError(
            "The outcome of the change is unknown.", **facts
        ) from error


class _Store(Protocol):
    @property
    def available(self) -> bool: ...

    def reopen(self) -> None: ...

    def close(self) -> None: ...


S = TypeVar("S", bound=_Store)


class Guarded(Generic[S]):
    """
    Another store, with its foreign exceptions turned into ours.

    Args:
        inner: The store that does the work.
    """

    def __init__(self, inner: S) -> None:
        self._inner = inner

    @property
    def inner(self) -> S:
        """The store that does the work."""
        return self._inner

    def __repr__(self) -> str:
        return f"<{type(self).__name__} over {self._inner!r}>"

    @property
    def available(self) -> bool:
        """Whether it is usable; a store that fails to answer is not."""
        try:
            return self._inner.available
        except Exception:
            return False

    def reopen(self) -> None:
        """After a failed write: make durable what is there."""
        with guarded():
            self._inner.reopen()

    def close(self) -> None:
        """Release its resources."""
        with guarded():
            self._inner.close()


class GuardedKeyStore(Guarded[KeyStore], KeyStore):
    """Another key store, with its foreign exceptions turned into ours."""

    @property
    def is_remote(self) -> bool:
        """See `KeyStore.is_remote`; a store that does not tell is none."""
        return getattr(self._inner, "is_remote", False) is True

    def get(self, key_id: KeyId, /) -> StoredKey:
        """See `KeyStore.get`."""
        with guarded():
            return self._inner.get(key_id)

    def get_blob(self, key_id: KeyId, version: int, /) -> bytes | None:
        """See `KeyStore.get_blob`."""
        with guarded():
            return self._inner.get_blob(key_id, version)

    def commit(self, change: KeyChange, /) -> None:
        """See `KeyStore.commit`."""
        with guarded_commit(operation_id=change.operation_id):
            self._inner.commit(change)

    def entry(self, reference: str, /) -> IndexEntry | None:
        """See `KeyStore.entry`."""
        # Written out: every request looks here, and a context manager costs as much.
        try:
            return self._inner.entry(reference)
        except HSMError:
            raise
        except Exception as error:
            raise StoreUnavailableError from error

    def find(self, query: IndexQuery, /) -> IndexPage:
        """See `KeyStore.find`."""
        with guarded():
            return self._inner.find(query)

    def find_operation(self, operation_id: str, /) -> OperationMark | None:
        """See `KeyStore.find_operation`."""
        with guarded():
            return self._inner.find_operation(operation_id)

    def abort(self, operation_id: str, /) -> None:
        """See `KeyStore.abort`."""
        with guarded():
            self._inner.abort(operation_id)

    def scan(self) -> Iterator[StoredKey]:
        """See `KeyStore.scan`."""
        with guarded():
            # What the consumer raises never passes here: only the store's next() does.
            yield from self._inner.scan()

    def digests(self, bucket: int | None = None, /) -> Iterator[KeyDigest]:
        """See `KeyStore.digests`."""
        with guarded():
            yield from self._inner.digests(bucket)

    def refresh(self, key_id: KeyId, /) -> IndexEntry | None:
        """See `KeyStore.refresh`."""
        with guarded():
            return self._inner.refresh(key_id)

    def correct(self, entry: IndexEntry, /) -> None:
        """See `KeyStore.correct`."""
        with guarded():
            self._inner.correct(entry)

    def rebuild(self) -> None:
        """See `KeyStore.rebuild`."""
        with guarded():
            self._inner.rebuild()

    def read_account(self) -> StoreAccount | None:
        """See `KeyStore.read_account`."""
        with guarded():
            return self._inner.read_account()

    def write_account(self, account: StoreAccount, /) -> None:
        """See `KeyStore.write_account`."""
        with guarded():
            self._inner.write_account(account)

    def reindex(self, entries: Sequence[IndexEntry], /) -> None:
        """See `KeyStore.reindex`."""
        with guarded():
            self._inner.reindex(entries)

    def discard_blobs(self, key_id: KeyId, versions: Sequence[int], /) -> None:
        """See `KeyStore.discard_blobs`."""
        with guarded():
            self._inner.discard_blobs(key_id, versions)

    def read_meta(self, name: str, /) -> bytes | None:
        """See `KeyStore.read_meta`."""
        with guarded():
            return self._inner.read_meta(name)

    def write_meta(self, name: str, value: bytes, /) -> None:
        """See `KeyStore.write_meta`."""
        with guarded():
            self._inner.write_meta(name, value)


class GuardedUseCounters(UseCounters):
    """
    Other counters, with their foreign exceptions turned into ours.

    Args:
        inner: The counters that do the work.
    """

    def __init__(self, inner: UseCounters) -> None:
        self._inner = inner

    def __repr__(self) -> str:
        return f"<GuardedUseCounters over {self._inner!r}>"

    def get(self, material_id: str, /) -> bytes | None:
        """See `UseCounters.get`."""
        with guarded():
            return self._inner.get(material_id)

    def put(self, material_id: str, value: bytes, /) -> None:
        """See `UseCounters.put`."""
        with guarded():
            self._inner.put(material_id, value)

    def put_first(self, material_id: str, value: bytes, /) -> None:
        """See `UseCounters.put_first`."""
        with guarded():
            self._inner.put_first(material_id, value)

    def discard(self, material_id: str, /) -> None:
        """See `UseCounters.discard`."""
        with guarded():
            self._inner.discard(material_id)

    def material_ids(self) -> Sequence[str]:
        """See `UseCounters.material_ids`."""
        with guarded():
            return self._inner.material_ids()
