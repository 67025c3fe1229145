# SPDX-License-Identifier: MIT
"""Policy page of a key: decision, deciding rule and unmet conditions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from aiohttp import web

from hsm_core import wire
from hsm_core.errors import AccessDeniedError, InvalidInputError
from hsm_core.model import KeyInfo, PolicyOutcome, Role
from hsm_core.operations import OPERATIONS, ExplainPolicy, PolicyExplanation, RotateKey
from hsm_server.tls.certificates import readable_facts
from hsm_server.ui.keys.presenters import KEY, find_key, path_of
from hsm_server.ui.keys.usage import usages_for
from hsm_server.ui.view import Page, View

_MAY_ASK: Final = frozenset({"Administrator", "Auditor"})
_OUTCOMES: Final = {
    PolicyOutcome.ALLOW: ("allowed", "ok"),
    PolicyOutcome.APPROVAL: ("needs approval", "warn"),
    PolicyOutcome.DENY: ("denied", "bad"),
}


@dataclass(frozen=True, slots=True)
class RuleRow:
    """A rule for an operation or its twin, and its unmet conditions."""

    name: str
    effect: str
    operation: str
    holds: bool
    missing: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Explained:
    """
    A policy decision and its reasons.

    Attributes:
        twins: Other operations that it is evaluated as.
        rule: Deciding rule.
        needed: Requirements, a sentence each.
        rules: All rules for the operation, matching ones first.
    """

    operation: str
    twins: tuple[str, ...]
    outcome: tuple[str, str]
    rule: str
    needed: tuple[str, ...]
    rules: Sequence[RuleRow]
    policy: str


def present_explanation(operation: str, explanation: PolicyExplanation) -> Explained:
    """Return an explanation as a page shows it."""
    rules = [
        RuleRow(rule.name, rule.effect, rule.operation, rule.holds, rule.missing)
        for rule in explanation.rules
    ]
    return Explained(
        operation,
        explanation.decided_as[1:],
        _OUTCOMES[explanation.outcome],
        explanation.rule,
        explanation.needed,
        sorted(rules, key=lambda rule: not rule.holds),
        explanation.policy,
    )


async def explain_for_caller(
    view: View, operation: str, key_id: str = "", **facts: Any
) -> Explained | None:
    """
    Explain the policy decision for the signed-in user.

    Returns:
        None if they may not ask. Roles that never may are not tried, since each
        denial is recorded.
    """
    if not _MAY_ASK & set(view.who.roles):
        return None
    shown = readable_facts(view.visitor.certificate)
    try:
        return await explain_for(
            view,
            operation,
            view.who.principal,
            view.who.roles,
            key_id=key_id,
            certificate_sha256=shown.sha256,
            certificate_subject=shown.subject,
            certificate_names=list(shown.names),
            source_address=view.visitor.address,
            **facts,
        )
    except AccessDeniedError:
        return None


async def explain_for(
    view: View, operation: str, principal: str, roles: Sequence[str], **facts: Any
) -> Explained:
    """
    Explain the policy decision for any principal.

    Raises:
        InvalidInputError: The operation or a role is unknown.
        AccessDeniedError: The signed-in user may not explain policy decisions.
    """
    tree = {
        "operation": operation,
        "principal": principal,
        "roles": list(roles),
        **facts,
    }
    asked = wire.convert(tree, ExplainPolicy)
    return present_explanation(operation, await view.execute(asked))


_ABOUT_KEYS: Final = tuple(
    operation.__name__
    for operation in OPERATIONS
    if "key_id" in operation.__struct_fields__
    and not operation.other_keys
    and operation.__name__
    not in {"ListApprovals", "ListAuditEvents", "ExplainPolicy", "RecoverKey"}
)


async def show_policy(view: View) -> web.StreamResponse:
    """Explain the policy decision for an operation on a key."""
    key, query = await find_key(view), view.query
    operation = query.get("operation", "") or _usual(key)
    principal = query.get("principal", "") or view.who.principal
    role, wrong, found = query.get("role", ""), "", None
    roles = (role,) if role else view.who.roles
    try:
        if principal == view.who.principal and not role:
            found = await explain_for_caller(view, operation, key.key_id)
        else:
            found = await explain_for(
                view, operation, principal, roles, key_id=key.key_id
            )
    except InvalidInputError as error:
        wrong = str(error)
    return view.render(
        "keys/policy.html",
        status=422 if wrong else 200,
        key=key,
        explained=found,
        wrong=wrong,
        given={"operation": operation, "principal": principal, "role": role},
        operations=[(name, name) for name in _ABOUT_KEYS],
        roles=[("", "my roles"), *((role.value, role.value) for role in Role)],
        path=path_of(key.key_id),
    )


def _usual(key: KeyInfo) -> str:
    """Return the usual operation of a key."""
    usages = usages_for(key)
    if not usages or key.algorithm is None:
        return RotateKey.__name__
    return usages[0].operation_for(key).__name__


PAGES: Final = (Page("GET", f"{KEY}/policy", show_policy, "keys.policy"),)
