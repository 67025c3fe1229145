# SPDX-License-Identifier: MIT
"""Authenticated reads of approvals from an untrusted store."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator
from typing import Final

from hsm_core._internal.approvals.records import (
    decode_approval,
    entry_of,
    latest_instant,
)
from hsm_core._internal.approvals.requests import is_approval_id
from hsm_core._internal.approvals.witness import Unwitnessed, Witness
from hsm_core._internal.lib.locks import Locks
from hsm_core._internal.time.monotonic import SteadyTime
from hsm_core.errors import ApprovalNotFoundError, ApprovalTamperedError
from hsm_core.model import Approval, ApprovalState
from hsm_core.protocols import ApprovalEntry, ApprovalQuery, ApprovalStore, Clock

_NEWEST: Final = 256
_PAGE: Final = 1000
_MOMENT_SECONDS: Final = 0.05


class ApprovalReader:
    """
    Reader of stored approvals, each authenticated. Thread-safe.

    Args:
        store: Where they lie; not trusted.

        mac_of: MAC of a payload, 32 bytes; `KeyRing.approval_mac`.

        clock: The wall clock and the monotonic one.

        floor: Latest instant known otherwise, such as that of the last record of the
            trail; microseconds since 1970. It is never earlier than that, nor than
            what happened to the newest approvals.

    Raises:
        StoreUnavailableError: The store can't be read.

    Attributes:
        store: As given.
        witness: Observes every change and knows the last written state.
        time: By which everything is judged.
        opened_at: When it was made, by that time.
    """

    def __init__(
        self,
        store: ApprovalStore,
        mac_of: Callable[[bytes], bytes],
        clock: Clock,
        *,
        floor: int = 0,
    ) -> None:
        self.store = store
        self.time = SteadyTime(clock, floor)
        self.witness: Witness = Unwitnessed()
        self._mac_of = mac_of
        self._locks = Locks()
        self._tampered: set[str] = set()
        for entry in store.find(ApprovalQuery(limit=_NEWEST)):
            self.believed(entry.approval_id)
        self.opened_at = self.time.now()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} over {self.store!r}>"

    @property
    def tampered(self) -> frozenset[str]:
        """Ids of the records met so far, or by the last check, not to be believed."""
        return frozenset(self._tampered)

    def read(self, approval_id: str) -> Approval:
        """
        Return an approval as it is stored, though its time may have come.

        Raises:
            ApprovalNotFoundError: There is none of this id.
            ApprovalTamperedError: What lies there is not what was written.
            StoreUnavailableError: It can't be read.
        """
        stored = self.store.get(approval_id) if is_approval_id(approval_id) else None
        if stored is None:
            raise ApprovalNotFoundError
        try:
            approval = decode_approval(approval_id, stored, self._mac_of)
            self.witness.vouch(approval, stored)
        except ApprovalTamperedError:
            self._tampered.add(approval_id)
            self.witness.tell(approval_id, "edited")
            raise
        self.time.seen(latest_instant(approval))
        return approval

    def believed(self, approval_id: str) -> Approval | None:
        """Return what `read` returns, or None where it isn't found or tampered with."""
        try:
            with self._locks.held(approval_id):
                return self.read(approval_id)
        except (ApprovalTamperedError, ApprovalNotFoundError):
            return None

    def entries(
        self, states: frozenset[ApprovalState] = frozenset()
    ) -> Iterator[ApprovalEntry]:
        """
        Give the index facts of all approvals in these states, newest first.

        Raises:
            StoreUnavailableError: The store can't be read.
        """
        query = ApprovalQuery(states=states, limit=_PAGE)
        while entries := self.store.find(query):
            yield from entries
            query = dataclasses.replace(query, after=place_of(entries[-1]))

    def check(self) -> tuple[str, ...]:
        """
        Authenticate every record, and compare the index with them.

        Returns:
            Ids of the approvals that can't be believed.

        Raises:
            StoreUnavailableError: The store can't be read.
        """
        self._tampered.clear()
        doubtful = self._disagreeing()
        if doubtful:
            # What is being changed agrees in a moment, and is then not what it was.
            time.sleep(_MOMENT_SECONDS)
            again = self._disagreeing()
            same = [name for name in doubtful if doubtful[name] == again.get(name)]
            self._tampered.update(same)
        return tuple(sorted(self._tampered))

    def _disagreeing(self) -> dict[str, tuple[Approval, ApprovalEntry | None]]:
        unlisted = set(self.store.approval_ids())
        found: dict[str, tuple[Approval, ApprovalEntry | None]] = {}
        for entry in self.entries():
            unlisted.discard(entry.approval_id)
            approval = self.believed(entry.approval_id)
            if approval is not None and entry_of(approval) != entry:
                found[entry.approval_id] = approval, entry
        for approval_id in unlisted:
            approval = self.believed(approval_id)
            if approval is not None:
                found[approval_id] = approval, None
        return found

    def _lying(self, approval_id: str) -> ApprovalTamperedError:
        # The store refuses a record that nobody else has changed.
        self._tampered.add(approval_id)
        self.witness.tell(approval_id, "index")
        return ApprovalTamperedError(
            f"The index entry of approval {approval_id} was altered in the store.",
            approval_id=approval_id,
        )


def place_of(entry: ApprovalEntry) -> tuple[int, str]:
    """Return where an entry stands in the order of pages."""
    return entry.created_at, entry.approval_id
