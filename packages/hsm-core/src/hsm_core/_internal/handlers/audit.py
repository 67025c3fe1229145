# SPDX-License-Identifier: MIT
"""Audit log: ListAuditEvents, VerifyAudit."""

from __future__ import annotations

from typing import Final

from hsm_core import operations as ops
from hsm_core._internal.audit.reading import (
    EventFilter,
    LogCatalog,
    LogLabel,
    RecordSource,
    lines_from,
)
from hsm_core._internal.audit.record import event_of, leaf_hash
from hsm_core._internal.handlers.audit_logs import (
    label_of,
    merged_page,
    unknown_log,
    verify_next,
)
from hsm_core._internal.handlers.base import (
    Answer,
    Handler,
    HandlerDependencies,
    Speed,
    answers,
    check_known,
    handles,
)
from hsm_core._internal.handlers.context import RequestContext
from hsm_core._internal.time.clock import microseconds
from hsm_core.errors import InvalidInputError, error_classes
from hsm_core.model import AuditEntry
from hsm_core.policies import KNOWN_OPERATIONS
from hsm_core.protocols import AuditHead
from hsm_core.rest import REQUEST_CODES

KINDS: Final = KNOWN_OPERATIONS | {
    *("Authenticate", "SignIn", "SignOut"),
    *(
        f"system.{name}"
        for name in (
            *("approval-anchored", "approval-cancelled", "approval-expired"),
            *("approval-forgotten", "approval-released", "approval-requested"),
            *("approval-reserved", "approval-reviewed", "approval-tampered"),
            *("approval-used", "approvals-removed", "backup", "clock-leap"),
            *(
                "database-accepted",
                "heads",
                "index-corrected",
                "key-accepted",
                "ledger",
                "locked",
                "log-begun",
            ),
            *(
                "log-closed",
                "policy-loaded",
                "policy-refused",
                "prune",
                "refusals",
                "repair",
                "resume",
            ),
            *("retention-policy", "self-test", "start", "stop", "store-compared"),
            *("tampered", "trust-changed", "use-limit-near"),
        )
    ),
}
"""Kinds of audit records that the HSM writes."""

CODES: Final = {
    *("ok", "aborted", "recovered-aborted", "recovered-committed"),
    *error_classes(),
    *REQUEST_CODES,
}
"""Codes of the records that the HSM writes into its audit log."""

_BLOCK: Final = 500
_SCANNED: Final = 10_000
"""Maximum number of records scanned per call; bounds calls with rare filters."""


def check_query(operation: ops.ListAuditEvents) -> None:
    """
    Refuse kinds and codes that no record has, and to follow the log backwards.

    Raises:
        InvalidInputError: The operation says one of these.
    """
    for kind in operation.kind:
        check_known(kind, KINDS, field="kind")
    if operation.code:
        check_known(operation.code, CODES, field="code")
    if operation.follow and not operation.ascending:
        raise InvalidInputError(
            "ascending must be true if follow is true.", field="ascending"
        )


def filter_of(operation: ops.ListAuditEvents) -> EventFilter:
    """Return the filter of a query."""
    return EventFilter(
        operation,
        microseconds(operation.since) if operation.since else None,
        microseconds(operation.until) if operation.until else None,
    )


class View:
    """
    The records that the filters of an operation let through.

    Args:
        services: Dependencies of the handlers.

        operation: Checked already.

        source: Log to read; by default this node's.

        label: Names the log in entries; None on a single machine.
    """

    def __init__(
        self,
        services: HandlerDependencies,
        operation: ops.ListAuditEvents,
        source: RecordSource | None = None,
        label: LogLabel | None = None,
    ) -> None:
        self._services = services
        self._source = services.audit if source is None else source
        self._named = (label.log_id, label.node) if label else ("", "")
        self._operation = operation
        self._filter = filter_of(operation)

    def learn_keys(self) -> None:
        """
        Look up the key that the filter names, beside those that it has named before.

        Raises:
            HSMError: It can't be looked up.
        """
        reference = self._operation.key_id
        entry = self._services.inventory.entry(reference) if reference else None
        if entry is not None:
            self._filter.learn_keys((entry.key_id,))

    def page(self, start_seq: int | None, head: AuditHead) -> ops.AuditPage:
        """
        Walk the trail a block at a time until the page or the bound is full.

        Args:
            start_seq: As in the operation.

            head: The newest record that may be shown.

        Raises:
            AuditTamperedError: A record that may have to be shown is bad.
            AuditUnavailableError: The trail can't be read.
        """
        operation = self._operation
        items: list[AuditEntry] = []
        first = self._source.first_seq
        position = _start(start_seq, head, first, ascending=operation.ascending)
        scanned = 0
        while first <= position <= head.seq and scanned < _SCANNED:
            block = self._block(position, head)
            for seq, line in block:
                if len(items) == operation.limit:
                    break
                position = seq + (1 if operation.ascending else -1)
                scanned += 1
                if not self._filter.lets_through(line):
                    continue
                event = event_of(line, seq)
                if self._filter.matches(event):
                    log_id, node = self._named
                    items.append(
                        AuditEntry(
                            event=event,
                            leaf_hash=leaf_hash(line),
                            log_id=log_id,
                            node=node,
                        )
                    )
            if len(items) == operation.limit or not block:
                break
        oldest = 0 if operation.ascending else first
        more = operation.follow or oldest <= position <= head.seq
        return ops.AuditPage(
            items=tuple(items),
            next_seq=position if more else None,
            head_seq=head.seq,
            head_hash=head.leaf_hash,
        )

    def _block(self, position: int, head: AuditHead) -> list[tuple[int, bytes]]:
        """Return lines around a position; none if they were pruned meanwhile."""
        if self._operation.ascending:
            wanted, last = position, min(position + _BLOCK - 1, head.seq)
        else:
            wanted, last = max(0, position - _BLOCK + 1), position
        first, lines = lines_from(self._source, wanted, last + 1 - wanted)
        lines = lines[: max(last + 1 - first, 0)]
        block = list(enumerate(lines, first))
        return block if self._operation.ascending else block[::-1]


@handles(ops.ListAuditEvents)
class ListAuditEventsHandler(Handler[ops.ListAuditEvents, ops.AuditPage]):
    """Show events, newest or oldest first."""

    speed = Speed.POOLED

    def prepare(self, context: RequestContext[ops.ListAuditEvents], /) -> None:
        """Refuse kinds that no record has, and to follow the trail backwards."""
        check_query(context.operation)

    def perform(
        self, context: RequestContext[ops.ListAuditEvents], /
    ) -> Answer[ops.AuditPage]:
        """Return one page."""
        operation, logs = context.operation, self._services.logs
        if logs is not None and not operation.follow:
            if operation.log_id or operation.start_seq is None:
                return Answer(self._page_of_cluster(operation, logs))
        elif operation.log_id not in ("", self._services.audit.log_id):
            raise unknown_log()
        view = View(self._services, operation)
        view.learn_keys()
        head = self._services.audit.head()
        return Answer(view.page(operation.start_seq, head))

    def _page_of_cluster(
        self, operation: ops.ListAuditEvents, logs: LogCatalog
    ) -> ops.AuditPage:
        def page_of(label: LogLabel, start_seq: int | None) -> ops.AuditPage:
            source = logs.log(label.log_id)
            view = View(self._services, operation, source, label)
            view.learn_keys()
            return view.page(start_seq, source.head())

        if operation.log_id:
            return page_of(label_of(logs, operation.log_id), operation.start_seq)
        return merged_page(operation, logs, page_of, self._services.audit.head())


@answers(ops.VerifyAudit, Speed.POOLED)
def verify_audit(
    services: HandlerDependencies, context: RequestContext[ops.VerifyAudit]
) -> ops.AuditVerification:
    """Verify a range of an audit log."""
    operation, logs = context.operation, services.logs
    if logs is not None:
        return verify_next(logs, operation)
    if operation.log_id not in ("", services.audit.log_id):
        raise unknown_log()
    return services.verify(operation.start_seq, operation.limit)


def _start(
    start_seq: int | None, head: AuditHead, first: int, *, ascending: bool
) -> int:
    if start_seq is None:
        return first if ascending else head.seq
    return max(start_seq, first) if ascending else min(start_seq, head.seq)
