# SPDX-License-Identifier: MIT
"""Outcome of a request: its result, withheld until its record is written."""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from typing import Any

import msgspec
from msgspec.structs import replace

from hsm_core._internal.approvals.workflow import ApprovalReservation
from hsm_core._internal.handlers.base import Answer
from hsm_core._internal.handlers.context import RequestContext, code_of
from hsm_core._internal.lib.cells import Snapshot
from hsm_core.protocols import AuditDraft, KeyStore, UseDraft


class Outcome(msgspec.Struct):
    """
    A result, or the error instead of it; withheld until *draft* is recorded.

    Attributes:
        reserved: Whether the record may use the space that is kept back.
        hold: The approval that it has, to be settled once it is recorded.
        check: `Request.check`.
        seen: What must hold for a use to stand; None for what is no use.
        store: Key store without which it does not stand, or None.
        decided: How the pipeline decided on a use; None for one by plan.
        has_moved: Whether it stood no more when it was to be recorded.
    """

    result: Any = None
    error: Exception | None = None
    draft: AuditDraft | UseDraft | None = None
    reserved: bool = False
    hold: ApprovalReservation | None = None
    check: Callable[[], None] | None = None
    seen: Snapshot | None = None
    store: KeyStore | None = None
    decided: tuple[RequestContext[Any], Answer[Any]] | None = None
    has_moved: bool = False

    def standing(self) -> tuple[AuditDraft | UseDraft, ...]:
        """
        Return its record, if it stands; the audit log is locked.

        A use that does not is left to be decided again, with *has_moved* set. A result
        that the caller may not have any more is refused.
        """
        if self.error is None:
            seen, store = self.seen, self.store
            # Whether the store may be used is asked, for no cell tells.
            if (seen is not None and not seen.holds()) or (
                store is not None and not store.available
            ):
                self.has_moved = True
                return ()
            if self.check is not None:
                self._ask(self.check)
        return () if self.draft is None else (self.draft,)

    def raise_error(self) -> None:
        """Raise the error, if any, and let go of it: its frames refer to this."""
        error, self.error = self.error, None
        if error is not None:
            try:
                raise error
            finally:
                del error

    def _ask(self, check: Callable[[], None]) -> None:
        """Ask whether the caller's credential still counts; else refuse the result."""
        try:
            check()
        except Exception as error:
            if self.draft is not None:
                self.draft = _refused(self.draft, code_of(error))
            self.result, self.error = None, error


def _refused(draft: AuditDraft | UseDraft, code: str) -> AuditDraft | UseDraft:
    """Return a record without what was done."""
    if isinstance(draft, AuditDraft):
        return replace(draft, code=code, version=0, detail=None, bound=b"")
    facts = copy(draft.facts)
    facts.version, facts.encoded = 0, None
    return replace(draft, code=code, facts=facts, detail=None, bound=b"")
