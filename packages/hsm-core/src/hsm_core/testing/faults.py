# SPDX-License-Identifier: MIT
"""Fault injection: a key store, use counters and an audit log that fail as planned."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from hsm_core._internal.stores.guard import wrapped
from hsm_core.errors import (
    AuditUnavailableError,
    OutcomeUnknownError,
    StoreUnavailableError,
)
from hsm_core.protocols import (
    AuditDraft,
    AuditDrafts,
    AuditHealth,
    AuditLog,
    KeyChange,
    KeyStore,
    UseCounters,
    UseDraft,
)

__all__ = ["Faults", "faulty_audit_log", "faulty_key_store", "faulty_use_counters"]


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


def faulty_key_store(store: KeyStore, faults: Faults) -> KeyStore:
    """Return a `KeyStore` whose calls fail when a test has planned it."""
    is_unsettled = False

    def commit(call: Callable[[KeyChange], None], change: KeyChange) -> None:
        nonlocal is_unsettled
        made = faults.take_unknown_commit()
        if made is not False:
            call(change)
        if made is not None:
            is_unsettled = True
            raise OutcomeUnknownError(
                "It is not known whether the change was made.",
                operation_id=change.operation_id,
            )

    def around(name: str, call: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
        nonlocal is_unsettled
        if name == "available":
            return not is_unsettled and call()
        if name in {"is_remote", "close"}:
            return call()
        if is_unsettled and name != "reopen":
            raise StoreUnavailableError
        faults.strike(f"store.{name}")
        if name == "commit":
            return commit(call, *arguments)
        result = call(*arguments)
        is_unsettled = is_unsettled and name != "reopen"
        return result

    return wrapped(store, around)


def faulty_use_counters(counters: UseCounters, faults: Faults) -> UseCounters:
    """Return `UseCounters` whose calls fail when a test has planned it."""

    def around(name: str, call: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
        # A value fails as any other does, however it is stored.
        name = "put" if name in {"put_first", "replace"} else name
        faults.strike(f"counters.{name}")
        return call(*arguments)

    return wrapped(counters, around)


def faulty_audit_log(log: AuditLog, faults: Faults) -> AuditLog:
    """Return an `AuditLog` whose appends and reads fail when a test has planned it."""

    def around(name: str, call: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
        planned = faults.trail_health
        if name == "available":
            return not planned.cause and call()
        if name == "health":
            inner: AuditHealth = call()
            return replace(
                planned if planned.cause else inner,
                failures=inner.failures + planned.failures,
                resumes=inner.resumes + planned.resumes,
            )
        if name in {"append", "baseline", "lines", "prunable", "prune"}:
            faults.strike(f"audit.{name}")
        if name in {"append", "prune"} and planned.cause:
            raise AuditUnavailableError
        if name == "append":
            arguments = (_struck(arguments[0], faults), *arguments[1:])
        return call(*arguments)

    return wrapped(log, around)


def _struck(drafts: AuditDrafts, faults: Faults) -> AuditDrafts:
    """Return the same drafts; raises what is planned for one, now or when called."""
    if callable(drafts):
        return lambda: _each_struck(drafts(), faults)
    return _each_struck(drafts, faults)


def _each_struck(
    drafts: Sequence[AuditDraft | UseDraft], faults: Faults
) -> Sequence[AuditDraft | UseDraft]:
    for draft in drafts:
        faults.strike(f"audit.append.{draft.phase}")
    return drafts
