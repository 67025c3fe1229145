# SPDX-License-Identifier: MIT
"""Fault injection: a key store, use counters and an audit log that fail as planned."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace

from hsm_core.errors import (
    AuditUnavailableError,
    OutcomeUnknownError,
    StoreUnavailableError,
)
from hsm_core.model import AuditEvent, KeyId, PruneDetail
from hsm_core.protocols import (
    AuditDraft,
    AuditHead,
    AuditHealth,
    AuditLog,
    AuditTicket,
    IndexEntry,
    IndexPage,
    IndexQuery,
    KeyChange,
    KeyDigest,
    KeyStore,
    KnownKey,
    OperationMark,
    StoreAccount,
    StoredKey,
    UseCounters,
)

__all__ = ["Faults", "FaultyAuditLog", "FaultyKeyStore", "FaultyUseCounters"]


class Faults:
    """
    Planned failures of a key store, use counters and an audit log.

    A call is named ``store.<method>``, ``counters.<method>`` or ``audit.<method>``.
    """

    def __init__(self) -> None:
        self._planned: dict[str, tuple[int, int, Exception]] = {}
        self._unknown: list[bool] = []
        self._trail = AuditHealth()
        self._lock = threading.Lock()

    def plan(
        self, call: str, error: Exception, *, after: int = 0, times: int = 1
    ) -> None:
        """
        Let a call raise *error*.

        Args:
            call: Such as ``store.commit``.

            error: What to raise.

            after: How many calls still succeed.

            times: How many calls then fail.
        """
        with self._lock:
            self._planned[call] = (after, times, error)

    def plan_unknown_commit(self, *, made: bool) -> None:
        """
        Let the next commit, or the one after those planned so, end as unknown.

        The store is then unavailable until it is reopened.

        Args:
            made: Whether the change is made all the same.
        """
        with self._lock:
            self._unknown.append(made)

    def fail_trail(self, cause: str = "write") -> None:
        """Let every append fail, for a cause of `AuditHealth`, until `heal_trail`."""
        with self._lock:
            self._trail = replace(
                self._trail,
                state="failing",
                cause=cause,
                failures=self._trail.failures + 1,
            )

    def heal_trail(self) -> None:
        """Let appends succeed again."""
        with self._lock:
            if self._trail.cause:
                self._trail = replace(
                    self._trail, state="ok", cause="", resumes=self._trail.resumes + 1
                )

    @property
    def trail_health(self) -> AuditHealth:
        """What `fail_trail` and `heal_trail` have made of the trail."""
        return self._trail

    def clear(self) -> None:
        """Let everything succeed again."""
        self.heal_trail()
        with self._lock:
            self._planned.clear()
            self._unknown.clear()

    def strike(self, call: str) -> None:
        """Raise what is planned for this call, if anything."""
        with self._lock:
            after, times, error = self._planned.get(call, (0, 0, None))
            if error is None or times == 0:
                return
            if after:
                self._planned[call] = (after - 1, times, error)
                return
            self._planned[call] = (0, times - 1, error)
        raise error

    def take_unknown_commit(self) -> bool | None:
        """Return whether a commit of unknown end is made; None if none is planned."""
        with self._lock:
            return self._unknown.pop(0) if self._unknown else None


class FaultyKeyStore:
    """`KeyStore` with planned failures."""

    def __init__(self, store: KeyStore, faults: Faults) -> None:
        self._store = store
        self._faults = faults
        self._is_unsettled = False

    def _strike(self, call: str) -> None:
        if self._is_unsettled:
            raise StoreUnavailableError
        self._faults.strike(call)

    @property
    def available(self) -> bool:
        """See `KeyStore.available`."""
        return not self._is_unsettled and self._store.available

    @property
    def is_remote(self) -> bool:
        """See `KeyStore.is_remote`."""
        return self._store.is_remote

    def reopen(self) -> None:
        """See `KeyStore.reopen`."""
        self._faults.strike("store.reopen")
        self._store.reopen()
        self._is_unsettled = False

    def get(self, key_id: KeyId, /) -> StoredKey:
        """See `KeyStore.get`."""
        self._strike("store.get")
        return self._store.get(key_id)

    def get_blob(self, key_id: KeyId, version: int, /) -> bytes | None:
        """See `KeyStore.get_blob`."""
        self._strike("store.get_blob")
        return self._store.get_blob(key_id, version)

    def commit(self, change: KeyChange, /) -> None:
        """See `KeyStore.commit`."""
        self._strike("store.commit")
        made = self._faults.take_unknown_commit()
        if made is not False:
            self._store.commit(change)
        if made is not None:
            self._is_unsettled = True
            raise OutcomeUnknownError(
                "It is not known whether the change was made.",
                operation_id=change.operation_id,
            )

    def entry(self, reference: str, /) -> IndexEntry | None:
        """See `KeyStore.entry`."""
        self._strike("store.entry")
        return self._store.entry(reference)

    def find(self, query: IndexQuery, /) -> IndexPage:
        """See `KeyStore.find`."""
        self._strike("store.find")
        return self._store.find(query)

    def find_operation(self, operation_id: str, /) -> OperationMark | None:
        """See `KeyStore.find_operation`."""
        self._strike("store.find_operation")
        return self._store.find_operation(operation_id)

    def abort(self, operation_id: str, /) -> None:
        """See `KeyStore.abort`."""
        self._strike("store.abort")
        self._store.abort(operation_id)

    def scan(self) -> Iterator[StoredKey]:
        """See `KeyStore.scan`."""
        self._strike("store.scan")
        return self._store.scan()

    def digests(self, bucket: int | None = None, /) -> Iterator[KeyDigest]:
        """See `KeyStore.digests`."""
        self._strike("store.digests")
        return self._store.digests(bucket)

    def refresh(self, key_id: KeyId, /) -> IndexEntry | None:
        """See `KeyStore.refresh`."""
        self._strike("store.refresh")
        return self._store.refresh(key_id)

    def correct(self, entry: IndexEntry, /) -> None:
        """See `KeyStore.correct`."""
        self._strike("store.correct")
        self._store.correct(entry)

    def rebuild(self) -> None:
        """See `KeyStore.rebuild`."""
        self._strike("store.rebuild")
        self._store.rebuild()

    def read_account(self) -> StoreAccount | None:
        """See `KeyStore.read_account`."""
        self._strike("store.read_account")
        return self._store.read_account()

    def write_account(self, account: StoreAccount, /) -> None:
        """See `KeyStore.write_account`."""
        self._strike("store.write_account")
        self._store.write_account(account)

    def reindex(self, entries: Sequence[IndexEntry], /) -> None:
        """See `KeyStore.reindex`."""
        self._strike("store.reindex")
        self._store.reindex(entries)

    def discard_blobs(self, key_id: KeyId, versions: Sequence[int], /) -> None:
        """See `KeyStore.discard_blobs`."""
        self._strike("store.discard_blobs")
        self._store.discard_blobs(key_id, versions)

    def read_meta(self, name: str, /) -> bytes | None:
        """See `KeyStore.read_meta`."""
        self._strike("store.read_meta")
        return self._store.read_meta(name)

    def write_meta(self, name: str, value: bytes, /) -> None:
        """See `KeyStore.write_meta`."""
        self._strike("store.write_meta")
        self._store.write_meta(name, value)

    def close(self) -> None:
        """See `KeyStore.close`."""
        self._store.close()


class FaultyUseCounters:
    """`UseCounters` with planned failures."""

    def __init__(self, counters: UseCounters, faults: Faults) -> None:
        self._counters = counters
        self._faults = faults

    def get(self, material_id: str, /) -> bytes | None:
        """See `UseCounters.get`."""
        self._faults.strike("counters.get")
        return self._counters.get(material_id)

    def put(self, material_id: str, value: bytes, /) -> None:
        """See `UseCounters.put`."""
        self._faults.strike("counters.put")
        self._counters.put(material_id, value)

    def put_first(self, material_id: str, value: bytes, /) -> None:
        """See `UseCounters.put_first`; it fails as `put` does."""
        self._faults.strike("counters.put")
        self._counters.put_first(material_id, value)

    def discard(self, material_id: str, /) -> None:
        """See `UseCounters.discard`."""
        self._faults.strike("counters.discard")
        self._counters.discard(material_id)

    def material_ids(self) -> Sequence[str]:
        """See `UseCounters.material_ids`."""
        self._faults.strike("counters.material_ids")
        return self._counters.material_ids()


class FaultyAuditLog:
    """`AuditLog` with planned failures of appends and reads."""

    def __init__(self, log: AuditLog, faults: Faults) -> None:
        self._log = log
        self._faults = faults

    @property
    def log_id(self) -> str:
        """See `AuditLog.log_id`."""
        return self._log.log_id

    @property
    def available(self) -> bool:
        """See `AuditLog.available`."""
        return not self._faults.trail_health.cause and self._log.available

    @property
    def set_digest_at_open(self) -> str:
        """See `AuditLog.set_digest_at_open`."""
        return self._log.set_digest_at_open

    @property
    def health(self) -> AuditHealth:
        """See `AuditLog.health`."""
        inner, planned = self._log.health, self._faults.trail_health
        worse = planned if planned.cause else inner
        return replace(
            worse,
            failures=inner.failures + planned.failures,
            resumes=inner.resumes + planned.resumes,
        )

    @property
    def first_seq(self) -> int:
        """See `AuditLog.first_seq`."""
        return self._log.first_seq

    def baseline(self) -> Iterator[KnownKey]:
        """See `AuditLog.baseline`."""
        self._faults.strike("audit.baseline")
        return self._log.baseline()

    def prunable(self, before: int, /) -> int:
        """See `AuditLog.prunable`."""
        self._faults.strike("audit.prunable")
        return self._log.prunable(before)

    def prune(self, seq: int, policy: str, /) -> PruneDetail | None:
        """See `AuditLog.prune`."""
        self._faults.strike("audit.prune")
        if self._faults.trail_health.cause:
            raise AuditUnavailableError
        return self._log.prune(seq, policy)

    def append(
        self,
        drafts: Sequence[AuditDraft],
        /,
        *,
        durable: bool = False,
        reserved: bool = False,
        lazy: bool = False,
    ) -> AuditTicket:
        """See `AuditLog.append`."""
        self._faults.strike("audit.append")
        if self._faults.trail_health.cause:
            raise AuditUnavailableError
        for draft in drafts:
            self._faults.strike(f"audit.append.{draft.phase}")
        return self._log.append(drafts, durable=durable, reserved=reserved, lazy=lazy)

    def head(self) -> AuditHead:
        """See `AuditLog.head`."""
        return self._log.head()

    def durable_head(self) -> AuditHead:
        """See `AuditLog.durable_head`."""
        return self._log.durable_head()

    def lines(self, start_seq: int, limit: int, /) -> list[bytes]:
        """See `AuditLog.lines`."""
        self._faults.strike("audit.lines")
        return self._log.lines(start_seq, limit)

    def open_intents(self) -> list[AuditEvent]:
        """See `AuditLog.open_intents`."""
        return self._log.open_intents()

    def close(self) -> None:
        """See `AuditLog.close`."""
        self._log.close()
