# SPDX-License-Identifier: MIT
"""Audit log: ListAuditEvents, VerifyAudit."""

from __future__ import annotations

from typing import Final

from hsm_core import operations as ops
from hsm_core._internal.audit.reading import RecordSource
from hsm_core._internal.handlers.audit_logs import (
    MergedView,
    label_of,
    unknown_log,
    verify_next,
)
from hsm_core._internal.handlers.audit_view import View, filter_of, learn_keys
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
from hsm_core.errors import InvalidInputError, error_classes
from hsm_core.policies import KNOWN_OPERATIONS
from hsm_core.rest import REQUEST_CODES

KINDS: Final = KNOWN_OPERATIONS | {
    *("Authenticate", "SignIn", "SignOut"),
    *(
        f"system.{name}"
        for name in (
            *("approval-anchored", "approval-expired"),
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
        audit = self._services.audit
        if logs is not None and operation.start_seq is None and not operation.log_id:
            cluster = MergedView(self._services, operation, logs)
            cluster.learn_keys()
            return Answer(cluster.page(operation.cursor))
        if operation.cursor:
            raise InvalidInputError(
                "cursor continues a list or live view of all logs of a cluster. To "
                "continue in one log, use start_seq alone.",
                field="cursor",
            )
        source: RecordSource = audit
        label = None
        if logs is not None and operation.log_id and not operation.follow:
            label = label_of(logs, operation.log_id)
            source = logs.log(operation.log_id)
        elif operation.log_id not in ("", audit.log_id):
            raise unknown_log()
        events = filter_of(operation)
        learn_keys(self._services, operation, events)
        view = View(source, operation, events, label)
        return Answer(view.page(operation.start_seq, source.head()))


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
